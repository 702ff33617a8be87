"""sluice backend drain: send backends no new flows and, if asked to, wait until their last flow has ended."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from time import sleep as pause
from typing import Any

import click

from lb.cli.names import BACKEND, SERVICE
from lb.cli.output import emit, plural
from lb.cli.session import Command, Session, moving_option, pass_session

POLL_SECONDS = 0.5
TELL_SECONDS = 10.0
"""How often a wait says how far it is where nobody sits at a terminal."""
_NOT_FOUND = 404

Operation = dict[str, Any]


@click.command(
    cls=Command,
    example=(
        "sluice backend drain web 10.0.0.11 --wait --timeout 600\n"
        "sluice backend drain web 10.0.0.11 10.0.0.12 --wait && systemctl reboot"
    ),
)
@click.argument("service", type=SERVICE)
@click.argument("addresses", metavar="ADDRESS...", type=BACKEND, nargs=-1, required=True)
@click.option(
    "--wait", is_flag=True, help="Return when the last flow has ended; exit code 1 if some are left."
)
@click.option(
    "--timeout",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    help="How long to wait at most, in seconds.",
)
@moving_option
@pass_session
def drain(session: Session, service: str, addresses: tuple[str, ...], wait: bool, timeout: int) -> None:
    """Send backends no new flows.

    Existing flows stay. Several backends drain in one step. A flow has ended once its client has closed it, or it has
    been silent for the idle time of its protocol. Whatever ends the wait, the backends go on draining.
    """
    from lb.cli.client import quoted

    path = f"/services/{quoted(service)}"
    if len(addresses) == 1:
        document = session.write("POST", f"{path}/backends/{quoted(addresses[0])}/drain")
        operations = [document]
    else:
        document = session.write("POST", f"{path}/drain", body={"addresses": addresses})
        operations = document["items"]
    if wait:
        operations[:] = _drained(session, operations, timeout)
        document = operations[0] if len(addresses) == 1 else document
    emit(session, document, lambda: _lines(operations))


def _lines(operations: Iterable[Operation]) -> Iterator[str]:
    for operation in operations:
        left = f"{_flows(operation)} left" if operation["flows"] else "no flows are left"
        yield f"backend {operation['address']} of {operation['service']} is {operation['admin_state']}: {left}"


def _flows(operation: Operation) -> str:
    return plural(operation["flows"], "flow")


def _drained(session: Session, operations: list[Operation], timeout: int) -> list[Operation]:
    """Ask until all are done; an error once the time is over, or one of them has come to another end.

    A daemon that is away meanwhile may be one that is upgraded: UnreachableError only if it is when the time is over.
    """
    from lb.cli.client import UnreachableError

    deadline = monotonic() + timeout
    with _told() as tell:
        away: UnreachableError | None = None
        while running := [each for each in operations if each["state"] != "done"]:
            left_in = ", ".join(f"{_flows(each)} of {each['address']}" for each in running)
            tell(f"waiting for {left_in}" if away is None else f"the daemon is away; there were {left_in}")
            left = deadline - monotonic()
            if left <= 0:
                raise away or click.ClickException(_too_long(running, timeout))
            try:
                pause(min(POLL_SECONDS, left))
            except KeyboardInterrupt:
                raise click.ClickException(_interrupted(running)) from None
            try:
                operations = [each if each["state"] == "done" else _now(session, each) for each in operations]
                away = None
            except UnreachableError as error:
                away = error
    return operations


def _now(session: Session, operation: Operation) -> Operation:
    """How far it is by now; an error if somebody has ended it."""
    from lb.cli.client import RefusedError, quoted

    try:
        found: Operation = session.client.call("GET", f"/operations/{quoted(operation['id'])}").document
    except RefusedError as error:
        if error.status != _NOT_FOUND:
            raise
        service, address = operation["service"], operation["address"]
        raise click.ClickException(
            f"backend {address} of {service} is no longer draining: it was enabled again, or removed, during the wait"
        ) from error
    return found


def _too_long(running: list[Operation], timeout: int) -> str:
    service, address = running[0]["service"], running[0]["address"]
    still = ", ".join(f"{each['address']} still has {_flows(each)}" for each in running)
    return (
        f"of {service}, {still} after {timeout} s; "
        f'wait longer with --timeout, or end them with "sluice backend disable {service} {address}"'
    )


def _interrupted(running: list[Operation]) -> str:
    service, address = running[0]["service"], running[0]["address"]
    left = ", ".join(f"{each['address']} has {_flows(each)} left" for each in running)
    return (
        f"interrupted; of {service}, {left} and goes on draining: wait again with the same command, "
        f'or undo it with "sluice backend enable {service} {address}"'
    )


@contextmanager
def _told() -> Iterator[Any]:
    """Says how far a wait is, on standard error: on a terminal in one line that changes, else now and then."""
    is_terminal = sys.stderr.isatty()
    last, next_at = "", 0.0

    def tell(text: str) -> None:
        nonlocal last, next_at
        if text == last or (not is_terminal and monotonic() < next_at):
            return
        last, next_at = text, monotonic() + TELL_SECONDS
        click.echo(f"\r\x1b[K{text}" if is_terminal else f"sluice: {text}", err=True, nl=not is_terminal)

    try:
        yield tell
    finally:
        if is_terminal and last:
            click.echo("\r\x1b[K", err=True, nl=False)

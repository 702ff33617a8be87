"""sluice doctor: what is wrong, and the command that fixes it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from lb.cli.child import run_module
from lb.cli.client import UnreachableError, quoted
from lb.cli.output import alarming, bold, cell, emit, plural
from lb.cli.session import DEFAULT_SERVER, Command, Named, Session, pass_session
from lb.errors import SetupError
from lb.settings import DEFAULT_SOCKET

LOCAL = "lb.dataplane.local_doctor"
_LABELS = {"fail": "FAIL", "warn": "WARN", "ok": "ok"}
_INDENT = " " * 6


@click.command(
    cls=Command,
    example="sluice doctor\nsluice doctor --all -o json\nsluice doctor web 10.0.0.11",
)
@click.argument("service", required=False, type=Named())
@click.argument("address", required=False, type=Named())
@click.option("--all", "everything", is_flag=True, help="Also show what is as it should be.")
@click.option(
    "--interface",
    "interfaces",
    multiple=True,
    type=Named(),
    metavar="IF",
    help="Without a daemon: also check this interface.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 60),
    default=1.0,
    show_default=True,
    help="How long to watch what becomes of packets.",
)
@pass_session
def doctor(
    session: Session,
    *,
    service: str | None,
    address: str | None,
    everything: bool,
    interfaces: tuple[str, ...],
    seconds: float,
) -> int:
    """Find what is wrong, and name the command that fixes it.

    Checks the machine, interfaces, tables, VIPs and packets, and tests backends with real packets; with SERVICE, or
    SERVICE and ADDRESS, only these backends. If no daemon answers, only the machine. Changes nothing.
    Exits 0 if nothing fails (warnings do not count), otherwise 1.
    """
    document = _report(session, service, address, interfaces, seconds)
    emit(session, document, lambda: report_lines(document, everything))
    return 0 if document["healthy"] else 1


def _report(
    session: Session, service: str | None, address: str | None, interfaces: tuple[str, ...], seconds: float
) -> Any:
    if service is not None:
        path = f"/services/{quoted(service)}" + (f"/backends/{quoted(address)}" if address else "")
        return session.client.call("GET", f"{path}/doctor").document
    try:
        document = session.client.call("GET", "/doctor", query={"seconds": seconds}).document
    except UnreachableError as error:
        if not session.server.startswith("unix:"):
            raise  # another machine may be meant
        return _local(session, str(error), interfaces)
    if interfaces:
        says = "a daemon answers and checks the interfaces that it serves: --interface was ignored"
        click.echo(f"sluice: warning: {says}", err=True)
    return document


def _local(session: Session, why: str, interfaces: tuple[str, ...]) -> Any:
    """What this machine looks like; in a process of its own, as this one imports nothing that touches the kernel."""
    named = session.server != DEFAULT_SERVER or Path(DEFAULT_SOCKET).exists()
    done = run_module(LOCAL, why, "yes" if named else "pins", *interfaces, captured=True)
    if done.returncode:
        raise SetupError("this machine could not be checked: the lines above say why")
    return json.loads(done.stdout)


def report_lines(document: Mapping[str, Any], everything: bool) -> Iterator[str]:
    """Each finding with what it means and what mends it; of those that are well, what becomes of packets."""
    shown = [one for one in document["findings"] if everything or one["severity"] != "ok"]
    for one in shown:
        yield from _finding(one)
    if not everything:
        said = [one["summary"] for one in document["findings"] if one["check"] == "traffic"]
        yield from (text for text in said if not any(text == one["summary"] for one in shown))
    well = len(document["findings"]) - document["fails"] - document["warnings"]
    yield f"{plural(document['fails'], 'failure')}, {plural(document['warnings'], 'warning')}, {well} ok"


def _finding(one: Mapping[str, Any]) -> Iterator[str]:
    label = _LABELS[one["severity"]].ljust(len(_INDENT) - 2)
    label = alarming(label) if one["severity"] == "fail" else bold(label)
    yield f"{label}  {cell(one['check'])}: {cell(one['summary'])}"
    if one["effect"]:
        yield f"{_INDENT}{one['effect']}"
    if one["command"]:
        where = "" if one["run_on"] == "balancer" else f"on {one['run_on']}: "
        yield f"{_INDENT}{bold('→')} {where}{one['command']}"

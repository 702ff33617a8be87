"""sluice backend: list, add, weigh, drain, enable, disable and remove the backends of a service."""

from collections.abc import Iterable, Mapping
from typing import Any

import click

from lb.cli.drain import drain
from lb.cli.names import BACKEND, SERVICE
from lb.cli.output import count, emit, percent, table
from lb.cli.session import Group, Session, moving_option, pass_session
from lb.cli.watch import Watched

_NAMED_MOST = 3
_QUIC_ID_MAX = 2**32 - 1
_PRECONDITION_FAILED = 412

service_argument = click.argument("service", type=SERVICE)
address_argument = click.argument("address", type=BACKEND)


@click.group(cls=Group, example="sluice backend list web")
def backend() -> None:
    """Backends: the servers behind a service."""


def observed_backends(backends: Iterable[dict[str, Any]]) -> list[str]:
    """The table of backends as they are (documents of /services/{name}/status); ids where there are any."""
    backends = list(backends)
    states = ("address", "weight", "admin state", "health", "effective state")
    header = (*states, "flows", "packets", "bytes", "share")
    has_ids = any(b["quic_id"] for b in backends)
    return table(
        (*header, "quic id") if has_ids else header,
        (
            (
                b["address"],
                count(b["weight"]),
                b["admin_state"],
                health_words(b),
                b["effective_state"],
                count(b["flows"]),
                count(b["packets"]),
                count(b["bytes"], "B"),
                percent(b["ring_share"]),
                *((b["quic_id"],) if has_ids else ()),
            )
            for b in backends
        ),
    )


def health_words(backend: Mapping[str, Any]) -> str | None:
    """What checks say of a backend, on one line; nothing where it is not checked."""
    if backend["health_checked_at"] is None and backend["health"] == "unknown":
        return None
    words: str = backend["health"]
    return f"{words} (held)" if backend["health_held"] else words


def unhealthy_words(service: Mapping[str, Any]) -> str | None:
    """Which of a service's backends checks find unhealthy, on one line; nothing if none is."""
    names = [b["address"] for b in service["backends"] if b["health"] == "unhealthy"]
    if not names:
        return None
    shown = ", ".join(names[:_NAMED_MOST]) + (", …" if len(names) > _NAMED_MOST else "")
    return (
        f"service {service['name']}: {len(names)} of {len(service['backends'])} backends unhealthy: {shown}"
    )


def health_errors(backends: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each backend whose last check went wrong, and one if unhealthy ones serve for want of others."""
    listed = list(backends)
    lines = [f"{b['address']}: {b['health_error']}" for b in listed if b["health_error"]]
    if any(
        b["health"] == "unhealthy" and not b["health_held"] and b["effective_state"] == "active"
        for b in listed
    ):
        lines.append("none that is enabled is healthy: all of them take new flows (when_all_down: open)")
    return lines


def _path(service: str, address: str, verb: str = "") -> str:
    from lb.cli.client import quoted

    return f"/services/{quoted(service)}/backends/{quoted(address)}{verb}"


@backend.command(
    name="list", cls=Watched, example="sluice backend list web\nsluice backend list web --watch 1"
)
@service_argument
@pass_session
def list_backends(session: Session, service: str) -> None:
    """List the backends of a service, with their observed state.

    SHARE is a backend's share of new flows.
    """
    from lb.cli.client import quoted

    path = f"/services/{quoted(service)}"
    if session.is_table:
        observed = session.client.call("GET", f"{path}/status").document["backends"]
        emit(session, None, lambda: [*observed_backends(observed), *health_errors(observed)])
    else:
        emit(session, session.client.call("GET", f"{path}/backends").document, list)


quic_id_option = click.option(
    "--quic-id",
    type=click.IntRange(1, _QUIC_ID_MAX),
    help="The number that its server writes into QUIC connection IDs; only for services with quic.",
)


port_option = click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The port it listens on, if not the service's; only in mode nat.",
)


@backend.command(
    example="sluice backend add web 10.0.0.13 --weight 2\nsluice backend add h3 2001:db8:1::13 --quic-id 3"
)
@service_argument
@address_argument
@click.option(
    "--weight", type=click.IntRange(min=0), help="Relative share of new flows; default 1, 0 takes none."
)
@quic_id_option
@port_option
@moving_option
@pass_session
def add(
    session: Session, service: str, address: str, *, weight: int | None, quic_id: int | None, port: int | None
) -> None:
    """Add a backend.

    If it exists already, this is a conflict (exit code 4).
    """
    from lb.cli.client import RefusedError

    body: dict[str, str | int] = {"address": address}
    if weight is not None:
        body["weight"] = weight
    if quic_id is not None:
        body["quic_id"] = quic_id
    if port is not None:
        body["port"] = port
    try:
        made = session.write("PUT", _path(service, address), body=body, headers={"If-None-Match": "*"})
    except RefusedError as error:
        if error.status != _PRECONDITION_FAILED:
            raise
        advice = f'use "sluice backend set {service} {address} --weight N" to change it'
        raise RefusedError(
            error.status, [f"service {service} already has the backend {address}; {advice}"]
        ) from error
    emit(
        session, made, lambda: [f"backend {made['address']} added to {service} with weight {made['weight']}"]
    )


@backend.command(
    name="set",
    example="sluice backend set web 10.0.0.13 --weight 5\nsluice backend set h3 2001:db8:1::13 --quic-id 7",
)
@service_argument
@address_argument
@click.option("--weight", type=click.IntRange(min=0), help="Relative share of new flows; 0 takes none.")
@quic_id_option
@click.option("--no-quic-id", is_flag=True, help="Remove its QUIC ID.")
@moving_option
@pass_session
def set_backend(
    session: Session, service: str, address: str, *, weight: int | None, quic_id: int | None, no_quic_id: bool
) -> None:
    """Change a backend's weight or QUIC ID.

    Its existing flows stay.
    """
    if quic_id is not None and no_quic_id:
        raise click.UsageError("--quic-id and --no-quic-id contradict each other: give one of them")
    patch: dict[str, int | None] = {} if weight is None else {"weight": weight}
    if quic_id is not None or no_quic_id:
        patch["quic_id"] = quic_id
    if not patch:
        raise click.UsageError("nothing to change: give --weight, --quic-id or --no-quic-id")
    made = session.write("PATCH", _path(service, address), body=patch)

    def lines() -> Iterable[str]:
        said = {"weight": f"weight {made['weight']}", "quic_id": f"QUIC id {made['quic_id'] or 'none'}"}
        yield f"backend {made['address']} of {service} has {' and '.join(said[key] for key in patch)}"

    emit(session, made, lines)


backend.add_command(drain)


@backend.command(example="sluice backend enable web 10.0.0.11")
@service_argument
@address_argument
@moving_option
@pass_session
def enable(session: Session, service: str, address: str) -> None:
    """Let a backend take new flows again."""
    made = session.write("POST", _path(service, address, "/enable"))
    emit(session, made, lambda: [f"backend {address} of {service} is enabled"])


@backend.command(example="sluice backend disable web 10.0.0.11")
@service_argument
@address_argument
@moving_option
@pass_session
def disable(session: Session, service: str, address: str) -> None:
    """Send a backend no packets at all.

    Its flows move to others at once.
    """
    made = session.write("POST", _path(service, address, "/disable"))
    emit(session, made, lambda: [f"backend {address} of {service} is disabled"])


@backend.command(example="sluice backend remove web 10.0.0.11")
@service_argument
@address_argument
@moving_option
@pass_session
def remove(session: Session, service: str, address: str) -> None:
    """Remove a backend from a service.

    Its flows move to others at once.
    """
    document = session.write("DELETE", _path(service, address))
    emit(session, document, lambda: [f"backend {address} removed from {service}"])

"""sluice flows: how many live flows each backend holds, or one by one."""

from typing import Any

import click

from lb.cli.names import BACKEND, SERVICE
from lb.cli.output import Row, count, emit, span, table
from lb.cli.pages import print_collection
from lb.cli.session import Command, Session, pass_session

_EACH = ("service", "backend", "protocol", "state", "silent", "client", "vip", "source", "to")
_SUMMARY = ("service", "backend", "protocol", "state", "flows", "silent least", "median", "most")


@click.command(cls=Command, example=("sluice flows\nsluice flows web --backend 10.0.0.11 --list"))
@click.argument("service", type=SERVICE, required=False)
@click.option("--backend", type=BACKEND, help="Only flows of the backend with this address.")
@click.option(
    "--list", "each", is_flag=True, help="List each flow, instead of how many there are of each kind."
)
@pass_session
def flows(session: Session, service: str | None, *, backend: str | None, each: bool) -> None:
    """Show live flows, by backend, state and time of silence.

    Those of mode nat are listed with their addresses on both sides. The flow table has only a keyed hash of the
    addresses: "sluice explain" tells whether it has a certain flow.
    """
    if each:
        print_collection(session, "/flows", _EACH, _row, service=service, backend=backend)
        return
    query = {"service": service, "backend": backend, "limit": 0}
    document = session.client.call("GET", "/flows", query=query).document
    emit(session, document, lambda: table(_SUMMARY, map(_kind, document["summary"])))


def _row(flow: dict[str, Any]) -> Row:
    nat = flow["nat"] or {}
    ends = (nat.get(name) for name in ("client", "vip", "source", "backend"))
    return (
        flow["service"],
        flow["backend"],
        flow["protocol"],
        flow["state"],
        span(flow["idle_seconds"]),
        *ends,
    )


def _kind(group: dict[str, Any]) -> Row:
    silent = (span(group[f"idle_seconds_{which}"]) for which in ("least", "median", "most"))
    kind = (group[name] for name in ("service", "backend", "protocol", "state"))
    return (*kind, count(group["flows"]), *silent)

"""sluice status, stats and version: the observed state of the daemon and its packets."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from lb.cli.output import alarming, bold, cell, count, emit, percent, span, table, when
from lb.cli.session import Command, Session, pass_session
from lb.cli.watch import Watched


@click.command(cls=Watched, example=("sluice status\nsluice status --watch\nsluice status -o json"))
@pass_session
def status(session: Session) -> None:
    """Show the state of the daemon and its packet path."""
    document = session.client.call("GET", "/status").document
    emit(session, document, lambda: status_lines(document, time.time()))


def status_lines(document: Mapping[str, Any], now: float) -> Iterator[str]:
    """A readable summary of the document of /status."""
    from lb.cli.backend import unhealthy_words
    from lb.cli.flood import attack_words
    from lb.cli.service import service_table

    state = bold("ready") if document["ready"] else alarming("not ready")
    up = span(now - document["started_at"])
    yield f"Sluice {document['version']}: {state}, revision {document['revision']}, up {up}"
    for reason in document["reasons"]:
        yield f"  {alarming('!')} {cell(reason)}"
    if pending := document["pending"]:
        yield f"  {alarming('!')} {pending_words(pending)}"
    for service in document["services"]:
        if service["flood_protection"] and service["flood_protection"]["under_attack"]:
            yield f"  {alarming('!')} {attack_words(service['name'], service['flood_protection'])}"
        if unhealthy := unhealthy_words(service):
            yield f"  {alarming('!')} {unhealthy}"
    yield ""
    header = ("interface", "attached", "link", "xdp mode", "mac", "mtu", "program")
    yield from table(
        header,
        (
            (
                *(i["name"], "yes" if i["attached"] else "no", i["link"]),
                *(i["xdp_mode"], i["mac"], i["mtu"], i["program_id"]),
            )
            for i in document["interfaces"]
        ),
    )
    for i in document["interfaces"]:
        if i["xdp_mode_reason"]:
            yield f"  {cell(i['name'])} is {i['xdp_mode']}: {cell(i['xdp_mode_reason'])}"
    yield ""
    if document["program"] is None:
        yield f"program: {alarming('none is loaded')}"
    for program in document["programs"]:
        yield from _program(program)
    if document["services"]:
        yield ""
        yield from service_table(document["services"])
    yield ""
    yield from table(
        ("table", "entries", "capacity", "full"),
        (
            (
                t["name"],
                count(t["entries"]),
                count(t["capacity"]),
                percent(t["entries"] / max(1, t["capacity"])),
            )
            for t in document["tables"]
        ),
    )


def pending_words(pending: Mapping[str, Any]) -> str:
    """What waits to be confirmed, and for how long."""
    back = f"revision {pending['back_to']}" if pending["back_to"] else "the empty state"
    left = span(pending["seconds_left"])
    return f'revision {pending["revision"]} is rolled back to {back} in {left} unless confirmed: "sluice confirm"'


def _program(program: Mapping[str, Any]) -> Iterator[str]:
    stack = program["stack_bytes"]
    sizes = (
        f"{count(program['instructions'])} instructions",
        f"{count(program['jited_bytes'], 'B')} of machine code",
        f"{'?' if stack is None else count(stack, 'B')} of stack",
        f"{count(program['verified_instructions'])} instructions verified",
    )
    what = "program" if program["in_force"] else "kept ready"
    yield f"{what}, {cell(program['interface'])}: {', '.join(sizes)}"
    yield f"  compiled {when(program['compiled_at'])}{_took(program)}"
    yield f"  features: {', '.join(program['features']) or 'none'}"


def _took(program: Mapping[str, Any]) -> str:
    if not program["compile_seconds"]:
        return " or before, by an earlier run"
    seconds = (f"{program[name]:.2f} s" for name in ("compile_seconds", "load_seconds", "check_seconds"))
    return " in {}, loaded in {}, checked in {}".format(*seconds)


@click.command(cls=Watched, example=("sluice stats\nsluice stats -o json | jq .verdicts.DROP_BLOCKLIST"))
@pass_session
def stats(session: Session) -> None:
    """Show packet and byte counters.

    By verdict, service, backend, rule and blocklist owner.
    The table leaves out zeros; -o json has everything.
    """
    document = session.client.call("GET", "/stats").document
    emit(session, document, lambda: stats_lines(document))


def stats_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Tables of the document of /stats, the largest numbers first, zeros left out."""
    backends = {
        f"{service} {address}": tally
        for service, tallies in document["backends"].items()
        for address, tally in tallies.items()
    }
    parts = {
        "verdict": document["verdicts"],
        "service": document["services"],
        "backend": backends,
        "rule": document["rules"],
        "blocklist owner": document["owners"],
    }
    for name, tallies in parts.items():
        lines = _tallies(name, tallies.items())
        if lines:
            yield from lines
            yield ""
    flows = document["flow_table"]
    yield "flow table: " + ", ".join(f"{count(number)} {name}" for name, number in flows.items())
    if any(document["quic"].values()):
        said = {"by_id": "by id", "unknown": "with an unknown id", "without": "without an id"}
        yield "quic: " + ", ".join(f"{count(document['quic'][key])} {text}" for key, text in said.items())
    yield from _nat_lines(document["nat"])


def _nat_lines(nat: Mapping[str, Any]) -> Iterator[str]:
    refused = sum(nat["no_port"].values())
    if not nat["opened"] and not refused:
        return
    said = {"opened": "opened", "reopened": "reopened", "ended": "ended", "ended_early": "ended early"}
    words = [f"{count(nat[key])} {text}" for key, text in said.items()]
    yield f"nat: flows {', '.join(words)}, {count(refused)} refused for lack of a port"


def _tallies(name: str, tallies: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    seen = sorted(((n, t) for n, t in tallies if t["packets"]), key=lambda pair: -pair[1]["packets"])
    if not seen:
        return []
    return table(
        (name, "packets", "bytes"), ((n, count(t["packets"]), count(t["bytes"], "B")) for n, t in seen)
    )


@click.command(cls=Command, example="sluice version")
@pass_session
def version(session: Session) -> None:
    """Show the version of this command.

    That of the daemon is in "sluice status".
    """
    from lb import __version__

    emit(session, {"version": __version__}, lambda: [f"sluice {__version__}"])

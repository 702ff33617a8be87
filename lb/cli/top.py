"""sluice top: who sends the most, second by second."""

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import click

from lb.cli.names import VERDICT
from lb.cli.output import Figure, count, emit, percent, say, table
from lb.cli.session import Command, Session, pass_session

_BY = ("source", "prefix", "service", "verdict")


@click.command(
    cls=Command,
    example=("sluice top\nsluice top --by prefix -n 5 --verdict drop\nsluice top --once --seconds 10"),
)
@click.option("--by", type=click.Choice(_BY), default="source", show_default=True, help="prefix: /24 or /64.")
@click.option(
    "-n",
    "most",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="How many lines; in a terminal, as many as fit.",
)
@click.option("--once", is_flag=True, help="Print once, instead of repeatedly until Ctrl-C.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="How long to sample each time.",
)
@click.option(
    "--verdict", "-v", "verdicts", type=VERDICT, multiple=True, metavar="V", help="A name, or pass, tx, drop."
)
@pass_session
def top(
    session: Session, *, by: str, most: int, once: bool, seconds: float, verdicts: tuple[str, ...]
) -> None:
    """Show who sends the most, and where it goes.

    In a terminal it fills the screen with talkers, services, backends and drop reasons: 1 to 4 or Tab select the tab,
    the arrows scroll, b groups talkers differently, p pauses, q quits. Elsewhere, and with -o json|yaml or --once, it
    prints the top talkers.

    Up to 10,000 packets a second are sampled and scaled to all that came, so a share may be off by the margin shown
    beside it, with 95 % confidence.
    """
    query: dict[str, object] = {"by": by, "limit": most, "seconds": seconds, "verdict": list(verdicts)}
    with contextlib.suppress(KeyboardInterrupt):
        if not once and session.is_table and sys.stdin.isatty() and sys.stdout.isatty():
            from lb.cli import top_screen

            if top_screen.is_possible():
                top_screen.run(session, query, seconds, top_lines)
                return
        while True:
            document = session.client.call("GET", "/top", query=query).document
            emit(session, document, partial(top_lines, document))
            if once:
                return
            if session.is_table:
                say([" "])


def top_lines(document: dict[str, Any]) -> Iterator[str]:
    """One look for people."""
    yield from table(
        (document["by"], "packets/s", "share", "±", "verdicts"),
        (
            (
                item["key"],
                count(item["packets_per_second"]),
                percent(item["share"]),
                percent(item["uncertainty"]),
                ", ".join(_verdicts(item)),
            )
            for item in document["items"]
        ),
    )
    rate = Figure(count(document["packets_per_second"]))
    yield f"{rate} packets/s in total, {count(document['sampled'])} of {count(document['packets'])} sampled"


def _verdicts(item: dict[str, Any]) -> list[str]:
    """The verdicts that make up most of it; of more than one, with their share."""
    parts = item["verdicts"]
    whole = sum(parts.values()) or 1
    return [
        name if len(parts) == 1 else f"{name} {percent(rate / whole)}"
        for name, rate in list(parts.items())[:3]
    ]

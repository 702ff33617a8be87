"""sluice events: past events, and new ones as they happen."""

import json
from collections.abc import Iterator
from typing import Any

import click

from lb.cli.output import alarming, bold, cell, emit, encoded, say, when
from lb.cli.session import Command, Named, Session, pass_session

SSE = "text/event-stream"
PAGE = 1000
_LEVELS = ("info", "warning", "error")


@click.command(
    cls=Command,
    example=(
        "sluice events --since 10m\n"
        "sluice events --follow --kind feed --kind entry.banned\n"
        "sluice events --follow --level warning -o json"
    ),
)
@click.option("--follow", "-f", is_flag=True, help="Go on with new events, until Ctrl-C.")
@click.option(
    "--kind",
    "-k",
    "kinds",
    type=Named(),
    multiple=True,
    metavar="K",
    help="Only these kinds: feed, or feed.failed.",
)
@click.option("--level", type=click.Choice(_LEVELS), help="Only this level and worse.")
@click.option("--since", type=Named(), metavar="TIME", help='Only since that long ago: seconds, or "10m".')
@pass_session
def events(
    session: Session, *, follow: bool, kinds: tuple[str, ...], level: str | None, since: str | None
) -> None:
    """Show what happened to this daemon and its traffic.

    Changes, entries that came and went, backends, attacks, feeds, programs, failures. The daemon keeps the last
    10,000 since it started; its log has them too.
    With --follow, -o json prints one document per line.
    """
    query: dict[str, object] = {"kind": list(kinds), "level": level, "since": since, "limit": PAGE}
    items: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next": 0}
    while page["next"] is not None:
        page = session.client.call("GET", "/events", query={**query, "after": page["next"]}).document
        items += page["items"]
    if not follow:
        document = {"items": items, "total": len(items), "next": None, "last": page["last"]}
        emit(session, document, lambda: map(line_of, items))
        return
    for item in items:
        _print(session, item)
    headers = {"Accept": SSE, "Last-Event-ID": str(page["last"])}
    with session.client.stream(
        "/events", query={"kind": list(kinds), "level": level}, headers=headers
    ) as lines:
        for kind, data in messages(lines):
            if kind == "lost":
                click.echo(f"sluice: {lost_line(data['lost'])}", err=True)
            else:
                _print(session, data)


def _print(session: Session, item: dict[str, Any]) -> None:
    if session.is_table:
        say([line_of(item)])
    elif session.output == "json":
        say([json.dumps(item, ensure_ascii=False)])
    else:
        say(["---", encoded("yaml", item).rstrip()])


def messages(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Server-sent events that have data: their name ("message" if they have none), and the data as a document."""
    name, data = "message", ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data += value
        elif not line:
            if data:
                yield name, json.loads(data)
            name, data = "message", ""


def line_of(event: dict[str, Any]) -> str:
    """One event for people."""
    level = "" if event["level"] == "info" else f"{alarming(event['level'])} "
    return f"{when(event['time'])}  {level}{bold(event['kind'])}  {cell(event['text'])}"


def lost_line(number: int | None) -> str:
    """That events are missing."""
    if number is None:
        return "the daemon was restarted; earlier events are in its log"
    return f"{number} events came faster than they were read, and are no longer kept"

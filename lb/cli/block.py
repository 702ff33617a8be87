"""sluice block and unblock: single blocklist entries, in as few milliseconds as can be."""

from collections.abc import Iterable, Sequence
from typing import Any

import click

from lb.cli.output import emit, when
from lb.cli.session import Command, Named, Session, pass_session

prefixes_argument = click.argument("prefixes", metavar="PREFIX...", nargs=-1, required=True, type=Named())
ttl_option = click.option("--ttl", help="How long it holds: 90s, 10m, 1h, 7d; without it, for good.")
reason_option = click.option("--reason", help="Why, for those who look later.")
count_option = click.option(
    "--count-only", is_flag=True, help="Count the packets that would be dropped, and let them pass."
)


@click.command(
    cls=Command,
    example=(
        "sluice block 203.0.113.7\n"
        'sluice block 198.51.100.0/24 2001:db8:bad::/48 --ttl 1h --reason "port scan"\n'
        "sluice block 192.0.2.0/24 --count-only"
    ),
)
@prefixes_argument
@ttl_option
@reason_option
@count_option
@pass_session
def block(
    session: Session, *, prefixes: tuple[str, ...], ttl: str | None, reason: str | None, count_only: bool
) -> None:
    """Drop packets from prefixes.

    All of them are blocked or, if one is wrong, none. An entry that is there is replaced.
    """
    document = add_entries(session, "blocklist", prefixes, wish(ttl, reason, count_only))

    def lines() -> Iterable[str]:
        for entry in entries_of(document):
            done = "counted, not blocked" if entry["action"] == "count" else "blocked"
            yield f"{entry['prefix']} is {done}{until(entry)}"

    emit(session, document, lines)


@click.command(cls=Command, example="sluice unblock 203.0.113.7 198.51.100.0/24")
@prefixes_argument
@pass_session
def unblock(session: Session, prefixes: tuple[str, ...]) -> None:
    """Take prefixes off the blocklist.

    These very prefixes: one that is not on it is not found (exit code 3), and the others are taken off.
    """
    remove_entries(session, "blocklist", prefixes)


def wish(ttl: str | None, reason: str | None, count_only: bool = False) -> dict[str, str]:
    """What is asked of entries, in the API's words; what was not said is left out."""
    said = {"ttl_seconds": ttl, "reason": reason, "action": "count" if count_only else None}
    return {key: value for key, value in said.items() if value is not None}


def add_entries(
    session: Session, name: str, prefixes: Sequence[str], wanted: dict[str, str]
) -> dict[str, Any]:
    """Put prefixes on a list; the answer is the entry where it is one, else the document with all of them."""
    items = [{"prefix": prefix, **wanted} for prefix in prefixes]
    body = items[0] if len(items) == 1 else {"items": items}
    document: dict[str, Any] = session.client.call("POST", f"/{name}", body=body).document
    return document


def entries_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries in what add_entries returned."""
    entries: list[dict[str, Any]] = document.get("items", [document])
    return entries


def until(entry: dict[str, Any]) -> str:
    """The words for when an entry ends; none if it stays."""
    return "" if entry["expires_at"] is None else f" until {when(entry['expires_at'])}"


def remove_entries(session: Session, name: str, prefixes: Iterable[str]) -> None:
    """Take prefixes off a list, the others too where one is not on it; RefusedError for those that failed."""
    from lb.cli.client import RefusedError, quoted

    removed: list[str] = []
    failed: list[RefusedError] = []
    for prefix in prefixes:
        try:
            session.client.call("DELETE", f"/{name}/{quoted(prefix)}")
            removed.append(prefix)
        except RefusedError as error:
            failed.append(error)
    emit(session, None, lambda: [f"{prefix} is off the {name}" for prefix in removed])
    if failed:
        raise RefusedError(failed[0].status, [line for error in failed for line in error.lines])

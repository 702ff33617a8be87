"""sluice blocklist and allowlist: whole lists, entries in detail, imports."""

from collections.abc import Iterable
from typing import Any, BinaryIO

import click

from lb.cli.block import (
    add_entries,
    count_option,
    entries_of,
    prefixes_argument,
    reason_option,
    remove_entries,
    ttl_option,
    until,
    wish,
)
from lb.cli.output import Row, count, emit, fields, when
from lb.cli.pages import print_collection
from lb.cli.session import Group, Named, Session, confirm, pass_session, yes_option

feed_option = click.option("--feed", type=Named(), metavar="NAME", help="Those of this feed.")


@click.group(
    cls=Group,
    example="sluice blocklist list\nsluice blocklist import drop.txt --feed drop",
)
def blocklist() -> None:
    """Prefixes whose packets are dropped.

    Or only counted, where an entry says so.
    """


@click.group(cls=Group, example="sluice allowlist add 198.51.100.7 --reason monitoring")
def allowlist() -> None:
    """Prefixes that are never dropped.

    An entry here beats every entry of the blocklist.
    """


def _row(entry: dict[str, Any]) -> Row:
    shared = " (feed)" if entry["hits"]["shared"] else ""
    return (
        entry["prefix"],
        entry.get("action", "allow"),
        f"{count(entry['hits']['packets'])}{shared}",
        ",".join(entry["owners"]),
        when(entry["expires_at"]),
        entry["reason"],
    )


_HEADER = ("prefix", "action", "packets", "owner", "expires", "reason")


@blocklist.command(name="list", example="sluice blocklist list\nsluice blocklist list -o json")
@pass_session
def list_blocked(session: Session) -> None:
    """All entries, in order of address.

    "(feed)" marks packets that are counted for a whole feed.
    """
    print_collection(session, "/blocklist", _HEADER, _row)


@allowlist.command(name="list", example="sluice allowlist list")
@pass_session
def list_allowed(session: Session) -> None:
    """All entries, in order of address."""
    print_collection(session, "/allowlist", _HEADER, _row)


@blocklist.command(example="sluice blocklist show 198.51.100.0/24")
@click.argument("prefix", type=Named())
@pass_session
def show(session: Session, prefix: str) -> None:
    """One entry in detail.

    Why it is there, whose it is, until when, and what it has dropped.
    """
    from lb.cli.client import quoted

    entry = session.client.call("GET", f"/blocklist/{quoted(prefix)}").document
    emit(session, entry, lambda: entry_lines(entry))


def entry_lines(entry: dict[str, Any]) -> list[str]:
    """An entry in detail."""
    hits = entry["hits"]
    shared = " (of the whole feed)" if hits["shared"] else ""
    return fields(
        [
            ("prefix", entry["prefix"]),
            ("action", entry["action"]),
            ("reason", entry["reason"]),
            ("owner", ", ".join(entry["owners"])),
            ("created", when(entry["created_at"])),
            ("expires", when(entry["expires_at"]) or "never"),
            ("hits", f"{count(hits['packets'])} packets, {count(hits['bytes'], 'B')}{shared}"),
            ("last hit", when(hits["last_hit_at"])),
        ]
    )


@blocklist.command(
    name="import",
    example=(
        "sluice blocklist import drop.txt\n"
        "curl -s https://lists.example.net/drop.txt | sluice blocklist import - --feed drop"
    ),
)
@click.argument("file", type=click.File("rb"))
@click.option(
    "--feed",
    type=Named(),
    metavar="NAME",
    help="The lines become all that this feed holds; without it they are added to the operator's entries.",
)
@ttl_option
@reason_option
@count_option
@pass_session
def import_list(
    session: Session,
    *,
    file: BinaryIO,
    feed: str | None,
    ttl: str | None,
    reason: str | None,
    count_only: bool,
) -> None:
    """Block every prefix of a file.

    Plain text, one prefix a line; "#" and ";" begin comments; "-" is standard input.
    All lines are taken or, if one is wrong, none.
    """
    query = {"feed": feed, **wish(ttl, reason, count_only)}
    answer = session.client.call("POST", "/blocklist", query=query, stream=file, content_type="text/plain")
    changed = answer.document

    def lines() -> Iterable[str]:
        numbers = ", ".join(f"{changed[key]} {key}" for key in ("added", "replaced", "removed"))
        yield f"{numbers}; {f'feed {feed}' if feed else 'the operator'} now holds {changed['total']}"

    emit(session, changed, lines)


@blocklist.command(example="sluice blocklist clear --yes\nsluice blocklist clear --feed drop --yes")
@feed_option
@click.option("--all", "everything", is_flag=True, help="Everyone's entries, feeds included.")
@yes_option
@pass_session
def clear(session: Session, *, feed: str | None, everything: bool, yes: bool) -> None:
    """Remove all entries made by hand.

    Those of feeds stay unless they are named.
    """
    if feed and everything:
        raise click.UsageError("--feed and --all exclude each other: give one of them")
    owner, whose = (
        ("*", "everyone")
        if everything
        else (f"feed:{feed}", f"feed {feed}")
        if feed
        else (None, "the operator")
    )
    confirm(f"Remove all blocklist entries of {whose}?", yes)
    session.client.call("DELETE", "/blocklist", query={"owner": owner})
    emit(session, None, lambda: [f"the blocklist entries of {whose} are removed"])


@allowlist.command(example="sluice allowlist add 198.51.100.7 2001:db8:9::/48 --reason monitoring")
@prefixes_argument
@ttl_option
@reason_option
@pass_session
def add(session: Session, *, prefixes: tuple[str, ...], ttl: str | None, reason: str | None) -> None:
    """Never drop packets from prefixes.

    All of them are added or, if one is wrong, none.
    """
    document = add_entries(session, "allowlist", prefixes, wish(ttl, reason))
    emit(session, document, lambda: [f"{e['prefix']} is allowed{until(e)}" for e in entries_of(document)])


@allowlist.command(example="sluice allowlist remove 198.51.100.7")
@prefixes_argument
@pass_session
def remove(session: Session, prefixes: tuple[str, ...]) -> None:
    """Take prefixes off the allowlist.

    These very prefixes: one that is not on it is not found (exit code 3), and the others are taken off.
    """
    remove_entries(session, "allowlist", prefixes)

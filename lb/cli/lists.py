"""sluice blocklist and allowlist: whole lists, entries in detail, imports."""

import sys
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any, BinaryIO

import click

from lb.cli.block import (
    add_entries,
    chosen,
    count_option,
    entries_of,
    everyone_option,
    owner_option,
    prefixes_argument,
    prefixes_of,
    reason_option,
    remove_entries,
    ttl_option,
    until,
    wish,
)
from lb.cli.names import ALLOWED, BLOCKED
from lb.cli.output import Row, count, emit, fields, span, when
from lb.cli.pages import print_collection
from lb.cli.progress import told
from lb.cli.session import (
    Group,
    Named,
    Session,
    confirm,
    force_option,
    forced,
    pass_session,
    yes_option,
)
from lb.cli.watch import Watched

feed_option = click.option("--feed", type=Named(), metavar="NAME", help="Entries of this feed.")


@click.group(
    cls=Group,
    example="sluice blocklist list\nsluice blocklist import drop.txt --feed drop",
)
def blocklist() -> None:
    """Blocklist: prefixes whose packets are dropped.

    Or only counted, if an entry says so.
    """


@click.group(cls=Group, example="sluice allowlist add 198.51.100.7 --reason monitoring")
def allowlist() -> None:
    """Allowlist: prefixes that are never dropped.

    An entry here overrides every entry of the blocklist.
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


only_option = click.option("--owner", type=Named(), metavar="NAME", help="Only entries of this owner.")


@blocklist.command(
    name="list", cls=Watched, example="sluice blocklist list\nsluice blocklist list --owner fail2ban"
)
@only_option
@pass_session
def list_blocked(session: Session, owner: str | None) -> None:
    """List all entries, in order of address.

    "(feed)" marks packets that are counted for a whole feed.
    """
    print_collection(session, "/blocklist", _HEADER, _row, owner=owner)


@allowlist.command(name="list", cls=Watched, example="sluice allowlist list")
@only_option
@pass_session
def list_allowed(session: Session, owner: str | None) -> None:
    """List all entries, in order of address."""
    print_collection(session, "/allowlist", _HEADER, _row, owner=owner)


_FORMATS = click.Choice(["plain", "json"])
format_option = click.option(
    "--format", "format_", type=_FORMATS, default="plain", show_default=True, help="The output format."
)


@blocklist.command(
    name="export", example="sluice blocklist export > blocked.txt\nsluice blocklist export --format json"
)
@only_option
@format_option
@pass_session
def export_blocked(session: Session, owner: str | None, format_: str) -> None:
    """Print entries in the form that import takes.

    plain: dropped prefixes, one per line. json: each owner's entries, with reasons and TTLs, count-only ones too.
    """
    _export(session, "/blocklist", owner, format_)


@allowlist.command(name="export", example="sluice allowlist export > allowed.txt")
@only_option
@format_option
@pass_session
def export_allowed(session: Session, owner: str | None, format_: str) -> None:
    """Print entries, as text or JSON.

    Plain text has one prefix per line; JSON has reasons and TTLs.
    """
    _export(session, "/allowlist", owner, format_)


def _export(session: Session, path: str, owner: str | None, format_: str) -> None:
    session.client.copy(path, {"export": format_, "owner": owner}, sys.stdout.buffer)
    sys.stdout.flush()


@blocklist.command(example="sluice blocklist show 198.51.100.0/24")
@click.argument("prefix", type=BLOCKED)
@pass_session
def show(session: Session, prefix: str) -> None:
    """Show one prefix in detail.

    Its owners, reasons and expiry, and what each owner's entry has decided: the first one takes precedence.
    """
    from lb.cli.client import quoted

    entry = session.client.call("GET", f"/blocklist/{quoted(prefix)}").document
    emit(session, entry, lambda: entry_lines(entry))


def entry_lines(entry: dict[str, Any]) -> list[str]:
    """What each owner says of a prefix, an empty line between two."""
    lines: list[str] = []
    for said in entry["entries"]:
        hits = said["hits"]
        packets = "1 packet" if hits["packets"] == 1 else f"{count(hits['packets'])} packets"
        shared = " (of the whole feed)" if hits["shared"] else ""
        lines += [""] if lines else []
        lines += fields(
            [
                ("prefix", entry["prefix"]),
                ("action", said.get("action", "allow")),
                ("reason", said["reason"]),
                ("owner", said["owner"]),
                ("created", when(said["created_at"])),
                ("expires", _end(said["expires_at"])),
                ("hits", f"{packets}, {count(hits['bytes'], 'B')}{shared}"),
                ("last hit", when(hits["last_hit_at"])),
            ]
        )
    return lines


def _end(moment: str | None) -> str:
    if moment is None:
        return "never"
    return f"{when(moment)} ({span(datetime.fromisoformat(moment).timestamp() - time.time())} left)"


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
    help="The lines replace this feed's entries; without this, they are added to the operator's entries.",
)
@owner_option
@ttl_option
@reason_option
@count_option
@force_option
@pass_session
def import_list(
    session: Session,
    *,
    file: BinaryIO,
    feed: str | None,
    owner: str | None,
    ttl: str | None,
    reason: str | None,
    count_only: bool,
    force: bool,
) -> None:
    """Block every prefix of a file.

    Plain text, one prefix per line ("#" and ";" begin comments), or JSON as export writes it; "-" is standard input.
    The whole file is imported or, if anything is wrong, nothing.
    """
    changed = _import(
        session, "/blocklist", file, {"feed": feed, **wish(ttl, reason, count_only, owner)}, force
    )

    def lines() -> Iterable[str]:
        numbers = ", ".join(f"{changed[key]} {key}" for key in ("added", "replaced", "removed"))
        whose = f"feed {feed}" if feed else owner or "the operator"
        yield f"{numbers}; {whose} now holds {changed['total']}"

    emit(session, changed, lines)


def _import(
    session: Session, path: str, file: BinaryIO, query: dict[str, str | None], force: bool
) -> dict[str, Any]:
    """Send a file; what it changed."""
    beginning: bytes = file.peek(512) if hasattr(file, "peek") else b""
    is_json = beginning.lstrip()[:1] in {b"{", b"["}
    kind = "application/json" if is_json else "text/plain"
    with told(file, "sending") as stream:
        document: dict[str, Any] = session.write(
            "POST", path, query={**query, **forced(force)}, stream=stream, content_type=kind
        )
    changed: dict[str, Any] = document.get("changed", document)
    return changed


@allowlist.command(name="import", example="sluice allowlist import partners.txt --reason partner")
@click.argument("file", type=click.File("rb"))
@owner_option
@ttl_option
@reason_option
@pass_session
def import_allowed(
    session: Session, *, file: BinaryIO, owner: str | None, ttl: str | None, reason: str | None
) -> None:
    """Allow every prefix of a file.

    Plain text, one prefix per line, or JSON as export writes it.
    """
    changed = _import(session, "/allowlist", file, {**wish(ttl, reason, owner=owner)}, force=False)
    emit(
        session,
        changed,
        lambda: [", ".join(f"{changed[key]} {key}" for key in ("added", "replaced", "total"))],
    )


@blocklist.command(example="sluice blocklist clear --yes\nsluice blocklist clear --feed drop --yes")
@feed_option
@owner_option
@click.option(
    "--all", "everything", is_flag=True, help="Everyone's entries, except those of feeds: remove the feed."
)
@yes_option
@force_option
@pass_session
def clear(
    session: Session, *, feed: str | None, owner: str | None, everything: bool, yes: bool, force: bool
) -> None:
    """Remove all entries of the operator.

    Those of feeds and other owners stay unless they are named.
    """
    if sum(map(bool, (feed, owner, everything))) > 1:
        raise click.UsageError("--feed, --owner and --all contradict each other: give one of them")
    owner, whose = (
        ("*", "everyone")
        if everything
        else (f"feed:{feed}", f"feed {feed}")
        if feed
        else (owner, owner or "the operator")
    )
    confirm(f"Remove all blocklist entries of {whose}?", yes)
    session.write("DELETE", "/blocklist", query={"owner": owner, **forced(force)})
    emit(session, None, lambda: [f"the blocklist entries of {whose} are removed"])


@allowlist.command(example="sluice allowlist add 198.51.100.7 2001:db8:9::/48 --reason monitoring")
@prefixes_argument
@ttl_option
@reason_option
@owner_option
@pass_session
def add(
    session: Session, *, prefixes: tuple[str, ...], ttl: str | None, reason: str | None, owner: str | None
) -> None:
    """Never drop packets from prefixes.

    All of them are added or, if one is wrong, none.
    """
    document = add_entries(session, "allowlist", prefixes, wish(ttl, reason, owner=owner))
    emit(session, document, lambda: [f"{e['prefix']} is allowed{until(e)}" for e in entries_of(document)])


@allowlist.command(example="sluice allowlist remove 198.51.100.7")
@prefixes_of(ALLOWED)
@owner_option
@everyone_option
@force_option
@pass_session
def remove(
    session: Session, *, prefixes: tuple[str, ...], owner: str | None, all_owners: bool, force: bool
) -> None:
    """Remove prefixes from the allowlist.

    Exactly these prefixes: if one is not on it, it is reported as not found (exit code 3), and the others are removed.
    """
    remove_entries(session, "allowlist", prefixes, owner=chosen(owner, all_owners), force=force)

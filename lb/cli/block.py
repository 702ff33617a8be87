"""sluice block and unblock: single blocklist entries, as fast as possible."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from lb.cli.names import BLOCKED
from lb.cli.output import emit, when
from lb.cli.session import Command, Named, Session, force_option, forced, pass_session

F = TypeVar("F", bound=Callable[..., Any])


def prefixes_of(kind: Named) -> Callable[[F], F]:
    """The argument PREFIX..., of which there is at least one."""
    return click.argument("prefixes", metavar="PREFIX...", nargs=-1, required=True, type=kind)


prefixes_argument = prefixes_of(Named())
ttl_option = click.option("--ttl", help="How long it lasts: 90s, 10m, 1h, 7d; without it, for good.")
reason_option = click.option("--reason", help="The reason, for the record.")
count_option = click.option(
    "--count-only", is_flag=True, help="Only count the packets that would be dropped, and let them pass."
)

owner_option = click.option(
    "--owner",
    type=Named(),
    metavar="NAME",
    help="The owner, a word such as fail2ban; default: operator.",
)
everyone_option = click.option("--all-owners", is_flag=True, help="Remove all owners' entries.")


@click.command(
    cls=Command,
    example=(
        "sluice block 203.0.113.7\n"
        'sluice block 198.51.100.0/24 2001:db8:bad::/48 --ttl 1h --reason "port scan"\n'
        "sluice block 192.0.2.0/24 --count-only\n"
        "sluice block 203.0.113.9 --owner fail2ban --ttl 10m"
    ),
)
@prefixes_argument
@ttl_option
@reason_option
@count_option
@owner_option
@force_option
@pass_session
def block(
    session: Session,
    *,
    prefixes: tuple[str, ...],
    ttl: str | None,
    reason: str | None,
    count_only: bool,
    owner: str | None,
    force: bool,
) -> None:
    """Drop packets from prefixes.

    All of them are blocked or, if one is wrong, none. An existing entry of that owner is replaced.
    """
    wanted = wish(ttl, reason, count_only, owner)
    document = add_entries(session, "blocklist", prefixes, wanted, force=force)

    def lines() -> Iterable[str]:
        for entry in entries_of(document):
            done = "counted, not blocked" if entry["action"] == "count" else "blocked"
            yield f"{entry['prefix']} is {done}{until(entry)}"

    emit(session, document, lines)


@click.command(
    cls=Command,
    example="sluice unblock 203.0.113.7 198.51.100.0/24\nsluice unblock 203.0.113.9 --owner fail2ban",
)
@prefixes_of(BLOCKED)
@owner_option
@everyone_option
@force_option
@pass_session
def unblock(
    session: Session, *, prefixes: tuple[str, ...], owner: str | None, all_owners: bool, force: bool
) -> None:
    """Remove prefixes from the blocklist.

    Exactly these prefixes: if one is not on it, it is reported as not found (exit code 3), and the others are removed.
    A prefix stays blocked until the last of its owners leaves it.
    """
    remove_entries(session, "blocklist", prefixes, owner=chosen(owner, all_owners), force=force)


def chosen(owner: str | None, all_owners: bool) -> str | None:
    """The owner that is meant, in the API's words; None for the operator."""
    if owner and all_owners:
        raise click.UsageError("--owner and --all-owners contradict each other: give one of them")
    return "*" if all_owners else owner


def wish(
    ttl: str | None, reason: str | None, count_only: bool = False, owner: str | None = None
) -> dict[str, str]:
    """What is asked of entries, in the API's words; what was not said is left out."""
    said = {
        "ttl_seconds": ttl,
        "reason": reason,
        "action": "count" if count_only else None,
        "owner": owner,
    }
    return {key: value for key, value in said.items() if value is not None}


def add_entries(
    session: Session, name: str, prefixes: Sequence[str], wanted: dict[str, str], *, force: bool = False
) -> dict[str, Any]:
    """Put prefixes on a list; the answer is the entry where it is one, else the document with all of them."""
    items = [{"prefix": prefix, **wanted} for prefix in prefixes]
    body = items[0] if len(items) == 1 else {"items": items}
    document: dict[str, Any] = session.write("POST", f"/{name}", body=body, query=forced(force))
    return document


def entries_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries in what add_entries returned."""
    entries: list[dict[str, Any]] = document.get("items", [document])
    return entries


def until(entry: dict[str, Any]) -> str:
    """The words for when an entry ends; none if it stays."""
    return "" if entry["expires_at"] is None else f" until {when(entry['expires_at'])}"


def remove_entries(
    session: Session, name: str, prefixes: Iterable[str], *, owner: str | None = None, force: bool = False
) -> None:
    """Take prefixes off a list, the others too where one is not on it; RefusedError for those that failed."""
    from lb.cli.client import RefusedError, quoted

    removed: list[str] = []
    failed: list[RefusedError] = []
    for prefix in prefixes:
        try:
            query = {"owner": owner, **forced(force)}
            session.write("DELETE", f"/{name}/{quoted(prefix)}", query=query)
            removed.append(prefix)
        except RefusedError as error:
            failed.append(error)
    emit(session, None, lambda: [f"{prefix} is no longer on the {name}" for prefix in removed])
    if failed:
        raise RefusedError(failed[0].status, [line for error in failed for line in error.lines])

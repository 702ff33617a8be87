"""sluice feed: lists of prefixes that others publish."""

import time
from collections.abc import Iterable
from typing import Any

import click

from lb.cli.names import FEED
from lb.cli.output import Row, count, emit, fields, table, when
from lb.cli.session import Group, Named, Session, confirm, pass_session, yes_option
from lb.cli.times import seconds_of
from lb.cli.watch import Watched

_FORMATS = ("auto", "plain", "netset", "csv", "spamhaus-drop", "spamhaus-json", "crowdsec")
_CREATED = 201
_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 120.0
"""More than the daemon takes over a feed, so that this is only met where it has gone."""


@click.group(
    cls=Group,
    example=(
        "sluice feed add drop --url https://lists.example.net/drop.txt --refresh 1h\n"
        "sluice feed list\nsluice feed refresh drop"
    ),
)
def feed() -> None:
    """Feeds: lists of prefixes that others publish.

    Each is fetched again and again; its latest good copy is on the blocklist.
    """


@feed.command(
    example=(
        "sluice feed add drop --url https://lists.example.net/drop.txt --refresh 1h\n"
        "sluice feed add own --file /etc/sluice/own.txt --count-only\n"
        "sluice feed add crowdsec --url http://127.0.0.1:8080 --format crowdsec \\\n"
        "    --api-key-file /etc/sluice/crowdsec.key --allow-private-url --refresh 1m"
    )
)
@click.argument("name", type=Named())
@click.option("--url", help="http or https, of the list itself.")
@click.option("--file", "path", help="In place of --url: an absolute path on the daemon's machine.")
@click.option("--format", "form", type=click.Choice(_FORMATS), help="The list's format; auto detects it.")
@click.option("--refresh", help="Time between refreshes: 10m, 1h, 1d; default 1h.")
@click.option("--jitter", type=float, help="Share of the interval by which a refresh may be delayed.")
@click.option("--max-change", type=float, help="Share of the entries that one refresh may add or remove.")
@click.option(
    "--count-only", is_flag=True, help="Only count the packets that would be dropped, and let them pass."
)
@click.option("--allow-private-url", is_flag=True, help="The URL may lead to a private or loopback address.")
@click.option(
    "--allow-protected", is_flag=True, help="It may block backends, VIPs and private address space."
)
@click.option("--api-key-file", help="crowdsec: a file with the bouncer's key, as the daemon sees it.")
@click.option("--reason", help="The reason of every entry.")
@click.option("--no-wait", is_flag=True, help="Do not wait for the first fetch.")
@pass_session
def add(
    session: Session,
    /,
    *,
    name: str,
    path: str | None,
    form: str | None,
    refresh: str | None,
    no_wait: bool,
    **said: Any,
) -> None:
    """Add a feed, or replace the one of that name.

    It is fetched at once. If that fails, the feed stays and is retried.
    """
    from lb.cli.client import quoted

    wanted = {
        "url": said["url"],
        "file": path,
        "format": form,
        "refresh_seconds": None if refresh is None else _seconds(refresh),
        "action": "count" if said["count_only"] else None,
        **{key: said[key] for key in ("jitter", "max_change", "api_key_file", "reason")},
        **{key: said[key] or None for key in ("allow_private_url", "allow_protected")},
    }
    body = {key: value for key, value in wanted.items() if value is not None}
    answer = session.client.call("PUT", f"/feeds/{quoted(name)}", body=body)
    document, error = answer.document, None
    done = "is added" if answer.status == _CREATED else "is replaced"
    if not no_wait:
        document, error = _refreshed(session, name, document)
    emit(session, document, lambda: [f"feed {name} {done}{'' if error or no_wait else _holding(document)}"])
    if error:
        click.echo(f"sluice: {error}", err=True)


def _seconds(text: str) -> int:
    try:
        return seconds_of(text)
    except ValueError as error:
        raise click.UsageError(f"--refresh {error}") from None


def _refreshed(session: Session, name: str, document: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The feed after a refresh, and why it failed if it did."""
    from lb.cli.client import RefusedError

    try:
        return _refresh(session, name), None
    except RefusedError as error:
        return document, "; ".join(error.lines)


def _refresh(session: Session, name: str) -> dict[str, Any]:
    """The feed, once it is refreshed; RefusedError if it is not taken."""
    from lb.cli.client import RefusedError, quoted

    answer = session.client.call("POST", f"/feeds/{quoted(name)}/refresh")
    operation: dict[str, Any] = answer.document
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while answer.status == 202 and operation["state"] == "running":
        if time.monotonic() > deadline:
            raise RefusedError(504, [f'feed {name} is still being fetched: see "sluice feed show {name}"'])
        time.sleep(_POLL_SECONDS)
        operation = session.client.call("GET", f"/operations/{quoted(operation['id'])}").document
    if answer.status == 202 and operation["state"] == "failed":
        raise RefusedError(
            502, [f"feed {name} was not refreshed, and keeps its entries: {operation['error']}"]
        )
    found: dict[str, Any] = session.client.call("GET", f"/feeds/{quoted(name)}").document
    return found


def _holding(document: dict[str, Any]) -> str:
    return f", with {document['observed']['entries']} entries"


@feed.command(name="list", cls=Watched, example="sluice feed list\nsluice feed list -o json")
@pass_session
def list_feeds(session: Session) -> None:
    """List all feeds with their state."""
    document = session.client.call("GET", "/feeds").document
    emit(session, document, lambda: feed_table(document["items"]))


def feed_table(items: Iterable[dict[str, Any]]) -> list[str]:
    """A row for each feed."""
    header = ("name", "from", "action", "entries", "packets", "last success", "next refresh", "error")
    return table(header, map(_row, items))


def _row(one: dict[str, Any]) -> Row:
    seen = one["observed"]
    return (
        one["name"],
        one["url"] or one["file"],
        one["action"],
        count(seen["entries"]),
        count(seen["packets"]),
        when(seen["last_success_at"]),
        when(seen["next_refresh_at"]),
        seen["error"],
    )


@feed.command(example="sluice feed show drop")
@click.argument("name", type=FEED)
@pass_session
def show(session: Session, name: str) -> None:
    """Show one feed in detail."""
    from lb.cli.client import quoted

    document = session.client.call("GET", f"/feeds/{quoted(name)}").document
    emit(session, document, lambda: feed_lines(document))


def feed_lines(one: dict[str, Any]) -> list[str]:
    """A feed in detail."""
    seen = one["observed"]
    said = [(key.replace("_", " "), value) for key, value in one.items() if key != "observed"]
    return fields(
        [
            *said,
            ("entries", seen["entries"]),
            ("hits", f"{count(seen['packets'])} packets, {count(seen['bytes'], 'B')}"),
            ("last success", when(seen["last_success_at"])),
            ("last attempt", when(seen["last_attempt_at"])),
            ("next refresh", when(seen["next_refresh_at"])),
            ("failures", seen["failures"]),
            ("error", seen["error"]),
        ]
    )


@feed.command(example="sluice feed refresh drop")
@click.argument("name", type=FEED)
@pass_session
def refresh(session: Session, name: str) -> None:
    """Fetch a feed now, and wait for it.

    If that fails or is refused (exit code 1), its entries stay.
    """
    document = _refresh(session, name)
    emit(session, document, lambda: [f"feed {name} is refreshed{_holding(document)}"])


@feed.command(example="sluice feed remove drop --yes")
@click.argument("name", type=FEED)
@yes_option
@pass_session
def remove(session: Session, *, name: str, yes: bool) -> None:
    """Remove a feed, and all its entries."""
    from lb.cli.client import quoted

    confirm(f"Remove feed {name} and its entries?", yes)
    session.client.call("DELETE", f"/feeds/{quoted(name)}")
    emit(session, None, lambda: [f"feed {name} is removed, with its entries"])

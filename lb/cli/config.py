"""sluice apply, diff, export and revisions: the whole desired state as one document."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import click

from lb.cli.output import cell, emit, table, when
from lb.cli.session import Command, Session, force_option, forced, pass_session

_YAML = "application/yaml"
_SIGNS = {"add": "+", "remove": "-", "change": "~"}
_DONE = {"add": "added", "remove": "removed", "change": "changed"}
EXIT_DIFFERS = 1
EXIT_FAILED = 2
"""The least that diff leaves with on an error, so that a script does not take it for a difference."""

file_option = click.option(
    "-f",
    "--file",
    required=True,
    type=click.File("rb"),
    help='The document, YAML or JSON; "-" is standard input.',
)


def _put(session: Session, file: BinaryIO, dry_run: bool, force: bool = False) -> dict[str, Any]:
    """Send a document; what differs, as the API says it. The daemon tells JSON from YAML: JSON is YAML."""
    query = {"dry_run": "true" if dry_run else None, **forced(force)}
    found: dict[str, Any] = session.write("PUT", "/config", query=query, stream=file, content_type=_YAML)
    return found


@click.command(
    cls=Command,
    example="sluice apply -f edge.yaml --dry-run\nsluice apply -f edge.yaml",
)
@file_option
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@force_option
@pass_session
def apply(session: Session, file: BinaryIO, dry_run: bool, force: bool) -> None:
    """Make a document the desired state.

    The whole of it: what the document leaves out is removed, but for entries of feeds.
    """
    found = _put(session, file, dry_run, force)
    for text in found.get("warnings", ()):
        click.echo(f"sluice: warning: {cell(text)}", err=True)

    def lines() -> Iterator[str]:
        yield from difference_lines(found)
        yield summary(found, would=dry_run)

    emit(session, found, lines)


@click.command(cls=Command, example="sluice diff -f edge.yaml && echo same")
@file_option
@pass_session
def diff(session: Session, file: BinaryIO) -> None:
    """What apply would change.

    Exit codes: 0 nothing, 1 something, more than 1 error.
    """
    from lb.cli.client import RefusedError

    try:
        found = _put(session, file, dry_run=True, force=True)
    except RefusedError as error:
        error.exit_code = max(EXIT_FAILED, error.exit_code)
        raise
    emit(session, found, lambda: difference_lines(found))
    if not found["same"]:
        click.get_current_context().exit(EXIT_DIFFERS)


def difference_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A line for each change, and one for each kind of which not all are shown."""
    shown: dict[str, int] = {}
    for change in found["changes"]:
        shown[change["kind"]] = shown.get(change["kind"], 0) + 1
        yield f"{_SIGNS[change['op']]} {change['kind']} {change['name']}{_detail(change)}"
    for kind, counts in found["counts"].items():
        more = sum(counts.values()) - shown.get(kind, 0)
        if more > 0:
            yield f"  and {more} more of {kind}"


def _detail(change: Mapping[str, Any]) -> str:
    """What a change makes of what; nothing where a whole thing comes or goes."""
    if change["op"] != "change":
        return ""
    before, after = change["before"], change["after"]
    if not isinstance(after, Mapping):
        return f": {before} -> {after}"
    names = dict.fromkeys([*(before or {}), *after])
    return ": " + ", ".join(f"{name} {(before or {}).get(name)} -> {after.get(name)}" for name in names)


def summary(found: Mapping[str, Any], *, would: bool) -> str:
    """How many of each kind were (or would be) added, removed and changed."""
    if found["same"]:
        return "nothing to change"
    parts = [
        f"{number} {kind} {_DONE[op]}"
        for kind, counts in found["counts"].items()
        for op, number in counts.items()
        if number
    ]
    return ("would change: " if would else "applied: ") + ", ".join(parts)


@click.command(cls=Command, example="sluice export > edge.yaml\nsluice export -o json | jq .services")
@pass_session
def export(session: Session) -> None:
    """Print the desired state.

    A document that apply takes; YAML unless told -o json. Entries of feeds are not in it.
    """
    if session.output == "json":
        emit(session, session.client.call("GET", "/config").document, list)
    else:
        click.echo(session.client.call("GET", "/config", accept=_YAML).document, nl=False)


@click.command(cls=Command, example="sluice revisions\nsluice revisions --limit 500 -o json")
@click.option("--limit", type=click.IntRange(1, 10000), default=50, show_default=True, help="How many.")
@pass_session
def revisions(session: Session, limit: int) -> None:
    """Who changed what and when, the newest first."""
    document = session.client.call("GET", "/config/revisions", query={"limit": limit}).document
    emit(session, document, lambda: revision_table(document["items"]))


def revision_table(items: Iterable[dict[str, Any]]) -> list[str]:
    """A row for each revision."""
    header = ("revision", "time", "actor", "summary")
    return table(header, ((i["revision"], when(i["created_at"]), i["actor"], i["summary"]) for i in items))

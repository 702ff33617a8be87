"""sluice diff, rollback and revisions: earlier states, and how to get back to them."""

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import click

from lb.cli.changes import difference_lines, ended, max_moved_option, percent_of, said_of
from lb.cli.config import put
from lb.cli.output import emit, table, when
from lb.cli.session import Command, Session, force_option, forced, pass_session

EXIT_DIFFERS = 1
EXIT_FAILED = 2
"""The least that diff leaves with on an error, so that a script does not take it for a difference."""


@click.command(
    cls=Command,
    example=(
        "sluice diff -f edge.yaml && echo same\nsluice diff --revision 6\nsluice diff --revision 7 --since 6"
    ),
)
@click.option("-f", "--file", type=click.File("rb"), help='A document, YAML or JSON; "-" is standard input.')
@click.option("--revision", type=click.IntRange(1), help="A revision, instead of a document.")
@click.option(
    "--since", type=click.IntRange(1), help="Compare with this revision instead of the present state."
)
@pass_session
def diff(session: Session, file: BinaryIO | None, revision: int | None, since: int | None) -> None:
    """Show what apply or rollback would change and move.

    Exit codes: 0 nothing, 1 something, above 1 error.
    """
    from lb.cli.client import RefusedError

    if (file is None) == (revision is None):
        raise click.UsageError("give what to compare with: either -f FILE or --revision N")
    if since is not None and revision is None:
        raise click.UsageError("--since needs --revision: write --revision 7 --since 6")
    try:
        found = _found(session, file, revision, since)
    except RefusedError as error:
        error.exit_code = max(EXIT_FAILED, error.exit_code)
        raise
    emit(session, found, lambda: said_of(found) if since is None else difference_lines(found))
    if not found["same"]:
        click.get_current_context().exit(EXIT_DIFFERS)


def _found(
    session: Session, file: BinaryIO | None, revision: int | None, since: int | None
) -> dict[str, Any]:
    found: dict[str, Any]
    if file is not None:
        return put(session, file, dry_run="true", **forced(True))
    if since is not None:
        path = f"/config/revisions/{revision}/diff"
        found = session.client.call("GET", path, query={"since": since}).document
        return found
    return _go_back(session, revision, dry_run="true", **forced(True))


def _go_back(session: Session, revision: int | None, **query: str | None) -> dict[str, Any]:
    body = {} if revision is None else {"revision": revision}
    found: dict[str, Any] = session.write("POST", "/config/rollback", query=query, body=body)
    return found


@click.command(cls=Command, example="sluice rollback\nsluice rollback 6 --dry-run")
@click.argument("revision", type=click.IntRange(1), required=False)
@click.option("--dry-run", is_flag=True, help="Only show what would change, and move.")
@max_moved_option
@force_option
@pass_session
def rollback(
    session: Session, revision: int | None, *, dry_run: bool, max_moved: str | None, force: bool
) -> None:
    """Go back to the state of a revision, as a new revision.

    Without REVISION, go back to the newest that differs; a change that waits to be confirmed is rolled back. To undo a
    rollback, give the REVISION. Expired entries stay expired, and those of other owners (feeds, bans, fail2ban) stay
    as they are.
    """
    found = _go_back(
        session,
        revision,
        dry_run="true" if dry_run else None,
        max_moved_percent=percent_of(max_moved),
        **forced(force),
    )

    def lines() -> Iterator[str]:
        yield from said_of(found)
        yield ended(found, "rolled back", would=dry_run)

    emit(session, found, lines)


@click.command(cls=Command, example="sluice revisions\nsluice revisions --limit 500 -o json")
@click.option(
    "--limit", type=click.IntRange(1, 10000), default=50, show_default=True, help="How many to show."
)
@pass_session
def revisions(session: Session, limit: int) -> None:
    """Show who changed what and when, newest first."""
    document = session.client.call("GET", "/config/revisions", query={"limit": limit}).document
    emit(session, document, lambda: revision_table(document["items"]))


def revision_table(items: Iterable[dict[str, Any]]) -> list[str]:
    """A row for each revision."""
    header = ("revision", "time", "actor", "summary")
    return table(header, ((i["revision"], when(i["created_at"]), i["actor"], i["summary"]) for i in items))

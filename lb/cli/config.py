"""sluice apply, confirm and export: the whole desired state as one document."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import click

from lb.cli.changes import ended, max_moved_option, percent_of, said_of
from lb.cli.output import emit
from lb.cli.session import Command, Session, force_option, forced, pass_session
from lb.cli.status import pending_words
from lb.cli.times import Seconds

YAML = "application/yaml"
DAY = 86400


def put(session: Session, file: BinaryIO, **query: str | int | None) -> dict[str, Any]:
    """Send a document; what differs, as the API says it. The daemon tells JSON from YAML: JSON is YAML."""
    found: dict[str, Any] = session.write("PUT", "/config", query=query, stream=file, content_type=YAML)
    return found


@click.command(
    cls=Command,
    example=(
        "sluice apply -f edge.yaml --dry-run\n"
        "sluice apply -f edge.yaml --max-moved 10% --confirm-within 60s && ./check && sluice confirm"
    ),
)
@click.option(
    "-f",
    "--file",
    required=True,
    type=click.File("rb"),
    help='The document, YAML or JSON; "-" is standard input.',
)
@click.option("--dry-run", is_flag=True, help="Only show what would change, and move.")
@max_moved_option
@click.option(
    "--confirm-within",
    type=Seconds(1, DAY),
    metavar="TIME",
    help='Roll back after this time (60s, 5m) unless "sluice confirm" comes before.',
)
@force_option
@pass_session
def apply(
    session: Session,
    file: BinaryIO,
    *,
    dry_run: bool,
    max_moved: str | None,
    confirm_within: int | None,
    force: bool,
) -> None:
    """Make a document the desired state.

    It is applied as a whole or not at all, as one revision: what it leaves out is removed, except for entries of feeds.
    """
    found = put(
        session,
        file,
        dry_run="true" if dry_run else None,
        max_moved_percent=percent_of(max_moved),
        confirm_within_seconds=confirm_within,
        **forced(force),
    )
    emit(session, found, lambda: _applied(found, dry_run))


def _applied(found: dict[str, Any], dry_run: bool) -> Iterator[str]:
    yield from said_of(found)
    yield ended(found, "applied", would=dry_run)
    if found["pending"]:
        yield pending_words(found["pending"])


@click.command(cls=Command, example="sluice confirm\nsluice confirm 7")
@click.argument("revision", type=click.IntRange(1), required=False)
@pass_session
def confirm(session: Session, revision: int | None) -> None:
    """Keep what was applied with --confirm-within.

    With REVISION, only if that is the one that waits.
    """
    document = session.write("POST", "/config/confirm", query={"revision": revision})
    emit(session, document, lambda: [f"revision {document['revision']} is confirmed"])


@click.command(cls=Command, example="sluice export > edge.yaml\nsluice export -o json | jq .services")
@pass_session
def export(session: Session) -> None:
    """Print the desired state.

    The output is a document for apply, in YAML unless -o json is given. Entries of feeds are not in it.
    """
    if session.output == "json":
        emit(session, session.client.call("GET", "/config").document, list)
    else:
        click.echo(session.client.call("GET", "/config", accept=YAML).document, nl=False)

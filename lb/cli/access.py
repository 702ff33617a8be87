"""sluice token, audit and whoami: who may use the API, and who has."""

from collections.abc import Iterator
from typing import Any

import click

from lb.cli.client import quoted
from lb.cli.output import emit, fields, table, when
from lb.cli.pages import print_collection
from lb.cli.session import Command, Group, Named, Session, pass_session

ROLES = ("viewer", "operator", "admin")


class Lifetime(click.ParamType[str]):
    """A duration such as 30d, or never; the daemon has the last word."""

    name = "duration"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """The text, or a usage error."""
        text = str(value)
        if text != "never" and not (text[:-1].isdecimal() and text[-1:] in "smhdw" and len(text) < 10):
            self.fail(f'"{text}" is not a duration: write 12h, 30d, 8w or never', parameter, context)
        return text


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@click.group(cls=Group, example="sluice token create ci --role operator --expires 30d > ci.token")
def token() -> None:
    """Tokens, for using the API over TCP."""


@token.command(
    example="sluice token create ci --role operator --expires 30d > ci.token\n"
    "sluice --server https://edge:8443 --token-file ci.token status"
)
@click.argument("name", type=Named())
@click.option(
    "--role",
    type=click.Choice(ROLES),
    required=True,
    help="viewer: read; operator: also change lists, rules, backends; admin: everything.",
)
@click.option(
    "--expires", type=Lifetime(), default="90d", show_default=True, help="How long it is valid, or never."
)
@pass_session
def create(session: Session, name: str, role: str, expires: str) -> None:
    """Create a token, and print it.

    It is shown only this once: the daemon keeps only a digest of it.
    """
    seconds = None if expires == "never" else int(expires[:-1]) * _UNITS[expires[-1]]
    wanted = {"name": name, "role": role, "expires_in_seconds": seconds}
    made = session.write("POST", "/tokens", body=wanted)
    emit(session, made, lambda: [made["token"]])
    if session.is_table:
        until = "until it is revoked" if made["expires_at"] is None else f"until {when(made['expires_at'])}"
        click.echo(f"sluice: token {name} is {role}, {until}; it is not shown again", err=True)


@token.command("list", example="sluice token list")
@pass_session
def list_(session: Session) -> None:
    """List all tokens, without their secrets."""
    header = ("name", "role", "created", "by", "expires", "over")

    def row(item: dict[str, Any]) -> tuple[object, ...]:
        ends = "never" if item["expires_at"] is None else when(item["expires_at"])
        return item["name"], item["role"], when(item["created_at"]), item["created_by"], ends, item["expired"]

    document = session.client.call("GET", "/tokens").document
    emit(session, document, lambda: table(header, map(row, document["items"])))


@token.command(example="sluice token revoke ci")
@click.argument("names", type=Named(), nargs=-1, required=True, metavar="NAME...")
@pass_session
def revoke(session: Session, names: tuple[str, ...]) -> None:
    """Revoke tokens, so that nobody gets in with them any more."""
    for name in names:
        session.write("DELETE", f"/tokens/{quoted(name)}")
        if session.is_table:
            click.echo(f"token {name} is revoked")


@click.command(
    cls=Command, example='sluice audit --refused\nsluice audit --actor "token ci" --limit 500 -o json'
)
@click.option(
    "--limit", type=click.IntRange(1, 10000), default=50, show_default=True, help="How many to show."
)
@click.option("--all", "everything", is_flag=True, help="Show all.")
@click.option("--actor", type=Named(), help='Only actions of this caller: "uid 0", "token ci".')
@click.option("--refused/--done", default=None, help="Only what was refused, or only what was accepted.")
@pass_session
def audit(session: Session, limit: int, everything: bool, actor: str | None, refused: bool | None) -> None:
    """Show who wrote what, and who was refused, newest first."""
    header = ("time", "actor", "role", "from", "status", "request", "revision", "why")
    chosen = {"actor": actor, "refused": None if refused is None else str(refused).lower()}

    def row(item: dict[str, Any]) -> tuple[object, ...]:
        before, after = item["revision_before"], item["revision_after"]
        moved = None if before is None else f"{before} -> {after}" if before != after else str(after)
        asked = f"{item['method']} {item['path']}"
        who = (when(item["time"]), item["actor"], item["role"], item["origin"])
        return *who, item["status"], asked, moved, item["detail"]

    if everything:
        print_collection(session, "/audit", header, row, **chosen)
        return
    document = session.client.call("GET", "/audit", query={"limit": limit, **chosen}).document
    emit(session, document, lambda: table(header, map(row, document["items"])))


@click.command(cls=Command, example="sluice whoami")
@pass_session
def whoami(session: Session) -> None:
    """Show who the daemon takes you for, and what you may do."""
    found = session.client.call("GET", "/whoami").document

    def lines() -> Iterator[str]:
        yield from fields(
            [
                ("name", found["name"]),
                ("role", found["role"]),
                ("known by", found["by"]),
                ("until", when(found["expires_at"])),
            ]
        )

    emit(session, found, lines)

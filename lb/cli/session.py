"""What all commands share: the connection, the output format, and the click classes and types."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from lb.cli.credentials import Credentials
from lb.settings import DEFAULT_SOCKET, ENV_PREFIX

if TYPE_CHECKING:
    from lb.cli.client import Client

DEFAULT_SERVER = f"unix://{DEFAULT_SOCKET}"
FORMATS = ("table", "json", "yaml")
_NONE = Credentials()
_SCHEMES = ("unix", "http", "https")


@dataclass(slots=True)
class Session:
    """One run of the command: server is a URL, output one of FORMATS."""

    server: str = DEFAULT_SERVER
    output: str = "table"
    force: bool = False
    """Whether what is written may move more than is allowed."""
    credentials: Credentials = _NONE
    _client: "Client | None" = field(default=None, init=False)

    @property
    def client(self) -> "Client":
        """The connection, made at the first use: commands that need no daemon do not pay for the import."""
        if self._client is None:
            from lb.cli.client import Client

            self._client = Client(self.server, self.credentials)
        return self._client

    @property
    def is_table(self) -> bool:
        """Whether a person reads the output."""
        return self.output == "table"

    def write(self, method: str, path: str, **said: Any) -> Any:
        """Client.call for a change: its document. What the daemon warns of goes to standard error."""
        if self.force:
            said["query"] = {**(said.get("query") or {}), **forced(True)}
        answer = self.client.call(method, path, **said)
        for warning in answer.warnings:
            click.echo(f"sluice: warning: {warning}", err=True)
        return answer.document

    def close(self) -> None:
        """Hang up, if anything was called."""
        if self._client is not None:
            self._client.close()


pass_session = click.make_pass_decorator(Session)


def _set_output(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    session = context.find_object(Session)
    if value is not None and session is not None:
        session.output = value


def _output_option() -> click.Option:
    return click.Option(
        ["-o", "--output", "output_after"],
        type=click.Choice(FORMATS),
        expose_value=False,
        callback=_set_output,
        help="Output format; also accepted before the command, or SLUICE_OUTPUT.",
    )


class Documented(click.Command):
    """A command whose help ends with an example, one shell line after the other."""

    def __init__(self, *args: Any, example: str = "", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.example = example

    def format_epilog(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """The example as it is written, never wrapped."""
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Command(Documented):
    """A command that takes -o as well."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.append(_output_option())


class Group(Documented, click.Group):
    """A group of commands, which are Commands unless they say otherwise; it takes -o as well."""

    command_class = Command

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.append(_output_option())


class LazyGroup(Documented, click.Group):
    """A group whose commands are imported when they are called; lazy maps names to "module:attribute"."""

    def __init__(self, *args: Any, lazy: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._lazy = lazy

    def list_commands(self, _context: click.Context) -> list[str]:
        """The names, in the order in which they were given."""
        return list(self._lazy)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """The command of that name, imported now, or None."""
        if name not in self._lazy:
            return None
        module, _, attribute = self._lazy[name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; who mistyped a name is told of those that are like it."""
        try:
            return super().resolve_command(context, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=self._lazy, ctx=context) from None


class ServerUrl(click.ParamType[str]):
    """unix:///path/to/socket, http://host:port or https://host:port; a bare path means unix://."""

    name = "url"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """The URL, or a usage error."""
        text = str(value)
        if text.startswith("/"):
            return f"unix://{text}"
        scheme, separator, rest = text.partition("://")
        if (
            not separator
            or scheme not in _SCHEMES
            or not rest
            or (scheme == "unix" and not rest.startswith("/"))
        ):
            self.fail(
                f'"{text}" is not a server: write {DEFAULT_SERVER} or http://192.0.2.1:8080',
                parameter,
                context,
            )
        return text


class Named(click.ParamType[str]):
    """A name, address or prefix; never empty, as an unset shell variable would name the whole list."""

    name = "text"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """The text, or a usage error."""
        text = str(value).strip()
        if not text:
            self.fail("it is empty: give a name, an address or a prefix", parameter, context)
        return text


force_option = click.option(
    "--force",
    is_flag=True,
    help="Proceed even if it drops an address in use (yours, a gateway, a backend, a VIP), or moves too much.",
)


def forced(force: bool) -> dict[str, str | None]:
    """The query of a change that may lock somebody out."""
    return {"force": "true" if force else None}


def _set_force(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    session = context.find_object(Session)
    if session is not None:
        session.force = value


moving_option = click.option(
    "--force",
    is_flag=True,
    expose_value=False,
    callback=_set_force,
    help="Proceed even if it moves more than the setting max_moved_percent allows.",
)
"""For what changes where packets go; Session.write then says so."""


yes_option = click.option(
    "--yes", "-y", is_flag=True, help="Do not ask for confirmation. Without a terminal, nothing is asked."
)


def at_terminal() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


def confirm(question: str, yes: bool) -> None:
    """Ask whoever sits at a terminal; go on only if they agree or said --yes. A script is not asked."""
    if yes or not at_terminal():
        return
    if not click.confirm(question, err=True):
        raise click.ClickException("nothing was changed")


def envvar(option: str) -> str:
    """The environment variable of an option: "xdp-mode" is SLUICE_XDP_MODE."""
    return ENV_PREFIX + option.upper().replace("-", "_")

"""The entry point: global options, the commands by name, and errors as one line and an exit code."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lb.cli.credentials import credentials_of
from lb.cli.options import file_option
from lb.cli.session import DEFAULT_SERVER, FORMATS, LazyGroup, ServerUrl, Session, envvar
from lb.errors import SluiceError

COMMANDS = {
    "status": "lb.cli.status:status",
    "doctor": "lb.cli.doctor:doctor",
    "service": "lb.cli.service:service",
    "backend": "lb.cli.backend:backend",
    "block": "lb.cli.block:block",
    "unblock": "lb.cli.block:unblock",
    "blocklist": "lb.cli.lists:blocklist",
    "allowlist": "lb.cli.lists:allowlist",
    "rule": "lb.cli.rule:rule",
    "feed": "lb.cli.feed:feed",
    "explain": "lb.cli.explain:explain",
    "stats": "lb.cli.status:stats",
    "flows": "lb.cli.flows:flows",
    "top": "lb.cli.top:top",
    "events": "lb.cli.events:events",
    "capture": "lb.cli.capture:capture",
    "apply": "lb.cli.config:apply",
    "confirm": "lb.cli.config:confirm",
    "diff": "lb.cli.history:diff",
    "export": "lb.cli.config:export",
    "revisions": "lb.cli.history:revisions",
    "rollback": "lb.cli.history:rollback",
    "backend-setup": "lb.cli.backend_setup:backend_setup",
    "decap": "lb.cli.backend_setup:decap",
    "serve": "lb.cli.serve:serve",
    "detach": "lb.cli.serve:detach",
    "completion": "lb.cli.completion:completion",
    "recover": "lb.cli.recover:recover",
    "token": "lb.cli.access:token",
    "audit": "lb.cli.access:audit",
    "whoami": "lb.cli.access:whoami",
    "version": "lb.cli.status:version",
}
EXIT_ERROR = 1


class Root(LazyGroup):
    """The whole command: what goes wrong is said in lines that begin with "sluice:"."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and leave with the exit code; click alone deals with it where standalone_mode is False."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            result = super().main(args, prog_name, complete_var, False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "sluice"
            says = re.sub(
                r"is not a valid (integer|float)( range)?", "is not a number", error.format_message()
            )
            joint = " See" if says.endswith("?") else "; see"
            _complain([f'{says.rstrip(".")}{joint} "{path} --help"'])
            sys.exit(error.exit_code)
        except click.ClickException as error:
            _complain([error.format_message()])
            sys.exit(error.exit_code)
        except click.Abort:
            _complain(["interrupted"])
            sys.exit(EXIT_ERROR)
        except SluiceError as error:
            _complain(getattr(error, "lines", None) or [str(error)])
            sys.exit(getattr(error, "exit_code", EXIT_ERROR))
        sys.exit(result if isinstance(result, int) else 0)


def _complain(lines: list[str]) -> None:
    for line in lines:
        shown = " ".join(line.split())
        click.echo(f"sluice: {''.join(c if c.isprintable() else '?' for c in shown)}", err=True)


@click.group(
    cls=Root,
    lazy=COMMANDS,
    name="sluice",
    example=(
        "sluice service add web --vip 192.0.2.10 --port 80 --protocol tcp --backend 10.0.0.11\n"
        'sluice block 198.51.100.0/24 --ttl 1h --reason "port scan"\n'
        "sluice status"
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--server",
    type=ServerUrl(),
    default=DEFAULT_SERVER,
    show_default=True,
    envvar=envvar("server"),
    help="The daemon's address: unix://, http:// or https:// (or SLUICE_SERVER).",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    envvar=envvar("output"),
    help="Output format; also accepted after the command, or SLUICE_OUTPUT.",
)
@file_option("--token-file", "A file with a token for the daemon (or the token itself in SLUICE_TOKEN).")
@file_option("--ca-file", "Trusted CAs for an https:// server, in addition to the system's.")
@file_option("--client-cert", "A client certificate to present to it.")
@file_option("--client-key", "The certificate's key, if in a separate file.")
@click.pass_context
def cli(context: click.Context, /, server: str, output: str, **files: Path | None) -> None:
    """Balance and drop packets: control the Sluice daemon.

    Exit codes: 0 done, 1 error, 2 usage, 3 not found, 4 conflict, 5 daemon not reachable.
    """
    context.obj = Session(server, output, credentials=credentials_of(files))
    context.call_on_close(context.obj.close)


def main() -> None:
    """The `sluice` command."""
    cli(prog_name="sluice")

#!/usr/bin/env python3
"""The lab's command line: balancer, clients and backends in namespaces of one machine, with real traffic."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import rerun

if __name__ == "__main__":
    rerun.in_venv()

import click
import doorway
import inside
import lifecycle
import place
import signals
import survey
from topology import CONFIGURATIONS, Role

from lb.errors import NotFoundError, SluiceError

ERROR, NOT_FOUND = 1, 3
FOREIGN_WORDS = {"ignore_unknown_options": True, "allow_interspersed_args": True}


def fail(error: object, code: int) -> NoReturn:
    """End with one line on stderr."""
    click.echo(f"lab.py: {error}", err=True)
    sys.exit(code)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command --name, and turn what goes wrong into one line and an exit code."""

    @click.option(
        "--name",
        default="lab",
        show_default=True,
        envvar="SLUICE_LAB",
        help="Name of the lab; several can run side by side (or SLUICE_LAB).",
    )
    @wraps(function)
    def run(**arguments: Any) -> None:
        if os.geteuid() != 0:
            fail("namespaces and BPF need root: run this as root", ERROR)
        try:
            function(**arguments)
        except NotFoundError as error:
            fail(error, NOT_FOUND)
        except (SluiceError, ValueError, OSError) as error:
            fail(error, ERROR)

    return run


output = click.option(
    "-o", "output", type=click.Choice(["text", "json"]), default="text", help="Output format."
)


def show(lab: place.Lab, form: str) -> None:
    """Print a lab as it is."""
    document = survey.survey(lab)
    click.echo(json.dumps(document, indent=2) if form == "json" else survey.describe(document))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run the whole of Sluice with real traffic on one machine."""


@main.command()
@command
@output
@click.option("--config", type=click.Choice(list(CONFIGURATIONS)), default="default", show_default=True)
@click.option(
    "--daemon/--no-daemon", default=True, help="Start `sluice serve` and load the configuration's services."
)
def up(name: str, config: str, daemon: bool, output: str) -> None:
    """Make the lab; one of the same name is replaced."""
    signals.end_by_exit()
    show(lifecycle.up(name, config, daemon=daemon), output)


@main.command()
@command
@output
def down(name: str, output: str) -> None:
    """Remove the lab, also one whose `up` was killed."""
    signals.end_by_exit()
    lifecycle.down(name)
    if output == "json":
        click.echo(json.dumps({"name": name, "removed": True}))


@main.command()
@command
@output
def status(name: str, output: str) -> None:
    """Show namespaces, addresses, processes, and how to reach the daemon."""
    show(place.find(name), output)


@main.command(context_settings=FOREIGN_WORDS)
@command
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTION OF sluice serve]…")
def restart(name: str, options: tuple[str, ...]) -> None:
    """Start the daemon anew, as an upgrade does; packets go on meanwhile.

    It has the options that are given here, and no longer those of before: `lab.py restart --flow-slots 2097152`.
    """
    signals.end_by_exit()
    show(lifecycle.restart(name, options), "text")


@main.command()
@command
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="On 127.0.0.1.")
def page(name: str, port: int) -> None:
    """Open the page to this machine's browsers, until Ctrl-C.

    Whoever is on this machine is admin there meanwhile: the port leads to the daemon's unix socket, as root.
    """
    lab = place.find(name)
    says = f"http://127.0.0.1:{port}/ is the page of lab {name}; Ctrl-C ends it"
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(doorway.serve(port, lab.socket, lambda: click.echo(says, err=True)))


def split(words: tuple[str, ...]) -> tuple[int, list[str]]:
    """The number that may follow a role (1 if it does not), and the words behind."""
    if words and words[0].isdecimal():
        return int(words[0]), list(words[1:])
    return 1, list(words)


role = click.argument("role", type=click.Choice([str(known) for known in Role]))


@main.command("exec", context_settings=FOREIGN_WORDS)
@command
@role
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[N] -- COMMAND…")
def execute(name: str, role: str, words: tuple[str, ...]) -> None:
    """Run a command inside a namespace; its exit code is ours."""
    number, words_inside = split(words)
    if not words_inside:
        raise click.UsageError("name a command, as in: lab.py exec client 1 -- curl http://10.200.1.1/")
    replace_by(inside.command(place.find(name).namespace(role, number), words_inside))


@main.command(context_settings=FOREIGN_WORDS)
@command
@role
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[N] [-w FILE] [TCPDUMP ARGUMENT…]")
def capture(name: str, role: str, words: tuple[str, ...]) -> None:
    """Show the frames on a host's cable with tcpdump.

    It listens at the switch's end. Inside the host it would miss what XDP sends, drops or unwraps.
    """
    number, arguments = split(words)
    lab = place.find(name)
    lab.namespace(role, number)
    port = "any" if role == Role.SWITCH else f"{role}{number}"
    replace_by(inside.command(lab.namespace(Role.SWITCH), ["tcpdump", "-n", "-i", port, *arguments]))


def replace_by(words: list[str]) -> NoReturn:
    """Become another command."""
    sys.stdout.flush()
    try:
        os.execvp(words[0], words)
    except FileNotFoundError:
        fail(f"{words[0]} is not installed: run `apt-get install util-linux`", ERROR)


if __name__ == "__main__":
    main(prog_name="lab.py")

"""Commands that can repeat their output: --watch."""

import contextlib
import io
import sys
import time
from typing import Any

import click

from lb.cli.session import Command
from lb.errors import SluiceError

DEFAULT_SECONDS = 2.0
_LEAST_SECONDS = 0.1
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_ALL_CLEAR = "\x1b[2J"
UNREACHABLE = 5
"""The exit code of an error that may be over when it is asked again: the daemon is not reachable."""


class Watched(Command):
    """A command that takes --watch: what it prints is printed anew every so many seconds, until Ctrl-C.

    On a terminal it takes the place of what was there; elsewhere one printing follows the other. Where the daemon
    cannot be reached, that is said, and it is asked again.
    """

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.append(
            click.Option(
                ["--watch", "seconds"],
                type=click.FloatRange(min=_LEAST_SECONDS),
                is_flag=False,
                flag_value=DEFAULT_SECONDS,
                metavar="[SECONDS]",
                help=f"Print again every so many seconds ({DEFAULT_SECONDS:g}), until Ctrl-C.",
            )
        )

    def invoke(self, context: click.Context) -> Any:
        """Once, or until somebody has seen enough."""
        seconds = context.params.pop("seconds")
        if seconds is None:
            return super().invoke(context)
        screen = sys.stdout.isatty()
        if screen:
            context.color = True  # what is gathered here goes to a terminal all the same
            click.echo(_ALL_CLEAR, nl=False)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                text = self._printed(context)
                head = f"{_HOME_AND_CLEAR}every {seconds:g} s, {time.strftime('%H:%M:%S')}; Ctrl-C ends\n\n"
                click.echo(head + text if screen else text, nl=False)
                sys.stdout.flush()
                time.sleep(seconds)
        return None

    def _printed(self, context: click.Context) -> str:
        gathered = io.StringIO()
        try:
            with contextlib.redirect_stdout(gathered):
                super().invoke(context)
        except SluiceError as error:
            if getattr(error, "exit_code", None) != UNREACHABLE:
                raise
            return f"sluice: {error}\n"
        return gathered.getvalue()

"""Options that several commands have in the same words."""

from collections.abc import Callable
from pathlib import Path

import click

from lb.cli.session import envvar
from lb.settings import DEFAULT_STATE_DIR

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def file_option(name: str, says: str) -> Decorator:
    """A file that whoever opens it tells what is wrong with; also in the environment."""
    kind = click.Path(dir_okay=False, path_type=Path)
    return click.option(name, type=kind, envvar=envvar(name.removeprefix("--")), help=says)


def state_dir_option(function: Callable[..., None]) -> Callable[..., None]:
    """Where a daemon's files are."""
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_STATE_DIR,
        show_default=True,
        envvar=envvar("state-dir"),
        help="Where the daemon keeps the desired state.",
    )(function)

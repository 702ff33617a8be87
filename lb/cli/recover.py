"""sluice recover: repairs a damaged state file, in this process, while no daemon uses it."""

from pathlib import Path

import click

from lb.cli.options import state_dir_option
from lb.cli.session import Command, confirm, yes_option


@click.command(cls=Command, example="sluice recover --state-dir /var/lib/sluice")
@state_dir_option
@yes_option
def recover(state_dir: Path, yes: bool) -> None:
    """Repair a damaged state file.

    The newest revision that can be read, from the file or from the copy beside it, takes its place, without the
    history. The damaged file is kept. An intact one is left as it is.
    """
    from lb import daemon

    confirm(f"Replace the state file in {state_dir} with the newest readable revision?", yes)
    what, aside = daemon.recover(state_dir)
    click.echo(f"recovered {what}")
    click.echo(f"The damaged file is {aside}; the next start puts the recovered revision in force")

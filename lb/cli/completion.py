"""sluice completion: the script that makes a shell complete the command."""

import click

from lb.cli.session import Command

SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=Command,
    example=(
        "sluice completion bash > /etc/bash_completion.d/sluice\n"
        'sluice completion zsh > "${fpath[1]}/_sluice"\n'
        "sluice completion fish > ~/.config/fish/completions/sluice.fish"
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a shell completion script.

    It completes commands, options and names: those of services, backends, rules, feeds, entries and verdicts are
    requested from the daemon when Tab is pressed.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, shell
    click.echo(kind(context.find_root().command, {}, "sluice", "_SLUICE_COMPLETE").source())

"""The command starts quickly because it leaves heavy packages alone, and every command explains itself."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from lb.cli.main import cli

HEAVY = ("bcc", "fastapi", "httpx", "numpy", "pydantic", "pyroute2", "rich", "scapy", "uvicorn")
PROBE = """
import sys
from lb.cli.main import main
sys.argv = ["sluice", *{arguments!r}]
try:
    main()
finally:
    print("LOADED", *sys.modules, file=sys.stderr)
"""


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a run of the command has imported."""
    probe = [sys.executable, "-c", PROBE.format(arguments=arguments)]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return set(done.stderr.rsplit("LOADED", 1)[1].split())


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("version",), ("--server", "/no/such.sock", "block", "192.0.2.1"), ("serve", "--help")],
)
def test_no_heavy_package_is_imported(arguments: tuple[str, ...]) -> None:
    """Help, version, a command and even the help of serve load none of the packages the daemon needs."""
    loaded = loaded_by(*arguments)

    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("arguments", [("--help",), ("--server", "/no/such.sock", "status")])
def test_of_sluice_only_the_leaves_are_imported(arguments: tuple[str, ...]) -> None:
    """Beside itself the CLI takes errors and settings, nothing else of lb."""
    others = {
        name for name in loaded_by(*arguments) if name.startswith("lb.") and not name.startswith("lb.cli")
    }

    assert others == {"lb.errors", "lb.settings"}


def test_version_needs_no_http_and_no_metadata() -> None:
    """A command that asks the daemon nothing does not import the client, nor what reads the installed package."""
    assert loaded_by("version").isdisjoint({"http", "ssl", "importlib.metadata", "email"})


def every_command(
    group: click.Group, path: tuple[str, ...] = ("sluice",)
) -> Iterator[tuple[str, click.Command]]:
    """(its words, the command) for each, groups included."""
    yield " ".join(path), group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


@pytest.mark.parametrize(
    ("words", "command"), [pytest.param(*pair, id=pair[0]) for pair in every_command(cli)]
)
def test_every_command_has_help_with_an_example(words: str, command: click.Command) -> None:
    """The help says what it does, and ends with an example that begins with the command's own words."""
    text = command.get_help(click.Context(command, info_name=words))

    assert command.help
    assert f"Example:\n  {words}" in text


@pytest.mark.parametrize(
    ("words", "command"), [pytest.param(*pair, id=pair[0]) for pair in every_command(cli)]
)
def test_no_list_of_commands_cuts_a_sentence_off(words: str, command: click.Command) -> None:
    """On 80 columns a command's line in its group's help is a whole sentence."""
    if isinstance(command, click.Group):
        text = command.get_help(click.Context(command, info_name=words, terminal_width=80))
        assert not [line for line in text.splitlines()[1:] if line.endswith("...")]


@pytest.mark.parametrize(
    ("words", "command"), [pytest.param(*pair, id=pair[0]) for pair in every_command(cli)]
)
def test_every_command_takes_o(words: str, command: click.Command) -> None:
    """-o is accepted before and after every word."""
    assert any("-o" in parameter.opts for parameter in command.params), words

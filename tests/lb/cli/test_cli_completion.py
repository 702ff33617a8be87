"""sluice completion: what a real shell offers when Tab is pressed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_shell import Shell

ASK_BASH = """
source <("$SLUICE" completion bash)
COMP_WORDS=({words}) COMP_CWORD={at}
_sluice_completion sluice
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def offered(tmp_path: Path, server: str, *words: str) -> set[str]:
    """What bash would offer for the last of these words."""
    command = tmp_path / "sluice"
    if not command.exists():
        command.write_text(f"#!{sys.executable}\nfrom lb.cli.main import main\nmain()\n")
        command.chmod(0o755)
    quoted = " ".join(f"'{word}'" for word in words)
    done = subprocess.run(
        ["bash", "-c", ASK_BASH.format(words=quoted, at=len(words) - 1)],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLUICE": str(command),
            "SLUICE_SERVER": server,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_and_what_the_daemon_has(web: Shell, tmp_path: Path) -> None:
    """Commands, options and choices without the daemon; names of services, backends and entries from it."""
    web.ok("block", "198.51.100.0/24")

    assert offered(tmp_path, web.server, "sluice", "back") == {"backend", "backend-setup"}
    assert offered(tmp_path, web.server, "sluice", "service", "list", "--w") == {"--watch"}
    assert offered(tmp_path, web.server, "sluice", "service", "show", "") == {"web"}
    assert offered(tmp_path, web.server, "sluice", "backend", "drain", "web", "10.0.0.1") == {
        "10.0.0.11",
        "10.0.0.12",
    }
    assert offered(tmp_path, web.server, "sluice", "unblock", "") == {"198.51.100.0/24"}


def test_no_daemon_offers_no_names_and_says_nothing(tmp_path: Path) -> None:
    """Who presses Tab while the daemon is down gets no names, and no complaint among the words."""
    assert offered(tmp_path, "unix:///no/such.sock", "sluice", "service", "show", "") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(shell: str) -> None:
    """The script names the command and the variable by which it asks."""
    done = subprocess.run(
        [sys.executable, "-c", "from lb.cli.main import main; main()", "completion", shell],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "_SLUICE_COMPLETE" in done.stdout
    assert done.stderr == ""

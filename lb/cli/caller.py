"""The client address of the SSH session that a command runs in."""

import os
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

_VARIABLES = ("SSH_CONNECTION", "SSH_CLIENT")
"""What sshd sets; the client's address comes first."""
_GENERATIONS = 12


def caller_address(environ: dict[str, str] | None = None) -> str | None:
    """The client's address of the SSH session around this process; None if there is none.

    sudo and su leave the variables out: then those of the processes above are read, as far as that is allowed.
    """
    for variables in [os.environ, *_above()] if environ is None else [environ]:
        for name in _VARIABLES:
            with suppress(ValueError, IndexError):
                return str(ip_address(variables.get(name, "").split()[0].partition("%")[0]))
    return None


def _above() -> Iterator[dict[str, str]]:
    """What the processes above were started with, the nearest first."""
    pid = os.getppid()
    for _ in range(_GENERATIONS):
        folder = Path("/proc") / str(pid)
        try:
            words = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            pid = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return
        yield dict(word.split("=", 1) for word in words if "=" in word)
        if pid <= 1:
            return

"""The servers behind the balancer: real nginx and a small UDP server, one of each per backend."""

import functools
import shutil
import socket
import string
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import inside
import numpy as np
from topology import Configuration, Host, Names, Role

from lb.errors import SetupError

SERVERS = Path(__file__).resolve().parent / "servers"
BIG_FILE_BYTES = 100_000_000
READY_SECONDS = 20.0
POLL_SECONDS = 0.02


def commands(configuration: Configuration, folder: Path) -> Iterator[tuple[Host, str, list[str], Path]]:
    """Write every backend's files under folder; yields host, kind, command line and log of each server."""
    big_file = folder / "100m"
    write_big_file(big_file)
    for host in configuration.of_role(Role.BACKEND):
        run = folder / host.label
        uploads = run / "uploads"
        uploads.mkdir(parents=True)
        shutil.chown(uploads, "nobody")
        settings = run / "nginx.conf"
        settings.write_text(nginx_settings(configuration, host, run, big_file))
        yield host, "nginx", ["nginx", "-c", str(settings)], run / "nginx.log"
        echo = [sys.executable, str(SERVERS / "echo.py"), host.label, *map(str, configuration.udp_ports)]
        yield host, "echo", echo, run / "echo.log"


def nginx_settings(configuration: Configuration, host: Host, run: Path, big_file: Path) -> str:
    """The nginx configuration of one backend. Answers on all its addresses, so also on every VIP."""
    listen = "\n        ".join(
        f"listen {where}{port} backlog=8192;" for port in configuration.tcp_ports for where in ("", "[::]:")
    )
    template = string.Template((SERVERS / "nginx.conf").read_text())
    return template.substitute(
        name=host.label, run=run, uploads=run / "uploads", big_file=big_file, listen=listen
    )


def write_big_file(path: Path) -> None:
    """Random bytes, always the same: a piece that is lost, doubled or misplaced shows in the checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.random.default_rng(seed=1).bytes(BIG_FILE_BYTES))


def wait_until_ready(names: Names, configuration: Configuration) -> None:
    """Return when every server answers. SetupError if one does not within READY_SECONDS."""
    deadline = time.monotonic() + READY_SECONDS
    for host in configuration.of_role(Role.BACKEND):
        namespace = names.namespace(host.role, host.number)
        for kind, port in (
            (socket.SOCK_STREAM, configuration.tcp_ports[-1]),
            (socket.SOCK_DGRAM, configuration.udp_ports[-1]),
        ):
            while not inside.call(namespace, functools.partial(_answers, kind, port)):
                if time.monotonic() > deadline:
                    raise SetupError(
                        f"{host.label} does not answer on port {port}: run `up` again and read its log"
                    )
                time.sleep(POLL_SECONDS)


def _answers(kind: socket.SocketKind, port: int) -> bool:
    """Whether a server on this machine's own port talks to us."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(("127.0.0.1", port))
            if kind == socket.SOCK_DGRAM:
                probe.send(b"?")
                return bool(probe.recv(100))
        except OSError:
            return False
    return True

"""The daemon that the command is tested with: the real application over a twin data plane."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from cli_shell import Shell

from api.app import create_app
from lb.dataplane.twin import TwinDataPlane
from lb.feeds.schedule import Feeds
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A fresh daemon with nothing configured, and a shell that talks to it."""
    path = tmp_path / "sluice.sock"
    dataplane = TwinDataPlane()
    reconciler = Reconciler(SqliteStore(":memory:"), dataplane)
    reconciler.start()
    feeds = Feeds(reconciler)
    reconciler.listen(feeds.wake)
    feeds.start()
    server = uvicorn.Server(uvicorn.Config(create_app(reconciler, feeds), log_level="error", lifespan="off"))
    # It listens before the server runs, so that the first command need not wait for it.
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Shell(f"unix://{path}", dataplane, reconciler)
    finally:
        server.should_exit = True
        thread.join()
        feeds.stop()
        reconciler.stop()


@pytest.fixture
def web(shell: Shell) -> Shell:
    """A daemon with a service "web" of two backends, the second of weight 3."""
    shell.ok(
        *("service", "add", "web", "--vip", "192.0.2.10", "--port", "80", "--protocol", "tcp"),
        *("--backend", "10.0.0.11", "--backend", "10.0.0.12=3", "--label", "team=edge"),
    )
    return shell

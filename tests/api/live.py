"""A server for answers that go on, which a client inside the same loop cannot read: the application behind a socket."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from api.protocol import ProblemProtocol


@contextmanager
def serving(app: FastAPI, path: Path) -> Iterator[httpx.Client]:
    """A client of the application, which listens on a unix socket at the path."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    with (
        _running(app, listener),
        httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://sluice", timeout=60
        ) as client,
    ):
        yield client


@contextmanager
def serving_tcp(app: FastAPI) -> Iterator[str]:
    """The URL of the application on loopback, for programs that know no unix sockets."""
    listener = socket.create_server(("127.0.0.1", 0))
    with _running(app, listener):
        yield "http://127.0.0.1:{1}".format(*listener.getsockname())


@contextmanager
def _running(app: FastAPI, listener: socket.socket) -> Iterator[None]:
    server = uvicorn.Server(
        uvicorn.Config(
            app, http=ProblemProtocol, log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
    )
    listener.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def messages(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events, as a browser takes them apart: type, id and data; comments as {"comment"}."""
    found: dict[str, Any] = {}
    for line in lines:
        if line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif line:
            name, _, value = line.partition(": ")
            found[name] = json.loads(value) if name == "data" else value
        elif "data" in found:
            yield found
            found = {}
        elif found:
            yield {"place": found["id"]}
            found = {}

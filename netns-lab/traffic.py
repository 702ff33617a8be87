#!/usr/bin/env python3
"""Open many TCP connections or UDP flows, ask each for the backend's name, and tell which flow got which.

    lab.py exec client 1 -- netns-lab/traffic.py tcp 10.200.1.1 80 --flows 2000
    lab.py exec client 1 -- netns-lab/traffic.py udp fc00:1::1 53 --flows 20000

Prints a JSON array of {"protocol", "source", "source_port", "destination", "destination_port", "backend"};
backend is null where no answer came. `run` does the same from a program outside the namespace.
"""

import asyncio
import contextlib
import json
import resource
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import rerun

if __name__ == "__main__":
    rerun.in_venv()

import click
import inside

TCP_AT_ONCE = 100
UDP_AT_ONCE = 500
UDP_ATTEMPTS = 3
PATIENCE_SECONDS = 3.0
FIRST_PORT = 1024
REQUEST = b"GET /whoami HTTP/1.0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Flow:
    """A five-tuple, as the client sees it."""

    protocol: str
    source: str
    source_port: int
    destination: str
    destination_port: int


Answers = Mapping[Flow, str | None]
"""The backend's name by flow; None where no answer came."""


def count(answers: Answers) -> Counter[str | None]:
    """How many flows each backend got."""
    return Counter(answers.values())


def run(
    namespace: str,
    protocol: str,
    destination: str,
    port: int,
    flows: int,
    *,
    first_port: int | None = None,
    patience: float = PATIENCE_SECONDS,
) -> Answers:
    """Open flows from a namespace and wait for the answers. CalledProcessError if the client did not run.

    With a first port the source ports are that and those that follow, so that a run can be repeated exactly;
    else the kernel chooses those of TCP, and UDP begins at FIRST_PORT.
    """
    words = [sys.executable, str(Path(__file__).resolve()), protocol, destination, str(port)]
    words += ["--flows", str(flows), "--patience", str(patience)]
    words += ["--first-port", str(first_port)] if first_port is not None else []
    done = subprocess.run(inside.command(namespace, words), check=True, stdout=subprocess.PIPE)
    return {
        Flow(**flow): name
        for name, flow in ((entry.pop("backend"), entry) for entry in json.loads(done.stdout))
    }


async def tcp_flows(
    destination: str, port: int, flows: int, first_port: int | None, patience: float
) -> Answers:
    """Open so many connections, TCP_AT_ONCE at a time, from first_port and up, or from ports the kernel chooses.

    A port that is taken is replaced by the one `flows` further on, so that no two connections have the same.
    """
    answers: dict[Flow, str | None] = {}
    turn = asyncio.Semaphore(TCP_AT_ONCE)

    async def ask(source_port: int) -> None:
        async with turn:
            flow, name = await _ask_by_tcp(destination, port, range(source_port, 65536, flows), patience)
            answers[flow] = name

    async with asyncio.TaskGroup() as group:
        for at in range(flows):
            group.create_task(ask(0 if first_port is None else first_port + at))
    return answers


async def _ask_by_tcp(
    destination: str, port: int, source_ports: range, patience: float
) -> tuple[Flow, str | None]:
    """One connection, from the first of these ports that is free; 0 is any."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        if source_ports[0]:
            # One that lingers in TIME_WAIT will do.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for source_port in source_ports:
                with contextlib.suppress(OSError):
                    client.bind(("", source_port))
                    break
        name = None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience):
                await loop.sock_connect(client, (destination, port))
                await loop.sock_sendall(client, REQUEST)
                answer = b""
                while piece := await loop.sock_recv(client, 4096):
                    answer += piece
                name = answer.partition(b"\r\n\r\n")[2].decode().strip() or None
        except (OSError, TimeoutError):
            pass
        source, source_port = client.getsockname()[:2]
    return Flow("tcp", source, source_port, destination, port), name


def udp_flows(destination: str, port: int, flows: int, first_port: int, patience: float) -> Answers:
    """One datagram each from so many source ports, first_port and up. OSError if a port is taken."""
    answers: dict[Flow, str | None] = {}
    ports = range(first_port, first_port + flows)
    for at in range(0, flows, UDP_AT_ONCE):
        answers |= _ask_by_udp(destination, port, ports[at : at + UDP_AT_ONCE], patience)
    return answers


def _ask_by_udp(destination: str, port: int, source_ports: Iterable[int], patience: float) -> Answers:
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    answers: dict[Flow, str | None] = {}
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for source_port in source_ports:
            client = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            client.setblocking(False)
            with contextlib.suppress(OSError):  # taken: then any port will do
                client.bind(("", source_port))
            client.connect((destination, port))
            flow = Flow("udp", client.getsockname()[0], source_port, destination, port)
            answers[flow] = None
            selector.register(client, selectors.EVENT_READ, flow)
        for _ in range(UDP_ATTEMPTS):
            if selector.get_map():
                _send_and_receive(selector, answers, patience / UDP_ATTEMPTS)
    return answers


def _send_and_receive(
    selector: selectors.BaseSelector, answers: dict[Flow, str | None], seconds: float
) -> None:
    """Ask from every socket of the selector; those that are answered leave it."""
    for key in selector.get_map().values():
        with contextlib.suppress(OSError):  # an ICMP error that answers what was sent before
            cast(socket.socket, key.fileobj).send(b"whoami")
    deadline = time.monotonic() + seconds
    while selector.get_map() and (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            client = cast(socket.socket, key.fileobj)
            with contextlib.suppress(OSError):
                answers[key.data] = client.recv(4096).partition(b"\n")[0].decode()
                selector.unregister(client)


@click.command()
@click.argument("protocol", type=click.Choice(["tcp", "udp"]))
@click.argument("destination")
@click.argument("port", type=int)
@click.option("--flows", default=1, show_default=True)
@click.option(
    "--first-port", type=int, help=f"The first source port; default: {FIRST_PORT} for UDP, any for TCP."
)
@click.option(
    "--patience", default=PATIENCE_SECONDS, show_default=True, help="Seconds to wait for an answer."
)
def main(
    *, protocol: str, destination: str, port: int, flows: int, first_port: int | None, patience: float
) -> None:
    """Ask for the backend's name on many flows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if protocol == "tcp":
        answers = asyncio.run(tcp_flows(destination, port, flows, first_port, patience))
    else:
        answers = udp_flows(destination, port, flows, first_port or FIRST_PORT, patience)
    json.dump([{**asdict(flow), "backend": name} for flow, name in answers.items()], sys.stdout)


if __name__ == "__main__":
    main(prog_name="traffic.py")

"""Many callers that write at once: how long the daemon takes for each write, all of them together."""

import asyncio
import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import cases, figures
from benchmarks.daemon import Daemon
from benchmarks.figures import Figure
from lb.errors import SluiceError

WRITERS = 8
BACKENDS = 3
TURN = 10
"""Writes of a caller's turn: six of entries, three of weights, one of labels."""
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")

Request = tuple[str, str, Any]
"""Method, path and body."""


def turn_of(writer: int, turn: int, backends: list[str]) -> Iterator[Request]:
    """The writes of a caller's turn, which begin with 0. What it blocks it lets go of in its next one."""
    service = f"/v1/services/tcp-{writer}"
    for part in range(3):
        yield "POST", "/v1/blocklist", {"prefix": _source(writer, turn, part), "reason": "bench"}
        if turn:
            yield "DELETE", f"/v1/blocklist/{_source(writer, turn - 1, part)}", None
        else:
            yield "POST", "/v1/blocklist", {"prefix": _source(writer, turn, part), "reason": "again"}
        yield "PATCH", f"{service}/backends/{backends[part]}", {"weight": 1 + (7 * turn + part + 1) % 97}
    yield "PATCH", service, {"labels": {"turn": str(turn)}}


def _source(writer: int, turn: int, part: int) -> str:
    return cases.source_of(cases.FIRST_PREFIX + (3 * turn + part) * WRITERS + writer)


def writes_at_once(daemon: Daemon, turns: Iterable[int]) -> dict[str, Figure]:
    """So many callers, each with a connection of its own and its next write once the last was answered.

    In milliseconds a write, of all callers together: a sample is a turn of everybody. SluiceError.
    """
    backends = daemon.cable.hosts(BACKENDS)
    daemon.apply(cases.services_of(cases.Setup(protocols=("tcp",)), backends, count=WRITERS))
    samples = asyncio.run(_turns(daemon.socket, backends, turns))
    return {"api_write_8_writers": figures.of_samples(samples)}


async def _turns(path: Path, backends: list[str], turns: Iterable[int]) -> list[float]:
    streams = [await asyncio.open_unix_connection(str(path)) for _ in range(WRITERS)]
    samples = []
    try:
        for turn in turns:
            requests = [list(turn_of(writer, turn, backends)) for writer in range(WRITERS)]
            begin = time.perf_counter()
            await asyncio.gather(*map(_write, streams, requests))
            samples.append((time.perf_counter() - begin) * 1e3 / (WRITERS * TURN))
    finally:
        for _, writer in streams:
            writer.close()
    return samples


async def _write(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], requests: list[Request]) -> None:
    reader, writer = stream
    for method, path, body in requests:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: sluice\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(answer)
        said = await reader.readexactly(int(length[1])) if length else b""
        if not answer.startswith(b"HTTP/1.1 2"):
            raise SluiceError(f"the daemon refuses {method} {path}: {answer[:15]!r} {said[:400]!r}")

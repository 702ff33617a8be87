"""Clients that check every answer, inside one client's namespace; runs as a process of its own.

    load.py '{"targets": [["10.200.1.1", 80], …], "kept": 16, "fresh_per_second": 20}'

Prints one JSON object a line, a few a second, until stdin is closed:
{"done": requests that were answered since the last line, "fresh": [[backend, when it began], …], "faults": [Fault, …]}
"""

import asyncio
import contextlib
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

PATIENCE_SECONDS = 60.0
"""Longer than TCP takes to send again what was lost while a cable was cut."""
PAUSE_SECONDS = 0.1
REPORT_SECONDS = 0.25
_LENGTH = re.compile(rb"(?i)content-length: (\d+)")
NAMES = re.compile(r"backend\d+")


class Load:
    """What the clients have seen since the last report."""

    def __init__(self, targets: list[tuple[str, int]], kept: int, fresh_per_second: float) -> None:
        self._targets, self._kept, self._pace = targets, kept, fresh_per_second
        self._done = 0
        self._fresh: list[tuple[str, float]] = []
        self._faults: list[dict[str, Any]] = []
        self._stopping = False

    async def run(self) -> None:
        """Until stdin ends; every request that is under way comes to its end."""
        targets = itertools.cycle(self._targets)
        clients = [asyncio.ensure_future(self._keep_asking(*next(targets))) for _ in range(self._kept)]
        opener = asyncio.ensure_future(self._open_and_close(targets))
        reporter = asyncio.ensure_future(self._report())
        await asyncio.to_thread(sys.stdin.read)
        self._stopping = True
        await asyncio.gather(*clients, opener)
        reporter.cancel()
        self._print()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self._print()

    def _print(self) -> None:
        line = {"done": self._done, "fresh": self._fresh, "faults": self._faults}
        self._done, self._fresh, self._faults = 0, [], []
        print(json.dumps(line), flush=True)

    async def _keep_asking(self, vip: str, port: int) -> None:
        """One connection after the other; each lives until it fails, or a hundred answers and more have come."""
        lifetimes = itertools.cycle((200, 45, 900))
        while not self._stopping:
            backend: str | None = None
            began = time.monotonic()
            try:
                reader, writer = await self._open(vip, port)
                with contextlib.closing(writer):
                    for _ in range(next(lifetimes)):
                        began = time.monotonic()
                        name = await self._ask(reader, writer, vip)
                        if backend is not None and name != backend:
                            self._fault("misplaced", began, backend, f"{name} answered for {vip}")
                            break
                        backend = name
                        self._done += 1
                        if self._stopping:
                            break
                        await asyncio.sleep(PAUSE_SECONDS)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self._fault(_kind(error), began, backend, f"{vip}: {error!r}")
                await asyncio.sleep(PAUSE_SECONDS)

    async def _open_and_close(self, targets: Iterator[tuple[str, int]]) -> None:
        """A connection for one request, so many a second."""
        under_way: set[asyncio.Task[None]] = set()
        while not self._stopping:
            task = asyncio.ensure_future(self._once(*next(targets)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(1 / self._pace)
        await asyncio.gather(*under_way)

    async def _once(self, vip: str, port: int) -> None:
        began = time.monotonic()
        try:
            reader, writer = await self._open(vip, port)
            with contextlib.closing(writer):
                self._fresh.append((await self._ask(reader, writer, vip), began))
                self._done += 1
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self._fault(_kind(error), began, None, f"{vip}: {error!r}")

    async def _open(self, vip: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.open_connection(vip, port)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, vip: str) -> str:
        host = f"[{vip}]" if ":" in vip else vip
        async with asyncio.timeout(PATIENCE_SECONDS):
            writer.write(f"GET /whoami HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if not head.startswith(b"HTTP/1.1 200 ") or length is None:
                raise ValueError(f"the answer begins with {head[:40]!r}")
            body = (await reader.readexactly(int(length[1]))).decode(errors="replace")
        name = body.removesuffix("\n")
        if not NAMES.fullmatch(name):
            raise ValueError(f"the answer is {body[:40]!r}")
        return name

    def _fault(self, kind: str, began: float, backend: str | None, detail: str) -> None:
        ended = time.monotonic()
        fault = {"kind": kind, "began": began, "ended": ended, "backend": backend, "detail": detail}
        self._faults.append(fault)


def _kind(error: Exception) -> str:
    """closed: the other end said no, or ended the connection; lost: nothing came; wrong: an answer that is none."""
    if isinstance(error, TimeoutError):
        return "lost"
    return "wrong" if isinstance(error, ValueError) else "closed"


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    asyncio.run(Load([tuple(t) for t in asked["targets"]], asked["kept"], asked["fresh_per_second"]).run())

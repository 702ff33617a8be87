"""Writes while many follow the events: how long a write takes, and how soon the last reader has heard of it."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import cases, figures
from benchmarks.figures import Figure
from lb.errors import SluiceError

READERS = 200
PATIENCE_SECONDS = 60.0
_REQUEST = b"GET /v1/events?kind=config HTTP/1.1\r\nHost: sluice\r\nAccept: text/event-stream\r\n\r\n"

Call = Callable[[str, str, Any], Any]


@dataclass(slots=True)
class Crowd:
    """Who follows. heard: when readers had a revision, by revision, in the order in which they had it."""

    readers: int
    following: int = 0
    heard: dict[int, list[float]] = field(default_factory=dict)
    all_follow: threading.Event = field(default_factory=threading.Event)

    def has_heard(self, revision: int) -> bool:
        """Whether all have."""
        return len(self.heard.get(revision, ())) == self.readers

    async def follow(self, path: Path) -> None:
        """One reader, until it is cancelled."""
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(_REQUEST)
        is_new = True
        try:
            while line := await reader.readline():
                if line.startswith(b"id: ") and is_new:
                    is_new = False
                    self.following += 1
                    if self.following == self.readers:
                        self.all_follow.set()
                elif line.startswith(b"data: "):
                    revision = json.loads(line[6:])["facts"]["revision"]
                    self.heard.setdefault(revision, []).append(time.perf_counter())
        finally:
            writer.close()


@contextmanager
def crowd_at(path: Path, readers: int) -> Iterator[Crowd]:
    """So many readers of the events of the daemon at a socket, all of them in one thread. SluiceError."""
    crowd, loop = Crowd(readers), asyncio.new_event_loop()

    async def follow() -> None:
        await asyncio.gather(*(crowd.follow(path) for _ in range(readers)))

    main = loop.create_task(follow())

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(main)
        loop.close()

    thread = threading.Thread(target=run, name="readers")
    thread.start()
    try:
        if not crowd.all_follow.wait(PATIENCE_SECONDS):
            raise SluiceError(f"{crowd.following} of {readers} readers follow the events, and no more")
        yield crowd
    finally:
        loop.call_soon_threadsafe(main.cancel)
        thread.join()


def writes_with_readers(
    call: Call, path: Path, numbers: Iterable[int], readers: int = READERS
) -> dict[str, Figure]:
    """Sources blocked one after another while so many follow; in milliseconds.

    A write: from the call to its answer. An event: from that answer until the last reader has it, 0 if it had before.
    """
    writes: list[float] = []
    answered: dict[int, float] = {}
    with crowd_at(path, readers) as crowd:
        revision = call("GET", "/v1/status", None)["revision"]
        for number in numbers:
            begin = time.perf_counter()
            call("POST", "/v1/blocklist", {"prefix": f"{cases.source_of(number)}/32"})
            revision += 1
            answered[revision] = time.perf_counter()
            writes.append(answered[revision] - begin)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not all(map(crowd.has_heard, answered)):
            if time.monotonic() > deadline:
                raise SluiceError(f"{PATIENCE_SECONDS:.0f} s later some readers have not heard of all writes")
            time.sleep(0.01)
    lags = [max(0.0, crowd.heard[revision][-1] - at) for revision, at in answered.items()]
    return {
        "api_write_200_readers": figures.of_samples([s * 1e3 for s in writes], tail=True),
        "event_to_last_reader": figures.of_samples([s * 1e3 for s in lags], tail=True),
    }

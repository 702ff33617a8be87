"""What becomes of entries beside a million others: blocked under a flood, ended by their TTL, owned by several.

Every figure is exact first: a list that holds other prefixes than it should is an error, not a slow case.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from generate import Generator, interface_index, make_template

from benchmarks import cases, figures
from benchmarks.cases import FIRST_PREFIX
from benchmarks.daemon import Daemon
from benchmarks.effort import Effort
from benchmarks.figures import Figure
from lb.errors import SluiceError

MILLION = 1_000_000
BESIDE = FIRST_PREFIX + 2 * MILLION
"""The first number of those that are blocked beside a million."""
TIMED = 10_000
TTLS = (3, 4, 5, 6)
SHIFT = 100_000
"""So many prefixes of each owner's million the one before has not."""
_PATIENCE_SECONDS = 15.0

See = Callable[[int, str], None]
"""Return when packets of the source of a number are dropped, or pass."""


def under_flood(daemon: Daemon, effort: Effort, see: See) -> dict[str, Figure]:
    """One prefix after another beside a million, while one core does nothing but send packets that are dropped."""
    daemon.block(MILLION)
    samples: list[float] = []
    end = time.monotonic() + effort.seconds
    with _flood(daemon):
        for number in range(BESIDE, BESIDE + effort.samples):
            see(number, "pass")
            begin = time.perf_counter()
            daemon.call("POST", "/v1/blocklist", {"prefix": f"{cases.source_of(number)}/32"})
            see(number, "drop")
            samples.append((time.perf_counter() - begin) * 1e3)
            if time.monotonic() > end:
                break
    return {"block_beside_1m_under_flood": figures.of_samples(samples, tail=True)}


@contextmanager
def _flood(daemon: Daemon) -> Iterator[None]:
    """Frames of a blocked source into the interface, from one core, as fast as it can."""
    macs = ("02:00:00:fa:00:00", daemon.cable.mac)
    source = cases.source_of(FIRST_PREFIX)
    template = make_template("udp", source, 1024, cases.NO_VIP, 80, macs=macs, length=64)
    generator = Generator(template, interface_index(daemon.cable.far), ports=1000)
    over = threading.Event()

    def send() -> None:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # of this thread alone
        while not over.is_set():
            generator.send(1 << 18)

    thread = threading.Thread(target=send)
    before = daemon.cable.received()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if daemon.cable.received() == before:
        raise SluiceError("the flood did not reach the balancer")


def expiries(daemon: Daemon, effort: Effort, see: See) -> dict[str, Figure]:
    """10,000 entries of different TTLs beside a million: how late the packets of each pass again."""
    daemon.block(MILLION)
    late: list[float] = []
    for _ in range(effort.repeats):
        items = [
            {"prefix": f"{cases.source_of(BESIDE + n)}/32", "ttl_seconds": TTLS[n % len(TTLS)]}
            for n in range(TIMED)
        ]
        made: dict[str, Any] = daemon.call("POST", "/v1/blocklist", items)
        ends = {item["prefix"]: item["expires_at"] for item in made["items"]}
        for n in range(len(TTLS)):
            number = BESIDE + TIMED - len(TTLS) + n
            see(number, "drop")
            see(number, "pass")
            end = ends[f"{cases.source_of(number)}/32"]
            late.append(time.time() - datetime.fromisoformat(end).timestamp())
        _expect(daemon, MILLION)
    return {"expire_10k": figures.of_samples(late)}


def lifecycle(daemon: Daemon, effort: Effort, see: See, folder: Path) -> dict[str, Figure]:
    """A million prefixes of each of three owners, which overlap, and 10,000 with TTLs; one owner leaves."""
    owners = ("operator", "crowdsec", "feed:b")
    samples: list[float] = []
    for _ in range(effort.repeats):
        paths = []
        for n in range(len(owners)):
            paths.append(folder / f"owner-{n}.txt")
            paths[-1].write_text(cases.prefixes_text(MILLION, FIRST_PREFIX + n * SHIFT))
        begin = time.perf_counter()
        for path, owner in zip(paths, owners, strict=True):
            daemon.sluice("blocklist", "import", str(path), "--owner", owner)
        _expect(daemon, MILLION + 2 * SHIFT)
        items = [
            {"prefix": f"{cases.source_of(BESIDE + n)}/32", "ttl_seconds": 1 + n % 2, "owner": "fail2ban"}
            for n in range(TIMED)
        ]
        daemon.call("POST", "/v1/blocklist", items)
        see(BESIDE, "drop")
        daemon.sluice("blocklist", "clear", "--owner", owners[0], "--yes")
        see(FIRST_PREFIX, "pass")
        see(FIRST_PREFIX + SHIFT, "drop")
        see(BESIDE + 1, "pass")
        _expect(daemon, MILLION + SHIFT)
        samples.append(time.perf_counter() - begin)
        daemon.sluice("blocklist", "clear", "--all", "--yes")
        _expect(daemon, 0)
    return {"entries_lifecycle": figures.of_samples(samples)}


def _expect(daemon: Daemon, total: int) -> None:
    """SluiceError unless the blocklist has, or soon has, so many prefixes."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (found := daemon.call("GET", "/v1/blocklist?limit=1")["total"]) != total:
        if time.monotonic() > deadline:
            raise SluiceError(f"the blocklist holds {found} prefixes, and should hold {total}")

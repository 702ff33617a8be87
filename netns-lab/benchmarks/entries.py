"""What becomes of entries among a million: blocked under a flood, ended by their TTL, from feeds that overlap.

Every figure is exact first: a list that holds other prefixes than it should is an error, not a slow case.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from generate import Generator, interface_index, make_template

from benchmarks import cases, figures
from benchmarks.cases import FIRST_PREFIX
from benchmarks.daemon import Daemon
from benchmarks.effort import Effort
from benchmarks.figures import Figure
from lb.dataplane import libbpf
from lb.errors import SluiceError

MILLION = 1_000_000
BESIDE = FIRST_PREFIX + 2 * MILLION
"""The first number of those that are blocked beside a million."""
TIMED = 10_000
TTLS = (3, 4, 5, 6)
FEEDS = {"a": (FIRST_PREFIX, 500_001), "b": (250_001, 850_001), "c": (700_001, 1_000_001)}
"""The numbers of the prefixes of three feeds: a million in all, of which 400,000 are in two."""
HITS = 3_000
_MAC = "02:00:00:fa:00:00"
_PATIENCE_SECONDS = 15.0

Numbers = npt.NDArray[np.int64]
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
    macs = (_MAC, daemon.cable.mac)
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
    """A million entries from three feeds that overlap, and 10,000 with TTLs: imported, hit, ended, refreshed, removed.

    After each step the prefixes on the blocklist, and the packets that each feed decided, are those of a model.
    """
    samples: list[float] = []
    for _ in range(effort.repeats):
        begin = time.perf_counter()
        held = {name: np.arange(*numbers) for name, numbers in FEEDS.items()}
        for name, numbers in held.items():
            _feed(daemon, folder, name, numbers)
        _compare(daemon, held)
        items = [
            {"prefix": f"{cases.source_of(BESIDE + n)}/32", "ttl_seconds": 1 + n % 2, "owner": "fail2ban"}
            for n in range(TIMED)
        ]
        daemon.call("POST", "/v1/blocklist", items)
        see(BESIDE, "drop")
        _hit(daemon, held)
        see(BESIDE + 1, "pass")
        _expect(daemon, MILLION)
        held["b"] = held["b"][: len(held["b"]) * 3 // 5]
        _feed(daemon, folder, "b", held["b"])
        _compare(daemon, held)
        del held["a"]
        daemon.sluice("feed", "remove", "a", "--yes")
        _compare(daemon, held)
        for name in held:
            daemon.sluice("feed", "remove", name, "--yes")
        _expect(daemon, 0)
        samples.append(time.perf_counter() - begin)
    return {"entries_lifecycle": figures.of_samples(samples)}


def _feed(daemon: Daemon, folder: Path, name: str, numbers: Numbers) -> None:
    """Make a feed's list these prefixes, and have it refreshed. SluiceError if that fails."""
    path = folder / f"feed-{name}.txt"
    path.write_text(cases.prefixes_text(len(numbers), int(numbers[0])))
    daemon.call("PUT", f"/v1/feeds/{name}", {"file": str(path), "allow_protected": True})
    daemon.call("POST", f"/v1/feeds/{name}/refresh?wait_seconds=30")


def _compare(daemon: Daemon, held: Mapping[str, Numbers]) -> None:
    """SluiceError unless the blocklist holds these feeds' prefixes and no others."""
    wanted = np.unique(np.concatenate([cases.networks(numbers) for numbers in held.values()]))
    _expect(daemon, len(wanted))
    text = daemon.sluice("blocklist", "export")
    found = np.unique(np.frombuffer(b"".join(map(_packed, text.split())), ">u4"))
    if not np.array_equal(found, wanted):
        raise SluiceError(
            f"of {len(wanted)} prefixes {np.setxor1d(found, wanted).size} are not as they should be"
        )
    for name, numbers in held.items():
        entries = daemon.call("GET", f"/v1/feeds/{name}")["observed"]["entries"]
        if entries != len(numbers):
            raise SluiceError(f"feed {name} holds {entries} prefixes, and should hold {len(numbers)}")


def _packed(prefix: str) -> bytes:
    return socket.inet_aton(prefix.partition("/")[0])


def _hit(daemon: Daemon, held: Mapping[str, Numbers]) -> None:
    """A packet from each of some prefixes: each feed decided those that no feed before it, by name, holds."""
    before = {name: _packets(daemon, name) for name in held}
    chosen = np.random.default_rng(1).choice(
        np.unique(np.concatenate(list(held.values()))), HITS, replace=False
    )
    program = daemon.program()
    try:
        for number in chosen.tolist():
            source = cases.source_of(number)
            frame = make_template(
                "udp", source, 1024, cases.NO_VIP, 80, macs=(_MAC, daemon.cable.mac), length=64
            )
            libbpf.test_run(program, bytes(frame.frame), 1)
    finally:
        os.close(program)
    left = chosen
    for name in sorted(held):
        mine = np.isin(left, held[name])
        rose = _packets(daemon, name) - before[name]
        if rose != int(mine.sum()):
            raise SluiceError(
                f"feed {name} decided {rose} packets, and should have decided {int(mine.sum())}"
            )
        left = left[~mine]


def _packets(daemon: Daemon, feed: str) -> int:
    return int(daemon.call("GET", f"/v1/feeds/{feed}")["observed"]["packets"])


def _expect(daemon: Daemon, total: int) -> None:
    """SluiceError unless the blocklist has, or soon has, so many prefixes."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (found := daemon.call("GET", "/v1/blocklist?limit=1")["total"]) != total:
        if time.monotonic() > deadline:
            raise SluiceError(f"the blocklist holds {found} prefixes, and should hold {total}")

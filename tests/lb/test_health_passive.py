"""Passive health: what the packet path has counted becomes what is shown, and a vote where it has one."""

import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from lb.events import Events
from lb.health.checker import Checker
from lb.health.dial import Dialer
from lb.health.passive import PassiveWatch
from lb.health.probes import Outcome
from lb.health.target import Target
from lb.model import Service
from lb.model.health import Passive
from lb.model.standing import Standing

ONE, TWO = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
PATIENCE_SECONDS = 60.0


class Counts:
    """Totals that a test sets."""

    def __init__(self) -> None:
        self.totals = {ONE: (100, 100), TWO: (0, 0)}

    def __call__(self, service: str) -> dict[bytes, tuple[int, int]]:
        return dict(self.totals)


@pytest.fixture
def counts() -> Iterator[Counts]:
    yield Counts()


def test_a_window_is_what_came_since_the_last(counts: Counts) -> None:
    """The first look finds nothing; then it is the difference, and never less than none."""
    watch = PassiveWatch(counts)
    assert watch.look("web", Passive()) == {("web", ONE): (0, 0), ("web", TWO): (0, 0)}
    counts.totals = {ONE: (107, 101), TWO: (0, 3)}
    assert watch.look("web", Passive()) == {("web", ONE): (7, 1), ("web", TWO): (0, 3)}
    counts.totals = {ONE: (2, 0), TWO: (0, 3)}
    assert watch.look("web", Passive()) == {("web", ONE): (0, 0), ("web", TWO): (0, 0)}


def test_a_vote_is_over_a_threshold(counts: Counts) -> None:
    """So many within a window speak against a backend, until a window is better; without a vote nothing does."""
    watch, wanted = PassiveWatch(counts), Passive(vote=True, syn_retries=5, unreachables=3)
    watch.look("web", wanted)
    counts.totals = {ONE: (104, 100), TWO: (5, 0)}
    watch.look("web", wanted)
    assert watch.against(("web", ONE)) is None
    assert "repeated 5 SYNs in 10 s" in str(watch.against(("web", TWO)))
    counts.totals = {ONE: (104, 103), TWO: (5, 0)}
    watch.look("web", wanted)
    assert "3 ICMP unreachables" in str(watch.against(("web", ONE)))
    assert watch.against(("web", TWO)) is None
    watch.look("web", Passive(vote=False))
    assert watch.against(("web", ONE)) is None
    counts.totals = {ONE: (200, 200), TWO: (200, 200)}
    watch.look("web", Passive(vote=False))
    assert watch.against(("web", ONE)) is None
    watch.forget("web")
    assert watch.look("web", wanted)["web", ONE] == (0, 0)


def test_vote_takes_a_backend_out_though_its_checks_are_good(counts: Counts) -> None:
    """While clients send SYNs again each check counts as bad, with the reason; it is shown, and ends with them."""

    async def good(target: Target, _: Dialer) -> Outcome:
        return Outcome(True, None, 0.001)

    events = Events()
    checker = Checker(events=events, passive=counts, probe=good)
    passive = {"vote": True, "syn_retries": 5, "window_seconds": 1}
    service = Service.model_validate(
        {
            "name": "web",
            "vip": "192.0.2.1",
            "port": 80,
            "protocol": "tcp",
            "health_check": {
                "type": "tcp", "interval_seconds": 0.1, "timeout_seconds": 0.1, "fall": 2, "passive": passive,
            },
            "backends": [{"address": str(ip_address(ONE))}, {"address": str(ip_address(TWO))}],
        }
    )  # fmt: skip
    told, over = threading.Semaphore(0), threading.Event()

    class Follower:
        def follow_health(self) -> None:
            told.release()

    def worse() -> None:
        while not over.wait(0.02):
            counts.totals[ONE] = counts.totals[ONE][0] + 10, 100

    checker.start([service], Follower())
    getting_worse = threading.Thread(target=worse)
    getting_worse.start()
    try:
        while checker.book.standing_of(service) != Standing({ONE: 0}):
            assert told.acquire(timeout=PATIENCE_SECONDS)
        report = checker.book.reports("web")[ONE]
        assert "SYNs in 1 s" in (report.error or "")
        assert (report.syn_retries or 0) >= 5
        assert checker.book.reports("web")[TWO].syn_retries == 0
    finally:
        over.set()
        getting_worse.join()
    while checker.book.standing_of(service).is_out(ONE):
        assert told.acquire(timeout=PATIENCE_SECONDS)
    checker.stop()
    assert [e.kind for e in events.since(0)] == ["backend.down", "backend.up"]

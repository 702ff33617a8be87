"""A daemon that goes on for long: clocks that are set, and writes without end."""

import gc
import threading
import warnings
from pathlib import Path

import pytest
from test_reconcile import Clock, House, block, service

from lb.dataplane.twin import TwinDataPlane
from lb.model import Prefix
from lb.reconcile.loop import TRIM_AFTER_SECONDS, Reconciler
from lb.store import SqliteStore

DAY = 86400.0


@pytest.fixture
def house() -> House:
    return House()


def blocked(house: House) -> list[str]:
    """Which of the prefixes that tests block are on the list now."""
    layer = house.reconciler.desired.config.blocklist.layer("operator")
    return [f"198.51.100.{n}" for n in (7, 8, 9, 10) if layer.get(Prefix.parse(f"198.51.100.{n}"))]


def test_clock_that_is_set_forward(house: House) -> None:
    """What has a deadline is over once the clock is past it; what has none stays, and changes go on."""
    house.change(lambda config: config.with_service(service()))
    house.change(block("198.51.100.7"))
    house.change(block("198.51.100.8", ttl_seconds=3600, expires_at=house.clock.now + 3600))

    house.clock.now += DAY
    house.change(block("198.51.100.9"))

    assert blocked(house) == ["198.51.100.7", "198.51.100.9"]
    assert house.reconciler.readiness() == []
    house.reconciler.stop()


def test_clock_that_is_set_back(house: House) -> None:
    """Nothing is over, changes go on, and the loop neither spins nor sleeps for the difference."""
    house.change(block("198.51.100.8", ttl_seconds=60, expires_at=house.clock.now + 60))

    house.clock.now -= DAY
    house.change(block("198.51.100.9"))

    assert blocked(house) == ["198.51.100.8", "198.51.100.9"]
    assert 0 < house.reconciler._pause() <= TRIM_AFTER_SECONDS
    house.clock.now += DAY + 61
    house.change(block("198.51.100.10"))
    assert blocked(house) == ["198.51.100.9", "198.51.100.10"]
    house.reconciler.stop()


def test_writes_without_end_leave_nothing_behind(tmp_path: Path) -> None:
    """Hundreds of changes beyond what history keeps: revisions, file, threads and objects are no more than before."""
    with warnings.catch_warnings(action="ignore"):
        gc.collect()  # what other tests have left to it is not this one's
    path = tmp_path / "state.db"
    store = SqliteStore(path, keep=30)
    control = Reconciler(store, TwinDataPlane(), clock=Clock())
    control.start()

    def write(count: int) -> tuple[int, int, int]:
        for at in range(count):
            control.change(
                lambda config, weight=at % 7 + 1: config.with_service(
                    service(backends=[{"address": "10.0.0.11", "weight": weight}, {"address": "10.0.0.12"}])
                ),
                actor="test",
                summary="test",
            )
        gc.collect()
        assert store._connection is not None
        store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.stat().st_size, threading.active_count(), len(gc.get_objects())

    write(60)  # history is full from here on
    size, threads, objects = write(40)
    later = write(120)
    kept = len(control.history.revisions(1000))
    control.stop()
    store.close()

    assert 30 <= kept <= 32
    assert later[0] <= 1.5 * size
    assert later[1] <= threads
    # Events are kept by the thousand, a few objects each.
    assert later[2] - objects < 120 * 15

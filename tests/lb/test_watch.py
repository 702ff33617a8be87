"""Who looks at packets, over the twin: what is asked of the packet path, who gets what, and what is lost."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from service_samples import service  # type: ignore[import-not-found]

from lb.dataplane.layout import layout
from lb.dataplane.samples import RECORD
from lb.dataplane.twin import TwinDataPlane
from lb.errors import CompileError, DataPlaneError
from lb.model import Rule
from lb.reconcile import watch as watching
from lb.reconcile.loop import Reconciler
from lb.reconcile.watch import FEATURE, Watcher
from lb.store import SqliteStore

NUMBER = {v.name: v.number for v in layout().verdicts}
DROP, PASS = NUMBER["DROP_BLOCKLIST"], NUMBER["PASS_NO_SERVICE"]
NEW_FLOW = NUMBER["DROP_NEW_FLOW"]
NONE = layout().constants["NONE"]


@pytest.fixture
def plane() -> TwinDataPlane:
    return TwinDataPlane()


@pytest.fixture
def control(plane: TwinDataPlane) -> Iterator[Reconciler]:
    control = Reconciler(SqliteStore(":memory:"), plane)
    control.start()
    yield control
    control.stop()


def rows(*verdicts: int, **fields: Any) -> np.ndarray:
    found = np.zeros(len(verdicts), RECORD)
    found["verdict"], found["kind"], found["time_ns"] = verdicts, 1, time.monotonic_ns()
    found["rule"] = found["service"] = found["place"] = NONE
    for name, value in fields.items():
        found[name] = value
    return found


class Looker:
    """A watcher, and a way to wait for what it gets."""

    def __init__(self, control: Reconciler, *verdicts: int, **more: Any) -> None:
        self.woken = threading.Event()
        self.watcher: Watcher = control.watch.open(frozenset(verdicts), self.woken.set, **more)

    def got(self, number: int) -> list[int]:
        """The verdicts of so many records."""
        found: list[int] = []
        while len(found) < number:
            assert self.woken.wait(60)
            self.woken.clear()
            found += self.watcher.take()["verdict"].tolist()
        return found


def sampling(plane: TwinDataPlane) -> tuple[int, int, set[int]]:
    """What is asked of the packet path: most, bytes, verdicts."""
    row = plane.tables.arrays.watching[0]
    low, high = (int(word) for word in row["verdicts"])
    return int(row["most"]), int(row["bytes"]), {n for n in range(128) if (low | high << 64) >> n & 1}


def test_looking_asks_for_the_feature(plane: TwinDataPlane, control: Reconciler) -> None:
    """The program is wished with it while somebody looks, without a revision, and without it afterwards."""
    assert not any(FEATURE in wish.features for wish in plane.wishes)

    looker = Looker(control, DROP)

    assert FEATURE in plane.wishes[-1].features
    control.watch.end(looker.watcher)
    control._trim()
    assert FEATURE not in plane.wishes[-1].features
    assert control.desired.revision == 0


def test_a_change_keeps_the_feature(plane: TwinDataPlane, control: Reconciler) -> None:
    """A change of the desired state while somebody looks does not take the feature away, nor does a trim."""
    Looker(control, DROP)
    control.change(lambda config: config.with_services([service()]), actor="test", summary="test")
    control._trim()

    assert FEATURE in plane.wishes[-1].features


def test_the_packet_path_is_asked_for_what_all_want(plane: TwinDataPlane, control: Reconciler) -> None:
    """Verdicts are united, bytes the most, rates added; numbers above 63 have a word of their own; then nothing."""
    one = Looker(control, DROP, rate=160, octets=64)
    assert sampling(plane) == (10, 64, {DROP})
    two = Looker(control, PASS, NEW_FLOW, rate=17, octets=0)
    assert sampling(plane) == (12, 64, {DROP, PASS, NEW_FLOW})
    control.watch.end(one.watcher)
    assert sampling(plane) == (2, 0, {PASS, NEW_FLOW})
    control.watch.end(two.watcher)
    assert sampling(plane) == (0, 0, set())


def test_each_gets_what_it_wants(plane: TwinDataPlane, control: Reconciler) -> None:
    """Two that look at once: a record goes to all who want its verdict, and to nobody else."""
    drops, both = Looker(control, DROP), Looker(control, DROP, PASS)
    plane.queue.put(rows(DROP, PASS, NEW_FLOW, DROP))

    assert both.got(3) == [DROP, PASS, DROP]
    assert drops.got(2) == [DROP, DROP]
    assert both.watcher.seen[[DROP, PASS, NEW_FLOW]].tolist() == [2, 1, 0]


def test_what_was_in_the_queue_before_is_nobodys(plane: TwinDataPlane, control: Reconciler) -> None:
    """A record from before a watcher was made is not for it."""
    old = rows(DROP)
    looker = Looker(control, DROP)
    plane.queue.put(old)
    plane.queue.put(rows(DROP, DROP))

    assert looker.got(2) == [DROP, DROP]
    assert looker.watcher.seen[DROP] == 2


def test_who_does_not_take_loses_and_holds_nobody_up(
    plane: TwinDataPlane, control: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond what may wait for it, records are lost to that watcher, and counted; another gets all."""
    monkeypatch.setattr(watching, "PENDING_MOST", 5)
    slow, quick = Looker(control, DROP), Looker(control, DROP)
    for _ in range(4):
        plane.queue.put(rows(DROP, DROP, DROP))
        assert len(quick.got(3)) == 3

    assert slow.got(5) == [DROP] * 5
    assert (slow.watcher.lost, slow.watcher.seen[DROP]) == (7, 12)


def test_packets_that_came_are_counted_by_verdict(plane: TwinDataPlane, control: Reconciler) -> None:
    """What came since a watcher was made, of the verdicts it wants: so it knows what it did not see."""
    plane.tables.verdict_counters.add(DROP, 5, 500)
    looker = Looker(control, DROP)
    plane.tables.verdict_counters.add(DROP, 3, 300)
    plane.tables.verdict_counters.add(PASS, 2, 200)

    came = looker.watcher.came(control.watch.totals())

    assert (came[DROP], came[PASS], came.sum()) == (3, 0, 3)


def test_a_program_that_does_not_compile_leaves_nobody_looking(
    plane: TwinDataPlane, control: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wanted to look is told why, and nothing is asked of the packet path."""

    def refuse(*_: object, **how: object) -> None:
        raise CompileError("no memory", "")

    with monkeypatch.context() as patch:
        patch.setattr(plane, "prepare", refuse)
        with pytest.raises(CompileError):
            Looker(control, DROP)

    assert control.watch.features == frozenset()
    assert sampling(plane) == (0, 0, set())


def test_the_end_of_the_daemon_is_told(plane: TwinDataPlane, control: Reconciler) -> None:
    """Who looks is woken with the reason, and nobody can look any more."""
    looker = Looker(control, DROP)

    control.watch.close()

    assert looker.woken.is_set()
    assert looker.watcher.failure == "the daemon is being stopped"
    with pytest.raises(DataPlaneError):
        Looker(control, DROP)
    assert sampling(plane)[0] == 0


def test_what_a_killed_daemon_looked_at_is_not_looked_at(plane: TwinDataPlane) -> None:
    """At the start nothing is asked of the packet path, whatever an earlier run left."""
    plane.tables.arrays.watching["most"] = 7
    control = Reconciler(SqliteStore(":memory:"), plane)
    control.start()
    control.stop()

    assert plane.tables.arrays.watching["most"].tolist() == [0, 0]


def test_a_change_is_in_force_though_reports_cannot_be_read(
    plane: TwinDataPlane, control: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the queue cannot be opened for a rule that bans, the change is done and acknowledged, and that is told."""

    def broken() -> Any:
        raise OSError("no memory")

    monkeypatch.setattr(plane, "samples", broken)
    limit = {"rate": 1, "per": "source"}
    rule = Rule.model_validate({"name": "flood", "action": "limit", "limit": limit, "ban_seconds": 60})

    desired = control.change(lambda config: config.with_rule(rule), actor="test", summary="a rule")

    assert (desired.revision, list(control.desired.config.rules)) == (1, ["flood"])
    kinds = [event.kind for event in control.events.since(0)]
    assert "failure" in kinds and "config.changed" in kinds
    monkeypatch.undo()
    control._on_hops_changed()
    while control.watch._thread is None:
        time.sleep(0.01)

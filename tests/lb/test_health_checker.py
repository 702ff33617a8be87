"""What is found goes into the ring, without a revision: by a clock of the test's own, and with real sockets."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from lb.dataplane.layout import layout
from lb.dataplane.twin import TwinDataPlane
from lb.events import Events
from lb.health import memory
from lb.health.book import Book
from lb.health.checker import Checker
from lb.health.dial import Dialer
from lb.health.probes import Outcome, ask
from lb.health.target import Target
from lb.model import Config, Service
from lb.model.document import from_mapping
from lb.model.standing import FULL, STEPS, Health, Standing
from lb.reconcile.loop import Reconciler
from lb.reconcile.observed import BackendStatus
from lb.store import SqliteStore

GOOD, BAD, UNABLE = Outcome(True, None, 0.001), Outcome(False, "refused", 0.001), Outcome(None, "no port", 0)
C = layout().constants
PATIENCE_SECONDS = 60.0


def at(number: int) -> bytes:
    """The packed address of a backend."""
    return bytes([10, 0, 0, number])


def document(*, name: str = "web", numbers: tuple[int, ...] = (1, 2, 3), **check: Any) -> dict[str, Any]:
    """A service whose check has these fields."""
    return {
        "name": name,
        "vip": "192.0.2.1",
        "port": 80,
        "protocol": "tcp",
        "health_check": {"type": "tcp", "rise": 2, "fall": 3, **check},
        "backends": [{"address": f"10.0.0.{n}", "weight": 1} for n in numbers],
    }


class World:
    """A book and a reconciler over the twin, with one clock."""

    def __init__(self, known: Any = None) -> None:
        self.now = 1000.0
        self.events = Events()
        self.book = Book(self.events, known, clock=lambda: self.now, steady=lambda: self.now)
        self.plane = TwinDataPlane()
        self.store = SqliteStore(":memory:")
        self.reconciler = Reconciler(self.store, self.plane, clock=lambda: self.now, events=self.events)
        self.reconciler.use_health(self.book.standing_of, self.book.reports)
        self.reconciler.start()

    def close(self) -> None:
        self.reconciler.stop()
        self.store.close()

    def apply(self, *services: dict[str, Any]) -> None:
        """Make these the services."""

        def edit(have: Config) -> Config:
            return from_mapping({"services": services}, now=self.now, have=have)

        self.reconciler.change(edit, actor="test", summary="test")
        self.book.follow(self.reconciler.desired.config.services.values())
        self.reconciler.follow_health()

    def check(self, number: int, *outcomes: Outcome, service: str = "web") -> None:
        """Checks of a backend end so."""
        for outcome in outcomes:
            if self.book.note((service, at(number)), outcome):
                self.reconciler.follow_health()

    def advance(self, seconds: float) -> None:
        """Time goes on."""
        self.now += seconds
        changed, _ = self.book.advance()
        if changed:
            self.reconciler.follow_health()

    def backends(self, service: str = "web") -> dict[int, BackendStatus]:
        """As they are shown, by the last number of their address."""
        status = self.reconciler.service_status(service)
        return {ip_address(b.address).packed[-1]: b for b in status.backends}

    def shares(self) -> list[float]:
        """Of the ring in force, by backend in order."""
        plan = self.reconciler._plans.services.by_name["web"]
        ring = self.plane.tables.arrays.rings[plan.ring][: C["RING_SLOTS"]].tolist()
        return [
            round(ring.count(plan.at[b.address.packed]) / len(ring), 3) if plan.ring else 0.0
            for b in plan.service.backends
        ]

    def state(self, number: int) -> int:
        """The state of a backend's place in memory."""
        plan = self.reconciler._plans.services.by_name["web"]
        return int(self.plane.tables.arrays.backends[plan.start + plan.at[at(number)]]["state"])

    def kinds(self) -> list[str]:
        """What was published of health."""
        events = self.events.since(0)
        return [e.kind for e in events if e.kind.split(".")[0] in ("backend", "health", "service")]


@pytest.fixture
def world() -> Iterator[World]:
    one = World()
    yield one
    one.close()


def test_unhealthy_backend_leaves_the_ring_and_returns(world: World) -> None:
    """After `fall` bad checks it takes no new flows, after `rise` good ones it does; no revision is made."""
    world.apply(document())
    revision = world.reconciler.desired.revision
    assert world.shares() == [0.333] * 3

    world.check(2, GOOD, BAD, BAD)
    assert world.shares() == [0.333] * 3
    assert (world.backends()[2].health, world.backends()[2].health_error) == ("healthy", "refused")
    world.check(2, BAD)
    assert world.shares() == [0.5, 0.0, 0.5]
    seen = world.backends()[2]
    assert (seen.health, seen.effective_state, seen.ring_share) == ("unhealthy", "unhealthy", 0.0)
    assert (seen.health_since, seen.admin_state) == (1000.0, "enabled")
    # Known flows stay there, as with one that drains.
    assert world.state(2) == C["BACKEND_ACTIVE"] | C["BACKEND_RESOLVED"]

    world.check(2, GOOD, GOOD)
    assert world.shares() == [0.333] * 3
    assert world.backends()[2].effective_state == "active"
    assert world.backends()[2].health_error is None
    assert world.reconciler.desired.revision == revision
    assert world.kinds() == ["backend.down", "backend.up"]


def test_established_flows_move_if_told_to(world: World) -> None:
    """`established: move` takes an unhealthy backend's flows away; it can still be reached, to be checked."""
    world.apply(document(established="move"))
    world.check(1, BAD, BAD, BAD)

    assert world.state(1) == C["BACKEND_RESOLVED"]
    world.check(1, GOOD, GOOD)
    assert world.state(1) == C["BACKEND_ACTIVE"] | C["BACKEND_RESOLVED"] | C["BACKEND_IN_RING"]


def test_what_could_not_be_asked_says_nothing(world: World) -> None:
    """A check that this machine could not make neither fails nor ends a row of failures; it is shown."""
    world.apply(document())
    world.check(1, BAD, BAD, UNABLE, UNABLE, UNABLE)
    assert (world.backends()[1].health, world.backends()[1].health_error) == ("unknown", "no port")
    world.check(1, BAD)
    assert world.backends()[1].health == "unhealthy"


@pytest.mark.parametrize(("when", "shares"), [("open", [0.333] * 3), ("closed", [0.0] * 3)])
def test_all_down(world: World, when: str, shares: list[float]) -> None:
    """Open: all have their share again. Closed: there is no ring. Either way it is said, and ends with the first."""
    world.apply(document(when_all_down=when))
    for number in (1, 2, 3):
        world.check(number, BAD, BAD, BAD)
    assert world.shares() == shares
    assert {b.health for b in world.backends().values()} == {"unhealthy"}
    world.check(3, GOOD, GOOD)
    assert world.shares() == [0.0, 0.0, 1.0]
    assert [k for k in world.kinds() if k.startswith("service")] == ["service.down", "service.up"]


def test_mass_failure_is_held(world: World) -> None:
    """More than the share at once: all keep their place, and it is said; each that is good again is no more held."""
    world.apply(document(mass_failure_guard=0.5))
    world.check(1, BAD, BAD, BAD)
    assert world.shares() == [0.0, 0.5, 0.5]
    world.check(2, BAD, BAD, BAD)
    assert world.shares() == [0.333] * 3
    assert [b.health_held for b in world.backends().values()] == [True, True, False]
    world.advance(3600)
    assert world.shares() == [0.333] * 3
    world.check(1, GOOD, GOOD)
    assert world.shares() == [0.5, 0.0, 0.5]
    assert [k for k in world.kinds() if k.startswith("health")] == ["health.held", "health.followed"]


def test_slow_start(world: World) -> None:
    """A backend that returns has an eighth of its weight at first, and more with time; so has one that is added."""
    world.apply(document(slow_start_seconds=70))
    assert world.shares() == [0.333] * 3
    world.check(3, BAD, BAD, BAD, GOOD, GOOD)
    shares = [world.shares()[2]]
    for _ in range(STEPS):
        world.advance(10)
        shares.append(world.shares()[2])
    wanted = [min(step, STEPS) / (2 * STEPS + min(step, STEPS)) for step in range(1, STEPS + 2)]
    assert shares == pytest.approx(wanted, abs=0.001)
    assert world.book.advance() == (False, None)

    world.apply(document(slow_start_seconds=70, numbers=(1, 2, 3, 4)))
    assert world.shares()[3] == pytest.approx(1 / 25, abs=0.001)


def test_who_was_held_does_not_start_slowly(world: World) -> None:
    """It has never left the ring, so nothing moves when the guard lets go and checks are good again."""
    world.apply(document(slow_start_seconds=70, mass_failure_guard=0.5))
    for number in (1, 2):
        world.check(number, BAD, BAD, BAD)
    assert world.shares() == [0.333] * 3

    world.check(1, GOOD, GOOD)
    assert world.shares() == [0.5, 0.0, 0.5]
    world.check(2, GOOD, GOOD)
    assert world.shares() == [0.471, 0.059, 0.471]


def test_slow_start_after_the_operator_enables(world: World) -> None:
    """A backend that was disabled comes back slowly, in the very change that enables it."""
    one = document(slow_start_seconds=70)
    off = one | {"backends": [*one["backends"][:2], one["backends"][2] | {"admin_state": "disabled"}]}
    world.apply(off)
    assert world.shares() == [0.5, 0.5, 0.0]
    wanted = Service.model_validate(one)
    assert world.book.standing_of(wanted) == Standing({at(3): 1})
    world.apply(one)
    assert world.shares() == pytest.approx([8 / 17, 8 / 17, 1 / 17], abs=0.001)


def test_service_without_a_check(world: World) -> None:
    """Nobody is asked, all count as healthy, and taking a check away forgets what it found."""
    world.apply(document())
    world.check(1, BAD, BAD, BAD)
    plain = document()
    del plain["health_check"]
    world.apply(plain)

    assert world.shares() == [0.333] * 3
    assert {b.health for b in world.backends().values()} == {"unknown"}
    assert world.book.known() == {}


def test_restart_begins_with_the_last_known_health(tmp_path: Path) -> None:
    """What was unhealthy is out of the ring from the first moment on, and no event says it again."""
    first = World()
    first.apply(document())
    first.check(1, BAD, BAD, BAD)
    first.check(2, GOOD)
    known = first.book.known()
    first.close()

    again = World(known)
    again.apply(document())
    assert again.shares() == [0.0, 0.5, 0.5]
    assert again.backends()[1].health_since == 1000.0
    assert [b.health for b in again.backends().values()] == ["unhealthy", "healthy", "unknown"]
    assert again.kinds() == []
    again.check(1, GOOD, GOOD)
    assert again.shares() == [0.333] * 3
    again.close()


def test_a_slow_start_goes_on_after_a_restart(tmp_path: Path) -> None:
    """Who had an eighth of its share when the daemon ended has no more after it, and the rest of the time before it."""
    first = World()
    first.apply(document(slow_start_seconds=70))
    first.check(1, BAD, BAD, BAD, GOOD, GOOD)
    first.apply(document(numbers=(1, 2, 3, 4), slow_start_seconds=70))
    first.advance(10)
    before = first.shares()
    memory.save(tmp_path / "health.json", first.book.known())
    first.close()
    assert before[0] == before[3] < before[1]

    again = World(memory.load(tmp_path / "health.json"))
    again.now = first.now + 5
    again.apply(document(numbers=(1, 2, 3, 4), slow_start_seconds=70))
    assert again.shares() == before
    again.advance(55)
    assert again.shares() == [0.25] * 4
    assert again.book.known().keys() == {("web", at(1))}
    again.close()


def test_what_the_guard_holds_is_held_after_a_restart(tmp_path: Path) -> None:
    """A restart while most fail at once takes none out, and tells nothing anew; later they are followed again."""
    first = World()
    guarded = document(numbers=(1, 2, 3), mass_failure_guard=0.5, when_all_down="closed")
    first.apply(guarded)
    for number in (1, 2):
        first.check(number, BAD, BAD, BAD)
    assert first.shares() == [0.333] * 3
    memory.save(tmp_path / "health.json", first.book.known())
    first.close()

    again = World(memory.load(tmp_path / "health.json"))
    again.now += 10_000
    again.apply(guarded)
    assert again.shares() == [0.333] * 3
    assert [backend.health_held for backend in again.backends().values()] == [True, True, False]
    assert again.kinds() == []
    again.check(1, GOOD, GOOD)
    assert again.shares() == [0.5, 0.0, 0.5]
    assert again.kinds() == ["backend.up", "health.followed"]
    again.close()


def test_transitions_and_durations_are_counted(world: World) -> None:
    """For the metrics: what became of which backend, and how long checks took."""
    world.apply(document())
    world.check(1, BAD, BAD, BAD, GOOD, GOOD)

    assert world.book.transitions == {("web", "10.0.0.1", "unhealthy"): 1, ("web", "10.0.0.1", "healthy"): 1}
    assert dict(world.book.durations()["web"].cumulative())["+Inf"] == 5
    assert dict(world.book.durations()["web"].cumulative())["0.001"] == 5


class Waiting:
    """Notes that it was told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.told = threading.Semaphore(0)

    def follow_health(self) -> None:
        self.told.release()


def wait_for(is_so: Callable[[], bool]) -> None:
    """Until it is; a checker wakes nobody at every check."""
    pause, left = threading.Event(), PATIENCE_SECONDS
    while not is_so():
        assert left > 0, "it did not come to be"
        pause.wait(0.02)
        left -= 0.02


def many(port: int, number: int) -> list[Service]:
    """Services of 100 backends each, which are asked every second."""
    return [
        Service.model_validate(
            {
                **document(
                    name=f"s{n}", numbers=(), port=port, via="direct", interval_seconds=1, timeout_seconds=1
                ),
                "vip": f"192.0.2.{n + 1}",
                "backends": [{"address": f"10.{n}.0.{b}"} for b in range(1, 101)],
            }
        )
        for n in range(number // 100)
    ]


def test_a_thousand_backends() -> None:
    """A thousand are each asked again and again, with real connections, and all are found to be there."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        server.settimeout(PATIENCE_SECONDS)
        over = threading.Event()

        def accept() -> None:
            while not over.is_set():
                server.accept()[0].close()

        accepting = threading.Thread(target=accept)
        accepting.start()
        port = server.getsockname()[1]

        async def ask_here(target: Target, dialer: Dialer) -> Outcome:
            here = Target(
                target.service, ip_address("127.0.0.1"), target.vip, port, target.check, target.mode
            )
            return await ask(here, dialer)

        services = many(port, 1000)
        checker = Checker(probe=ask_here)
        checker.start(services, Waiting())
        wait_for(lambda: checker.rounds >= 3000)
        reports = [report for s in services for report in checker.book.reports(s.name).values()]
        checker.stop()
        over.set()
        socket.create_connection(("127.0.0.1", port)).close()
        accepting.join()

    assert len(reports) == 1000
    assert {report.health for report in reports} <= {Health.HEALTHY, Health.UNKNOWN}
    assert sum(report.health is Health.HEALTHY for report in reports) > 900
    assert not any(report.error for report in reports)


def test_checker_tells_saves_and_follows(tmp_path: Path) -> None:
    """What changes is told and saved; who is added is asked, who is removed no more; the next run knows it."""
    asked: list[str] = []
    answers = {"10.0.0.1": BAD}

    async def probe(target: Target, _: Dialer) -> Outcome:
        asked.append(str(target.backend))
        return answers.get(str(target.backend), GOOD)

    quick = {"interval_seconds": 0.1, "timeout_seconds": 0.1}
    path, follower = tmp_path / "health.json", Waiting()
    checker = Checker(path=path, probe=probe)
    service = Service.model_validate(document(numbers=(1, 2), **quick))
    checker.start([service], follower)
    wait_for(lambda: checker.book.standing_of(service) == Standing({at(1): 0}))
    assert follower.told.acquire(timeout=PATIENCE_SECONDS)

    other = Service.model_validate(document(numbers=(2, 3), **quick))
    checker.follow([other])
    wait_for(lambda: "10.0.0.3" in asked)
    rounds = checker.rounds
    first = len(asked)
    wait_for(lambda: checker.rounds >= rounds + 6)
    assert "10.0.0.1" not in asked[first + 1 :]
    assert checker.book.standing_of(other) == FULL
    checker.stop()

    later = Checker(path=path, probe=probe)
    assert later.book.known() == {}
    assert later.book.standing_of(service) == FULL
    later.book.follow([other])
    assert {report.health for report in later.book.reports("web").values()} == {Health.HEALTHY}
    path.write_text("{")
    assert Checker(path=path).book.standing_of(other) == FULL


def test_checks_of_a_slow_backend_do_not_hold_up_others() -> None:
    """One that takes its time is waited for beside the rest."""
    waiting = asyncio.Event

    async def probe(target: Target, _: Dialer) -> Outcome:
        if str(target.backend) == "10.0.0.1":
            await waiting().wait()
        return GOOD

    checker = Checker(probe=probe)
    checker.start([Service.model_validate(document(interval_seconds=0.1, timeout_seconds=0.1))], Waiting())
    wait_for(lambda: checker.rounds >= 20)
    checker.stop()

    assert checker.book.reports("web")[at(1)].health is Health.UNKNOWN
    assert checker.book.reports("web")[at(2)].health is Health.HEALTHY

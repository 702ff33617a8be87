"""The reconciler over the twin: what is acknowledged is in memory, and what fails changes nothing."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from lb.dataplane.layout import layout
from lb.dataplane.protocol import ProgramWish
from lb.dataplane.twin import TwinDataPlane
from lb.errors import CapacityError, CompileError, DataPlaneError
from lb.model import Config, Prefix, Service
from lb.model.layers import Action, Attributes
from lb.reconcile.loop import Reconciler
from lb.reconcile.ring import SLOTS, build_ring
from lb.store import SqliteStore

ACTIVE = layout().constants["BACKEND_ACTIVE"]


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class House:
    """A store, a twin, and the reconciler between them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = SqliteStore(":memory:")
        self.twin = TwinDataPlane()
        self.reconciler = Reconciler(self.store, self.twin, clock=self.clock)
        self.reconciler.start()

    def change(self, edit: Callable[[Config], Config]) -> int:
        """One change; its revision."""
        return self.reconciler.change(edit, actor="test", summary="test").revision

    def restart(self) -> None:
        """A new reconciler over the same store and memory."""
        self.reconciler.stop()
        self.reconciler = Reconciler(self.store, self.twin, clock=self.clock)
        self.reconciler.start()

    def memory(self) -> dict[str, bytes]:
        """All memory that the packet path reads, but for flows."""
        arrays = self.twin.tables.arrays
        names = ("service_rings", "backends", "deny4_cells", "deny4_runs", "deny4_lines", "deny4_dense")
        held = {name: getattr(arrays, name).tobytes() for name in names}
        for name in ("services4", "services6", "deny6", "allow4", "allow6"):
            keys, values = getattr(self.twin.tables, name).read()
            held[name] = b"".join(
                sorted(k.tobytes() + v.tobytes() for k, v in zip(keys, values, strict=True))
            )
        return held

    def ring_of(self, name: str) -> list[str]:
        """The address that each slot of a service's ring leads to."""
        arrays, tables = self.twin.tables.arrays, self.twin.tables
        vip = self.reconciler.desired.config.service(name).vip.packed
        keys, values = (tables.services4 if len(vip) == 4 else tables.services6).read()
        found = next(
            v for k, v in zip(keys, values, strict=True) if k["port"] and k.tobytes()[: len(vip)] == vip
        )
        ring = arrays.rings[arrays.service_rings[found["number"]]["ring"]][:SLOTS]
        rows = arrays.backends[found["backends"] + ring.astype(np.int64)]
        assert (rows["state"] & ACTIVE).all()
        return ["{}.{}.{}.{}".format(*row.tobytes()[:4]) for row in rows["address"]]


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.reconciler.stop()
    house.store.close()


def service(name: str = "web", vip: str = "10.200.1.1", port: object = 80, **more: object) -> Service:
    """A service over three backends."""
    backends = [{"address": f"10.0.0.{n}"} for n in (11, 12, 13)]
    return Service.model_validate(
        {"name": name, "vip": vip, "port": port, "protocol": "tcp", "backends": backends, **more}
    )


def block(text: str, **attributes: object) -> Callable[[Config], Config]:
    """An edit that blocks one prefix."""
    entry = (Prefix.parse(text), Attributes(**attributes))  # type: ignore[arg-type]

    def edit(config: Config) -> Config:
        layer = config.blocklist.layer("operator").with_entries([entry])
        return replace(config, blocklist=config.blocklist.with_layer("operator", layer))

    return edit


def test_ring_in_memory_is_the_ring_computed(house: House) -> None:
    """When a change is acknowledged, every slot leads to the backend that build_ring names."""
    weights = {"10.0.0.11": 1, "10.0.0.12": 2, "10.0.0.13": 1}
    backends = [{"address": a, "weight": w} for a, w in weights.items()]
    house.change(lambda c: c.with_service(service(backends=backends)))

    names = list(weights)
    ring = build_ring([(bytes(map(int, a.split("."))), w) for a, w in weights.items()])
    assert house.ring_of("web") == [names[at] for at in ring]


def test_equal_sets_share_a_ring(house: House) -> None:
    """Two services over the same backends use one ring of the pool."""
    house.change(lambda c: c.with_services([service(), service("other", "10.200.1.2")]))

    rings = house.twin.tables.arrays.service_rings["ring"][:2].tolist()
    assert rings[0] == rings[1] != 0


@pytest.mark.parametrize("grow", [1, 30])
def test_restart_writes_nothing_that_is_right(house: House, grow: int) -> None:
    """A restart adopts numbers, places, rings and rules: not one byte differs, also after a block has grown."""
    house.change(lambda c: c.with_services([service(), service("six", "fc00:1::1", "any")]))
    more = [{"address": f"10.0.1.{n}", "weight": n} for n in range(1, grow + 1)]
    house.change(lambda c: c.with_service(service(backends=more)))
    house.change(lambda c: c.with_service(service(backends=[*more, {"address": "10.0.0.12"}])))
    house.change(block("198.51.100.7"))
    house.change(block("2001:db8::/32", action=Action.COUNT))
    before = house.memory()

    house.restart()

    assert house.memory() == before


def test_disabled_backend_is_disarmed_and_draining_is_not(house: House) -> None:
    """draining leaves the ring and stays armed for its flows; disabled is disarmed at once."""
    states = {"10.0.0.11": "enabled", "10.0.0.12": "draining", "10.0.0.13": "disabled"}
    house.change(lambda c: c.with_service(service()))
    backends = [{"address": a, "admin_state": s} for a, s in states.items()]

    house.change(lambda c: c.with_service(service(backends=backends)))

    assert set(house.ring_of("web")) == {"10.0.0.11"}
    rows = house.twin.tables.arrays.backends[:3]
    assert ((rows["state"] & ACTIVE) != 0).tolist() == [True, True, False]


def test_what_does_not_fit_changes_nothing(house: House) -> None:
    """A change that exceeds a table is refused: same revision, same memory, and the setting is named."""
    house.change(lambda c: c.with_service(service()))
    before, revision = house.memory(), house.reconciler.desired.revision

    with pytest.raises(CapacityError, match="--service-ports"):
        house.change(lambda c: c.with_service(service("wide", "10.200.1.9", "1-2000")))

    assert (house.memory(), house.reconciler.desired.revision) == (before, revision)
    assert house.store.load()[0] == revision


def test_what_the_kernel_refuses_is_taken_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half-way leaves no revision and no trace, and the next change works."""
    house.change(lambda c: c.with_service(service()))
    before, revision = house.memory(), house.reconciler.desired.revision

    def refuse(*_: object) -> None:
        raise OSError(12, "out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(house.twin.tables.services4, "write", refuse)
        with pytest.raises(DataPlaneError, match="refused a map write"):
            house.change(lambda c: c.with_service(service("more", "10.200.1.2")))

    held = house.memory()
    for name in ("services4", "service_rings", "deny4_cells"):
        assert held[name] == before[name]
    assert house.reconciler.desired.revision == house.store.load()[0] == revision
    assert house.reconciler.readiness() == []
    assert house.change(lambda c: c.with_service(service("more", "10.200.1.2"))) > revision
    assert set(house.ring_of("more")) == {"10.0.0.11", "10.0.0.12", "10.0.0.13"}


def test_a_program_that_does_not_compile_changes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was refused before any map was written is not mistaken for the change before it."""
    house.change(lambda c: c.with_service(service()))
    more = [{"address": f"10.0.1.{n}"} for n in range(1, 31)]
    house.change(lambda c: c.with_service(service(backends=more)))
    before, revision = house.memory(), house.reconciler.desired.revision
    monkeypatch.setattr(
        house.twin, "require", Refusals(house.twin.require, CompileError("it does not compile"))
    )

    with pytest.raises(CompileError):
        house.change(lambda c: c.with_service(service("six", "fc00:1::1")))

    assert (house.memory(), house.reconciler.desired.revision) == (before, revision)
    assert house.reconciler.readiness() == []


def test_what_was_refused_twice_is_taken_back_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """If going back fails too, the loop goes on trying; then all is as it was, and changes work again."""
    house.change(lambda c: c.with_service(service()))
    before = house.memory()
    more = [{"address": f"10.0.1.{n}"} for n in range(1, 31)]
    tables = house.twin.tables
    monkeypatch.setattr(
        tables.services4, "write", Refusals(tables.services4.write, OSError(12, "out of memory"), times=1)
    )
    monkeypatch.setattr(
        tables.services4, "read", Refusals(tables.services4.read, OSError(12, "out of memory"), times=1)
    )

    with pytest.raises(DataPlaneError):
        house.change(lambda c: c.with_service(service(backends=more)))

    until(lambda: house.reconciler.readiness() == [])
    assert house.memory() == before
    house.change(lambda c: c.with_service(service(backends=more)))
    assert set(house.ring_of("web")) == {f"10.0.1.{n}" for n in range(1, 31)}


class Refusals:
    """A call that fails so many times, and then does what it does."""

    def __init__(self, call: Callable[..., object], error: Exception, times: int = 1) -> None:
        self._call, self._error, self._times = call, error, times

    def __call__(self, *arguments: object, **more: object) -> object:
        if self._times:
            self._times -= 1
            raise self._error
        return self._call(*arguments, **more)


def until(holds: Callable[[], bool]) -> None:
    """Wait for it, ten seconds at most."""
    waited = threading.Event()
    for _ in range(1000):
        if holds():
            return
        waited.wait(0.01)
    raise AssertionError("it does not come to hold")


def test_entry_leaves_when_its_time_is_over(house: House) -> None:
    """An expired entry is out of the maps by itself, without a revision."""
    gone = threading.Event()
    deadline = house.clock.now + 60
    revision = house.change(block("198.51.100.7", expires_at=deadline))
    cells = house.twin.tables.arrays.deny4_cells
    at = int.from_bytes(bytes([198, 51, 100, 0]), "big") >> 8
    assert cells[at] != 0

    house.clock.now = deadline + 0.5
    house.twin.touch()  # the loop looks at the clock when it wakes

    def look() -> None:
        while cells[at] and not gone.wait(0.01):
            pass
        gone.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    assert gone.wait(10)
    watcher.join()
    assert house.reconciler.desired.revision == revision


def test_next_hop_that_changes_reaches_memory(house: House) -> None:
    """A neighbour that is lost and found again disarms and arms nothing but its MAC."""
    house.twin.unresolved.add(bytes([10, 0, 0, 12]))
    house.change(lambda c: c.with_service(service()))
    states = [b.effective_state for b in house.reconciler.service_status("web").backends]
    assert states == ["active", "unresolved", "active"]

    house.twin.unresolved.clear()
    house.twin.touch()

    found = threading.Event()

    def look() -> None:
        while not house.twin.tables.arrays.backends[1]["mac"].any() and not found.wait(0.01):
            pass
        found.set()

    threading.Thread(target=look, daemon=True).start()
    assert found.wait(10)


def test_concurrent_changes_all_count(house: House) -> None:
    """Changes from several threads are made one after the other, and none is lost."""

    def add(number: int) -> None:
        house.change(block(f"198.51.100.{number}"))

    threads = [threading.Thread(target=add, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(house.reconciler.desired.config.blocklist) == 20
    assert house.reconciler.desired.revision == 20


def test_whoever_compiles_holds_up_nobody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that needs another program is begun anew when that is compiled, over what others did meanwhile."""
    asked, compiled = threading.Event(), threading.Event()

    def lacks(wish: ProgramWish) -> ProgramWish | None:
        return wish if "HAVE_L2" in wish.features and not compiled.is_set() else None

    def prepare(wish: ProgramWish) -> None:
        asked.set()
        assert compiled.wait(10)

    monkeypatch.setattr(house.twin, "lacks", lacks)
    monkeypatch.setattr(house.twin, "prepare", prepare)
    slow = threading.Thread(target=lambda: house.change(lambda c: c.with_service(service(mode="l2"))))
    slow.start()
    assert asked.wait(10)
    assert house.change(block("198.51.100.1")) == 1
    compiled.set()
    slow.join()

    desired = house.reconciler.desired
    assert (desired.revision, len(desired.config.blocklist), list(desired.config.services)) == (2, 1, ["web"])


def test_what_does_not_compile_changes_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler is asked before the store is written."""

    def prepare(wish: ProgramWish) -> None:
        raise CompileError("the kernel refuses the XDP program: too large")

    monkeypatch.setattr(house.twin, "lacks", lambda wish: wish)
    monkeypatch.setattr(house.twin, "prepare", prepare)
    with pytest.raises(CompileError):
        house.change(block("198.51.100.1"))

    assert (house.reconciler.desired.revision, house.store.revisions()) == (0, [])


def test_hits_are_exact_and_survive_a_restart(house: House) -> None:
    """Each operator's entry has counters of its own, which a restart finds again."""
    prefixes = [Prefix.parse("198.51.100.7"), Prefix.parse("198.51.100.0/24")]
    for prefix in prefixes:
        house.change(block(str(prefix)))
    line = house.twin.tables.arrays.deny4_lines
    rule = int(line[line[:, 1] != 0][0][1]) >> 16
    house.twin.tables.deny_counters.add(rule, 3, 180)  # type: ignore[attr-defined]

    house.restart()

    assert [h.packets for h in house.reconciler.hits(prefixes)] == [3, 0]

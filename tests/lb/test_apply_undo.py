"""A change that is refused half-way, or cut off: no packet, flow or count is lost on the way back."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from apply_bench import ACTIVE, Bench, Flow, choices, flows, remember, remembered, ways
from service_samples import addresses, named, service
from test_apply import CHANGES
from twin_memory import memory
from watched import WatchedTable, watch_arrays

from lb.dataplane.protocol import NextHop
from lb.dataplane.tables import Array, Counters, Table, Tables
from lb.dataplane.twin import SMALL, TwinDataPlane
from lb.model import Service
from lb.reconcile.services import ServicePlans

WEB = service("web", *addresses(5))
GROWN = service("web", *addresses(20)[2:])
WIDE = service("web", *addresses(5), port="80-82")


class Refusal:
    """Lets so many calls to the kernel through, and refuses the next one."""

    def __init__(self) -> None:
        self.left: int | None = None

    def __call__(self) -> None:
        if self.left == 0:
            self.left = None
            raise OSError(12, "out of memory")
        if self.left is not None:
            self.left -= 1


class Refusing:
    """A table or counters, each of whose calls the kernel may refuse."""

    def __init__(self, inner: Table | Counters, refusal: Refusal) -> None:
        self._inner, self._refusal = inner, refusal
        self.capacity = getattr(inner, "capacity", 0)

    def __getattr__(self, name: str) -> object:
        if name in ("write", "delete", "clear", "add", "read_some"):
            self._refusal()
        return getattr(self._inner, name)


class Traffic:
    """Packets between any two writes: new flows, flows of backends that stay, and one packet to each first place."""

    def __init__(self, twin: TwinDataPlane) -> None:
        self.twin = twin
        self.answers: dict[Flow, set[object]] = {}
        self.held: dict[int, dict[int, bytes]] = {}
        """By number and place: the address that flows must find there."""
        self.sent: dict[int, int] = {}

    def look(self) -> None:
        """Send them all."""
        for flow, now in choices(self.twin.tables, self.answers).items():
            assert now in self.answers[flow], flow
        for table in (self.twin.tables.services4, self.twin.tables.services6):
            keys, values = table.read()
            for value in values[keys["protocol"] != 0]:
                self._send(int(value["number"]), int(value["backends"]))

    def _send(self, number: int, start: int) -> None:
        for place, address in self.held.get(number, {}).items():
            row = self.twin.tables.arrays.backends[start + place]
            assert (row["address"].tobytes(), bool(row["state"] & ACTIVE)) == (address, True)
        if number in self.sent:
            self.twin.tables.backend_counters.add(start, 1, 100)
            self.sent[number] += 1


def held(plans: ServicePlans, after: Mapping[str, Service]) -> dict[int, dict[int, bytes]]:
    """Where flows to backends that a change leaves active are."""
    stay = {
        name: {b.address.packed for b in after[name].backends if b.admin_state != "disabled"}
        for name, plan in plans.by_name.items()
        if name in after and after[name].port == plan.service.port
    }
    return {
        plan.number: {at: a.ljust(16, b"\0") for a, at in plan.at.items() if a in stay[name] & plan.active}
        for name, plan in plans.by_name.items()
        if name in stay
    }


def counted(bench: Bench) -> dict[int, int]:
    """The packets of each service, wherever they are counted."""
    tables = bench.twin.tables
    places, own = tables.backend_counters.read()["packets"], tables.service_counters.read()["packets"]
    return {
        plan.number: int(places[plan.start : plan.start + (1 << plan.room)].sum() + own[plan.number])
        for plan in bench.plans.by_name.values()
    }


def used_again() -> list[Mapping[str, Service]]:
    """A row of changes at whose end a backend takes the place of one that was removed."""
    eight = addresses(8)
    last = service("web", *eight[1:7], "10.9.0.1", "10.9.0.2")
    return [named(service("web", *eight[:7])), named(service("web", *eight[1:7])), named(last)]


ROWS: dict[str, list[Mapping[str, Service]]] = {
    "a place is used again": used_again(),
    **{
        name: list(CHANGES[name])
        for name in (
            "the block grows",
            "the block grows and others leave",
            "all backends are others",
            "a service is added",
            "a service is removed",
            "a service takes another's place",
            "ports move",
            "a prefix within a prefix",
            "a prefix within a prefix goes",
            "what is inherited moves",
            "everything at once",
        )
    },
}
"""Changes that call the kernel: others only write memory, which cannot fail."""
FLOWS = [
    flow
    for port in (80, 81, 8000, 8001, 8003)
    for vip in ("10.200.1.1", "fc00:1::2", "fc00:2::1", "fc00:2:0:0:1::1")
    for flow in flows(vip, port, count=2)
]


@pytest.mark.parametrize("name", ROWS)
def test_a_change_that_is_refused_anywhere_is_undone(name: str) -> None:
    """Whichever call the kernel refuses: every flow finds its way there and back, and nothing is different then."""
    *first, before, after = ROWS[name]
    hops = ways({f"{n}-{key}": s for n, row in enumerate(ROWS[name]) for key, s in row.items()})
    last, calls, refused = ends(ROWS[name], hops), 0, True
    while refused:
        twin = TwinDataPlane(replace(SMALL, flow_slots=64, rings=16, backends=256, services=16))
        refusal, traffic = Refusal(), Traffic(twin)
        bench = Bench(twin, watched(twin, traffic, refusal))
        for row in (*first, before):
            bench.put(row, hops)
        was = choices(twin.tables, FLOWS)
        traffic.answers = {flow: {was[flow], end} for flow, end in last.items()}
        traffic.held = held(bench.plans, after)
        traffic.sent = counted(bench)
        memory_before, plans = memory(twin), bench.plans

        refusal.left = calls
        try:
            bench.put(after, hops)
            refused = False
        except OSError:
            bench.plans = bench.services.go_back(hops)
            assert bench.plans is plans
            assert choices(twin.tables, FLOWS) == was
            now = memory(twin)
            rings = sorted({0, *plans.rings.values()})
            assert (rings_of(memory_before, twin)[rings] == rings_of(now, twin)[rings]).all()
            assert {**now, "rings": 0} == {**memory_before, "rings": 0}
            assert counted(bench) == traffic.sent
        calls += 1
    assert calls > 1


def watched(twin: TwinDataPlane, traffic: Traffic, refusal: Refusal) -> Tables:
    """A twin's tables, with traffic between any two writes, whose calls may be refused."""
    tables = {
        name: WatchedTable(Refusing(getattr(twin.tables, name), refusal), traffic.look)  # type: ignore[arg-type]
        for name in ("services4", "services6", "vip_prefixes6", "quic_ids")
    }
    counters = {
        name: Refusing(getattr(twin.tables, name), refusal)
        for name in ("backend_counters", "service_counters")
    }
    arrays = watch_arrays(twin.tables.arrays, traffic.look, elements={"service_rings": 1, "backends": 8})
    return replace(twin.tables, arrays=arrays, **tables, **counters)  # type: ignore[arg-type]


def ends(rows: list[Mapping[str, Service]], hops: Mapping[bytes, NextHop]) -> dict[Flow, object]:
    """Where new flows go after a row of changes."""
    bench = Bench(TwinDataPlane(replace(SMALL, flow_slots=64, rings=16, backends=256, services=16)))
    for row in rows:
        bench.put(row, hops)
    return choices(bench.twin.tables, FLOWS)


def rings_of(held: dict[str, object], twin: TwinDataPlane) -> Array:
    """The rings in a copy of memory."""
    return np.frombuffer(held["rings"], np.uint16).reshape(twin.tables.arrays.rings.shape)  # type: ignore[call-overload, no-any-return]


def test_flows_that_a_change_began_do_not_outlive_it() -> None:
    """A flow that went to a place which is not there any more asks the ring again; all others stay."""
    twin, refusal = TwinDataPlane(), Refusal()
    refused = Refusing(twin.tables.service_counters, refusal)
    looks = WatchedTable(twin.tables.services4, lambda: twin.tables.backend_counters.add(0, 1, 100))
    bench = Bench(twin, replace(twin.tables, services4=looks, service_counters=refused))  # type: ignore[arg-type]
    bench.put(named(WEB))
    plan = bench.plans.by_name["web"]
    assert plan.start == 0
    remember(bench, 3, plan.number, 1)
    refusal.left = 0
    with pytest.raises(
        OSError, match="memory"
    ):  # what was counted while keys were switched goes to the service, last
        bench.put(named(GROWN))
    remember(bench, 4, plan.number, 12)
    remember(bench, 5, plan.number + 1, 12)

    bench.services.go_back(ways(named(WEB)))

    assert remembered(bench) == [3, 5]


def test_what_works_is_not_taken_back() -> None:
    """Going back when the last change was made whole changes nothing."""
    bench = Bench()
    bench.put(named(WEB))
    bench.put(named(GROWN))
    before = memory(bench.twin)

    assert bench.services.go_back(ways(named(GROWN))) is bench.plans
    assert memory(bench.twin) == before


@pytest.mark.parametrize("before", [WIDE, service("web", *addresses(20), port="80-82")])
@pytest.mark.parametrize("cut", range(4))
def test_a_restart_after_a_cut_clears_nothing_that_is_pointed_to(cut: int, before: Service) -> None:
    """A daemon that was killed while it switched keys: rows stand until its successor has switched the rest."""
    after, more = (
        service("web", *addresses(40)[2:], port="80-82"),
        service("new", *addresses(9, net="10.9"), port=81),
    )
    more = more.model_copy(update={"vip": after.vip, "port": after.port.parse(83)})
    hops = ways(named(before, more, after.model_copy(update={"name": "after"})))
    twin = TwinDataPlane(replace(SMALL, flow_slots=64, rings=16, backends=256, services=16))
    refusal, traffic = Refusal(), Traffic(twin)
    tables = replace(twin.tables, services4=WatchedTable(Refusing(twin.tables.services4, refusal), int))  # type: ignore[arg-type]
    bench = Bench(twin, tables)
    bench.put(named(before), hops)
    was = choices(twin.tables, FLOWS)
    refusal.left = cut
    with pytest.raises(OSError, match="memory"):
        bench.put(named(after, more), hops)
    traffic.answers = {
        flow: {was[flow], end} for flow, end in ends([named(before), named(after, more)], hops).items()
    }
    again = Bench(twin, watched(twin, traffic, Refusal()))

    again.plans = again.services.adopt(named(after, more), twin.sizes)
    again.put(named(after, more), hops, all_rows=True)

    rows = twin.tables.arrays.backends
    blocks = {plan.start + at for plan in again.plans.by_name.values() for at in range(1 << plan.room)}
    assert set(np.flatnonzero(rows["state"]).tolist()) <= blocks
    assert again.plans.places.used() == len(blocks)

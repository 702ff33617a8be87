"""Services written into memory: in an order in which no packet sees half, and found again by a restart."""

from dataclasses import replace

import numpy as np
import pytest
from apply_bench import ACTIVE, Bench, Flow, choices, flows, kept, way, ways
from service_samples import addresses, named, service
from twin_memory import memory
from watched import WatchedTable, watch_arrays

from lb.dataplane.twin import SMALL, TwinDataPlane

EIGHT = addresses(8)
WEB = service("web", *EIGHT[:5])
DNS = service("dns", "10.0.0.1", "fd00::1", port="any", protocol="udp", vip="fc00:1::1")
SIX = service("six", "fd00::1", "fd00::2", vip="fc00:1::2", port="8000-8002", affinity="source")
SIX_LATER = service("six", "fd00::1", "fd00::2", vip="fc00:1::2", port="8001-8003", affinity="source")
NET = service("net", *EIGHT[:3], vip="fc00:2::/64", port="8000-8002", affinity="source")
SUB = service("sub", "10.0.0.1", "fd00::1", vip="fc00:2::/80", port=8000)
ANY = service("any", "10.0.0.2", "fd00::2", vip="fc00:2::/80", port="any")
HOST = service("host", "10.0.0.3", vip="fc00:2::1", port=8001)

CHANGES = {
    "a backend is added": (named(WEB, DNS), named(service("web", *EIGHT[:6]), DNS)),
    "a backend is removed": (named(WEB, DNS), named(service("web", *EIGHT[1:5]), DNS)),
    "a weight changes": (named(WEB), named(service("web", (EIGHT[0], 9), *EIGHT[1:5]))),
    "the block grows": (named(WEB, DNS), named(service("web", *addresses(40)), DNS)),
    "the block grows and others leave": (named(WEB, DNS), named(service("web", *addresses(30)[3:]), DNS)),
    "all backends are others": (named(WEB), named(service("web", *addresses(5, net="10.9")))),
    "one is drained": (named(WEB), named(service("web", (EIGHT[0], 1, "draining"), *EIGHT[1:5]))),
    "one is disabled": (named(WEB), named(service("web", (EIGHT[0], 1, "disabled"), *EIGHT[1:5]))),
    "all are drained": (named(WEB), named(service("web", *((a, 1, "draining") for a in EIGHT[:5])))),
    "a service is added": (named(WEB), named(WEB, SIX)),
    "a service is removed": (named(WEB, SIX), named(WEB)),
    "a service takes another's place": (named(WEB), named(service("new", *addresses(5, net="10.9")))),
    "ports move": (named(SIX), named(SIX_LATER)),
    "ports are swapped": (
        named(WEB, service("other", *addresses(3, net="10.9"), port=81)),
        named(service("web", *EIGHT[:5], port=81), service("other", *addresses(3, net="10.9"))),
    ),
    "a prefix within a prefix": (named(NET), named(NET, SUB)),
    "a prefix within a prefix goes": (named(NET, SUB), named(NET)),
    "any port within a prefix": (named(NET, SUB), named(NET, SUB, ANY)),
    "no longer any port within a prefix": (named(NET, ANY), named(NET, SUB)),
    "a prefix around others": (named(SUB, HOST), named(SUB, HOST, NET)),
    "what is inherited moves": (
        named(NET, SUB),
        named(service("net", *addresses(40), vip="fc00:2::/64", port=8001, affinity="source"), SUB),
    ),
    "everything at once": (
        named(WEB, DNS, SIX),
        named(service("web", *addresses(20)[2:]), DNS.model_copy(update={"backends": WEB.backends[:2]})),
    ),
}  # fmt: skip


def all_flows() -> list[Flow]:
    """Of every service that the changes name, and of ports that nobody takes."""
    tcp = flows() + flows(port=81, count=4) + flows(port=82, count=1)
    six = [
        flow
        for vip in ("fc00:2::1", "fc00:2::2", "fc00:2:0:0:1::1")
        for port in (8000, 8001, 8003)
        for flow in flows(vip, port, count=2)
    ]
    six += [flow for port in (8000, 8001, 8003) for flow in flows("fc00:1::2", port, count=2)]
    return tcp + six + flows("fc00:1::1", 53, count=3, protocol=17)


@pytest.mark.parametrize("name", CHANGES)
def test_no_packet_sees_half_a_change(name: str) -> None:
    """Between any two writes a new flow goes the old way or the new one, and a known flow to its backend."""
    before, after = CHANGES[name]
    looks: list[bool] = []
    twin = TwinDataPlane(replace(SMALL, flow_slots=64, rings=16, backends=256))
    wanted: dict[Flow, set[object]] = {}
    known: dict[tuple[int, int], bytes] = {}

    def look() -> None:
        looks.append(True)
        for flow, now in choices(twin.tables, wanted).items():
            assert now in wanted[flow], flow
        for (number, place), address in known.items():
            assert kept(twin.tables, after, number, place) == address

    once = {"service_rings": 1, "backends": 1, "rings": 1 << 14}
    tables = replace(
        twin.tables,
        arrays=watch_arrays(twin.tables.arrays, look, elements=once),
        services4=WatchedTable(twin.tables.services4, look),
        services6=WatchedTable(twin.tables.services6, look),
        vip_prefixes6=WatchedTable(twin.tables.vip_prefixes6, look),
    )
    hops = ways({**{f"old-{n}": s for n, s in before.items()}, **after})
    bench = Bench(twin, tables)
    bench.put(before, hops)
    reference = Bench(TwinDataPlane(twin.sizes))
    reference.put(before, hops)
    reference.put(after, hops)
    old, new = choices(twin.tables, all_flows()), choices(reference.twin.tables, all_flows())
    wanted.update({flow: {old[flow], new[flow]} for flow in all_flows()})
    for service_name in before.keys() & after.keys():
        if before[service_name].port != after[service_name].port:
            continue
        plan = bench.plans.by_name[service_name]
        stays = {b.address.packed for b in after[service_name].backends if b.admin_state != "disabled"}
        known.update({(plan.number, at): a.ljust(16, b"\0") for a, at in plan.at.items() if a in stays})
    looks.clear()

    bench.put(after, hops)

    assert looks
    assert choices(twin.tables, all_flows()) == new


def test_a_way_that_changes_is_not_mixed_with_the_old_one() -> None:
    """When a backend moves behind another interface, packets go the old way, the new one, or wait for it."""
    twin = TwinDataPlane(replace(SMALL, backends=64))
    old = ways(named(WEB))
    new = ways(named(WEB), ifindex=9, source_mac=b"\6" * 6, mac=b"\4" * 6)
    answers: dict[Flow, set[object]] = {}

    def look() -> None:
        for flow, now in choices(twin.tables, answers).items():
            assert now in answers[flow]

    tables = replace(twin.tables, arrays=watch_arrays(twin.tables.arrays, look, elements={"backends": 1}))
    bench = Bench(twin, tables)
    bench.put(named(WEB), old)
    first = choices(twin.tables, flows())
    reference = Bench()
    reference.put(named(WEB), new)
    last = choices(reference.twin.tables, flows())
    answers.update({flow: {first[flow], last[flow], "no next hop"} for flow in flows()})

    bench.put(named(WEB), new, all_rows=True)

    assert choices(twin.tables, flows()) == last
    assert not set(first.values()) & set(last.values())


ADOPTED = {
    "a few": [named(WEB, DNS, SIX)],
    "one that has grown": [named(WEB, SIX), named(service("web", *addresses(40)), SIX)],
    "with places left": [named(service("web", *addresses(20))), named(service("web", *addresses(20)[5:12]))],
    "with places used again": [
        named(service("web", *EIGHT[:7])),
        named(service("web", *EIGHT[:3])),
        named(service("web", *EIGHT[:3], *addresses(5, net="10.9"))),
    ],
    "all states": [
        named(service("web", ("10.0.0.1", 0), ("10.0.0.2", 5, "draining"), ("10.0.0.3", 1, "disabled"), "10.0.0.4"))
    ],
    "no backends": [named(service("web"), service("dns", ("10.0.0.1", 0), port=53))],
    "after removals": [named(WEB, DNS, SIX), named(SIX), named(SIX, service("late", "10.0.0.7", port=99))],
    "prefixes": [named(NET, HOST), named(SUB, NET, HOST)],
    "shared rings": [named(WEB, service("twin", *EIGHT[:5], port=81), service("any", *EIGHT[:5], port="any"))],
}  # fmt: skip


@pytest.mark.parametrize("name", ADOPTED)
@pytest.mark.parametrize("unresolved", [False, True])
def test_a_restart_writes_nothing_that_is_right(name: str, unresolved: bool) -> None:
    """A new owner of the memory reads the same plans out of it, and not one byte differs afterwards."""
    bench = Bench()
    *_, last = ADOPTED[name]
    for services in ADOPTED[name]:
        hops = ways(services, mac=None) if unresolved else ways(services)
        bench.put(services, hops)
    before = memory(bench.twin)

    again = bench.adopt(last, hops)

    assert memory(bench.twin) == before
    assert again.plans.rings == bench.plans.rings
    assert again.plans.places.used() == bench.plans.places.used()
    for service_name, plan in bench.plans.by_name.items():
        now = again.plans.by_name[service_name]
        assert (now.number, now.start, now.places, now.ring) == (
            plan.number,
            plan.start,
            plan.places,
            plan.ring,
        )


@pytest.mark.parametrize("name", CHANGES)
def test_a_restart_into_another_state_is_a_change(name: str) -> None:
    """A daemon that died before it wrote a change makes it at its next start: the same flows go the same ways."""
    before, after = CHANGES[name]
    bench, reference = Bench(), Bench()
    bench.put(before)
    reference.put(after)

    bench.adopt(after)

    assert choices(bench.twin.tables, all_flows()) == choices(reference.twin.tables, all_flows())
    keys = {name: set(memory(bench.twin)[name]) for name in ("services4", "services6")}  # type: ignore[call-overload]
    assert keys == {name: set(memory(reference.twin)[name]) for name in ("services4", "services6")}  # type: ignore[call-overload]


def test_a_service_cut_in_two_while_nobody_looked() -> None:
    """Two services that find the same place in memory do not both take it."""
    bench = Bench()
    bench.put(named(service("wide", *EIGHT[:4], port="80-89")))
    halves = named(service("wide", *EIGHT[:4], port="80-84"), service("more", *EIGHT[4:7], port="85-89"))

    plans = bench.adopt(halves).plans

    wide, more = plans.by_name.values()
    assert (wide.number, wide.start) != (more.number, more.start)
    left, right = (choices(bench.twin.tables, flows(port=port, count=40)).values() for port in (84, 85))
    assert set(left).isdisjoint(right)


def test_a_ring_that_is_not_what_its_note_says_is_made_anew() -> None:
    """A crash while a ring was written leaves it without its note; the service gets another, and this one is free."""
    bench = Bench()
    bench.put(named(WEB))
    arrays = bench.twin.tables.arrays
    right = arrays.rings[1].copy()
    arrays.rings[1, 65537:] = 0
    arrays.rings[1, :30000] = 0

    plans = bench.adopt(named(WEB)).plans

    ring = int(arrays.service_rings["ring"][plans.by_name["web"].number])
    assert ring != 1
    assert (arrays.rings[ring] == right).all()


def test_the_note_of_a_ring_stands_only_behind_a_whole_ring() -> None:
    """While a ring's number is given a new one, a restart would not take the half for the old or the new."""
    twin = TwinDataPlane(replace(SMALL, rings=3))
    arrays = twin.tables.arrays
    halves: list[bytes] = []

    def look() -> None:
        halves.append(arrays.rings[1].tobytes())

    tables = replace(twin.tables, arrays=watch_arrays(arrays, look, elements={"rings": 1 << 14}))
    bench = Bench(twin, tables)
    for weight in (1, 2):  # ring 1, then 2
        bench.put(named(service("web", (EIGHT[0], weight), EIGHT[1])))
    old = arrays.rings[1].tobytes()
    halves.clear()
    bench.put(named(service("web", (EIGHT[0], 3), EIGHT[1])))
    new = arrays.rings[1].tobytes()

    assert old != new
    assert len(halves) > 4
    slots = 2 * 65537
    assert {half[slots:] for half in halves if half[:slots] not in (old[:slots], new[:slots])} == {
        bytes(len(old) - slots)
    }


def test_a_service_whose_ring_is_not_the_one_wanted_keeps_it_until_the_new_one_stands() -> None:
    """A restart into other weights does not write over the ring that is in use."""
    bench = Bench()
    bench.put(named(WEB))
    old = bench.twin.tables.arrays.rings[1].copy()

    bench.adopt(named(service("web", (EIGHT[0], 7), *EIGHT[1:5])))

    arrays = bench.twin.tables.arrays
    assert (arrays.rings[1] == old).all()
    assert arrays.service_rings["ring"][0] == 2


def test_the_ring_of_what_nobody_wants_stands_until_its_keys_are_gone() -> None:
    """A restart without a service leaves the ring, by which its packets go until then, to no other service."""
    bench = Bench()
    bench.put(named(WEB))
    old = bench.twin.tables.arrays.rings[1].copy()

    plans = bench.adopt(named(service("new", *EIGHT[5:], vip="10.200.1.9"))).plans

    assert (bench.twin.tables.arrays.rings[1] == old).all()
    assert plans.by_name["new"].ring == 2
    assert set(plans.rings.values()) == {2}


def test_what_nobody_wants_is_gone_after_a_restart() -> None:
    """Keys, switches and rows of services that are no longer desired are taken out."""
    bench = Bench()
    bench.put(named(WEB, DNS, SIX))

    bench.adopt({})

    arrays = bench.twin.tables.arrays
    assert not arrays.backends.view(np.uint8).any()
    assert not arrays.service_rings["ring"].any()
    assert len(bench.twin.tables.services4.read()[0]) == len(bench.twin.tables.services6.read()[0]) == 0


def test_a_row_that_ends_is_disarmed_before_the_rest_is_written() -> None:
    """Until the word with the state is written, the row of a disabled backend stands whole."""
    twin = TwinDataPlane(replace(SMALL, backends=64))
    rows: list[tuple[int, bytes]] = []
    bench = Bench(
        twin,
        replace(
            twin.tables,
            arrays=watch_arrays(
                twin.tables.arrays,
                lambda: rows.append(
                    (int(twin.tables.arrays.backends[0]["state"]), way(twin.tables.arrays.backends[0])[2])
                ),
                elements={"backends": 1},
            ),
        ),
    )
    bench.put(named(WEB))
    rows.clear()

    bench.put(named(service("web", (EIGHT[0], 1, "disabled"), *EIGHT[1:5])))

    assert rows
    assert {ifindex for state, ifindex in rows if state & ACTIVE} <= {(1).to_bytes(4, "little")}
    assert rows[-1][0] == 0

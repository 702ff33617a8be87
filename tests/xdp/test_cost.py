"""What a frame's way costs, in what does not wander: instructions executed, lookups, calls."""

from typing import Any

import pytest
from echo_frames import pinged
from frames import ELSE4, VIP4, VIP6, service, tcp, udp
from machine import Machine, Way
from nat_frames import POOLS, answer
from rig import Rig
from scapy.packet import Packet

pytestmark = pytest.mark.root

SERVICES = [
    service(),
    service("dns", protocol="udp"),
    service("six", vip=VIP6),
]
ADJUST_HEAD, JIFFIES = 44, 118
ECHO_BESIDE = 10
"""Instructions more, at most, of a known flow of mode nat."""
GUARD = {"new_flows_per_second": 1000, "test_unknown": True}
ESTABLISHED = {"vip_bits", "flows", "backends", "verdict_counters", "backend_counters"}


def machine(rig: Rig, **lists: list[str]) -> Machine:
    """The program that a daemon would run, over the same tables."""
    return machine_of(rig, SERVICES, **lists)


def machine_of(rig: Rig, services: list[Any], **lists: list[str]) -> Machine:
    """The same for other services."""
    rig.apply(services=services, **lists)  # type: ignore[arg-type]
    return machine_now(rig)


def machine_now(rig: Rig) -> Machine:
    """The program in force, over the tables as they are."""
    return Machine(rig.program.build, rig.plane.tables, rig.plane.sizes, seconds=rig.plane.clock_seconds())


def established(house: Machine, frame: Packet) -> Way:
    """The way of a later packet of a flow."""
    house.run(bytes(frame))
    house.run(bytes(frame))
    return house.run(bytes(frame))


@pytest.mark.parametrize(
    ("frame", "instructions", "services"),
    [
        (tcp(flags="A"), 535, "services4"),
        (udp(), 535, "services4"),
        (tcp(dst=VIP6, flags="A"), 610, "services6"),
    ],
    ids=["TCP", "UDP", "TCP over IPv6"],
)
def test_established_flow(exact_rig: Rig, frame: Packet, instructions: int, services: str) -> None:
    """One lookup each for service, flow, backend and two counters; no ring, no list, no clock but jiffies."""
    way = established(machine(exact_rig), frame)

    assert way.result == 3
    assert way.lookups == dict.fromkeys(ESTABLISHED | {services}, 1)
    assert way.calls == {ADJUST_HEAD: 1, JIFFIES: 1}
    assert way.instructions <= instructions


def test_known_flows_of_nat(exact_rig: Rig) -> None:
    """Both ways in the first program, by one line of the entry each; no ring, no clock but jiffies.

    A service for echo beside them costs them the look at what they are.
    """
    services = [
        service(name, vip=vip, mode="nat", backends=[backend])
        for name, vip, backend in (("four", VIP4, "10.0.0.11"), ("six", VIP6, "fd00::11"))
    ]
    exact_rig.apply(settings=POOLS, services=services)
    frames = {}
    for vip in (VIP4, VIP6):
        out = exact_rig.run(tcp(dst=vip))
        frames[vip] = tcp(dst=vip, flags="A"), answer(out, "A")
        for frame in frames[vip]:
            exact_rig.run(frame)
    house = machine_now(exact_rig)

    ways = {vip: [house.run(bytes(frame)) for frame in both] for vip, both in frames.items()}

    asked = {"nat_addresses", "nat_pools", "verdict_counters"}
    known = {"vip_bits", "nat_index", "nat_forward", "backends", "backend_counters"}
    for vip, table, most in ((VIP4, "services4", 720), (VIP6, "services6", 900)):
        there, back = ways[vip]
        second = {"nat_forward"} if vip == VIP6 else set()
        assert there.result == back.result == 3
        assert there.lookups == dict.fromkeys(asked | known | {table}, 1)
        assert back.lookups == dict.fromkeys(asked | {"nat_reply"} | second, 1)
        assert there.calls == back.calls == {JIFFIES: 1}
        assert there.instructions <= most
        assert back.instructions <= most - 250

    exact_rig.apply(services=[*services, pinged(vip="10.200.1.5")])
    for frame in (*frames[VIP4], *frames[VIP6]):
        exact_rig.run(frame)
    house = machine_now(exact_rig)
    for vip, (there, back) in ways.items():
        beside = [house.run(bytes(frame)) for frame in frames[vip]]
        assert [way.lookups for way in beside] == [there.lookups, back.lookups]
        assert beside[0].instructions <= there.instructions + ECHO_BESIDE
        assert beside[1].instructions <= back.instructions + ECHO_BESIDE


def test_new_flow_costs_the_ring_more(exact_rig: Rig) -> None:
    """Beyond an established one's way: the service's ring, its slot, and one counter."""
    house = machine(exact_rig)

    new, later = house.run(bytes(tcp())), established(house, tcp(flags="A"))

    assert new.lookups - later.lookups == {"service_rings": 1, "rings": 1, "flow_counters": 1}
    assert new.instructions <= later.instructions + 160


def test_guarded_service(exact_rig: Rig) -> None:
    """An established flow asks nothing more; a new one in peace its row and the counters beside it."""
    frame = tcp(flags="A")
    without = established(machine(exact_rig), frame)
    house = machine_of(exact_rig, [service(flood_protection=GUARD), *SERVICES[1:]])

    new, later = house.run(bytes(tcp())), established(house, frame)

    assert later.lookups == without.lookups
    assert later.instructions <= without.instructions + 60
    assert new.lookups["service_guards"] == new.lookups["guard_counters"] == 1
    assert new.lookups["known_sources"] == new.lookups["syn_tests"] == 0


def test_what_is_for_no_service(exact_rig: Rig) -> None:
    """One line of the service table tells, and one that the source is no VIP."""
    way = machine(exact_rig).run(bytes(tcp(dst=ELSE4)))

    assert way.result == 2
    assert way.lookups == {"vip_bits": 1, "services4": 1, "verdict_counters": 1}
    assert way.instructions <= 260


def test_denied_source(exact_rig: Rig) -> None:
    """A prefix up to /24 is one lookup, a longer one three; nothing of the services is asked."""
    house = machine(exact_rig, block=["10.0.1.0/24", "10.0.2.7/32"])
    counters = {"deny_counters": 1, "verdict_counters": 1}

    short, long = house.run(bytes(tcp())), house.run(bytes(tcp(src="10.0.2.7")))

    assert (short.result, long.result) == (1, 1)
    assert short.lookups == {"deny4_cells": 1, **counters}
    assert long.lookups == {"deny4_cells": 1, "deny4_runs": 1, "deny4_lines": 1, **counters}
    assert short.instructions <= 200
    assert long.instructions <= 260


@pytest.mark.parametrize("entries", [1, 1000])
def test_number_of_entries_does_not_matter(exact_rig: Rig, entries: int) -> None:
    """The way through a blocklist is the same, instruction for instruction, however many entries it has."""
    block = [f"172.{16 + n // 250}.{n % 250}.0/24" for n in range(entries)]
    house = machine(exact_rig, block=block)

    way = established(house, tcp(flags="A"))

    exact_rig.apply(block=block[:1])
    assert way.instructions == established(machine(exact_rig, block=block[:1]), tcp(flags="A")).instructions


@pytest.mark.parametrize("entries", [1, 1000])
def test_ipv6_source_that_matches_nothing_costs_one_look(exact_rig: Rig, entries: int) -> None:
    """One lookup of the filter, and the same instructions however many entries of whatever lengths there are."""
    frame, few = tcp(dst=VIP6, flags="A"), ["2001:db8::/48"]
    more = [f"2a00:{n:x}::/{(32, 48, 64, 127, 128)[n % 5]}" for n in range(1, entries)]
    without = established(machine(exact_rig), frame)

    way = established(machine(exact_rig, block=few + more), frame)

    assert way.lookups - without.lookups == {"deny6_filter": 1}
    exact_rig.apply(block=few)
    assert way.instructions == established(machine(exact_rig, block=few), frame).instructions
    assert way.instructions <= without.instructions + 30


@pytest.mark.parametrize(
    ("prefixes", "asked"),
    [
        (["fd00:0:0:1::2/128"], {"deny6_hosts": 1}),
        (["fd00:0:0:2::/64"], {"deny6_hosts": 1}),
        (["fd00:0:1::/48"], {"deny6_trie": 1}),
        (["fd00:0:0:1::2/128", "fd00:0:0:2::/64", "fd00:0:1::/48"], {"deny6_hosts": 2, "deny6_trie": 1}),
        (["1000::/4"], {"deny6_trie": 1}),
    ],
    ids=["/128", "/64", "other", "all", "shorter than the filter's"],
)
def test_ipv6_source_beside_entries(exact_rig: Rig, prefixes: list[str], asked: dict[str, int]) -> None:
    """With entries for the same first 32 bits, the maps are asked that hold such kinds, and no other."""
    frame = tcp(dst=VIP6, flags="A")
    without = established(machine(exact_rig), frame)

    way = established(machine(exact_rig, block=prefixes), frame)

    assert way.lookups - without.lookups == {"deny6_filter": 1, **asked}


@pytest.mark.parametrize("prefix", ["fd00:0:0:1::1/128", "fd00:0:0:1::/64"])
def test_denied_ipv6_source(exact_rig: Rig, prefix: str) -> None:
    """A /128 or a /64 is the filter and one lookup of the hash."""
    way = machine(exact_rig, block=[prefix]).run(bytes(tcp(dst=VIP6)))

    assert way.result == 1
    counters = {"deny_counters": 1, "verdict_counters": 1}
    assert way.lookups == {"deny6_filter": 1, "deny6_hosts": 1, **counters}
    assert way.instructions <= 300


def test_number_of_services_does_not_matter(exact_rig: Rig) -> None:
    """Nor does it how many services there are, as long as a bucket has room."""
    few = established(machine(exact_rig), tcp(flags="A"))
    more = [service(f"s{n}", vip=f"10.201.0.{n}", backends=["10.0.0.11"]) for n in range(1, 100)]
    exact_rig.apply(services=SERVICES + more)
    house = machine_now(exact_rig)

    way = established(house, tcp(flags="A"))

    assert way.lookups == few.lookups
    assert abs(way.instructions - few.instructions) <= 9  # the slot within the bucket


def test_feature_that_nothing_uses_costs_nothing(exact_rig: Rig) -> None:
    """A QUIC service, a VIP prefix, GUE and a guard come and go: the same way then takes the same instructions."""
    before = established(machine(exact_rig), tcp(flags="A")).instructions
    others = [
        service(
            "q",
            vip="10.200.1.5",
            port=443,
            protocol="udp",
            quic=True,
            backends=[{"address": "10.0.0.11", "quic_id": 7}],
        ),
        service("p", vip="fc00:5::/64", backends=["fd00::11"]),
        service("g", vip="10.200.1.6", mode="gue", flood_protection=GUARD),
    ]
    exact_rig.apply(services=SERVICES + others)
    during = exact_rig.program.info.instructions

    after = machine(exact_rig)

    assert exact_rig.program.info.instructions < during
    assert established(after, tcp(flags="A")).instructions == before

"""Flows: an established one keeps its backend while rings and backends change."""

from ipaddress import ip_address
from typing import Any

import pytest
from flow_table import (
    CLOSED,
    ESTABLISHED,
    PROBATION,
    TCP_IDLE_S,
    UDP,
    UDP_IDLE_S,
    but_for,
    go,
    make_older,
    put,
    slots,
    stats,
    web_services,
    where,
)
from frames import BACKENDS4, VIP4, VIP6, ring_choice, service, tcp, udp
from rig import Rig

from lb.reconcile.observed import FlowTableStats

pytestmark = pytest.mark.root

vips = pytest.mark.parametrize("vip", [VIP4, VIP6])


@pytest.fixture
def web(rig: Rig) -> Rig:
    """The four services, each with three backends."""
    rig.apply(services=web_services(list(BACKENDS4)))
    return rig


@vips
def test_flow_is_found_again(web: Rig, vip: str) -> None:
    """The same tuple goes to the same backend by one slot, from probation to established; the ring is asked once."""
    chosen = go(web, tcp(dst=vip))
    (first,) = slots(web)
    assert first.kind == PROBATION
    assert web.plan(f"tcp{4 if vip == VIP4 else 6}").number == first.service

    for flags in ("A", "PA", "A", "A"):
        assert go(web, tcp(dst=vip, flags=flags)) == chosen

    (then,) = slots(web)
    assert (then.kind, then.tag, then.place) == (ESTABLISHED, first.tag, first.place)
    assert abs(then.seconds - web.plane.clock_seconds()) <= 1
    assert stats(web) == FlowTableStats(hits=4, misses=1)


@vips
@pytest.mark.parametrize("end", ["FA", "R", "RA"])
def test_an_end_closes_the_flow_until_it_is_opened_again(web: Rig, vip: str, end: str) -> None:
    """FIN and RST of the client close a flow, which what follows still finds; a SYN makes it a new one."""
    chosen = go(web, tcp(dst=vip))
    for flags, kind in (("A", ESTABLISHED), (end, ESTABLISHED | CLOSED), ("A", ESTABLISHED | CLOSED)):
        assert go(web, tcp(dst=vip, flags=flags)) == chosen
        (now,) = slots(web)
        assert now.kind == kind

    go(web, tcp(dst=vip, flags="S"))
    (now,) = slots(web)
    assert now.kind == PROBATION


@vips
def test_the_table_decides_not_the_ring(web: Rig, vip: str) -> None:
    """A slot that names another backend than the ring is followed."""
    chosen = go(web, tcp(dst=vip))
    bucket, way = where(web)
    (slot,) = slots(web)
    other = (slot.place + 1) % 3
    put(web, bucket, way, kind=0, age=0, place=other, tag=slot.tag)
    web.flows[bucket, way]["state"] |= slot.service << 16

    assert go(web, tcp(dst=vip, flags="A")) == BACKENDS4[other] != chosen


@vips
def test_udp_flow_is_established_by_its_second_packet(web: Rig, vip: str) -> None:
    """UDP has no handshake: any later packet promotes."""
    chosen = go(web, udp(dst=vip))
    assert [s.kind for s in slots(web)] == [PROBATION | UDP]

    assert go(web, udp(dst=vip)) == chosen

    assert [s.kind for s in slots(web)] == [ESTABLISHED | UDP]


@vips
def test_tuples_are_told_apart(web: Rig, vip: str) -> None:
    """Another port, address, VIP or protocol is another flow; a VLAN or TOS is not."""
    near = "10.0.1.2" if vip == VIP4 else "fd00:0:0:1::2"
    frames = [
        tcp(dst=vip),
        tcp(dst=vip, sport=40001),
        tcp(src=near, dst=vip),
        udp(dst=vip),
        tcp(dst=VIP6 if vip == VIP4 else VIP4),
    ]
    for frame in frames:
        go(web, frame)
    assert len({s.tag for s in slots(web)}) == 5

    go(web, tcp(dst=vip, flags="A", **{"tos" if vip == VIP4 else "tc": 8}))

    assert len(slots(web)) == 5


@vips
def test_ring_change_moves_only_new_flows(web: Rig, vip: str) -> None:
    """Established flows stay where they are, new ones follow the new ring."""
    olds = {port: go(web, tcp(dst=vip, sport=port)) for port in range(1000, 1200)}
    for port, chosen in olds.items():
        assert go(web, tcp(dst=vip, sport=port, flags="A")) == chosen
    after = [*BACKENDS4, "10.0.0.14", "10.0.0.15", "10.0.0.16"]
    document = service(vip=vip, backends=after)

    web.apply(services=web_services(after))

    client = bytes(tcp(dst=vip))[26:30] if vip == VIP4 else bytes(tcp(dst=vip))[22:38]
    moved = [port for port, chosen in olds.items() if ring_choice(document, client, port, 80) != chosen]
    assert len(moved) > 50
    assert {port: go(web, tcp(dst=vip, sport=port, flags="A")) for port in olds} == olds
    for port in range(2000, 2050):
        assert go(web, tcp(dst=vip, sport=port)) == ring_choice(document, client, port, 80)


@vips
def test_syn_on_a_known_tuple_asks_the_ring(web: Rig, vip: str) -> None:
    """A reused port is a new connection: it goes where the ring of now says, and so do its later packets."""
    document = service(vip=vip, backends=["10.0.0.14", "10.0.0.15"])
    client = bytes(tcp(dst=vip))[26:30] if vip == VIP4 else bytes(tcp(dst=vip))[22:38]
    old = go(web, tcp(dst=vip))
    go(web, tcp(dst=vip, flags="A"))
    web.apply(
        services=web_services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14", "10.0.0.15"])
    )
    assert go(web, tcp(dst=vip, flags="A")) == old

    new = go(web, tcp(dst=vip))

    assert new == ring_choice(document, client, 40000, 80)
    assert [s.kind for s in slots(web)] == [PROBATION]
    assert go(web, tcp(dst=vip, flags="A")) == new


def test_syn_ack_is_no_opening(web: Rig) -> None:
    """SYN with ACK belongs to a connection that is known: it asks the table."""
    old = go(web, tcp())
    web.apply(services=web_services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14"]))

    assert go(web, tcp(flags="SA")) == old
    assert go(web, tcp(flags="SEC")) == "10.0.0.14"  # ECN set-up: a SYN all the same


@vips
@pytest.mark.parametrize("flags", ["R", "RA"])
def test_rst_is_forwarded_and_not_remembered(web: Rig, vip: str, flags: str) -> None:
    """A RST of an unknown flow goes where the ring says and leaves nothing; one of a known flow goes to its backend."""
    assert go(web, tcp(dst=vip, flags=flags)) in BACKENDS4
    assert slots(web) == []
    assert stats(web) == FlowTableStats(misses=1)

    chosen = go(web, tcp(dst=vip))
    web.apply(services=web_services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14"]))
    assert go(web, tcp(dst=vip, flags=flags)) == chosen


@vips
@pytest.mark.parametrize(
    ("packet", "flags", "idle"), [(udp, {}, UDP_IDLE_S), (tcp, {"flags": "A"}, TCP_IDLE_S)]
)
def test_idle_flow_asks_the_ring_again(
    web: Rig, vip: str, packet: Any, flags: dict[str, str], idle: int
) -> None:
    """Unseen for longer than its protocol's idle time, a flow is a new one; until then it stays."""
    frame = packet(dst=vip, **flags)
    old = go(web, frame)
    go(web, frame)
    web.apply(services=web_services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14"]))
    make_older(web, idle - 1)
    assert go(web, frame) == old

    make_older(web, idle + 2)

    assert go(web, frame) == "10.0.0.14"
    (slot,) = slots(web)
    assert slot.kind & PROBATION


def test_idle_time_is_a_setting(web: Rig) -> None:
    """The configured idle time is the one in force, without a restart."""
    web.apply(settings={"udp_idle_seconds": 300})
    old = go(web, udp())
    web.apply(services=web_services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14"]))
    make_older(web, 299)
    assert go(web, udp()) == old

    make_older(web, 302)

    assert go(web, udp()) == "10.0.0.14"


@vips
def test_draining_backend_keeps_its_flows(web: Rig, vip: str) -> None:
    """Known flows stay with a draining backend, new ones avoid it."""
    chosen = go(web, tcp(dst=vip))
    web.apply(services=web_services(but_for(chosen, admin_state="draining")))

    for flags in ("A", "PA"):
        assert go(web, tcp(dst=vip, flags=flags)) == chosen
    assert chosen not in {go(web, tcp(dst=vip, sport=port)) for port in range(3000, 3060)}
    assert web.reconciler.live_flows(f"tcp{4 if vip == VIP4 else 6}", ip_address(chosen)) == 1


@vips
@pytest.mark.parametrize("how", ["disabled", "removed"])
def test_flows_of_a_backend_that_is_gone_move_at_once(web: Rig, vip: str, how: str) -> None:
    """The next packet of the flow goes to another backend, and stays there when the first comes back."""
    chosen = go(web, tcp(dst=vip))
    go(web, tcp(dst=vip, flags="A"))
    left = [b for b in BACKENDS4 if b != chosen]
    web.apply(services=web_services(but_for(chosen, admin_state="disabled") if how == "disabled" else left))

    moved = go(web, tcp(dst=vip, flags="A"))
    assert moved != chosen
    go(web, tcp(dst=vip, flags="A"))

    web.apply(services=web_services(list(BACKENDS4)))
    assert go(web, tcp(dst=vip, flags="A")) == moved


def test_a_newcomers_place_is_not_taken_for_its_forerunners(web: Rig) -> None:
    """A backend that gets the place of one removed does not inherit its flows: they ask the ring."""
    chosen = go(web, tcp())
    for n in range(20, 32):  # more addresses than the block remembers
        web.apply(services=web_services([f"10.0.0.{n}", *(b for b in BACKENDS4 if b != chosen)]))
    web.apply(
        services=web_services(
            [*({"address": f"10.0.0.{n}", "weight": 0} for n in range(31, 32)), "10.0.0.50"]
        )
    )

    assert go(web, tcp(flags="A")) == "10.0.0.50"


def test_flow_is_not_taken_for_another_services(rig: Rig) -> None:
    """An exact port is set over a service of any port: the place that a flow had means nothing in the new block.

    The new service's ring decides; no packet strays to whatever service owns the places beside the block.
    """
    many = [f"10.0.2.{n}" for n in range(1, 31)]
    every = service("every", port="any", backends=many)
    exact = service("exact", backends=["10.0.3.1"])
    stranger = service("stranger", vip="10.200.1.77", backends=[f"10.0.4.{n}" for n in range(1, 31)])
    rig.apply(services=[every])
    for port in range(1000, 1060):
        assert go(rig, tcp(sport=port)) in many

    rig.apply(services=[every, exact, stranger])

    assert {go(rig, tcp(sport=port, flags="A")) for port in range(1000, 1060)} == {"10.0.3.1"}
    rig.apply(services=[every, stranger])
    assert {go(rig, tcp(sport=port, flags="A")) for port in range(1000, 1060)} <= set(many)


def test_flows_do_not_outlive_a_renamed_service(rig: Rig) -> None:
    """A service put in another's place, VIP and all, has a block of its own: old flows ask its ring."""
    rig.apply(services=[service("old", backends=[f"10.0.2.{n}" for n in range(1, 6)])])
    for port in range(1000, 1040):
        go(rig, tcp(sport=port))

    spare = [{"address": f"10.0.3.{n}", "weight": 0} for n in range(3, 8)]

    rig.apply(services=[service("new", backends=["10.0.3.1", "10.0.3.2", *spare])])

    assert {go(rig, tcp(sport=port, flags="A")) for port in range(1000, 1040)} == {"10.0.3.1", "10.0.3.2"}


def test_live_flows_are_counted_by_backend(web: Rig) -> None:
    """The status reads the table: flows by service and backend, without those that are idle."""
    reached = [go(web, tcp(sport=port)) for port in range(1000, 1030)]
    for port in range(10):
        go(web, udp(sport=port))

    statuses = {s.name: s for s in web.reconciler.status().services}

    assert {b.address: b.flows for b in statuses["tcp4"].backends} == {b: reached.count(b) for b in BACKENDS4}
    assert (statuses["tcp4"].flows, statuses["udp4"].flows, statuses["tcp6"].flows) == (30, 10, 0)
    web.flows["state"][web.flows["tag_backend"] != 0] -= (UDP_IDLE_S + 5) << 32
    statuses = {s.name: s for s in web.reconciler.status().services}
    assert (statuses["tcp4"].flows, statuses["udp4"].flows) == (30, 0)

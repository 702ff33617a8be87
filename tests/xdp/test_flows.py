"""The flow table: an established flow keeps its backend, and a flood of newcomers costs only newcomers."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest
from frames import BACKENDS4, VIP4, VIP6, expect_encapsulated, ring_choice, service, tcp, udp
from rig import Rig
from scapy.packet import Packet

from lb.dataplane.layout import layout
from lb.reconcile.observed import FlowTableStats

pytestmark = pytest.mark.root

_C = layout().constants
PROBATION, ESTABLISHED, UDP = _C["FLOW_PROBATION"], _C["FLOW_ESTABLISHED"], _C["FLOW_UDP"]
WAYS, PROTECT_S = _C["FLOW_WAYS"], _C["FLOW_PROTECT_S"]
UDP_IDLE_S, TCP_IDLE_S = 30, 3600

vips = pytest.mark.parametrize("vip", [VIP4, VIP6])


@dataclass(frozen=True)
class Slot:
    """What a slot of the flow table says."""

    tag: int
    place: int
    seconds: int
    service: int
    kind: int


def slots(rig: Rig) -> list[Slot]:
    """All slots in use."""
    used = rig.flows[rig.flows["tag_backend"] != 0]
    pairs = zip(used["tag_backend"].tolist(), used["state"].tolist(), strict=True)
    return [Slot(t >> 16, t & 0xFFFF, s >> 32, s >> 16 & 0xFFFF, s & 0xFFFF) for t, s in pairs]


def put(rig: Rig, bucket: int, way: int, *, kind: int, age: int, place: int = 0, tag: int | None = None) -> int:
    """Write a slot, seen so many seconds ago; returns its tag."""
    tag = 0xABC000 + way if tag is None else tag
    rig.flows[bucket, way]["state"] = (rig.plane.clock_seconds() - age) << 32 | kind
    rig.flows[bucket, way]["tag_backend"] = tag << 16 | place
    return tag


def where(rig: Rig) -> tuple[int, int]:
    """Bucket and way of the only flow there is."""
    ((bucket, way),) = zip(*rig.flows["tag_backend"].nonzero(), strict=True)
    return int(bucket), int(way)


def make_older(rig: Rig, seconds: int) -> None:
    """As if the only flow had been seen so much earlier."""
    bucket, way = where(rig)
    state = int(rig.flows[bucket, way]["state"])
    rig.flows[bucket, way]["state"] = state - (seconds << 32)


def go(rig: Rig, frame: Packet) -> str:
    """The backend that a frame goes to."""
    return expect_encapsulated(rig.run(frame), frame)


def but_for(backend: str, **fields: Any) -> list[dict[str, Any]]:
    """The three backends, one of them changed."""
    return [{"address": b, **(fields if b == backend else {})} for b in BACKENDS4]


@pytest.fixture
def web(rig: Rig) -> Rig:
    """Two TCP services and two UDP ones, IPv4 and IPv6, on port 80."""
    rig.apply(services=services(list(BACKENDS4)))
    return rig


def services(backends: list[Any], **fields: Any) -> list[dict[str, Any]]:
    return [
        service(f"{protocol}{n}", vip=vip, protocol=protocol, backends=backends, **fields)
        for n, vip in ((4, VIP4), (6, VIP6))
        for protocol in ("tcp", "udp")
    ]


def stats(rig: Rig) -> FlowTableStats:
    return rig.reconciler.counters().flow_table


@vips
def test_flow_is_found_again(web: Rig, vip: str) -> None:
    """The same tuple goes to the same backend by one slot, from probation to established; the ring is asked once."""
    chosen = go(web, tcp(dst=vip))
    (first,) = slots(web)
    assert first.kind == PROBATION
    assert web.plan(f"tcp{4 if vip == VIP4 else 6}").number == first.service

    for flags in ("A", "PA", "FA", "A"):
        assert go(web, tcp(dst=vip, flags=flags)) == chosen

    (then,) = slots(web)
    assert (then.kind, then.tag, then.place) == (ESTABLISHED, first.tag, first.place)
    assert abs(then.seconds - web.plane.clock_seconds()) <= 1
    assert stats(web) == FlowTableStats(hits=4, misses=1)


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

    web.apply(services=services(after))

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
    web.apply(services=services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14", "10.0.0.15"]))
    assert go(web, tcp(dst=vip, flags="A")) == old

    new = go(web, tcp(dst=vip))

    assert new == ring_choice(document, client, 40000, 80)
    assert [s.kind for s in slots(web)] == [PROBATION]
    assert go(web, tcp(dst=vip, flags="A")) == new


def test_syn_ack_is_no_opening(web: Rig) -> None:
    """SYN with ACK belongs to a connection that is known: it asks the table."""
    old = go(web, tcp())
    web.apply(services=services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14"]))

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
    web.apply(services=services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14"]))
    assert go(web, tcp(dst=vip, flags=flags)) == chosen


@vips
@pytest.mark.parametrize(("packet", "flags", "idle"), [(udp, {}, UDP_IDLE_S), (tcp, {"flags": "A"}, TCP_IDLE_S)])
def test_idle_flow_asks_the_ring_again(web: Rig, vip: str, packet: Any, flags: dict[str, str], idle: int) -> None:
    """Unseen for longer than its protocol's idle time, a flow is a new one; until then it stays."""
    frame = packet(dst=vip, **flags)
    old = go(web, frame)
    go(web, frame)
    web.apply(services=services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14"]))
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
    web.apply(services=services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14"]))
    make_older(web, 299)
    assert go(web, udp()) == old

    make_older(web, 302)

    assert go(web, udp()) == "10.0.0.14"


@pytest.mark.parametrize("ahead", [1, 2])
def test_a_flow_seen_a_moment_later_is_not_idle(web: Rig, ahead: int) -> None:
    """Another CPU may have stamped the flow with a second that this packet's clock had not reached: it is fresh."""
    old = go(web, tcp())
    go(web, tcp(flags="A"))
    web.apply(services=services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14"]))

    make_older(web, -ahead)

    assert go(web, tcp(flags="A")) == old


@vips
def test_draining_backend_keeps_its_flows(web: Rig, vip: str) -> None:
    """Known flows stay with a draining backend, new ones avoid it."""
    chosen = go(web, tcp(dst=vip))
    web.apply(services=services(but_for(chosen, admin_state="draining")))

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
    web.apply(services=services(but_for(chosen, admin_state="disabled") if how == "disabled" else left))

    moved = go(web, tcp(dst=vip, flags="A"))
    assert moved != chosen
    go(web, tcp(dst=vip, flags="A"))

    web.apply(services=services(list(BACKENDS4)))
    assert go(web, tcp(dst=vip, flags="A")) == moved


def test_a_newcomers_place_is_not_taken_for_its_forerunners(web: Rig) -> None:
    """A backend that gets the place of one removed does not inherit its flows: they ask the ring."""
    chosen = go(web, tcp())
    for n in range(20, 32):  # more addresses than the block remembers
        web.apply(services=services([f"10.0.0.{n}", *(b for b in BACKENDS4 if b != chosen)]))
    web.apply(services=services([*({"address": f"10.0.0.{n}", "weight": 0} for n in range(31, 32)), "10.0.0.50"]))

    assert go(web, tcp(flags="A")) == "10.0.0.50"


def test_flow_is_not_taken_for_another_services(rig: Rig) -> None:
    """An exact port set over a service of any port: the flow's place in the old service's block means nothing in the new.

    The new service's ring decides; no packet strays to whatever service owns the place beside its block.
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


FRESH, OLD = 5, PROTECT_S + 5
EVICTIONS = {
    # what the other slots hold as (class, age in seconds), and which of them a newcomer replaces
    "an empty slot first": ([(ESTABLISHED, OLD), None, (PROBATION, 9), (PROBATION, 8)], 1),
    "then an idle one": ([(PROBATION, 9), (ESTABLISHED, OLD), (ESTABLISHED, TCP_IDLE_S + 5), (PROBATION, 8)], 2),
    "idle by UDP's time": ([(PROBATION, 9), (ESTABLISHED, 40), (ESTABLISHED | UDP, UDP_IDLE_S + 5), (PROBATION, 8)], 2),
    "then the oldest newcomer": ([(PROBATION, 7), (PROBATION, 9), (PROBATION | UDP, 8), (PROBATION, 6)], 1),
    "before any established": ([(ESTABLISHED, OLD), (ESTABLISHED, OLD), (PROBATION, 0), (ESTABLISHED, OLD)], 2),
    "then the longest silent": ([(ESTABLISHED, OLD), (ESTABLISHED, OLD + 9), (ESTABLISHED, OLD + 2), (ESTABLISHED, 1)], 1),
    "never one seen lately": ([(ESTABLISHED, FRESH), (ESTABLISHED, 0), (ESTABLISHED, OLD - 10), (ESTABLISHED | UDP, 9)], None),
    "nor one stamped ahead": ([(ESTABLISHED, -1), (ESTABLISHED, -2), (PROBATION, 3), (ESTABLISHED, -1)], 2),
    "newcomers stamped ahead": ([(PROBATION, -1), (PROBATION, 0), (PROBATION, -2), (ESTABLISHED, 1)], 1),
}


@pytest.mark.parametrize("name", EVICTIONS)
def test_who_is_evicted(web: Rig, name: str) -> None:
    """A full bucket gives up: an empty or idle slot, the newcomer seen longest ago, a long silent established flow."""
    others, victim = EVICTIONS[name]
    frame = tcp()
    go(web, frame)
    bucket, way = where(web)
    (mine,) = slots(web)
    web.flows[bucket, way]["tag_backend"] = 0
    tags = [
        put(web, bucket, n, kind=slot[0], age=slot[1]) if slot else 0 for n, slot in enumerate(others)
    ]
    before = stats(web)

    chosen = go(web, frame)

    expected = [mine.tag if n == victim else tag for n, tag in enumerate(tags)]
    assert (web.flows[bucket]["tag_backend"] >> 16).tolist() == expected
    after = stats(web)
    assert after.misses == before.misses + 1
    assert after.untracked == before.untracked + (victim is None)
    evicted = victim is not None and others[victim] is not None and "idle" not in name
    assert after.evictions == before.evictions + evicted
    # Tracked or not, the flow goes where the ring says.
    assert go(web, tcp(flags="A")) == chosen


def test_a_full_bucket_of_protected_flows_serves_by_the_ring(web: Rig) -> None:
    """A flow that finds no slot is balanced all the same, and takes one as soon as there is room."""
    go(web, tcp())
    bucket, way = where(web)
    web.flows[bucket, way]["tag_backend"] = 0
    for n in range(WAYS):
        put(web, bucket, n, kind=ESTABLISHED, age=1)
    chosen = [go(web, tcp(flags=f)) for f in "SAAA"]
    assert len(set(chosen)) == 1
    assert stats(web).untracked == 4

    put(web, bucket, 3, kind=ESTABLISHED, age=OLD)
    go(web, tcp(flags="A"))
    go(web, tcp(flags="A"))

    assert stats(web).untracked == 4
    assert (web.flows[bucket]["state"] & 0xFF).tolist() == [ESTABLISHED] * 4


def test_state_word_is_written_once_a_second(web: Rig) -> None:
    """Packets within one second leave the slot as it is, so CPUs do not fight over its line; a later one renews it."""
    go(web, tcp())
    go(web, tcp(flags="A"))
    make_older(web, 10)
    (old,) = slots(web)

    go(web, tcp(flags="A"))

    (new,) = slots(web)
    assert new.seconds >= old.seconds + 10
    assert abs(new.seconds - web.plane.clock_seconds()) <= 1


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

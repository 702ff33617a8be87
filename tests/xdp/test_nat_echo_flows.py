"""Mode nat with protocol icmp: whose flows echo requests are, how long these live, and what is seen of them."""

import numpy as np
import pytest
from echo_frames import IDENTIFIER, expect_ping, expect_pong, ping, pinged, pong, told
from frames import (
    CLIENT4,
    CLIENT6,
    VIP4,
    VIP6,
    service,
    tcp,
)
from nat_frames import POOL4, POOL6, POOLS, network_of, port_given, reparsed, state
from rig import Rig
from scapy.packet import Packet

from lb.reconcile.nat_flows import NatTuples

pytestmark = pytest.mark.root

OTHER_VIP = "10.200.1.2"


def test_no_identifier_left(nat_rig: Rig) -> None:
    """They are the pool's ports, which connections take too: where none is left a flow that is known goes on."""
    few = {**POOLS, "nat_ports": "2000-2003"}
    nat_rig.apply(settings=few, services=[pinged(), service(mode="nat", backends=["10.0.0.11"])])
    taken = {
        port_given(nat_rig.run(tcp())),
        *(told(nat_rig.run(ping(identifier=n)).frame_out)[0] for n in range(3)),
    }

    assert taken == {2000, 2001, 2002, 2003}
    assert nat_rig.verdict(ping(identifier=9)) == nat_rig.verdict(tcp(sport=9)) == "DROP_NAT_PORTS"
    assert nat_rig.verdict(ping(identifier=2)) == "TX_NAT"

    nat_rig.plane.later(31)
    nat_rig.sweep()

    assert nat_rig.verdict(ping(identifier=9)) == "TX_NAT"


def test_how_long_it_lives(nat_rig: Rig) -> None:
    """Without a reply as long as all that opens; with one for its own setting, which is 60 seconds."""
    settings = {**POOLS, "nat_udp_idle_seconds": 10}
    nat_rig.apply(settings=settings, services=[pinged(), pinged("six", VIP6, ["10.0.0.11"])])
    answered = [nat_rig.run(ping(dst=vip)) for vip in (VIP4, VIP6)]
    for out in answered:
        nat_rig.run(pong(out))
    silent = told(nat_rig.run(ping(identifier=8)).frame_out)[0]
    live = [told(out.frame_out)[0] for out in answered]

    assert [state(nat_rig, given) for given in (*live, silent)] == [(1, 1), (1, 1), (1, 0)]
    for seconds, left in ((29, 3), (3, 2), (27, 2), (3, 0)):
        nat_rig.plane.later(seconds)
        nat_rig.sweep()
        assert np.count_nonzero(nat_rig.plane.tables.arrays.nat_forward["word"]) == left


def test_what_nobody_has_freed(nat_rig: Rig) -> None:
    """Half a minute after its time an identifier is given to another, though no daemon runs; not before."""
    few = {**POOLS, "nat_ports": "2000-2000"}
    nat_rig.apply(settings=few, services=[pinged()])
    nat_rig.run(pong(nat_rig.run(ping())))
    states = [
        nat_rig.plane.tables.arrays.nat_forward["state"],
        nat_rig.plane.tables.arrays.nat_reply["state"],
    ]

    def pass_by(seconds: int) -> None:
        for column in states:
            column[column != 0] -= np.uint64(seconds << 32)

    pass_by(60 + 28)
    assert nat_rig.verdict(ping(identifier=8)) == "DROP_NAT_PORTS"
    pass_by(4)
    assert nat_rig.verdict(ping(identifier=8)) == "TX_NAT"


def test_draining_and_disabled_backends(nat_rig: Rig) -> None:
    """A draining backend keeps what it has and gets nothing new; of a disabled one the next request goes elsewhere."""
    nat_rig.apply(settings=POOLS, services=[pinged(backends=["10.0.0.11", "10.0.0.12"])])
    first = network_of(reparsed(nat_rig.run(ping()).frame_out)).dst
    other = {"10.0.0.11": "10.0.0.12", "10.0.0.12": "10.0.0.11"}[first]

    def set_first(wanted: str) -> None:
        backends = [{"address": first, "admin_state": wanted}, {"address": other}]
        nat_rig.apply(services=[pinged(backends=backends)])

    set_first("draining")
    expect_ping(nat_rig.run(ping(number=2)), ping(number=2), POOL4, first)
    for identifier in range(20):
        frame = ping(identifier=1000 + identifier)
        expect_ping(nat_rig.run(frame), frame, POOL4, other)
    set_first("disabled")
    expect_ping(nat_rig.run(ping(number=3)), ping(number=3), POOL4, other)


def test_the_ring_takes_the_identifier_for_the_port(rig: Rig) -> None:
    """One client's identifiers are spread over the backends; with affinity source all go to one."""
    backends = [f"10.0.0.{last}" for last in range(11, 15)]

    def chosen() -> set[str]:
        outs = [rig.run(ping(identifier=n)) for n in range(60)]
        return {network_of(reparsed(out.frame_out)).dst for out in outs}

    rig.apply(settings=POOLS, services=[pinged(backends=backends)])
    spread = chosen()
    rig.forget_nat()
    rig.apply(services=[pinged(backends=backends, affinity="source")])

    assert spread == set(backends)
    assert len(chosen()) == 1


@pytest.mark.parametrize("vip", ["fc00:1::/64", "fc00:1::/96"])
def test_vip_prefix(rig: Rig, vip: str) -> None:
    """Every address of a VIP prefix is pinged through, and answers as itself."""
    rig.apply(settings=POOLS, services=[pinged(vip=vip, backends=["10.0.0.11"])])

    for address in ("fc00:1::", "fc00:1::9", "fc00:1::ffff"):
        request = ping(dst=address)
        out = rig.run(request)
        expect_ping(out, request, POOL4, "10.0.0.11")
        reply = pong(out)
        expect_pong(rig.run(reply), reply, request)


def test_hairpin(nat_rig: Rig) -> None:
    """A backend that pings the VIP, and is chosen itself, is answered as any other client."""
    nat_rig.apply(settings=POOLS, services=[pinged()])
    request = ping("10.0.0.11")

    out = nat_rig.run(request)
    expect_ping(out, request, POOL4, "10.0.0.11")
    reply = pong(out)
    expect_pong(nat_rig.run(reply), reply, request)


def test_lists_and_rules(rig: Rig) -> None:
    """Requests are, and a rule may name the service; replies are not asked, not even of a backend that is blocked."""
    rule = {"name": "r", "action": "drop", "service": "six"}
    services = [pinged(), pinged("six", VIP6, ["fd00::11"])]
    rig.apply(settings=POOLS, services=services)
    out = rig.run(ping())
    expect_ping(rig.run(ping(dst=VIP6)), ping(dst=VIP6), POOL6, "fd00::11")

    rig.apply(block=[CLIENT4, "10.0.0.11"], rules=[rule])

    assert rig.verdict(ping()) == "DROP_BLOCKLIST"
    assert rig.verdict(ping(dst=VIP6)) == "DROP_RULE"
    expect_pong(rig.run(pong(out)), pong(out), ping())


def test_seen(nat_rig: Rig) -> None:
    """A flow is listed with the identifiers of both sides, and counted by its state."""
    nat_rig.apply(settings=POOLS, services=[pinged(), pinged("across", VIP6, ["10.0.0.11"])])
    near, across = nat_rig.run(ping()), nat_rig.run(ping(dst=VIP6))
    nat_rig.run(pong(near))

    seen = nat_rig.reconciler.flows(None, None, None, 10)

    given, other = told(near.frame_out)[0], told(across.frame_out)[0]
    assert {(f.service, f.protocol, f.state): f.nat for f in seen.flows} == {
        ("ping", "icmp", "open"): NatTuples(f"{CLIENT4}:{IDENTIFIER}", VIP4, f"{POOL4}:{given}", "10.0.0.11"),
        ("across", "icmp", "opening"): NatTuples(
            f"[{CLIENT6}]:{IDENTIFIER}", VIP6, f"{POOL4}:{other}", "10.0.0.11"
        ),
    }


def test_explained(nat_rig: Rig) -> None:
    """Explaining says what becomes of requests and replies, with their identifiers, and changes nothing."""
    nat_rig.apply(settings=POOLS, services=[pinged(), service("web", vip=OTHER_VIP)])

    def explained(frame: Packet) -> list[tuple[str, str]]:
        (one,) = nat_rig.reconciler.explain([bytes(frame)])
        return [(step.stage, step.detail) for step in one.steps]

    before = explained(ping())
    out = nat_rig.run(ping())
    given, _, _ = told(out.frame_out)

    assert before[2:] == [
        ("icmp", f"an echo request, identifier {IDENTIFIER}"),
        ("service", f'service "ping" takes icmp {VIP4}'),
        ("nat", f"a new flow; leaves as {POOL4} → 10.0.0.11, identifier {given}"),
    ]
    assert explained(pong(out))[-1] == (
        "nat",
        f"its flow is known, without a reply so far; leaves as {VIP4} → {CLIENT4}, identifier {IDENTIFIER}",
    )
    assert explained(ping(dst=OTHER_VIP))[-1] == (
        "icmp",
        f"an echo request for VIP {OTHER_VIP}, answered here",
    )

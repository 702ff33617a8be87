"""What is seen of mode nat's flows: both their sides, and what became of them."""

from typing import Any

import pytest
from frames import LINK, VIP4, VIP6, service, tcp, udp
from nat_frames import POOL4, POOL6, POOLS, answer, port_given
from rig import Rig
from scapy.layers.inet import ICMP, IP

from lb.model.document import from_mapping
from lb.reconcile.nat_flows import NatTuples
from lb.reconcile.observed import NatRefusals
from lb.reconcile.terms import Terms

pytestmark = pytest.mark.root

KEPT = {"mode": "nat", "nat_source": "keep"}


def test_flows_are_listed_with_both_sides(nat_rig: Rig) -> None:
    """A flow within a family, one across, and one that keeps its source: as its packets have on either side."""
    nat_rig.apply(
        settings=POOLS,
        services=[
            service(mode="nat", backends=[{"address": "10.0.0.11", "port": 8080}]),
            service("across", mode="nat", vip=VIP4, protocol="udp", backends=["fd00::11"]),
            service("kept", vip=VIP6, backends=["fd00::12"], **KEPT),
        ],
    )
    near = nat_rig.run(tcp())
    nat_rig.run(answer(near))
    nat_rig.run(tcp(flags="A"))
    across = nat_rig.run(udp())
    nat_rig.run(tcp(dst=VIP6))

    seen = nat_rig.reconciler.flows(None, None, None, 10)

    client6 = tcp(dst=VIP6).getlayer(1).src
    assert {(f.service, f.protocol, f.state): f.nat for f in seen.flows} == {
        ("web", "tcp", "open"): NatTuples(
            "10.0.1.1:40000", f"{VIP4}:80", f"{POOL4}:{port_given(near)}", "10.0.0.11:8080"
        ),
        ("across", "udp", "opening"): NatTuples(
            "10.0.1.1:40000", f"{VIP4}:80", f"[{POOL6}]:{port_given(across)}", "[fd00::11]:80"
        ),
        ("kept", "tcp", "opening"): NatTuples(
            f"[{client6}]:40000", f"[{VIP6}]:80", f"[{client6}]:40000", "[fd00::12]:80"
        ),
    }


def test_what_became_of_flows_is_counted(nat_rig: Rig) -> None:
    """Refused by the pool that was short, reopened, ended, ended early for want of ports: each where it belongs."""
    few = {**POOLS, "nat_ports": "2000-2003"}
    nat_rig.apply(
        settings=few,
        services=[service(mode="nat"), service("six", mode="nat", vip=VIP6, backends=["fd00::11"])],
    )
    before, last = nat_rig.reconciler.counters().nat, nat_rig.reconciler.events.last
    for n in range(6):
        nat_rig.run(tcp(sport=1000 + n))
        nat_rig.run(tcp(dst=VIP6, sport=1000 + n))
    nat_rig.run(tcp(dst=VIP6, sport=2000))
    nat_rig.run(tcp(sport=1000, flags="R"))
    nat_rig.run(tcp(sport=1000))
    full = nat_rig.reconciler.counters().nat

    nat_rig.plane.later(8)  # a quarter of what an opening flow has in peace
    nat_rig.sweep()
    early, events = nat_rig.reconciler.counters().nat, nat_rig.reconciler.events.since(last)
    nat_rig.run(tcp(sport=3000))
    nat_rig.plane.later(31)
    nat_rig.sweep()
    late = nat_rig.reconciler.counters().nat

    assert {event.facts["pool"] for event in events if event.kind == "nat.exhausted"} == {"ipv4", "ipv6"}
    assert full.opened - before.opened == 8
    assert full.reopened - before.reopened == 1
    assert full.no_port == NatRefusals(before.no_port.ipv4 + 2, before.no_port.ipv6 + 3, before.no_port.keep)
    assert (early.ended - full.ended, early.ended_early - full.ended_early) == (8, 8)
    assert (late.ended - early.ended, late.ended_early - early.ended_early) == (1, 0)


def test_what_ends_with_a_pool_address_is_foretold(nat_rig: Rig) -> None:
    """A dry run says how many live flows end with an address that leaves the pool, and so many do."""
    ports = {"nat_ports": "2000-2003"}
    pools: list[Any] = [POOL4, "10.9.0.2"]
    nat_rig.apply(settings={**ports, "nat_pools": pools}, services=[service(mode="nat")])
    flows = [tcp(sport=1000 + n) for n in range(6)]
    left = {port_given(nat_rig.run(flow)) for flow in flows}
    assert len(left) < len(flows)  # both addresses are in use
    document = {"services": [service(mode="nat")], "settings": {**ports, "nat_pools": pools[:1]}}

    foretold = nat_rig.reconciler.check(
        lambda config: from_mapping(document, now=nat_rig.now, have=config), terms=Terms(tell_moves=True)
    )
    nat_rig.apply(settings=document["settings"])
    ended = [nat_rig.verdict(tcp(sport=1000 + n, flags="A")) for n in range(6)].count("DROP_NAT_NO_FLOW")

    (move,) = foretold.moves
    assert (move.flows, move.flows_moved, move.exact) == (6, ended, True)
    assert 0 < ended < 6


def test_what_may_be_a_reply_with_keep_is_explained(nat_rig: Rig) -> None:
    """A reply, an error about a request, and what is neither: each with the stage that found no service for it."""
    kept = service(backends=["10.0.0.11"], **KEPT)
    nat_rig.apply(services=[kept])
    sent = nat_rig.run(tcp()).frame_out
    reply = answer(nat_rig.run(tcp()))
    other = reply.copy()
    other.getlayer(2).sport = 81
    ping = LINK / IP(src="10.0.0.11", dst="10.0.1.1") / ICMP()
    error = LINK / IP(src="10.77.0.1", dst="10.0.1.1") / ICMP(type=3, code=1) / sent[14:]
    no_service = "no service has TCP 10.0.1.1 port 40000, and 10.0.1.1 is not a VIP"
    icmp = "ICMP is neither TCP nor UDP"
    home = f"its flow is known, opening; leaves as {VIP4}:80 → 10.0.1.1:40000"

    explained = nat_rig.reconciler.explain([bytes(frame) for frame in (reply, other, ping, error)])

    told = [(one.verdict.name, [step.detail for step in one.steps[-2:]]) for one in explained]
    assert told[:3] == [
        ("TX_NAT_REPLY", [no_service, home]),
        ("PASS_NO_SERVICE", [no_service, "it is not a reply of a NAT flow"]),
        ("PASS_PROTOCOL", [icmp, "it is not a reply of a NAT flow"]),
    ]
    about = f"an ICMP error about a known flow, opening; leaves as {VIP4} → 10.0.1.1"
    assert told[3] == ("TX_NAT_REPLY", [icmp, about])


def test_errors_about_flows_are_explained(nat_rig: Rig) -> None:
    """For a pool address or a VIP: that it is an ICMP error, about a flow in which state, and how it leaves."""
    nat_rig.apply(settings=POOLS, services=[service(mode="nat", backends=["10.0.0.11"])])
    sent = nat_rig.run(tcp())
    came = nat_rig.run(answer(sent))
    nat_rig.run(tcp(flags="A"))
    from_router = LINK / IP(src="10.77.0.1", dst=POOL4) / ICMP(type=3, code=1) / sent.frame_out[14:]
    from_client = LINK / IP(src="10.0.1.1", dst=VIP4) / ICMP(type=3, code=4) / came.frame_out[14:]

    explained = nat_rig.reconciler.explain([bytes(frame) for frame in (from_router, from_client)])

    assert [(one.verdict.name, one.steps[-1].detail) for one in explained] == [
        ("TX_NAT_REPLY", f"an ICMP error about a known flow, open; leaves as {VIP4} → 10.0.1.1"),
        ("TX_NAT", f"an ICMP error about a known flow, open; leaves as {POOL4} → 10.0.0.11"),
    ]


def test_fragments_are_explained(nat_rig: Rig) -> None:
    """What a fragment that is dropped is for, a VIP or an address of the pool, is told."""
    nat_rig.apply(settings=POOLS, services=[service(mode="nat")])

    explained = nat_rig.reconciler.explain([bytes(tcp(dst=to, flags="A", frag=8)) for to in (VIP4, POOL4)])

    told = [(one.verdict.name, one.steps[-1].detail.partition(":")[0]) for one in explained]
    assert told == [
        ("DROP_FRAGMENT", f"a fragment for VIP {VIP4}"),
        ("DROP_FRAGMENT", f"a fragment for pool address {POOL4}"),
    ]

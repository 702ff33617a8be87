"""Stages service and select: which packets a service takes, and what is done where nobody can serve them."""

from typing import Any

import numpy as np
import pytest
from frames import (
    ANY_SOURCE,
    BACKENDS4,
    BACKENDS6,
    ELSE4,
    LINK,
    VIP4,
    VIP6,
    expect_encapsulated,
    expect_rewritten,
    from_tuple,
    network,
    service,
    tcp,
    udp,
)
from rig import Outcome, Rig
from scapy.layers.inet import ICMP, IP

from lb.dataplane.layout import layout
from lb.reconcile.observed import Tally

pytestmark = pytest.mark.root

PACKET = {"tcp": tcp, "udp": udp}
families = pytest.mark.parametrize("vip", [VIP4, VIP6])
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])


def many(vip: str, count: int = 60) -> list[bytes]:
    """New flows of one client, a port each."""
    frame = bytes(tcp(dst=vip))
    client = frame[26:30] if vip == VIP4 else frame[22:38]
    return [from_tuple(frame, client, 20000 + n) for n in range(count)]


def backends_of(rig: Rig, frames: list[bytes]) -> set[str]:
    """Where these frames go."""
    return {expect_encapsulated(rig.run(frame), frame) for frame in frames}


@families
@protocols
def test_service_takes_its_own_packets_alone(rig: Rig, vip: str, protocol: str) -> None:
    """VIP, port and protocol must all be the service's; everything else passes unchanged."""
    rig.apply(services=[service(vip=vip, protocol=protocol)])
    mine = PACKET[protocol](dst=vip)
    other = "udp" if protocol == "tcp" else "tcp"

    expect_encapsulated(rig.run(mine), mine)
    assert rig.verdict(PACKET[other](dst=vip)) == "PASS_NO_SERVICE"
    for port in (0, 1, 79, 81, 20480, 65535):  # 20480 is 80 in the wrong byte order
        assert rig.verdict(PACKET[protocol](dst=vip, dport=port)) == "PASS_NO_SERVICE"
    for address in (
        ELSE4,
        "10.200.1.0",
        "10.200.1.2",
        "1.1.200.10",
        "fc00:1::2",
        "fc00::1",
        "fc00:1:0:0:1::1",
    ):
        assert rig.verdict(PACKET[protocol](dst=address)) == "PASS_NO_SERVICE"


@families
def test_the_port_that_counts_is_the_destinations(rig: Rig, vip: str) -> None:
    """A source port like the service's means nothing, nor does a source that is the VIP."""
    rig.apply(services=[service(vip=vip)], settings=ANY_SOURCE)

    assert rig.verdict(tcp(dst=vip, sport=80, dport=5000)) == "PASS_NO_SERVICE"
    assert rig.verdict(tcp(src=vip, dst=ELSE4 if vip == VIP4 else "fc00:9::9")) == "PASS_NO_SERVICE"


@families
@protocols
def test_any_port(rig: Rig, vip: str, protocol: str) -> None:
    """A service of any port takes all 65536 of one protocol, 0 too."""
    rig.apply(services=[service(vip=vip, protocol=protocol, port="any")])
    other = "udp" if protocol == "tcp" else "tcp"

    for port in (0, 1, 80, 255, 256, 65534, 65535):
        frame = PACKET[protocol](dst=vip, dport=port)
        expect_encapsulated(rig.run(frame), frame)
        assert rig.verdict(PACKET[other](dst=vip, dport=port)) == "PASS_NO_SERVICE"


@families
def test_exact_port_beats_any_port(rig: Rig, vip: str) -> None:
    """A service for one port stands before the one for any, whichever came first; once gone, the other takes over."""
    exact = service("exact", vip=vip, backends=["10.0.0.99"])
    every = service("every", vip=vip, port="any", backends=["10.0.0.50"])

    for services in ([exact, every], [every, exact]):
        rig.apply(services=services)
        assert backends_of(rig, many(vip)) == {"10.0.0.99"}
        assert expect_encapsulated(rig.run(tcp(dst=vip, dport=81)), tcp(dst=vip, dport=81)) == "10.0.0.50"
    rig.apply(services=[every])
    assert backends_of(rig, many(vip)) == {"10.0.0.50"}


@families
@protocols
@pytest.mark.parametrize(("low", "high"), [(8000, 8010), (1, 3), (65530, 65535), (255, 257)])
def test_port_ranges(rig: Rig, vip: str, protocol: str, low: int, high: int) -> None:
    """Both ends are within; just below and just above pass."""
    rig.apply(services=[service(vip=vip, protocol=protocol, port=f"{low}-{high}")])

    for port in (low, low + 1, high - 1, high):
        frame = PACKET[protocol](dst=vip, dport=port)
        expect_encapsulated(rig.run(frame), frame)
    for port in {max(low - 1, 0), min(high + 1, 65535)} - set(range(low, high + 1)):
        assert rig.verdict(PACKET[protocol](dst=vip, dport=port)) == "PASS_NO_SERVICE"


def test_range_that_changes(rig: Rig) -> None:
    """Ports that leave a range pass again, those that enter are taken, those that stay keep their flows."""
    rig.apply(services=[service(port="8000-8002")])
    kept = expect_encapsulated(rig.run(tcp(dport=8002)), tcp(dport=8002))

    rig.apply(services=[service(port="8002-8004")])

    assert expect_encapsulated(rig.run(tcp(dport=8002, flags="A")), tcp(dport=8002, flags="A")) == kept
    assert rig.verdict(tcp(dport=8001)) == "PASS_NO_SERVICE"
    expect_encapsulated(rig.run(tcp(dport=8004)), tcp(dport=8004))


@families
def test_all_backends_get_their_share(rig: Rig, vip: str) -> None:
    """Three equal backends, many clients: each gets about a third, and a weight counts."""
    rig.apply(services=[service(vip=vip)])
    assert backends_of(rig, many(vip)) == set(BACKENDS4)

    weighted = [{"address": a, "weight": w} for a, w in zip(BACKENDS4, (1, 0, 9), strict=True)]
    rig.apply(services=[service("heavy", vip=vip, port=443, backends=weighted)])
    frames = [frame[: 36 if vip == VIP4 else 56] + (443).to_bytes(2, "big") + frame[38 if vip == VIP4 else 58 :]
              for frame in many(vip, 400)]  # fmt: skip
    counts = [expect_encapsulated(rig.run(frame), frame) for frame in frames]
    assert "10.0.0.12" not in counts
    assert 10 <= counts.count("10.0.0.11") <= 80
    assert counts.count("10.0.0.11") + counts.count("10.0.0.13") == 400


@families
@pytest.mark.parametrize(
    "backends",
    [
        [],
        [{"address": "10.0.0.11", "weight": 0}],
        [
            {"address": "10.0.0.11", "admin_state": "disabled"},
            {"address": "10.0.0.12", "admin_state": "draining"},
        ],
    ],
    ids=["none", "weight 0", "disabled and draining"],
)
def test_no_backend_for_new_flows(rig: Rig, vip: str, backends: list[dict[str, Any]]) -> None:
    """Dropped with a reason of its own, counted for the service, and no flow is remembered."""
    rig.apply(services=[service(vip=vip, backends=backends)])
    frame = tcp(dst=vip)

    assert rig.verdict(frame) == "DROP_NO_BACKEND"

    assert not rig.flows["tag_backend"].any()
    assert rig.reconciler.counters().services["web"] == Tally(1, len(bytes(frame)))
    assert rig.verdict(tcp(dst=vip, dport=81)) == "PASS_NO_SERVICE"


@pytest.mark.parametrize("mode", ["ipip", "l2"])
def test_next_hop_that_is_not_known(rig: Rig, mode: str) -> None:
    """The packet is dropped while the MAC is unknown, counted for the backend, and goes as soon as it is known."""
    rig.plane.unresolved = set(BACKENDS4)
    rig.apply(services=[service(mode=mode)])
    assert rig.verdict(tcp()) == "DROP_NO_NEXT_HOP"

    rig.plane.unresolved = set()
    rig.follow()

    expect: Any = expect_encapsulated if mode == "ipip" else lambda o, f: expect_rewritten(o, f, BACKENDS4)
    backend = expect(rig.run(tcp()), tcp())
    assert rig.reconciler.counters().backends["web", backend].packets == 2


def test_backend_without_a_route(rig: Rig) -> None:
    """No way at all to the backend: dropped as well; the others serve on."""
    rig.plane.unreachable = {BACKENDS4[0]}
    rig.apply(services=[service()])

    seen = {rig.verdict(frame) for frame in many(VIP4)}

    assert seen == {"DROP_NO_NEXT_HOP", "TX_IPIP"}
    statuses = {b.address: b.effective_state for b in rig.reconciler.status().services[0].backends}
    assert statuses == {BACKENDS4[0]: "unresolved", BACKENDS4[1]: "active", BACKENDS4[2]: "active"}


@pytest.mark.parametrize("state", ["draining", "disabled"])
def test_backend_that_takes_no_new_flows(rig: Rig, state: str) -> None:
    """Draining and disabled backends, and those of weight 0, get none."""
    others = [
        {"address": BACKENDS4[0], "admin_state": state},
        {"address": BACKENDS4[1], "weight": 0},
        BACKENDS4[2],
    ]
    rig.apply(services=[service(backends=others)])

    assert backends_of(rig, many(VIP4)) == {BACKENDS4[2]}


def test_services_are_told_apart(rig: Rig) -> None:
    """Twelve services, each with a backend of its own: none gets another's packets, and each counts its own."""
    services, frames = [], {}
    for n in range(12):
        vip, protocol, port = (VIP4, VIP6)[n % 2], ("tcp", "udp")[n // 2 % 2], 80 + n // 4
        services.append(service(f"s{n}", vip=vip, protocol=protocol, port=port, backends=[f"10.0.2.{n}"]))
        frames[f"s{n}"] = PACKET[protocol](dst=vip, dport=port)
    rig.apply(services=services)

    for n, frame in enumerate(frames.values()):
        assert expect_encapsulated(rig.run(frame), frame) == f"10.0.2.{n}"

    counters = rig.reconciler.counters()
    assert counters.services == {name: Tally(1, len(bytes(frame))) for name, frame in frames.items()}
    assert {key[1]: tally.packets for key, tally in counters.backends.items()} == {
        f"10.0.2.{n}": 1 for n in range(12)
    }


def test_removed_service_lets_pass(rig: Rig) -> None:
    """Taken → removed → passes → added → taken, with other services beside it untouched."""
    web, other = service(), service("other", port=443)
    for services, verdict in (
        ([web, other], "TX_IPIP"),
        ([other], "PASS_NO_SERVICE"),
        ([other, web], "TX_IPIP"),
    ):
        rig.apply(services=services)
        assert rig.verdict(tcp()) == verdict
        assert rig.verdict(tcp(dport=443)) == "TX_IPIP"


def test_icmp_is_for_no_service(rig: Rig) -> None:
    """Neither TCP nor UDP is for a service, not even one of any port; what an error quotes decides."""
    rig.apply(services=[service(port="any"), service("dns", port="any", protocol="udp")])

    assert rig.verdict(LINK / network() / ICMP(type=13)) == "PASS_PROTOCOL"
    assert rig.verdict(LINK / network() / ICMP(type=3, code=4) / IP(src=VIP4)) == "PASS_ICMP_ERROR"


@families
def test_counters_of_service_and_backends_add_up(rig: Rig, vip: str) -> None:
    """A service's total is its backends' and what found none; bytes are those of frames as they came."""
    rig.apply(services=[service(vip=vip, backends=BACKENDS6)])
    frames = many(vip)
    outcomes: list[Outcome] = [rig.run(frame) for frame in frames]
    reached = [expect_encapsulated(outcome, frame) for outcome, frame in zip(outcomes, frames, strict=True)]
    rig.apply(
        services=[service(vip=vip, backends=[{"address": b, "admin_state": "disabled"} for b in BACKENDS6])]
    )
    assert rig.verdict(frames[0]) == "DROP_NO_BACKEND"

    counters, size = rig.reconciler.counters(), len(frames[0])

    assert counters.services["web"] == Tally(61, 61 * size)
    assert counters.backends == {
        ("web", b): Tally(reached.count(b), reached.count(b) * size) for b in BACKENDS6
    }


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_every_port_of_a_range_is_found(rig: Rig, vip: str) -> None:
    """So many that buckets of the service table overflow: each port is the service's, and its neighbours are not."""
    rig.apply(services=[service("wide", vip=vip, port="1000-1999"), service("next", vip=vip, port=2000)])

    assert {rig.verdict(tcp(dst=vip, dport=port)) for port in range(1000, 2001)} == {"TX_IPIP"}
    assert {rig.verdict(tcp(dst=vip, dport=port)) for port in (999, 2001)} == {"PASS_NO_SERVICE"}
    more = rig.plane.tables.arrays.services4 if "." in vip else rig.plane.tables.arrays.services6
    assert (more["key"] == np.uint64(layout().constants["SERVICE_MORE"])).any()

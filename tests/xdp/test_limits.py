"""Limits: a burst and then a rate, by packets, bytes and new flows, for all together, for each source and each network.

What passes is held against rate × time + burst, the time being measured; nothing is said of how long anything takes.
"""

import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import batch
import numpy as np
import pytest
from frames import CLIENT4, ELSE4, ELSE6, VIP4, VIP6, from_tuple, service, tcp, udp
from rig import XDP_ACTIONS, Rig
from sending import Sent, send, wait_for_a_second

pytestmark = pytest.mark.root

SECONDS = 1.0
RATE, BURST = 5_000, 2_500
"""Far below what is sent, and a burst that outlasts half a second in which nothing can be sent."""
OVER = "DROP_LIMIT"


def limited(*, count_only: bool = False, **limit: Any) -> list[dict[str, Any]]:
    """One rule with a limit, for what comes from anywhere to anywhere."""
    return [{"name": "limit", "action": "limit", "count_only": count_only, "limit": {"per": "rule", **limit}}]


def clients(network: str, count: int) -> Iterator[bytes]:
    """So many packed addresses from a first one on."""
    first = ip_address(network)
    return (type(first)(int(first) + n).packed for n in range(count))


def syns(source: str, count: int, dst: str = ELSE4) -> list[bytes]:
    """SYNs of one source from so many ports."""
    frame = bytes(tcp(source, dst))
    return [from_tuple(frame, ip_address(source).packed, 1024 + n) for n in range(count)]


def over(rig: Rig, frames: list[bytes]) -> list[bool]:
    """Of each frame whether it was dropped, all sent at once."""
    actions = batch.run(rig.program.fd, frames).actions
    return [bool(a == XDP_ACTIONS["drop"]) for a in actions]


@pytest.mark.parametrize("per", ["rule", "source"])
@pytest.mark.parametrize("unit", ["packets", "new-flows"])
@pytest.mark.parametrize("burst", [1, 2, 9, 100])
def test_burst_passes_at_once_and_no_more(rig: Rig, unit: str, per: str, burst: int) -> None:
    """So many pass as the burst says; those after are over, until a second has gone by."""
    rig.apply(rules=limited(rate=1, burst=burst, unit=unit, per=per))

    assert over(rig, syns(CLIENT4, burst + 3)) == [False] * burst + [True] * 3
    assert rig.verdict(tcp(dst=ELSE4)) == OVER
    assert rig.rule("limit") == (burst + 4, 4)


@pytest.mark.parametrize("per", ["rule", "source"])
def test_bytes_are_those_of_frames(rig: Rig, per: str) -> None:
    """A frame that is too large for what is left is over and pays nothing: a smaller one still passes."""
    small, large = bytes(tcp(dst=ELSE4)), bytes(tcp(dst=ELSE4)) + bytes(20)
    rig.apply(rules=limited(rate=1, burst=len(small) + len(large) - 1, unit="bytes", per=per))

    assert over(rig, [large, large, small, small]) == [False, True, True, True]
    rig.plane.tables.arrays.limit_totals["paid_until"] = 0
    rig.plane.tables.arrays.limit_buckets.view("u1")[:] = 0
    assert over(rig, [small, large, small, small]) == [False, True, False, True]


def test_only_new_flows_count_as_such(rig: Rig) -> None:
    """Of TCP a SYN without ACK, whatever address it is for; all other packets match and pass."""
    rig.apply(rules=limited(rate=1, burst=1, unit="new-flows"))
    assert rig.verdict(tcp(dst=ELSE4)) != OVER

    assert rig.verdict(tcp(dst=ELSE4)) == OVER
    assert rig.verdict(tcp(dst=ELSE6)) == OVER
    assert OVER not in {
        rig.verdict(f) for f in (tcp(flags="A"), tcp(flags="SA"), udp(dst=ELSE4), udp(dst=ELSE6))
    }


def test_udp_flow_is_new_until_it_is_in_the_table(rig: Rig) -> None:
    """Of a service, a UDP packet whose flow is known pays nothing; another is over."""
    rig.apply(
        services=[service(protocol="udp", vip=vip, name=f"s{n}") for n, vip in enumerate((VIP4, VIP6))],
        rules=limited(rate=1, burst=2, unit="new-flows"),
    )

    assert [rig.verdict(udp(sport=port)) for port in (1, 1, 1, 2, 2)] == ["TX_IPIP"] * 5
    assert [rig.verdict(udp(sport=port)) for port in (3, 1, 4, 2)] == [OVER, "TX_IPIP", OVER, "TX_IPIP"]
    assert rig.verdict(udp(dst=VIP6)) == OVER
    assert rig.verdict(udp(dst=ELSE4)) == "PASS_NO_SERVICE"


@pytest.mark.parametrize(
    ("length", "same", "others"),
    [
        ({"ipv4_length": 32}, ["10.0.1.1"], ["10.0.1.0", "10.0.1.2"]),
        ({"ipv4_length": 24}, ["10.0.1.0", "10.0.1.255"], ["10.0.0.255", "10.0.2.0"]),
        ({"ipv4_length": 8}, ["10.0.0.0", "10.255.255.255"], ["11.0.0.0"]),
        ({"ipv6_length": 64}, ["fd00:0:0:1::", "fd00:0:0:1:ffff::"], ["fd00::", "fd00:0:0:2::"]),
        ({"ipv6_length": 128}, ["fd00::1"], ["fd00::2", "fd00::"]),
        ({"ipv6_length": 33}, ["fd00::", "fd00:0:7fff:ffff::"], ["fd00:0:8000::"]),
    ],
)
def test_sources_of_one_network_share_a_bucket(
    rig: Rig, length: dict[str, int], same: list[str], others: list[str]
) -> None:
    """All addresses of a prefix use up one burst; the addresses beside it have their own."""
    dst = ELSE6 if ":" in same[0] else ELSE4
    rig.apply(rules=limited(rate=1, burst=3, per="source", **length))

    using = [bytes(udp(same[n % len(same)], dst)) for n in range(4)]
    assert over(rig, using) == [False] * 3 + [True]
    assert over(rig, [bytes(udp(source, dst)) for source in same]) == [True] * len(same)
    for other in others:
        assert over(rig, [bytes(udp(other, dst))] * 4) == [False] * 3 + [True]


def test_each_rule_has_buckets_of_its_own(rig: Rig) -> None:
    """The same source has each rule's burst, of those it meets: another rule's is not used up."""
    (one,) = limited(rate=1, burst=2, per="source")
    rig.apply(rules=[{**one, "name": "a", "protocol": "udp"}, {**one, "name": "b", "protocol": "tcp"}])

    for frame in (udp(dst=ELSE4), tcp(dst=ELSE4)):
        assert over(rig, [bytes(frame)] * 3) == [False, False, True]
    assert (rig.rule("a"), rig.rule("b")) == ((3, 1), (3, 1))


def expect(sent: Sent, rig: Rig, rate: float, burst: float) -> None:
    """What passed is what the limit says within 5 %, it was far less than what came, and the rule has counted both."""
    assert sent.fits(rate, burst), sent
    assert sent.passed < sent.frames / 2
    assert rig.rule("limit") == (sent.frames, sent.frames - sent.passed)


@pytest.mark.parametrize("per", ["rule", "source"])
@pytest.mark.parametrize("dst", [ELSE4, ELSE6])
def test_packets_pass_at_the_rate(rig: Rig, per: str, dst: str) -> None:
    """A burst and then so many a second, within 5 %."""
    rig.apply(rules=limited(rate=RATE, burst=BURST, per=per))

    expect(send(rig, [bytes(udp(dst=dst))] * 1000, SECONDS), rig, RATE, BURST)


@pytest.mark.parametrize("per", ["rule", "source"])
def test_bytes_pass_at_the_rate(rig: Rig, per: str) -> None:
    """A burst and then so many bytes a second, within 5 %."""
    frame = bytes(udp(dst=ELSE4)) + bytes(500)
    rig.apply(rules=limited(rate=RATE * len(frame), burst=BURST * len(frame), unit="bytes", per=per))

    expect(send(rig, [frame] * 1000, SECONDS), rig, RATE, BURST)


@pytest.mark.parametrize("per", ["rule", "source"])
def test_new_tcp_flows_pass_at_the_rate(rig: Rig, per: str) -> None:
    """A burst and then so many SYNs a second, within 5 %."""
    rig.apply(rules=limited(rate=RATE, burst=BURST, unit="new-flows", per=per))

    expect(send(rig, syns(CLIENT4, 1000), SECONDS), rig, RATE, BURST)


@pytest.mark.parametrize("per", ["rule", "source"])
def test_new_udp_flows_pass_at_the_rate(rig: Rig, per: str) -> None:
    """A burst and then so many new flows of a service a second, within 5 %; here each packet begins one."""
    rig.apply(
        services=[service(protocol="udp")], rules=limited(rate=RATE, burst=BURST, unit="new-flows", per=per)
    )
    frame = bytes(udp())
    frames = [from_tuple(frame, ip_address(CLIENT4).packed, 1024 + n) for n in range(1000)]

    def forget() -> None:
        rig.flows.view("u1")[:] = 0

    forget()
    expect(send(rig, frames, SECONDS, between=forget), rig, RATE, BURST)


def test_each_source_has_the_rate(rig: Rig) -> None:
    """Four sources pass four times as much, none more than its own."""
    rig.apply(rules=limited(rate=RATE, burst=BURST, per="source"))
    frame = bytes(udp(dst=ELSE4))
    frames = [from_tuple(frame, source, 1) for source in clients("10.0.1.1", 4)] * 250

    expect(send(rig, frames, SECONDS), rig, 4 * RATE, 4 * BURST)


def test_a_network_shares_the_rate(rig: Rig) -> None:
    """All addresses of a /24 together have what one limit allows."""
    rig.apply(rules=limited(rate=RATE, burst=BURST, per="source", ipv4_length=24))
    frame = bytes(udp(dst=ELSE4))

    expect(send(rig, [from_tuple(frame, s, 1) for s in clients("10.0.1.0", 256)], SECONDS), rig, RATE, BURST)


@pytest.mark.parametrize("per", ["rule", "source"])
def test_two_cpus_share_one_bucket(rig: Rig, per: str) -> None:
    """Who sends on every CPU at once has no more than who sends on one."""
    rig.apply(rules=limited(rate=RATE, burst=BURST, per=per))

    expect(send(rig, [bytes(udp(dst=ELSE4))] * 1000, SECONDS, cpus=2), rig, RATE, BURST)


@pytest.mark.parametrize("per", ["rule", "source"])
def test_count_only_drops_nothing_and_counts_what_it_would(rig: Rig, per: str) -> None:
    """All packets pass, and what is counted as dropped is what is over the limit."""
    rig.apply(rules=limited(rate=RATE, burst=BURST, per=per, count_only=True))

    sent = send(rig, [bytes(udp(dst=ELSE4))] * 1000, SECONDS, may_pass=True)

    matched, would_drop = rig.rule("limit")
    assert sent.passed == sent.frames == matched
    assert Sent(sent.frames, matched - would_drop, sent.seconds).fits(RATE, BURST)


def test_a_wide_flood_neither_limits_nor_frees_a_heavy_source(rig: Rig) -> None:
    """While 200,000 sources send two packets each, all pass, and one that sends far too much keeps its rate."""
    rig.apply(rules=limited(rate=RATE, burst=BURST, per="source"))
    frame, heavy = bytes(udp(dst=ELSE4)), bytes(udp("10.0.1.1", dst=ELSE4))
    flood = [from_tuple(frame, source, 1) for source in clients("11.0.0.0", 200_000)]
    frames = [f for source in flood for f in (source, heavy)] * 2
    wait_for_a_second()
    start = time.monotonic()

    actions = [
        batch.run(rig.program.fd, frames[at : at + 2000]).actions for at in range(0, len(frames), 2000)
    ]

    passed = np.concatenate(actions) != XDP_ACTIONS["drop"]
    sent = Sent(len(passed) // 2, int(passed[1::2].sum()), time.monotonic() - start)
    assert passed[::2].all()
    assert sent.fits(RATE, BURST), sent
    assert rig.rule("limit") == (len(frames), sent.frames - sent.passed)

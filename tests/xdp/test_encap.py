"""Mode ipip: whole frames, 4in4, 6in6, 4in6 and 6in4, as RFC 2003, 2473 and 4213 have them."""

from ipaddress import ip_address, ip_network

import numpy as np
import pytest
from frames import (
    BACKENDS4,
    BACKENDS6,
    NOBODY_IS_TOLD,
    VIP4,
    VIP6,
    expect_encapsulated,
    from_tuple,
    outer_addresses,
    service,
    tcp,
    udp,
)
from rig import OUR_IFINDEX, Rig
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

pytestmark = pytest.mark.root

KINDS = {
    "4in4": (VIP4, BACKENDS4, IP, 4),
    "4in6": (VIP4, BACKENDS6, IPv6, 4),
    "6in4": (VIP6, BACKENDS4, IP, 41),
    "6in6": (VIP6, BACKENDS6, IPv6, 41),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_whole_frame(rig: Rig, kind: str) -> None:
    """MACs, ethertype, outer header and the packet as it came, byte for byte, for TCP and UDP."""
    vip, backends, outer, protocol = KINDS[kind]
    web = service(vip=vip, backends=backends)
    rig.apply(services=[web, service("dns", vip=vip, protocol="udp", backends=backends)])

    for frame in (tcp(dst=vip), udp(dst=vip), tcp(dst=vip, flags="PA") / bytes(range(256))):
        outcome = rig.run(frame)
        assert expect_encapsulated(outcome, frame) in backends
        out = Ether(outcome.frame_out)[outer]
        assert (out.proto if outer is IP else out.nh) == protocol


@kinds
def test_backends_may_be_of_both_families(rig: Rig, kind: str) -> None:
    """One service with IPv4 and IPv6 backends: each packet gets the header of its backend's family."""
    vip, *_ = KINDS[kind]
    rig.apply(services=[service(vip=vip, backends=(*BACKENDS4, *BACKENDS6))])
    frame = bytes(tcp(dst=vip))
    source = frame[26:30] if vip == VIP4 else frame[22:38]

    frames = [from_tuple(frame, source, port) for port in range(1000, 1100)]

    assert {expect_encapsulated(rig.run(f), f) for f in frames} == {*BACKENDS4, *BACKENDS6}


@kinds
def test_outer_ttl_is_64_whatever_the_inner(rig: Rig, kind: str) -> None:
    """The inner TTL is left alone, 0 and 1 too: the outer way is one of its own."""
    vip, backends, outer, _ = KINDS[kind]
    rig.apply(services=[service(vip=vip, backends=backends)])

    for ttl in (0, 1, 64, 255):
        frame = tcp(dst=vip, **{"ttl" if vip == VIP4 else "hlim": ttl})
        outcome = rig.run(frame)
        expect_encapsulated(outcome, frame)
        out = Ether(outcome.frame_out)[outer]
        assert (out.ttl if outer is IP else out.hlim) == 64


@kinds
def test_outer_traffic_class_is_the_inner(rig: Rig, kind: str) -> None:
    """DSCP and ECN go out as they came, 0x8c among them."""
    vip, backends, outer, _ = KINDS[kind]
    rig.apply(services=[service(vip=vip, backends=backends)])

    for value in (0, 1, 0x03, 0x8C, 0xB8, 0xFF):
        frame = tcp(dst=vip, **{"tos" if vip == VIP4 else "tc": value})
        outcome = rig.run(frame)
        expect_encapsulated(outcome, frame)
        out = Ether(outcome.frame_out)[outer]
        assert (out.tos if outer is IP else out.tc) == value


def test_outer_ipv4_checksum(rig: Rig) -> None:
    """The ones' complement sum over every outer header is right, whatever source and length it has."""
    rig.apply(services=[service()])
    frame = bytes(tcp() / bytes(20))

    for port in range(1, 400):
        out = rig.run(from_tuple(frame, frame[26:30], 128 * port)).frame_out
        words = np.frombuffer(out[14:34], ">u2").astype(int).sum()
        assert (words & 0xFFFF) + (words >> 16) == 0xFFFF


@kinds
def test_padding_is_not_counted(rig: Rig, kind: str) -> None:
    """What a card padded behind the packet stays in the frame, and the outer length does not count it."""
    vip, backends, outer, _ = KINDS[kind]
    rig.apply(services=[service(vip=vip, protocol="udp", backends=backends)])
    packet = bytes(udp(dst=vip))

    for padding in (1, 6, 100):
        outcome = rig.run(packet + bytes(padding))
        expect_encapsulated(outcome, packet + bytes(padding))
        out = Ether(outcome.frame_out)[outer]
        said = out.len - 20 if outer is IP else out.plen
        assert said == len(packet) - 14


@kinds
def test_outer_source_spreads_by_flow(rig: Rig, kind: str) -> None:
    """Flows come from many outer sources, one flow always from the same, so that a backend's queues share the load."""
    vip, backends, *_ = KINDS[kind]
    rig.apply(services=[service(vip=vip, backends=backends[:1])])
    frame = bytes(tcp(dst=vip))
    client = frame[26:30] if vip == VIP4 else frame[22:38]
    by_port = [from_tuple(frame, client, port) for port in range(30000, 30256)]
    by_client = [from_tuple(frame, client[:-1] + bytes([n]), 40000) for n in range(256)]

    for frames in (by_port, by_client):
        sources = [outer_addresses(rig.run(f).frame_out)[0] for f in frames]
        assert [outer_addresses(rig.run(f).frame_out)[0] for f in frames] == sources
        assert len(set(sources)) > 240
        # A queue is chosen by a hash of the source's bits: the lowest three must not stand still.
        assert len({int(ip_address(s)) & 7 for s in sources}) == 8


@kinds
def test_outer_source_keeps_to_the_configured_prefix(rig: Rig, kind: str) -> None:
    """Another prefix in the settings is used at once, down to /24 and /96; its network bits are never touched."""
    vip, backends, *_ = KINDS[kind]
    prefix4, prefix6 = "192.0.2.0/24", "2001:db8:1:2:3:4::/96"
    rig.apply(services=[service(vip=vip, backends=backends)])
    rig.apply(settings={"encap_source_ipv4": prefix4, "encap_source_ipv6": prefix6})
    frame = bytes(tcp(dst=vip))
    client = frame[26:30] if vip == VIP4 else frame[22:38]

    sources = set()
    for port in range(20000, 20100):
        one = from_tuple(frame, client, port)
        outcome = rig.run(one)
        expect_encapsulated(outcome, one, source4=prefix4, source6=prefix6)
        sources.add(ip_address(outer_addresses(outcome.frame_out)[0]))

    assert len(sources) > 40
    assert all(s in ip_network(prefix4 if s.version == 4 else prefix6) for s in sources)


@kinds
@pytest.mark.parametrize("mtu", [1500, 1400, 576])
def test_too_big_for_the_way(rig: Rig, kind: str, mtu: int) -> None:
    """A packet that just fits with its outer header goes, one byte more does not and is counted for its backend."""
    vip, backends, outer, _ = KINDS[kind]
    rig.plane.mtu = mtu
    rig.apply(services=[service(vip=vip, protocol="udp", backends=backends)], settings=NOBODY_IS_TOLD)
    header = (20 if vip == VIP4 else 40) + 8
    room = mtu - (20 if outer is IP else 40) - header

    fits = udp(dst=vip)
    fits[UDP].payload = type(fits[UDP].payload)(bytes(room))
    expect_encapsulated(rig.run(fits), fits)
    expect_encapsulated(rig.run(bytes(fits) + bytes(40)), bytes(fits) + bytes(40))
    fits[UDP].payload = type(fits[UDP].payload)(bytes(room + 1))
    assert rig.verdict(fits) == "DROP_TOO_BIG"

    assert sum(t.packets for t in rig.reconciler.counters().backends.values()) == 3


@kinds
def test_mtu_that_is_not_known_limits_nothing(rig: Rig, kind: str) -> None:
    """An interface that does not say its MTU gets whatever comes."""
    vip, backends, *_ = KINDS[kind]
    rig.plane.mtu = 0
    rig.apply(services=[service(vip=vip, backends=backends)])
    frame = tcp(dst=vip) / bytes(3000)

    expect_encapsulated(rig.run(frame), frame)


@kinds
def test_backend_behind_another_interface(rig: Rig, kind: str) -> None:
    """The same frame, redirected; a backend on the own interface beside it is still sent back out."""
    vip, backends, *_ = KINDS[kind]
    rig.plane.ifindex = {backends[0]: OUR_IFINDEX + 1}
    rig.apply(services=[service(vip=vip, backends=backends)])
    frame = bytes(tcp(dst=vip))
    client = frame[26:30] if vip == VIP4 else frame[22:38]

    seen = set()
    for port in range(1000, 1050):
        one = from_tuple(frame, client, port)
        outcome = rig.run(one)
        seen.add((outcome.verdict, expect_encapsulated(outcome, one, verdict=outcome.verdict)))

    assert seen == {("REDIRECT_IPIP", backends[0]), ("TX_IPIP", backends[1]), ("TX_IPIP", backends[2])}


@kinds
def test_no_room_before_the_frame(rig: Rig, kind: str) -> None:
    """A driver that leaves too little headroom: dropped with that reason, and the frame is as it was."""
    vip, backends, *_ = KINDS[kind]
    rig.apply(services=[service(vip=vip, backends=backends)])

    assert rig.run(tcp(dst=vip), metadata=128).verdict == "TX_IPIP"
    assert rig.run(tcp(dst=vip), metadata=212).verdict == "DROP_NO_HEADROOM"

"""Stage icmp: echo requests for a VIP are answered here, by the whole reply; all other ICMP keeps its way."""

from typing import Any

import pytest
from frames import (
    BACKENDS6,
    CLIENT4,
    CLIENT6,
    CLIENT_MAC,
    ELSE4,
    ELSE6,
    LINK,
    VIP4,
    VIP6,
    families,
    network,
    patched,
    service,
    tagged,
    within,
)
from rig import OUR_MAC, Rig
from scapy.layers.inet import ICMP, IP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

pytestmark = pytest.mark.root

SERVICES = [service(), service("six", vip=VIP6, backends=BACKENDS6)]
BACK = Ether(src=OUR_MAC, dst=CLIENT_MAC)


@pytest.fixture
def web(rig: Rig) -> Rig:
    """Two VIPs."""
    rig.apply(services=SERVICES)
    return rig


def asks(vip: str, data: bytes = b"data", number: int = 7, **ip: Any) -> Packet:
    """An echo request in its frame."""
    kind = (
        ICMPv6EchoRequest(id=0x1234, seq=number, data=data)
        if vip == VIP6
        else ICMP(id=0x1234, seq=number) / data
    )
    return LINK / network(dst=vip, **ip) / kind


def reply(vip: str, data: bytes = b"data", number: int = 7, **ip: Any) -> Packet:
    """What answers it."""
    if vip == VIP6:
        return IPv6(src=VIP6, dst=CLIENT6, hlim=64, **ip) / ICMPv6EchoReply(id=0x1234, seq=number, data=data)
    return IP(src=VIP4, dst=CLIENT4, ttl=64, **ip) / ICMP(type=0, id=0x1234, seq=number) / data


def expect_reply(rig: Rig, frame: Any, expected: Any) -> None:
    """Assert that the frame is answered with exactly this."""
    outcome = rig.run(frame)
    assert outcome.verdict == "TX_ECHO"
    assert outcome.frame_out.hex() == bytes(expected).hex()


@families
@pytest.mark.parametrize("size", [0, 1, 2, 56, 57, 1400, 1472])
def test_echo_request_becomes_the_reply(web: Rig, vip: str, size: int) -> None:
    """MACs and addresses exchanged, type, TTL, both checksums right; id, sequence and data as they came."""
    data = bytes(n * 7 & 0xFF for n in range(size))

    expect_reply(web, asks(vip, data), BACK / reply(vip, data))


@families
def test_checksums_over_many_requests(web: Rig, vip: str) -> None:
    """The adjusted checksums are those of a whole sum, through all carries."""
    for number in range(0, 65536, 97):
        data = number.to_bytes(2, "big") * 3
        expect_reply(web, asks(vip, data, number), BACK / reply(vip, data, number))


@families
@pytest.mark.parametrize("hops", [0, 1, 63, 64, 255])
def test_rest_of_the_ip_header_stays(web: Rig, vip: str, hops: int) -> None:
    """TTL becomes 64 whatever it was; traffic class, flow label, id and DF stay."""
    there = {"tos": 0x8C, "id": 0xBEEF, "flags": "DF"} if vip == VIP4 else {"tc": 0x8C, "fl": 0xABCDE}

    request = asks(vip, **there, **{"ttl" if vip == VIP4 else "hlim": hops})

    expect_reply(web, request, BACK / reply(vip, **there))


@tagged
@families
def test_tags_are_kept(web: Rig, tags: Packet, vip: str) -> None:
    """The reply leaves in the VLAN that the request came from."""
    expect_reply(web, within(tags, asks(vip)), BACK / tags / reply(vip))


@families
def test_padding_is_kept(web: Rig, vip: str) -> None:
    """What a card padded behind a short request is sent back behind the reply."""
    expect_reply(web, bytes(asks(vip, b"")) + b"padding", bytes(BACK / reply(vip, b"")) + b"padding")


@families
@pytest.mark.parametrize("off", [1, 0x00FF, 0x8000, 0xFFFE])
def test_wrong_checksum_stays_wrong(web: Rig, vip: str, off: int) -> None:
    """Damage that the checksum shows is still shown by the reply's: it is adjusted (RFC 1624), not made anew."""
    at = 14 + (20 if vip == VIP4 else 40) + 2
    request, right = bytes(asks(vip)), bytes(BACK / reply(vip))

    def moved(frame: bytes) -> bytes:
        total = int.from_bytes(frame[at : at + 2], "big") + off
        return patched(frame, at, (total & 0xFFFF) + (total >> 16), size=2)

    expect_reply(web, moved(request), moved(right))


def test_wrong_ip_checksum_stays_wrong(web: Rig) -> None:
    """That of the IPv4 header likewise, where the TTL changes it."""
    request, right = asks(VIP4, ttl=9), reply(VIP4)
    sums = IP(bytes(request[IP])).chksum, IP(bytes(right)).chksum
    request[IP].chksum, right[IP].chksum = sums[0] - 5, sums[1] - 5

    expect_reply(web, request, BACK / right)


@families
def test_no_flow_and_no_backend_counts_it(web: Rig, vip: str) -> None:
    """The answer comes from here: no service and no backend has seen a packet, and no flow is remembered."""
    expect_reply(web, asks(vip), BACK / reply(vip))

    counters = web.reconciler.counters()
    assert not [t for t in (*counters.services.values(), *counters.backends.values()) if t.packets]
    assert not web.flows["tag_backend"].any()


@pytest.mark.parametrize("backends", [[], [{"address": BACKENDS6[0], "admin_state": "disabled"}]])
@families
def test_vip_without_backends_answers(rig: Rig, vip: str, backends: list[Any]) -> None:
    """The VIP is there as long as its service is: taken → removed → left to the kernel."""
    rig.apply(services=[service(vip=vip, backends=backends)])
    expect_reply(rig, asks(vip), BACK / reply(vip))

    rig.apply(services=[])

    assert rig.verdict(asks(vip)) == "PASS_PROTOCOL"


NS, RS = ICMPv6ND_NS(tgt=VIP6), ICMPv6ND_RS()
LEFT_TO_THE_KERNEL = {
    "echo to another address": LINK / network(dst=ELSE4) / ICMP(),
    "echo to another IPv6 address": LINK / network(dst=ELSE6) / ICMPv6EchoRequest(),
    "echo reply": LINK / network() / ICMP(type=0),
    "IPv6 echo reply": LINK / network(dst=VIP6) / ICMPv6EchoReply(),
    "code is not 0": LINK / network() / ICMP(code=1),
    "IPv6 code is not 0": LINK / network(dst=VIP6) / ICMPv6EchoRequest(code=1),
    "timestamp": LINK / network() / ICMP(type=13),
    "redirect": LINK / network() / ICMP(type=5, gw=ELSE4) / IP(src=VIP4, dst=CLIENT4),
    "type 128 over IPv4": LINK / network() / ICMP(type=128),
    "type 8 over IPv6": LINK / network(dst=VIP6) / ICMPv6EchoRequest(type=8),
    "neighbour solicitation": LINK / network(dst=VIP6) / NS,
    "router solicitation": LINK / network(dst=VIP6) / RS,
    "ICMP over IPv6": LINK / network(dst=VIP6, nh=1) / bytes(ICMP()),
    "ICMPv6 over IPv4": LINK / network(proto=58) / bytes(ICMPv6EchoRequest()),
    "IPv4 options before it": LINK / network(options=[IPOption_NOP()] * 4) / ICMP(),
    "hop-by-hop before it": LINK / network(dst=VIP6) / IPv6ExtHdrHopByHop() / ICMPv6EchoRequest(),
    "destination options before it": LINK / network(dst=VIP6) / IPv6ExtHdrDestOpt() / ICMPv6EchoRequest(),
    "atomic fragment header before it": LINK / network(dst=VIP6) / IPv6ExtHdrFragment() / ICMPv6EchoRequest(),
}


@pytest.mark.parametrize("name", LEFT_TO_THE_KERNEL)
def test_other_icmp_is_left_to_the_kernel(web: Rig, name: str) -> None:
    """Unchanged, whatever is no plain echo request for a VIP."""
    assert web.verdict(LEFT_TO_THE_KERNEL[name]) == "PASS_PROTOCOL"


def test_fragments_of_echo_are_dropped(web: Rig) -> None:
    """As all fragments for a VIP are."""
    assert web.verdict(LINK / network(flags="MF") / ICMP() / bytes(8)) == "DROP_FRAGMENT"
    assert web.verdict(LINK / network(frag=3, proto=1) / bytes(8)) == "DROP_FRAGMENT"
    six = LINK / network(dst=VIP6)
    assert web.verdict(six / IPv6ExtHdrFragment(m=1) / ICMPv6EchoRequest()) == "DROP_FRAGMENT"
    assert web.verdict(six / IPv6ExtHdrFragment(offset=3, nh=58) / bytes(8)) == "DROP_FRAGMENT"


@families
def test_cut_within_its_header(web: Rig, vip: str) -> None:
    """An IP packet that ends within ICMP's 8 bytes is truncated at a VIP, whatever the frame holds behind it."""
    header, protocol = (20, {"proto": 1}) if vip == VIP4 else (40, {"nh": 58})
    whole = bytes(asks(vip, b""))[14 + header :]
    for length in range(8):
        frame = LINK / network(dst=vip, **protocol) / whole[:length]
        assert web.verdict(frame) == "DROP_TRUNCATED"
        assert web.verdict(bytes(frame) + whole[length:]) == "DROP_TRUNCATED"
    elsewhere = LINK / network(dst=ELSE4 if vip == VIP4 else ELSE6, **protocol) / whole[:7]
    assert web.verdict(elsewhere) == "PASS_PROTOCOL"


@families
def test_lists_come_first(web: Rig, vip: str) -> None:
    """answered → blocked → dropped → allowed → answered → removed → answered."""
    client = CLIENT4 if vip == VIP4 else CLIENT6
    for lists, verdict in (
        ({}, "TX_ECHO"),
        ({"block": [client]}, "DROP_BLOCKLIST"),
        ({"allow": [client]}, "TX_ECHO"),
        ({"block": [], "allow": []}, "TX_ECHO"),
    ):
        web.apply(**lists)
        assert web.verdict(asks(vip)) == verdict


@pytest.mark.parametrize("data", [b"", bytes(8), bytes(56)], ids=len)
def test_reply_of_nothing_but_zeros(web: Rig, data: bytes) -> None:
    """No id, no sequence number, no data: the checksum is 0xffff, since 0 would be refused by who sums it up."""
    reply = web.run(LINK / network() / ICMP(id=0, seq=0) / data)

    assert reply.verdict == "TX_ECHO"
    assert reply.frame_out[34:] == b"\0\0\xff\xff" + bytes(4) + data
    assert reply.frame_out[34:] == bytes(ICMP(type=0, id=0, seq=0) / data)

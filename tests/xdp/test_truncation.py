"""Frames and packets cut short: dropped wherever they end, and nothing behind the end is read."""

import pytest
from frames import LINK, VIP4, VIP6, network, patched, service, tcp, udp
from rig import Rig
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1AD, Dot1Q
from scapy.packet import Raw

pytestmark = pytest.mark.root

SERVICES = [
    service(f"{protocol}{family}", vip=vip, protocol=protocol)
    for family, vip in ((4, VIP4), (6, VIP6))
    for protocol in ("tcp", "udp")
]
DENY_CLIENTS = ["10.0.0.0/16", "fd00::/32"]

AH_TCP = bytes([6, 4, *bytes(22)])
"""An authentication header of 24 bytes before TCP."""
HOP = IPv6ExtHdrHopByHop(options=[])
WHOLE = {
    "tcp4": tcp(),
    "udp4": udp(),
    "tcp4 with options": tcp(options=[IPOption_NOP()] * 40),
    "tcp4 in a VLAN": LINK / Dot1Q(vlan=7) / tcp().payload,
    "tcp4 in two VLANs": LINK / Dot1AD(vlan=7) / Dot1Q(vlan=8) / tcp().payload,
    "icmp4": LINK / network() / ICMP(),
    "4in4": LINK / network() / IP(src="10.9.9.9", dst=VIP4) / TCP(dport=80),
    "first fragment": LINK / network(flags="MF") / UDP(dport=80) / bytes(8),
    "tcp6": tcp(dst=VIP6),
    "udp6": udp(dst=VIP6),
    "tcp6 in a VLAN": LINK / Dot1Q(vlan=7) / tcp(dst=VIP6).payload,
    "icmp6": LINK / network(dst=VIP6) / ICMPv6EchoRequest(),
    "hop-by-hop, tcp6": LINK / network(dst=VIP6) / HOP / TCP(sport=40000, dport=80),
    "routing, destination options, udp6": (
        LINK / network(dst=VIP6) / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt() / UDP(sport=40000, dport=80)
    ),
    "AH, tcp6": LINK / network(dst=VIP6, nh=51) / Raw(AH_TCP) / TCP(sport=40000, dport=80),
    "fragment header, udp6": LINK / network(dst=VIP6) / IPv6ExtHdrFragment(m=1) / UDP(dport=80) / bytes(8),
}


@pytest.mark.parametrize("name", WHOLE)
def test_frame_cut_at_every_byte_is_dropped(rig: Rig, name: str) -> None:
    """An IP packet that the frame does not hold whole is dropped, wherever it ends, on whichever list it is."""
    rig.apply(services=SERVICES)
    whole = bytes(WHOLE[name])
    cuts = range(14, len(whole))

    assert {rig.verdict(whole[:cut]) for cut in cuts} == {"DROP_TRUNCATED"}
    assert not rig.verdict(whole).startswith("DROP_TRUNCATED")
    rig.apply(block=DENY_CLIENTS)
    assert {rig.run(whole[:cut]).action for cut in cuts} == {"drop"}
    assert rig.verdict(whole) == "DROP_BLOCKLIST"


def _shortened(whole: bytes, length: int) -> bytes:
    """An untagged frame cut to so many bytes, its IP header agreeing."""
    if whole[12:14] == b"\x08\x00":
        return patched(whole[:length], 16, length - 14, 2)
    return patched(whole[:length], 18, length - 54, 2)


SHORTENED = {
    # name: how many bytes hold the transport header whole, and the verdict from there on
    "tcp4": (54, "TX_IPIP"),
    "udp4": (42, "TX_IPIP"),
    "tcp4 with options": (94, "TX_IPIP"),
    "tcp6": (74, "TX_IPIP"),
    "udp6": (62, "TX_IPIP"),
    "hop-by-hop, tcp6": (82, "TX_IPIP"),
    "routing, destination options, udp6": (78, "TX_IPIP"),
    "AH, tcp6": (98, "TX_IPIP"),
    "fragment header, udp6": (70, "DROP_FRAGMENT"),
}


@pytest.mark.parametrize("name", SHORTENED)
@pytest.mark.parametrize("padding", [0, 64])
def test_packet_that_ends_early_by_its_own_length(rig: Rig, name: str, padding: int) -> None:
    """A header that the packet's length cuts is dropped, though the frame holds more bytes: padding is no header."""
    rig.apply(services=SERVICES)
    whole = bytes(WHOLE[name])
    enough, verdict = SHORTENED[name]
    least = 14 + 4 * (whole[14] & 15) if whole[12:14] == b"\x08\x00" else 54

    for length in range(least, len(whole) + 1):
        frame = _shortened(whole, length) + (whole[length:] + bytes(64))[:padding]
        assert rig.verdict(frame) == (verdict if length >= enough else "DROP_TRUNCATED"), f"cut at {length}"

    rig.apply(block=DENY_CLIENTS)
    for length in range(least, len(whole) + 1):
        assert rig.run(_shortened(whole, length) + bytes(padding)).action == "drop"


def test_ports_are_not_taken_from_the_padding(rig: Rig) -> None:
    """A bare IP header that says TCP, with a TCP header in the padding, is dropped and not forwarded."""
    rig.apply(services=SERVICES)

    assert rig.verdict(patched(tcp(), 16, 20, 2)) == "DROP_TRUNCATED"
    assert rig.verdict(patched(tcp(dst=VIP6), 18, 0, 2)) == "DROP_TRUNCATED"

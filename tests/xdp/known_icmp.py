"""Known frames of ICMP: echo requests, errors that quote a flow, and packets that are told to be too big."""

from frames import CLIENT4, CLIENT6, LINK, VIP4, VIP6, network, patched, tcp
from known_case import case, tagged
from scapy.layers.inet import ICMP, IP, TCP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q
from scapy.packet import Raw

NARROW, NARROW6 = "10.200.1.4", "fc00:1::4"
"""VIPs whose backend's way takes 600 bytes (IPv4) and 1300 (IPv6)."""
_ECHO = LINK / network(ttl=5, tos=0x8C, id=7) / ICMP(id=0x1234, seq=9) / b"are you there?"
_ECHO6 = (
    LINK / network(dst=VIP6, hlim=5, tc=0x8C) / ICMPv6EchoRequest(id=0x1234, seq=9, data=b"are you there?")
)
_ROUTER4, _ROUTER6 = "198.51.100.1", "2001:db8::1"
_QUOTE4 = IP(src=VIP4, dst=CLIENT4) / TCP(sport=80, dport=40000)
_QUOTE6 = IPv6(src=VIP6, dst=CLIENT6) / TCP(sport=80, dport=40000)


def _error4(quote: bytes) -> bytes:
    return bytes(LINK / network(_ROUTER4) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(quote))


def _error6(quote: bytes) -> bytes:
    return bytes(LINK / network(_ROUTER6, VIP6) / ICMPv6PacketTooBig(mtu=1400) / Raw(quote))


ICMP_CASES = [
    case("an echo request", "TX_ECHO", _ECHO, "VIP4 ECHO"),
    case("an ICMPv6 echo request", "TX_ECHO", _ECHO6, "VIP6 ECHO"),
    case("an echo request under a tag", "TX_ECHO", tagged(Dot1Q(vlan=9), inner=_ECHO), "VIP4 ECHO"),
    case("an echo request with a wrong checksum", "TX_ECHO", patched(_ECHO, 36, 0xDEAD, 2), "VIP4 ECHO"),
    case(
        "an echo request with options",
        "PASS_PROTOCOL",
        LINK / network(options=[IPOption_NOP()] * 4) / ICMP(),
        "VIP4",
    ),
    case(
        "an ICMPv6 echo request with an extension",
        "PASS_PROTOCOL",
        LINK / network(dst=VIP6) / IPv6ExtHdrDestOpt() / ICMPv6EchoRequest(),
        "VIP6",
    ),
    case("an echo reply", "PASS_PROTOCOL", LINK / network() / ICMP(type=0), "VIP4"),
    case("an echo request that is not answered", "PASS_PROTOCOL", _ECHO, "VIP4", lacks="ECHO"),
    case("an ICMP header cut off", "DROP_TRUNCATED", LINK / network(proto=1) / bytes(7), "VIP4"),
    case("an error quoting a flow", "TX_IPIP", _error4(bytes(_QUOTE4)[:28]), "VIP4 IPIP"),
    case("an ICMPv6 error quoting a flow", "TX_IPIP", _error6(bytes(_QUOTE6)[:48]), "VIP6 IPIP"),
    case("an error whose quote is cut off", "PASS_ICMP_ERROR", _error4(bytes(_QUOTE4)[:23]), "VIP4"),
    case("an error quoting another's packet", "PASS_ICMP_ERROR", _error4(bytes(_QUOTE4 / b"")[12:]), "VIP4"),
    case(
        "an error quoting a port of no service",
        "PASS_ICMP_ERROR",
        _error4(bytes(IP(src=VIP4, dst=CLIENT4) / TCP(sport=81, dport=40000))),
        "VIP4",
    ),
    case(
        "too big", "TX_TOO_BIG", tcp(dst=NARROW, tos=0x8C) / Raw(b"x" * 8 + bytes(800)), "VIP4 IPIP TOO_BIG"
    ),
    case(
        "too big, under a tag",
        "TX_TOO_BIG",
        tagged(Dot1Q(vlan=9), inner=tcp(dst=NARROW) / Raw(bytes(541))),
        "VIP4 IPIP TOO_BIG",
    ),
    case(
        "too big over IPv6", "TX_TOO_BIG", tcp(dst=NARROW6) / Raw(b"x" * 8 + bytes(1300)), "VIP6 IPIP TOO_BIG"
    ),
    case(
        "too big, and not told",
        "DROP_TOO_BIG",
        tcp(dst=NARROW) / Raw(bytes(541)),
        "VIP4 IPIP",
        lacks="TOO_BIG",
    ),
]

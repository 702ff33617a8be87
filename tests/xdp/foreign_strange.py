"""Kinds of frames that are strange: ICMP of all sorts, fragments, sources that are nobody's, and what is broken."""

from collections.abc import Iterator

from foreign_kinds import BROADCAST, Kind, some
from frames import CLIENT4, CLIENT6, ELSE4, ELSE6, OTHER_MAC, VIP4, VIP6
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLQuery,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.packet import Raw

ALL_NODES6, LINK_LOCAL = "33:33:00:00:00:01", "fe80::1"

_VIP4, _VIP6 = IP(src=CLIENT4, dst=VIP4), IPv6(src=CLIENT6, dst=VIP6)
_ELSE4, _ELSE6 = IP(src=CLIENT4, dst=ELSE4), IPv6(src=CLIENT6, dst=ELSE6)


def kinds() -> Iterator[Kind]:
    """All of them."""
    yield from _icmp("PASS_PROTOCOL")
    yield from _stray_errors("PASS_ICMP_ERROR")
    yield from _fragments()
    yield from _nobodys("DROP_SPOOFED")
    yield from _cut_off("DROP_TRUNCATED")
    yield from _impossible()


def _icmp(verdict: str) -> Iterator[Kind]:
    """What is neither an echo request to a VIP nor an error to one."""
    yield Kind("a ping elsewhere", verdict, lambda c: _ELSE4 / ICMP() / some(c))
    yield Kind("a ping6 elsewhere", verdict, lambda c: _ELSE6 / ICMPv6EchoRequest() / some(c))
    for kind in (0, 4, 5, 9, 10, 13, 14, 15, 17, 42):
        message = _VIP4 / ICMP(type=kind)
        yield Kind(f"ICMP {kind} to a VIP", verdict, lambda c, m=message: m / c.randbytes(20))
    for kind in (3, 11, 12):
        message = _ELSE4 / ICMP(type=kind)
        yield Kind(f"an error {kind} elsewhere", verdict, lambda c, m=message: m / some(c))
    neighbours = ICMPv6ND_RS(), ICMPv6ND_RA(), ICMPv6ND_NS(tgt=VIP6), ICMPv6ND_NA(tgt=VIP6)
    for message in (*neighbours, ICMPv6EchoReply()):
        for to, mac in ((VIP6, OTHER_MAC), ("ff02::1", ALL_NODES6)):
            packet = IPv6(src=LINK_LOCAL, dst=to, hlim=255) / message
            yield Kind(f"{message.name} to {to}", verdict, lambda c, p=packet: p / some(c, 20), mac)
    query = IPv6(src=LINK_LOCAL, dst="ff02::1") / IPv6ExtHdrHopByHop(options=RouterAlert()) / ICMPv6MLQuery()
    yield Kind("MLD query", verdict, lambda c: query, ALL_NODES6)


def _stray_errors(verdict: str) -> Iterator[Kind]:
    """Errors to a VIP about nothing that a service sent."""
    another_port = IP(src=VIP4, dst=CLIENT4) / TCP(sport=81, dport=40000)
    ping = IP(src=VIP4, dst=CLIENT4) / ICMP()
    for kind in (3, 11, 12):
        for name, quote in (("another port", another_port), ("a ping", ping)):
            message = _VIP4 / ICMP(type=kind) / quote
            yield Kind(f"an error {kind} about {name}", verdict, lambda c, m=message: m / some(c))
    another_address = IPv6(src=ELSE6, dst=CLIENT6) / UDP(sport=80)
    for error in (ICMPv6DestUnreach(), ICMPv6PacketTooBig(), ICMPv6TimeExceeded()):
        message = _VIP6 / error / another_address
        yield Kind(f"{error.name} about another address", verdict, lambda c, m=message: m / some(c))


def _fragments() -> Iterator[Kind]:
    for four, six, verdict in ((_ELSE4, _ELSE6, "PASS_FRAGMENT"), (_VIP4, _VIP6, "DROP_FRAGMENT")):
        for name, more, offset in (("first", 1, 0), ("middle", 1, 9), ("last", 0, 100)):
            piece4 = four.copy()
            piece4.flags, piece4.frag = more, offset
            piece6 = six / IPv6ExtHdrFragment(m=more, offset=offset)
            for piece in (piece4, piece6):
                packet = piece / UDP(dport=80)
                yield Kind(f"the {name} fragment to {packet.dst}", verdict, lambda c, p=packet: p / some(c))


def _nobodys(verdict: str) -> Iterator[Kind]:
    for source in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.9.9.9", VIP4):
        packet = IP(src=source, dst=VIP4) / TCP(dport=80)
        yield Kind(f"from {source}", verdict, lambda c, p=packet: p / some(c))
    for source in ("::", "::1", "ff02::1", VIP6):
        packet = IPv6(src=source, dst=VIP6) / UDP(dport=80)
        yield Kind(f"from {source}", verdict, lambda c, p=packet: p / some(c))
    discover = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)
    yield Kind("DHCP discover", verdict, lambda c: discover / c.randbytes(240), BROADCAST)
    detection = IPv6(src="::", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS()
    yield Kind("duplicate address detection", verdict, lambda c: detection, ALL_NODES6)


def _cut_off(verdict: str) -> Iterator[Kind]:
    tcp, udp = b"\x08\x00" + bytes(_ELSE4 / TCP(dport=80)), b"\x86\xdd" + bytes(_ELSE6 / UDP(dport=80))
    yield Kind("IPv4 cut off", verdict, lambda c: tcp[: c.randint(2, len(tcp) - 1)])
    yield Kind("IPv6 cut off", verdict, lambda c: udp[: c.randint(2, len(udp) - 1)])
    for message in (_VIP4 / ICMP(), _VIP6 / ICMPv6EchoRequest()):
        short = type(message)(bytes(message)[:-4])
        short[0].len = short[0].plen = None
        yield Kind(f"a short {message.lastlayer().name}", verdict, lambda c, p=short: p)
    # RFC 2675: a length of 0, and the real one in an option, which says more than there is.
    jumbogram = IPv6(src=CLIENT6, dst=ELSE6, plen=0, nh=0) / Raw(b"\x3b\0\xc2\4\0\1\0\0")
    yield Kind("a jumbogram", verdict, lambda c: jumbogram / some(c))


def _impossible() -> Iterator[Kind]:
    """Headers that cannot be right, and what is too deep."""
    four, six = bytes(_ELSE4 / UDP(dport=80)), bytes(_ELSE6 / UDP(dport=80))
    yield Kind("a bad TCP offset", "DROP_BAD_TCP", lambda c: _ELSE4 / TCP(dataofs=c.choice((0, 4, 15))))
    yield Kind(
        "IPv4 that is not",
        "DROP_BAD_IPV4",
        lambda c: b"\x08\x00" + bytes([c.choice((0x05, 0x65, 0x44, 0xF5))]) + four[1:],
    )
    yield Kind(
        "IPv6 that is not",
        "DROP_BAD_IPV6",
        lambda c: b"\x86\xdd" + bytes([c.choice((0x00, 0x45, 0x5F, 0x7F))]) + six[1:],
    )
    three = b"\x81\x00\0\1" * 3 + b"\x08\x00" + four
    yield Kind("three tags more", "DROP_VLAN_DEPTH", lambda c: three)
    chain = _ELSE6
    for _ in range(7):
        chain = chain / IPv6ExtHdrDestOpt()
    yield Kind("a long chain", "DROP_IPV6_CHAIN", lambda c: chain / UDP() / some(c))

"""Sane frames of every kind, that random frames are made of: built once by scapy, then patched as bytes."""

from dataclasses import dataclass
from functools import cache

from plane import OUR_MAC
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, IPOption_NOP, TCPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPerror6,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

DATA = Raw(b"question")
_TAGS = (None, Dot1Q(vlan=7, prio=5), Dot1AD(vlan=7) / Dot1Q(vlan=8))
_SOURCE, _DESTINATION = {4: "10.0.1.1", 6: "fd00:0:0:1::1"}, {4: "10.200.1.1", 6: "fc00:1::1"}


@dataclass(frozen=True, slots=True)
class Seed:
    """A sane frame. kind: "tcp", "udp", "echo", "error" or "other", of which only the last may be no whole packet.

    ip, transport: where its IP header and what the kind names begin; quote: where the IP header that an error
    quotes does, of which `protocol` is the transport's number.
    """

    data: bytes
    kind: str
    family: int
    ip: int
    transport: int
    protocol: int
    quote: int = 0


@cache
def seeds(family: int) -> tuple[Seed, ...]:
    """Frames of every kind of this family, with no, one and two tags; addresses and ports are to be patched."""
    found = []
    for kind, packet, between in _packets(family):
        for tag in _TAGS:
            link = Ether(src="02:00:00:00:cc:01", dst=OUR_MAC)
            data = bytes(link / tag / packet if tag else link / packet)
            ip = 14 + (len(tag) if tag else 0)
            transport = ip + (20 if family == 4 else 40) + between
            quote = transport + 8 if kind == "error" else 0
            header = quote or ip
            protocol = data[header + (9 if family == 4 else 6)]
            if kind in ("tcp", "udp", "echo"):
                protocol = {"tcp": 6, "udp": 17, "echo": 1 if family == 4 else 58}[kind]
            found.append(Seed(data, kind, family, ip, transport, protocol, quote))
    return tuple(found)


@cache
def seeds_of(family: int, kind: str, protocol: int) -> tuple[Seed, ...]:
    """The seeds of one kind, and of one protocol (of errors, the quoted one)."""
    return tuple(s for s in seeds(family) if s.kind == kind and s.protocol == protocol)


def _packets(family: int) -> list[tuple[str, Packet, int]]:
    """Of each its kind, and how many bytes stand between the IP header and the transport header."""
    tcp, udp = TCP(sport=40000, dport=80), UDP(sport=40000, dport=80)
    common: list[tuple[str, Packet, int]] = [("tcp", tcp / DATA, 0), ("udp", udp / DATA, 0)]
    for flags in ("A", "PA", "RA", "SA", "F"):
        common.append(("tcp", TCP(sport=40000, dport=80, flags=flags) / DATA, 0))
    special = _special4(tcp, udp) if family == 4 else _special6(tcp, udp)
    return [(kind, _ip(family) / packet, ahead) for kind, packet, ahead in common] + special


def _ip(family: int, **fields: object) -> Packet:
    if family == 4:
        return IP(src=_SOURCE[4], dst=_DESTINATION[4], tos=0x8C, ttl=60, **fields)
    return IPv6(src=_SOURCE[6], dst=_DESTINATION[6], tc=0x8C, hlim=60, **fields)


def _special4(tcp: Packet, udp: Packet) -> list[tuple[str, Packet, int]]:
    options = _ip(4, options=[IPOption_NOP()] * 8)
    quoted, optioned = IPerror(src=_DESTINATION[4], dst=_SOURCE[4]), IPerror(options=[IPOption_NOP()] * 4)
    packets: list[tuple[str, Packet, int]] = [
        ("udp", options / udp / DATA, 8),
        ("other", _ip(4, flags="MF") / udp / DATA, 0),
        ("other", _ip(4, frag=9) / udp / DATA, 0),
        ("other", _ip(4) / IP(dst=_DESTINATION[4]) / udp, 0),
        ("echo", _ip(4) / ICMP(id=7, seq=1) / DATA, 0),
        ("other", _ip(4, flags="MF") / ICMP() / DATA, 0),
        ("echo", options / ICMP() / DATA, 8),
        ("other", _ip(4) / ICMP(type=8, code=1) / DATA, 0),
    ]
    packets += [("other", _ip(4) / ICMP(type=kind) / Raw(bytes(20)), 0) for kind in (0, 5, 13)]
    for kind, code in ((3, 4), (3, 3), (11, 0), (12, 0)):
        for inner in (TCPerror(), UDPerror(), ICMP(type=0, id=7)):
            packets.append(("error", _ip(4) / ICMP(type=kind, code=code) / quoted / inner, 0))
    packets.append(("error", options / ICMP(type=3, code=4) / quoted / TCPerror(), 8))
    packets.append(("error", _ip(4) / ICMP(type=3, code=4) / optioned / UDPerror(), 0))
    return packets


def _special6(tcp: Packet, udp: Packet) -> list[tuple[str, Packet, int]]:
    hop, options, routing = IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting()
    quoted = IPerror6(src=_DESTINATION[6], dst=_SOURCE[6])
    authentication = Raw(bytes([17, 4, *bytes(22)]))
    packets: list[tuple[str, Packet, int]] = [
        ("udp", _ip(6) / hop / udp / DATA, 8),
        ("tcp", _ip(6) / hop / routing / options / tcp, 24),
        ("udp", _ip(6) / IPv6ExtHdrFragment() / udp / DATA, 8),
        ("other", _ip(6) / IPv6ExtHdrFragment(m=1) / udp / DATA, 8),
        ("other", _ip(6) / IPv6ExtHdrFragment(offset=9) / udp / DATA, 8),
        ("udp", _ip(6, nh=51) / authentication / udp / DATA, 24),
        ("other", _ip(6) / IP(dst=_DESTINATION[4]) / udp, 0),
        ("echo", _ip(6) / ICMPv6EchoRequest(id=7, seq=1, data=b"question"), 0),
        ("echo", _ip(6) / hop / ICMPv6EchoRequest(), 8),
        ("other", _ip(6) / ICMPv6EchoRequest(code=1), 0),
        ("other", _ip(6) / ICMPv6EchoReply(), 0),
        ("other", _ip(6) / ICMPv6ND_NS(), 0),
    ]
    errors = ICMPv6DestUnreach(), ICMPv6PacketTooBig(mtu=1280), ICMPv6TimeExceeded(), ICMPv6ParamProblem()
    for error in errors:
        for inner in (TCPerror(), UDPerror(), ICMPv6EchoReply(id=7)):
            packets.append(("error", _ip(6) / error / quoted / inner, 0))
    packets.append(("error", _ip(6) / hop / ICMPv6PacketTooBig() / quoted / TCPerror(), 8))
    packets.append(("other", _ip(6) / ICMPv6DestUnreach() / quoted / IPv6ExtHdrFragment() / TCPerror(), 0))
    for count, kind in ((6, "udp"), (7, "other")):
        chain = _ip(6)
        for _ in range(count):
            chain = chain / IPv6ExtHdrDestOpt()
        packets.append((kind, chain / udp, 8 * count))
    return packets

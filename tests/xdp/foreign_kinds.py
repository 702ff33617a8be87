"""Kinds of frames that are sane and not ours to balance: other ethertypes, protocols, addresses and ports."""

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from foreign_payloads import ETHERTYPES, IP_PROTOCOLS, TCP_PAYLOADS, UDP_PAYLOADS
from frames import CLIENT4, CLIENT6, ELSE4, ELSE6, OTHER_MAC, VIP4
from scapy.layers.inet import IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, STP
from scapy.packet import Packet, Raw

BROADCAST, ALL_HOSTS4 = "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"


class Kind(NamedTuple):
    """How frames of a kind are made: a packet, or the bytes from the ethertype on; mac: where they are really sent."""

    name: str
    verdict: str
    make: Callable[[Random], Packet | bytes]
    mac: str = OTHER_MAC


def some(chance: Random, most: int = 200) -> Raw:
    """A payload of any length up to this."""
    return Raw(chance.randbytes(chance.randint(0, most)))


def kinds() -> Iterator[Kind]:
    """All of them."""
    yield from _not_ip("PASS_NOT_IP")
    yield from _other_protocols("PASS_PROTOCOL")
    yield from _no_service("PASS_NO_SERVICE")


def _not_ip(verdict: str) -> Iterator[Kind]:
    for operation, mac in ((1, BROADCAST), (2, OTHER_MAC)):
        yield Kind(
            f"ARP {operation}", verdict, lambda c, op=operation: ARP(op=op, psrc=CLIENT4, pdst=VIP4), mac
        )
    for name, number in ETHERTYPES.items():
        head = number.to_bytes(2, "big")
        yield Kind(name, verdict, lambda c, head=head: head + c.randbytes(c.randint(28, 400)), ALL_HOSTS4)
    bridge, discovery = (
        LLC() / STP(),
        LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0xC, code=0x2000) / bytes(20),
    )
    for name, packet in (("spanning tree", bridge), ("CDP", discovery)):
        data = len(packet).to_bytes(2, "big") + bytes(packet)
        yield Kind(name, verdict, lambda c, data=data: data + bytes(c.randint(0, 20)), "01:80:c2:00:00:00")
    yield Kind("a runt", verdict, lambda c: c.choice((b"\x08\x06", b"\x88\xcc")), BROADCAST)
    behind_label = b"\x88\x47\x00\x01\x01\x40" + bytes(IP(src=CLIENT4, dst=VIP4) / TCP(dport=80))
    yield Kind("MPLS with IP", verdict, lambda c: behind_label)


def _to_elsewhere(chance: Random) -> Packet:
    """An IP header to what is no VIP."""
    if chance.random() < 0.5:
        return IP(src=CLIENT4, dst=ELSE4, ttl=chance.randint(1, 255), tos=chance.getrandbits(8))
    return IPv6(src=CLIENT6, dst=ELSE6, hlim=chance.randint(1, 255), tc=chance.getrandbits(8))


def _with_protocol(header: Packet, number: int) -> Packet:
    setattr(header, "proto" if isinstance(header, IP) else "nh", number)
    return header


def _other_protocols(verdict: str) -> Iterator[Kind]:
    """Neither TCP, UDP nor ICMP, for a VIP or not."""
    to_vip = IP(src=CLIENT4, dst=VIP4)
    for name, number in IP_PROTOCOLS.items():
        yield Kind(
            name, verdict, lambda c, n=number: _with_protocol(_to_elsewhere(c), n) / c.randbytes(40) / some(c)
        )
        yield Kind(
            f"{name} to a VIP", verdict, lambda c, n=number: _with_protocol(to_vip.copy(), n) / some(c)
        )
    report = IP(src=CLIENT4, dst="224.0.0.22", proto=2, options=[IPOption_Router_Alert()])
    yield Kind("IGMP with an option", verdict, lambda c: report / c.randbytes(16), "01:00:5e:00:00:16")
    inner = IP(src=CLIENT4, dst=VIP4) / TCP(dport=80)
    yield Kind("GRE with IP", verdict, lambda c: to_vip / GRE() / inner)


def _no_service(verdict: str) -> Iterator[Kind]:
    """TCP and UDP to other addresses than a VIP's, or to its other ports."""
    for name, port, payload in UDP_PAYLOADS:
        datagram = UDP(sport=40000, dport=port) / Raw(payload)
        yield Kind(name, verdict, lambda c, d=datagram: _to_elsewhere(c) / d / some(c))
    for name, port, payload in TCP_PAYLOADS:
        segment = TCP(sport=40000, dport=port, flags="PA") / Raw(payload)
        yield Kind(name, verdict, lambda c, s=segment: _to_elsewhere(c) / s / some(c, 1200))
    yield Kind(
        "a scan",
        verdict,
        lambda c: IP(src=CLIENT4, dst=VIP4) / TCP(dport=c.randint(1000, 60000), flags=c.choice("SFUP")),
    )
    yield Kind("a christmas tree", verdict, lambda c: _to_elsewhere(c) / TCP(dport=80, flags="FPU"))
    yield Kind("a jumbo", verdict, lambda c: _to_elsewhere(c) / UDP(dport=9) / bytes(c.randint(1500, 3200)))
    for name, group, port, mac in (
        ("mDNS", "224.0.0.251", 5353, "01:00:5e:00:00:fb"),
        ("PTP over UDP", "224.0.1.129", 319, "01:00:5e:00:01:81"),
    ):
        to_group = IP(src=CLIENT4, dst=group) / UDP(sport=port, dport=port)
        yield Kind(name, verdict, lambda c, p=to_group: p / some(c), mac)
    authenticated = IPv6(src=CLIENT6, dst=ELSE6, nh=51) / Raw(bytes([17, 4, *bytes(22)])) / UDP(dport=80)
    yield Kind("AH before UDP", verdict, lambda c: authenticated / some(c))

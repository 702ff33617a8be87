"""How a packet leaves for its backend: with other MACs, or within an outer IP header."""

from ipaddress import IPv4Network, IPv6Network

from lb.dataplane.protocol import NextHop
from lb.model import Settings
from tests.reference.packet import IPV4, IPV6, Packet

OUTER_TTL = 64
DONT_FRAGMENT = 0x4000
IN_IP = {4: 4, 16: 41}
"""The protocol number that a packet has within another, by the size of its addresses."""
_U64 = (1 << 64) - 1


def rewrite(frame: bytes, hop: NextHop) -> bytes:
    """The frame with the next hop's MAC as destination, and ours as source."""
    assert hop.mac is not None
    return hop.mac + hop.source_mac + frame[12:]


def encapsulate(frame: bytes, packet: Packet, backend: bytes, hop: NextHop, settings: Settings) -> bytes:
    """The frame with an outer header before the IP packet; its tags stay, and its padding too."""
    tags = frame[12 : packet.start - 2]
    inner = frame[packet.start :]
    protocol = IN_IP[len(packet.source)]
    if len(backend) == 4:
        source = outer_source4(settings.encap_source_ipv4, packet)
        outer = _ipv4(packet.traffic_class, packet.length + 20, protocol, source, backend)
        ethertype = IPV4
    else:
        source = outer_source6(settings.encap_source_ipv6, packet)
        outer = _ipv6(packet.traffic_class, packet.length, protocol, source, backend)
        ethertype = IPV6
    return rewrite(frame[:12] + tags + ethertype.to_bytes(2, "big") + outer + inner, hop)


def outer_size(backend: bytes) -> int:
    """Bytes that the outer header takes for a backend of this packed address."""
    return 20 if len(backend) == 4 else 40


def spread(packet: Packet) -> int:
    """Sixteen bits that differ between flows, the same on every node: the formula of xdp/README.md."""
    mixed = 0
    for at in range(0, len(packet.source), 4):
        mixed ^= int.from_bytes(packet.source[at : at + 4], "little")
    port = int.from_bytes(packet.source_port.to_bytes(2, "big"), "little")
    mixed ^= port << 16 | port
    return (mixed * 0x9E3779B97F4A7C15 & _U64) >> 48


def outer_source4(room: IPv4Network, packet: Packet) -> bytes:
    """The network of the setting, and as many of the spread's low bits as it leaves free."""
    return (int(room.network_address) | spread(packet) & int(room.hostmask)).to_bytes(4, "big")


def outer_source6(room: IPv6Network, packet: Packet) -> bytes:
    """The network of the setting, and the spread in its last 32 bits."""
    return room.network_address.packed[:12] + spread(packet).to_bytes(4, "big")


def _ipv4(traffic_class: int, length: int, protocol: int, source: bytes, destination: bytes) -> bytes:
    fields = (
        bytes([0x45, traffic_class]) + length.to_bytes(2, "big") + bytes(2) + DONT_FRAGMENT.to_bytes(2, "big")
    )
    before, after = fields + bytes([OUTER_TTL, protocol]), source + destination
    total = sum(int.from_bytes((before + after)[at : at + 2], "big") for at in range(0, 18, 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return before + (total ^ 0xFFFF).to_bytes(2, "big") + after


def _ipv6(traffic_class: int, length: int, protocol: int, source: bytes, destination: bytes) -> bytes:
    first = (6 << 28 | traffic_class << 20).to_bytes(4, "big")
    return first + length.to_bytes(2, "big") + bytes([protocol, OUTER_TTL]) + source + destination

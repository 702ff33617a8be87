"""How a packet leaves for its backend: with other MACs, or within an outer IP header (and UDP, for GUE)."""

from ipaddress import IPv4Network, IPv6Network

from lb.dataplane.protocol import NextHop
from lb.model import Mode, Settings
from tests.reference.packet import IPV4, IPV6, UDP, Flow, Packet
from tests.reference.sums import checksum

TTL = 64
DONT_FRAGMENT = 0x4000
IN_IP = {4: 4, 16: 41}
"""The protocol number that a packet has within another, by the size of its addresses."""
OUTER_IP = {4: 20, 16: 40}
UDP_HEADER = 8
GUE_SOURCE_PORTS = 49152
"""The first of those that GUE spreads flows over (RFC 7605)."""
_U64 = (1 << 64) - 1


def rewrite(frame: bytes, hop: NextHop) -> bytes:
    """The frame with the next hop's MAC as destination, and ours as source."""
    assert hop.mac is not None
    return hop.mac + hop.source_mac + frame[12:]


def overhead(backend: bytes, mode: Mode) -> int:
    """Bytes that outer headers take for a backend of this packed address."""
    return OUTER_IP[len(backend)] + (UDP_HEADER if mode is Mode.GUE else 0)


def encapsulate(
    frame: bytes,
    packet: Packet,
    flow: Flow,
    hop: NextHop,
    *,
    backend: bytes,
    mode: Mode,
    settings: Settings,
) -> bytes:
    """The frame with outer headers before the IP packet; its tags stay, and its padding too."""
    tags, inner = frame[12 : packet.start - 2], frame[packet.start :]
    varied = spread(flow)
    protocol, length = IN_IP[len(packet.source)], packet.length
    if mode is Mode.GUE:
        protocol, length = UDP, length + UDP_HEADER
        ports = GUE_SOURCE_PORTS + varied // 4, settings.gue_port
        # No checksum, over IPv6 either (RFC 6935): the inner packet has its own.
        inner = b"".join(n.to_bytes(2, "big") for n in (*ports, length, 0)) + inner
    if len(backend) == 4:
        source, ethertype = outer_source4(settings.encap_source_ipv4, varied), IPV4
        outer = ipv4_header(packet.traffic_class, length + 20, protocol, source, backend)
    else:
        source, ethertype = outer_source6(settings.encap_source_ipv6, varied), IPV6
        outer = ipv6_header(packet.traffic_class, length, protocol, source, backend)
    return rewrite(frame[:12] + tags + ethertype.to_bytes(2, "big") + outer + inner, hop)


def spread(flow: Flow) -> int:
    """Sixteen bits that differ between flows, the same on every node: the formula of xdp/README.md."""
    mixed = 0
    for at in range(0, len(flow.client), 4):
        mixed ^= int.from_bytes(flow.client[at : at + 4], "little")
    port = int.from_bytes(flow.client_port.to_bytes(2, "big"), "little")
    mixed ^= port << 16 | port
    return (mixed * 0x9E3779B97F4A7C15 & _U64) >> 48


def outer_source4(room: IPv4Network, varied: int) -> bytes:
    """The network of the setting, and as many of the spread's low bits as it leaves free."""
    free = (1 << 32 - room.prefixlen) - 1
    return (int(room.network_address) | varied & free).to_bytes(4, "big")


def outer_source6(room: IPv6Network, varied: int) -> bytes:
    """The network of the setting, and the spread in its last 32 bits."""
    return room.network_address.packed[:12] + varied.to_bytes(4, "big")


def ipv4_header(traffic_class: int, length: int, protocol: int, source: bytes, destination: bytes) -> bytes:
    """An IPv4 header; length: of the packet with it."""
    fields = (
        bytes([0x45, traffic_class]) + length.to_bytes(2, "big") + bytes(2) + DONT_FRAGMENT.to_bytes(2, "big")
    )
    before, after = fields + bytes([TTL, protocol]), source + destination
    return before + checksum(before + after).to_bytes(2, "big") + after


def ipv6_header(traffic_class: int, length: int, protocol: int, source: bytes, destination: bytes) -> bytes:
    """An IPv6 header; length: of what follows it."""
    first = (6 << 28 | traffic_class << 20).to_bytes(4, "big")
    return first + length.to_bytes(2, "big") + bytes([protocol, TTL]) + source + destination

"""A packet with other addresses and ports, in its own IP family or the other (RFC 7915), its checksums adjusted."""

from dataclasses import dataclass

from tests.reference.icmp import ICMP, IP_HEADER, REPLY, REQUEST, is_icmp, number_in
from tests.reference.packet import IPV4, IPV6, TCP, UDP, Packet
from tests.reference.send import DONT_FRAGMENT
from tests.reference.sums import changed, checksum

UNTRANSLATABLE = "DROP_NAT_UNTRANSLATABLE"
CHECKSUM_AT = {TCP: 16, UDP: 6}


@dataclass(frozen=True)
class Ends:
    """Packed addresses and ports that a packet shall have."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int


def translated_length(packet: Packet, size: int) -> int:
    """Bytes of the IP packet as it would leave; size: of its addresses then."""
    if size == len(packet.source):
        return packet.length
    return IP_HEADER[size] + packet.start + packet.length - packet.transport


def translate(frame: bytes, packet: Packet, to: Ends) -> bytes | str:
    """The frame from its third field on (tags, EtherType, packet, padding), or the verdict that it cannot be."""
    end = packet.start + packet.length
    data = frame[packet.transport : end]
    made = _as_echo(data, packet, to) if is_icmp(packet) else _with_ports(data, packet, to)
    if isinstance(made, str):
        return made
    ethertype = IPV4 if len(to.source) == 4 else IPV6
    tags = frame[12 : packet.start - 2]
    return tags + ethertype.to_bytes(2, "big") + _header(frame, packet, to, len(made)) + made + frame[end:]


def _header(frame: bytes, packet: Packet, to: Ends, length: int) -> bytes:
    """The IP header, with its options or extensions where the family stays; length: of what follows."""
    old = frame[packet.start : packet.transport]
    if len(to.source) == len(packet.source):
        return same_family(old, to.source, to.destination)
    ttl = (old[8] if len(packet.source) == 4 else old[7]) - 1
    protocol = number_in(packet.protocol, len(to.source))
    return new_header(packet.traffic_class, length, protocol, ttl, (to.source, to.destination))


def same_family(old: bytes, source: bytes, destination: bytes) -> bytes:
    """A header, with its options or extensions, one hop on and between other addresses."""
    if len(source) == 16:
        return old[:7] + bytes([old[7] - 1]) + source + destination + old[40:]
    new = old[:8] + bytes([old[8] - 1]) + old[9:12] + source + destination + old[20:]
    total = changed(int.from_bytes(old[10:12], "big"), old[8:10] + old[12:20], new[8:10] + new[12:20])
    return new[:10] + total.to_bytes(2, "big") + new[12:]


def new_header(traffic_class: int, length: int, protocol: int, ttl: int, ends: tuple[bytes, bytes]) -> bytes:
    """A header of the other family: no options, flow label 0; IPv4 with id 0 and DF. length: of what follows."""
    source, destination = ends
    if len(source) == 16:
        first = (6 << 28 | traffic_class << 20).to_bytes(4, "big")
        return first + length.to_bytes(2, "big") + bytes([protocol, ttl]) + source + destination
    before = bytes([0x45, traffic_class]) + (length + 20).to_bytes(2, "big")
    before += bytes(2) + DONT_FRAGMENT.to_bytes(2, "big") + bytes([ttl, protocol])
    after = source + destination
    return before + checksum(before + after).to_bytes(2, "big") + after


def _with_ports(data: bytes, packet: Packet, to: Ends) -> bytes | str:
    ports = to.source_port.to_bytes(2, "big") + to.destination_port.to_bytes(2, "big")
    at = CHECKSUM_AT[packet.protocol]
    before = int.from_bytes(data[at : at + 2], "big")
    made = ports + data[4:]
    if packet.protocol == UDP and before == 0:
        # No checksum over IPv4 alone may be left out (RFC 8200, section 8.1).
        return UNTRANSLATABLE if len(packet.source) == 4 and len(to.source) == 16 else made
    old = packet.source + packet.destination + data[:4]
    after = changed(before, old, to.source + to.destination + ports)
    if packet.protocol == UDP and after == 0:
        after = 0xFFFF
    return made[:at] + after.to_bytes(2, "big") + made[at + 2 :]


def _as_echo(data: bytes, packet: Packet, to: Ends) -> bytes:
    is_reply = data[0] == REPLY[len(packet.source)]
    identifier = to.destination_port if is_reply else to.source_port
    before, after = (packet.source, packet.destination), (to.source, to.destination)
    return echo(data, identifier, len(data), before, after, is_reply=is_reply)


def echo(
    data: bytes,
    identifier: int,
    length: int,
    before: tuple[bytes, bytes],
    after: tuple[bytes, bytes],
    *,
    is_reply: bool,
) -> bytes:
    """An echo with another identifier, from between one pair of addresses to another's.

    data: from its type on, as far as there is any of it; length: of all of it.
    """
    (size, _), (new_size, _) = ((len(a), len(b)) for a, b in (before, after))
    kind = (REPLY if is_reply else REQUEST)[new_size]
    head = bytes([kind, 0]) + identifier.to_bytes(2, "big")
    old = data[:2] + data[4:6] + (pseudo6(*before, length) if size == 16 else b"")
    new = head + (pseudo6(*after, length) if new_size == 16 else b"")
    total = changed(int.from_bytes(data[2:4], "big"), old, new)
    if new_size == 4 and total == 0:
        total = 0xFFFF
    return head[:2] + total.to_bytes(2, "big") + head[2:] + data[6:]


def pseudo6(source: bytes, destination: bytes, length: int) -> bytes:
    """What ICMPv6's checksum covers beside the message (RFC 8200, section 8.1)."""
    return source + destination + length.to_bytes(4, "big") + ICMP[16].to_bytes(4, "big")

"""ICMP errors of NAT's flows: outer header, quote and sums as the other side has to see them."""

from typing import NamedTuple

from tests.reference.icmp import ERRORS, HEADER, ICMP, IP_HEADER, REPLY, REQUEST, echo_identifier, number_in
from tests.reference.nat import Entry
from tests.reference.packet import IPV4, IPV6, TCP, UDP, Packet
from tests.reference.sums import changed
from tests.reference.translate import CHECKSUM_AT, UNTRANSLATABLE, echo, new_header, pseudo6, same_family

_POINTER_TO_6 = {
    0: 0,
    1: 1,
    2: 4,
    3: 4,
    8: 7,
    9: 6,
    **dict.fromkeys(range(12, 16), 8),
    **dict.fromkeys(range(16, 20), 24),
}
"""RFC 7915, figure 3."""
_POINTER_TO_4 = {
    0: 0,
    1: 1,
    4: 2,
    5: 2,
    6: 9,
    7: 8,
    **dict.fromkeys(range(8, 24), 12),
    **dict.fromkeys(range(24, 40), 16),
}
"""RFC 7915, figure 6."""
_MTU_DIFFERENCE = 20
_LEAST_MTU6 = 1280


class Quote(NamedTuple):
    """What an error quotes: packed addresses and ports of the quoted packet, and where its transport begins."""

    source: bytes
    source_port: int
    destination: bytes
    port: int
    protocol: int
    header: int

    @property
    def answer(self) -> tuple[bytes, int, bytes, int, int]:
        """The tuple of what it is answered with."""
        return self.destination, self.port, self.source, self.source_port, self.protocol


def is_error(packet: Packet, message: bytes) -> bool:
    """Whether it is an ICMP error of its family."""
    size = len(packet.source)
    return packet.protocol == ICMP[size] and len(message) >= HEADER and message[0] in ERRORS[size]


def read_quote(frame: bytes, packet: Packet, *, of_reply: bool) -> Quote | None:
    """The quote of an error, None if it is no error or quotes no TCP, UDP or echo; of_reply: which echo it may be.

    An echo's identifier stands for the port of the client's side.
    """
    message, size = frame[packet.transport : packet.start + packet.length], len(packet.source)
    if not is_error(packet, message):
        return None
    ip = message[HEADER:]
    if len(ip) < IP_HEADER[size] or ip[0] >> 4 != (4 if size == 4 else 6):
        return None
    if size == 4:
        header, protocol, source, destination = 4 * (ip[0] & 15), ip[9], ip[12:16], ip[16:20]
        if header < 20 or int.from_bytes(ip[6:8], "big") & 0x1FFF:
            return None
    else:
        header, protocol, source, destination = 40, ip[6], ip[8:24], ip[24:40]
    if protocol == ICMP[size]:
        identifier = echo_identifier(ip[header:], size, REPLY if of_reply else REQUEST)
        if identifier is None:
            return None
        first, second = (0, identifier) if of_reply else (identifier, 0)
        return Quote(source, first, destination, second, protocol, header)
    ports = ip[header : header + 4]
    if protocol not in (TCP, UDP) or len(ports) < 4:
        return None
    first, second = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")
    return Quote(source, first, destination, second, protocol, header)


def to_backend(frame: bytes, packet: Packet, entry: Entry) -> bytes | str:
    """An error that a client's side sent to a VIP, for the backend whose reply it quotes; as translate()."""
    address, port = entry.source
    outer = entry.slot[0] or packet.source
    quoted = entry.backend.packed, entry.backend_port, address, port
    return _translated(frame, packet, (outer, entry.backend.packed), quoted, of_reply=True)


def to_client(frame: bytes, packet: Packet, entry: Entry) -> bytes | str:
    """An error that a backend's side sent to a pool address, for the client whose request it quotes."""
    flow = entry.flow
    quoted = flow.client, flow.client_port, flow.vip, flow.port
    return _translated(frame, packet, (flow.vip, flow.client), quoted, of_reply=False)


def _translated(
    frame: bytes,
    packet: Packet,
    outer: tuple[bytes, bytes],
    quoted: tuple[bytes, int, bytes, int],
    *,
    of_reply: bool,
) -> bytes | str:
    end = packet.start + packet.length
    old = frame[packet.transport : end]
    quote = read_quote(frame, packet, of_reply=of_reply)
    assert quote is not None
    size, new_size = len(packet.source), len(outer[0])
    head = old[:2] + old[4:8]
    if size != new_size:
        told = _to_6(old) if new_size == 16 else _to_4(old)
        if told is None or quote.header not in IP_HEADER.values():
            return UNTRANSLATABLE
        head = told
    new = head[:2] + bytes(2) + head[2:] + _quoted(old[HEADER:], quote, quoted, of_reply=of_reply)
    before = int.from_bytes(old[2:4], "big")
    covered_old = old[:2] + bytes(2) + old[4:] + bytes(len(old) & 1)
    covered_new = new + bytes(len(new) & 1)
    covered_old += pseudo6(packet.source, packet.destination, len(old)) if size == 16 else b""
    covered_new += pseudo6(*outer, len(new)) if new_size == 16 else b""
    new = new[:2] + changed(before, covered_old, covered_new).to_bytes(2, "big") + new[4:]
    header = _outer_header(frame, packet, outer, len(new))
    ethertype = IPV4 if new_size == 4 else IPV6
    return frame[12 : packet.start - 2] + ethertype.to_bytes(2, "big") + header + new + frame[end:]


def _outer_header(frame: bytes, packet: Packet, outer: tuple[bytes, bytes], length: int) -> bytes:
    old = frame[packet.start : packet.transport]
    if len(outer[0]) != len(packet.source):
        ttl = (old[8] if len(packet.source) == 4 else old[7]) - 1
        return new_header(packet.traffic_class, length, ICMP[len(outer[0])], ttl, outer)
    return same_family(old, *outer)


def _quoted(ip: bytes, quote: Quote, to: tuple[bytes, int, bytes, int], *, of_reply: bool) -> bytes:
    """The quoted packet as the other side knows it."""
    source, source_port, destination, port = to
    if quote.protocol in ICMP.values():
        ends = (quote.source, quote.destination), (source, destination)
        number = port if of_reply else source_port
        made = echo(ip[quote.header :], number, _quoted_length(ip, quote), *ends, is_reply=of_reply)
    else:
        made = _quoted_transport(ip[quote.header :], quote, to)
    if len(source) == len(quote.source):
        if len(source) == 16:
            return ip[:8] + source + destination + made
        total = changed(int.from_bytes(ip[10:12], "big"), ip[12:20], source + destination)
        return ip[:10] + total.to_bytes(2, "big") + source + destination + ip[20 : quote.header] + made
    if len(quote.source) == 4:
        traffic_class, ttl = ip[1], ip[8]
    else:
        traffic_class, ttl = int.from_bytes(ip[:2], "big") >> 4 & 0xFF, ip[7]
    protocol = number_in(quote.protocol, len(source))
    return new_header(traffic_class, _quoted_length(ip, quote), protocol, ttl, (source, destination)) + made


def _quoted_length(ip: bytes, quote: Quote) -> int:
    """Bytes behind the quoted IP header, as that says."""
    if len(quote.source) == 4:
        return int.from_bytes(ip[2:4], "big") - quote.header & 0xFFFF
    return int.from_bytes(ip[4:6], "big")


def _quoted_transport(rest: bytes, quote: Quote, to: tuple[bytes, int, bytes, int]) -> bytes:
    """TCP or UDP as far as it is quoted."""
    source, source_port, destination, port = to
    ports, at = source_port.to_bytes(2, "big") + port.to_bytes(2, "big"), CHECKSUM_AT[quote.protocol]
    made = ports + rest[4:]
    before = int.from_bytes(rest[at : at + 2], "big")
    if len(rest) < at + 2 or (quote.protocol == UDP and before == 0):
        return made
    after = changed(before, quote.source + quote.destination + rest[:4], source + destination + ports)
    if quote.protocol == UDP and after == 0:
        after = 0xFFFF
    return made[:at] + after.to_bytes(2, "big") + made[at + 2 :]


def _to_6(message: bytes) -> bytes | None:
    """Type, code and the word behind the checksum of an ICMPv4 error, in ICMPv6 (RFC 7915, section 4.2)."""
    kind, code = message[0], message[1]
    if kind == 11:
        return bytes([3, code]) + bytes(4)
    if kind == 12:
        pointer = _POINTER_TO_6.get(message[4]) if code in (0, 2) else None
        return None if pointer is None else bytes([4, 0]) + pointer.to_bytes(4, "big")
    if code == 2:
        return bytes([4, 1]) + (6).to_bytes(4, "big")
    if code == 4:
        mtu = max(int.from_bytes(message[6:8], "big") + _MTU_DIFFERENCE, _LEAST_MTU6)
        return bytes([2, 0]) + mtu.to_bytes(4, "big")
    if code in (0, 1, 5, 6, 7, 8, 11, 12):
        return bytes([1, 0]) + bytes(4)
    if code == 3:
        return bytes([1, 4]) + bytes(4)
    if code in (9, 10, 13, 15):
        return bytes([1, 1]) + bytes(4)
    return None


def _to_4(message: bytes) -> bytes | None:
    """Those of an ICMPv6 error, in ICMPv4 (RFC 7915, section 5.2)."""
    kind, code = message[0], message[1]
    if kind == 1:
        new = {0: 1, 1: 10, 2: 1, 3: 1, 4: 3}.get(code)
        return None if new is None else bytes([3, new]) + bytes(4)
    if kind == 2:
        mtu = min(max(int.from_bytes(message[4:8], "big"), _LEAST_MTU6), 0xFFFF) - _MTU_DIFFERENCE
        return bytes([3, 4]) + bytes(2) + mtu.to_bytes(2, "big")
    if kind == 3:
        return bytes([11, code]) + bytes(4)
    if code == 1:
        return bytes([3, 2]) + bytes(4)
    pointer = _POINTER_TO_4.get(int.from_bytes(message[4:8], "big")) if code == 0 else None
    return None if pointer is None else bytes([12, 0, pointer]) + bytes(3)

"""Frames out of pcap and pcapng captures; whatever is wrong with one is named by its packet and byte.

An own reader, and small: those at hand take a packet that is cut off for a whole one and the first interface's link
type for all (dpkt), or take half a second to import (scapy). Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from lb.errors import InvalidError, MalformedError

_PCAP_ORDER = {
    bytes.fromhex("d4c3b2a1"): "<",
    bytes.fromhex("a1b2c3d4"): ">",
    bytes.fromhex("4d3cb2a1"): "<",  # the same with nanoseconds: times are not looked at
    bytes.fromhex("a1b23c4d"): ">",
}
_SECTION = b"\x0a\x0d\x0d\x0a"
_SECTION_ORDER = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 1, 2, 3, 6
_GZIP = b"\x1f\x8b"
_ETHERNET = 1
_LINK_TYPES = {
    101: "raw IP",
    105: "802.11",
    113: 'Linux cooked, which "tcpdump -i any" makes',
    127: "802.11 with radiotap",
    228: "raw IPv4",
    229: "raw IPv6",
    276: 'Linux cooked, which "tcpdump -i any" makes',
}


@dataclass(frozen=True, slots=True)
class Captured:
    """A frame as it was captured. length: what it had on the wire, in bytes; data may hold fewer."""

    data: bytes
    length: int


def read_capture(data: bytes) -> Iterator[Captured]:
    """The frames of a capture, in order.

    MalformedError: it is no capture, is cut off, or contradicts itself. InvalidError: it is not of Ethernet, or
    holds no packet. Either comes when the place is reached, so whoever wants all or nothing goes through it first.
    """
    if not data:
        raise MalformedError("the capture is empty: send a pcap or pcapng file")
    if data[:4] in _PCAP_ORDER:
        frames = _pcap(data, _PCAP_ORDER[data[:4]])
    elif data[:4] == _SECTION:
        frames = _pcapng(data)
    elif data[:2] == _GZIP:
        raise MalformedError("the capture is compressed: unpack it first (gunzip)")
    else:
        raise MalformedError(
            f"the capture begins with {data[:4].hex()}, unlike any pcap or pcapng file: send a file as "
            '"tcpdump -w" or Wireshark writes it'
        )
    empty = True
    for frame in frames:
        empty = False
        yield frame
    if empty:
        raise InvalidError.one("", "the capture holds no packet: nothing can be explained")


def _pcap(data: bytes, order: str) -> Iterator[Captured]:
    """The file's header is 24 bytes, of which the last four name the link type; a packet's 16."""
    if len(data) < 24:
        raise MalformedError(f"the capture has {len(data)} bytes, and a pcap header takes 24: it is cut off")
    link_type = Struct(order + "I").unpack_from(data, 20)[0] & 0xFFFF  # above are bits about checksums
    _check_ethernet(link_type)
    header, at, number = Struct(order + "8xII"), 24, 0
    while at < len(data):
        number += 1
        if at + 16 > len(data):
            raise _cut_off(number, at, 16, len(data))
        kept, length = header.unpack_from(data, at)
        at += 16
        if at + kept > len(data):
            raise _cut_off(number, at, kept, len(data))
        yield Captured(data[at : at + kept], max(kept, length))
        at += kept


def _pcapng(data: bytes) -> Iterator[Captured]:
    """Blocks of type, length, body, and the length again. A section sets byte order and interfaces anew."""
    order, interfaces = "<", list[tuple[int, int]]()
    at = number = 0
    while at < len(data):
        if at + 12 > len(data):
            raise _block_error(at, "is cut off")
        if data[at : at + 4] == _SECTION:
            if data[at + 8 : at + 12] not in _SECTION_ORDER:
                raise _block_error(at, "begins a section of no known byte order")
            order, interfaces = _SECTION_ORDER[data[at + 8 : at + 12]], []
        kind, size = Struct(order + "II").unpack_from(data, at)
        if size < 12 or size % 4:
            raise _block_error(at, f"says that it has {size} bytes, which is impossible for a block")
        if at + size > len(data):
            raise _block_error(
                at, f"says that it has {size} bytes, and {len(data) - at} are left: it is cut off"
            )
        if Struct(order + "I").unpack_from(data, at + size - 4)[0] != size:
            raise _block_error(at, "gives two lengths that differ")
        body = data[at + 8 : at + size - 4]
        if kind == _INTERFACE:
            if len(body) < 8:
                raise _block_error(at, "is too short for an interface description")
            interfaces.append(Struct(order + "HxxI").unpack_from(body))
        elif kind in (_PACKET, _OLD_PACKET, _SIMPLE_PACKET):
            number += 1
            yield _packet_of_block(kind, body, order, interfaces, number=number, at=at)
        at += size


def _packet_of_block(
    kind: int, body: bytes, order: str, interfaces: list[tuple[int, int]], *, number: int, at: int
) -> Captured:
    """The frame in the body of a packet's block. interfaces: (link type, snapshot length or 0)."""
    head = 4 if kind == _SIMPLE_PACKET else 20
    if len(body) < head:
        raise _block_error(at, "is too short for a packet")
    interface = 0
    if kind == _SIMPLE_PACKET:
        (length,) = Struct(order + "I").unpack_from(body)
    else:
        interface = Struct(order + ("I" if kind == _PACKET else "H")).unpack_from(body)[0]
        kept, length = Struct(order + "12xII").unpack_from(body)
    if interface >= len(interfaces):
        raise _block_error(at, f"is a packet of interface {interface}, which the capture has not described")
    link_type, most = interfaces[interface]
    _check_ethernet(link_type)
    if kind == _SIMPLE_PACKET:
        kept = min(length, most) if most else length
    if head + kept > len(body):
        raise _cut_off(number, at + 8 + head, kept, at + 8 + len(body))
    return Captured(body[head : head + kept], max(kept, length))


def _check_ethernet(link_type: int) -> None:
    if link_type != _ETHERNET:
        name = _LINK_TYPES.get(link_type, "not known here")
        raise InvalidError.one(
            "",
            f"the capture has link type {link_type} ({name}), but Ethernet (1) is needed: capture on the "
            "one interface that Sluice serves (tcpdump -i eth0 -w FILE)",
        )


def _cut_off(number: int, at: int, wanted: int, end: int) -> MalformedError:
    without = f", or leave it out (editcap -r IN OUT 1-{number - 1})" if number > 1 else ""
    return MalformedError(
        f"packet {number} of the capture is cut off: {wanted} bytes from byte {at} on are announced, but "
        f"{end - at} are there; capture again{without}"
    )


def _block_error(at: int, says: str) -> MalformedError:
    return MalformedError(f"the capture's block at byte {at} {says}: capture again, or repair it (editcap)")

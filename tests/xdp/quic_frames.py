"""QUIC packets as far as a balancer reads them (RFC 8999, RFC 9369), and connection ids with a number in them."""

from typing import Any

from frames import LINK, network
from scapy.layers.inet import UDP
from scapy.packet import Packet

VERSION_1, VERSION_2 = 1, 0x6B3343CF
INITIAL, ZERO_RTT, HANDSHAKE, RETRY = 0, 1, 2, 3
INITIAL_V2, ZERO_RTT_V2 = 1, 2


def cid(form: int, number: int, *, fill: int = 0, length: int = 8) -> bytes:
    """A connection id that holds a number: form 1, 16 bits; 2, 24 bits; 3, 32 bits. fill: all other bits."""
    if form == 1:
        head = bytes([0x40 | number >> 10, number >> 2 & 0xFF, (number & 3) << 6 | fill & 0x3F])
    else:
        head = bytes([form << 6 | fill & 0x3F]) + number.to_bytes(form + 1, "big")
    return head + bytes([fill]) * (length - len(head))


def long_header(
    kind: int,
    destination: bytes,
    *,
    version: int = VERSION_1,
    source: bytes = b"from",
    rest: bytes = b"sealed",
) -> bytes:
    """A packet with a long header of this type."""
    first = bytes([0xC0 | kind << 4]) + version.to_bytes(4, "big")
    return first + bytes([len(destination)]) + destination + bytes([len(source)]) + source + rest


def short_header(destination: bytes, *, first: int = 0x40) -> bytes:
    """A packet with a short header, which ends with its id: nobody but the server knows how long that is."""
    return bytes([first]) + destination


def datagram(
    vip: str, payload: bytes, *, src: str = "", sport: int = 40000, dport: int = 443, **ip: Any
) -> Packet:
    """A QUIC packet from the client, in its frame."""
    return LINK / network(src, vip, **ip) / UDP(sport=sport, dport=dport) / payload

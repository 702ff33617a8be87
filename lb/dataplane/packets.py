"""The few packets that the doctor sends by hand: echo requests, and an IP packet around them."""

import socket
import struct

_IP4 = struct.Struct("!BBHHHBBH4s4s")
_IP6 = struct.Struct("!IHBB16s16s")
_ECHO = struct.Struct("!BBHHH")
_TTL = 64
ICMP, ICMP6 = 1, 58
IPIP, IPV6_IN_IP, GUE = 4, 41, 17


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def family_of(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


def packed(address: str) -> bytes:
    """An address as bytes."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def echo_request(source: str, destination: str, identifier: int, sequence: int, octets: int = 0) -> bytes:
    """An ICMP echo request with so many bytes behind its header; addresses are for IPv6's checksum."""
    body, six = bytes(octets), family_of(destination) == 6
    kind = 128 if six else 8
    plain = _ECHO.pack(kind, 0, 0, identifier, sequence) + body
    pseudo = packed(source) + packed(destination) + struct.pack("!IxxxB", len(plain), ICMP6) if six else b""
    return _ECHO.pack(kind, 0, checksum(pseudo + plain), identifier, sequence) + body


def ip_packet(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """The payload behind an IP header without options."""
    if family_of(destination) == 6:
        return _IP6.pack(6 << 28, len(payload), protocol, _TTL, packed(source), packed(destination)) + payload
    length = _IP4.size + len(payload)
    plain = _IP4.pack(0x45, 0, length, 0, 0, _TTL, protocol, 0, packed(source), packed(destination))
    return plain[:10] + struct.pack("!H", checksum(plain)) + plain[12:] + payload


def outer_bytes(mode: str, family: int) -> int:
    """How long the outer header of a mode is, whose addresses are of a family."""
    if mode not in {"ipip", "gue"}:
        return 0
    return (20 if family == 4 else 40) + (8 if mode == "gue" else 0)

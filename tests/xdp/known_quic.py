"""Known frames of QUIC: connection ids in their three forms, and packets that have none of the server's."""

from frames import BACKENDS4, service, udp
from known_case import case

VIP = "10.200.1.6"
QUIC = service(
    "quic",
    vip=VIP,
    protocol="udp",
    port=443,
    quic=True,
    backends=[
        {"address": address, "quic_id": number}
        for address, number in zip(BACKENDS4, (0x1234, 0x56789A, 0x12345678), strict=True)
    ],
)
_NEEDS = "VIP4 IPIP QUIC"
_16_BITS = bytes([0x40 | 0x1234 >> 10, 0x1234 >> 2 & 0xFF, (0x1234 & 3) << 6]) + bytes(5)
_24_BITS, _32_BITS = (
    b"\x80" + bytes.fromhex("56789a") + bytes(4),
    b"\xc0" + bytes.fromhex("12345678") + bytes(3),
)
_UNKNOWN = b"\x80\0\0\x09" + bytes(4)


def _short(connection: bytes, sport: int) -> bytes:
    frame = udp(dst=VIP, dport=443, sport=sport)
    frame.lastlayer().load = b"\x40" + connection
    return bytes(frame)


def _long(kind: int, connection: bytes, sport: int, version: int = 1) -> bytes:
    frame = udp(dst=VIP, dport=443, sport=sport)
    first = bytes([0xC0 | kind << 4]) + version.to_bytes(4, "big")
    frame.lastlayer().load = first + bytes([len(connection)]) + connection + b"\0payload"
    return bytes(frame)


QUIC_CASES = [
    *(
        case(f"an id of {bits} bits, from port {port}", "TX_IPIP", _short(connection, port), _NEEDS)
        for bits, connection in ((16, _16_BITS), (24, _24_BITS), (32, _32_BITS))
        for port in (1000, 1001)
    ),
    case("the id of a Handshake", "TX_IPIP", _long(2, _24_BITS, 1002), _NEEDS),
    case("the id of an Initial, which is the client's", "TX_IPIP", _long(0, _32_BITS, 1003), _NEEDS),
    case("the id of a 0-RTT packet", "TX_IPIP", _long(1, _16_BITS, 1003), _NEEDS),
    case("an Initial of version 2", "TX_IPIP", _long(1, _32_BITS, 1004, version=0x6B3343CF), _NEEDS),
    case("an id that names no backend", "TX_IPIP", _short(_UNKNOWN, 1005), _NEEDS),
    case("an id that is too short", "TX_IPIP", _short(_32_BITS[:4], 1006), _NEEDS),
]

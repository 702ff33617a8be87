"""The number that a QUIC packet's connection id carries."""

VERSION_2 = 0x6B3343CF
INITIAL, ZERO_RTT = 0, 1
BYTES_OF = {0b01: 3, 0b10: 4, 0b11: 5}
"""How many bytes of an id its first two bits announce."""


def backend_id(datagram: bytes) -> int | None:
    """The number in the id of a packet (what follows the UDP header), None if it carries none."""
    if not datagram:
        return None
    return _number(_long_header_id(datagram) if datagram[0] & 0x80 else datagram[1:])


def _long_header_id(datagram: bytes) -> bytes:
    """The id in a long header (RFC 8999), unless a client drew it: then nothing."""
    if len(datagram) < 6 or _drawn_by_client(datagram):
        return b""
    end = 6 + datagram[5]
    return datagram[6:end] if end <= len(datagram) else b""


def _drawn_by_client(datagram: bytes) -> bool:
    version, kind = int.from_bytes(datagram[1:5], "big"), datagram[0] >> 4 & 3
    if version == VERSION_2:  # RFC 9369 counts its types from 1
        kind = (kind - 1) & 3
    return version == 0 or kind in (INITIAL, ZERO_RTT)


def _number(connection_id: bytes) -> int | None:
    if not connection_id:
        return None
    form = connection_id[0] >> 6
    if form not in BYTES_OF or len(connection_id) < BYTES_OF[form]:
        return None
    if form == 0b01:
        number = int.from_bytes(connection_id[:3], "big") >> 6 & 0xFFFF
    else:
        number = int.from_bytes(connection_id[1 : BYTES_OF[form]], "big")
    return number or None

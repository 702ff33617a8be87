"""What an ICMP packet is: a request to echo or the reply, an error that quotes a flow, or something else."""

from tests.reference.packet import TCP, UDP, Flow, Packet
from tests.reference.sums import adjusted

HEADER = 8
ICMP = {4: 1, 16: 58}
"""The protocol's number, by the size of the addresses it goes between; likewise below."""
REQUEST, REPLY = {4: 8, 16: 128}, {4: 0, 16: 129}
ERRORS = {4: (3, 11, 12), 16: (1, 2, 3, 4)}
IP_HEADER = {4: 20, 16: 40}
TTL = 64


def is_icmp(packet: Packet) -> bool:
    """Whether it is ICMP over IPv4 or ICMPv6 over IPv6."""
    return packet.protocol == ICMP[len(packet.source)]


def number_in(protocol: int, size: int) -> int:
    """What a protocol is called between addresses of that size."""
    return ICMP[size] if protocol in ICMP.values() else protocol


def echo_identifier(message: bytes, size: int, kinds: dict[int, int]) -> int | None:
    """The identifier of an echo of that kind, REQUEST or REPLY; None if the message is none, whole up to there."""
    if len(message) < HEADER or message[:2] != bytes([kinds[size], 0]):
        return None
    return int.from_bytes(message[4:6], "big")


def echo_of(frame: bytes, packet: Packet, kinds: dict[int, int]) -> int | None:
    """The same of a packet, which is no fragment."""
    if packet.fragment or not is_icmp(packet):
        return None
    message = frame[packet.transport : packet.start + packet.length]
    return echo_identifier(message, len(packet.source), kinds)


def reply_ports(frame: bytes, packet: Packet) -> tuple[int, int] | None:
    """Source and destination port of what may be a flow's reply; of an echo reply, what stands for them."""
    if packet.has_ports and not packet.fragment:
        return packet.source_port, packet.port
    identifier = echo_of(frame, packet, REPLY)
    return None if identifier is None else (0, identifier)


def read(frame: bytes, packet: Packet) -> Flow | str:
    """The flow that an error quotes, or the name of the verdict on what is none or quotes none."""
    message = frame[packet.transport : packet.start + packet.length]
    size = len(packet.source)
    if len(message) < HEADER:
        return "DROP_TRUNCATED"
    if message[0] in ERRORS[size]:
        return _quoted(message[HEADER:], packet.destination) or "PASS_ICMP_ERROR"
    bare = packet.transport == packet.start + IP_HEADER[size]
    return "TX_ECHO" if bare and message[:2] == bytes([REQUEST[size], 0]) else "PASS_PROTOCOL"


def _quoted(quote: bytes, vip: bytes) -> Flow | None:
    """The flow of a packet that this VIP sent: its way back is the client's way here."""
    size = len(vip)
    if len(quote) < IP_HEADER[size] or quote[0] >> 4 != (4 if size == 4 else 6):
        return None
    if size == 4:
        header, protocol, source, client = 4 * (quote[0] & 15), quote[9], quote[12:16], quote[16:20]
        later = int.from_bytes(quote[6:8], "big") & 0x1FFF != 0
        if header < 20 or later:
            return None
    else:
        header, protocol, source, client = 40, quote[6], quote[8:24], quote[24:40]
    if source == vip and protocol == ICMP[size]:
        identifier = echo_identifier(quote[header:], size, REPLY)
        return None if identifier is None else Flow(client, identifier, vip, 0, protocol)
    ports = quote[header : header + 4]
    if protocol not in (TCP, UDP) or source != vip or len(ports) < 4:
        return None
    port, client_port = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")
    return Flow(client, client_port, vip, port, protocol)


def echo_reply(frame: bytes, packet: Packet) -> bytes:
    """The frame of a request, made the reply in place."""
    out, start, at = bytearray(frame), packet.start, packet.transport
    out[:12] = frame[6:12] + frame[:6]
    if len(packet.source) == 4:
        _change(out, start + 8, TTL << 8 | packet.protocol, start + 10)
        out[start + 12 : start + 20] = packet.destination + packet.source
    else:
        out[start + 7] = TTL
        out[start + 8 : start + 40] = packet.destination + packet.source
    # Addresses that change places leave the sum of a pseudo-header as it is.
    _change(out, at, REPLY[len(packet.source)] << 8, at + 2)
    if len(packet.source) == 4 and out[at + 2 : at + 4] == bytes(2):
        out[at + 2 : at + 4] = b"\xff\xff"
    return bytes(out)


def _change(out: bytearray, at: int, new: int, sum_at: int) -> None:
    """Write a 16-bit word, and into its checksum what that changes."""
    old, before = (int.from_bytes(out[place : place + 2], "big") for place in (at, sum_at))
    out[at : at + 2] = new.to_bytes(2, "big")
    out[sum_at : sum_at + 2] = adjusted(before, old, new).to_bytes(2, "big")

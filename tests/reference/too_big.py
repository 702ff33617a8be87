"""What a client is told whose packet is too big for the way to its backend: ICMP, with the MTU that would fit."""

from tests.reference.icmp import ICMP
from tests.reference.packet import Packet
from tests.reference.send import ipv4_header, ipv6_header
from tests.reference.sources import is_nobodys
from tests.reference.sums import checksum

QUOTED = {4: 548, 16: 1232}
"""Bytes of the packet that are sent back, by the size of its addresses: the whole fits 576 and 1280."""
TYPE_AND_CODE = {4: bytes([3, 4]), 16: bytes([2, 0])}


def is_answered(packet: Packet) -> bool:
    """Whether such a packet's sender is told: not if it is shorter than what is quoted, or nobody's."""
    return packet.length >= QUOTED[len(packet.source)] and not is_nobodys(packet.source)


def answer(frame: bytes, packet: Packet, mtu: int) -> bytes:
    """The frame to the client. mtu: what the client's packets may have."""
    size = len(packet.source)
    quote = frame[packet.start : packet.start + QUOTED[size]]
    message = TYPE_AND_CODE[size] + bytes(2) + mtu.to_bytes(4, "big") + quote
    vip, client = packet.destination, packet.source
    if size == 4:
        header = ipv4_header(0, 20 + len(message), ICMP[4], vip, client)
        covered = message
    else:
        header = ipv6_header(0, len(message), ICMP[16], vip, client)
        covered = vip + client + len(message).to_bytes(4, "big") + ICMP[16].to_bytes(4, "big") + message
    message = message[:2] + checksum(covered).to_bytes(2, "big") + message[4:]
    return frame[6:12] + frame[:6] + frame[12 : packet.start] + header + message

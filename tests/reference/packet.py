"""From a frame's bytes to what the packet path wants to know of it, or the verdict on what is broken."""

from typing import NamedTuple

IPV4, IPV6 = 0x0800, 0x86DD
VLAN = (0x8100, 0x88A8)
TAGS_MAX = 2
TCP, UDP = 6, 17
HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION = 0, 43, 44, 51, 60
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION)
EXTENSIONS_MAX = 6
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10


class Flow(NamedTuple):
    """What the packets of one flow have in common. Addresses are packed, ports in host order."""

    client: bytes
    client_port: int
    vip: bytes
    port: int
    protocol: int


class Packet(NamedTuple):
    """An IP packet within its frame.

    start: where its header begins; length: bytes from there by its own account, padding not counted; transport: where
    begins what `protocol` names; fragment: any, later: not the first. Addresses are packed, ports in host order; ports
    and flags are 0 in what is neither TCP nor UDP, and in later fragments.
    """

    start: int
    length: int
    source: bytes
    destination: bytes
    traffic_class: int
    protocol: int
    fragment: bool
    later: bool
    transport: int
    source_port: int = 0
    port: int = 0
    flags: int = 0

    @property
    def has_ports(self) -> bool:
        """Whether it is TCP or UDP with its header."""
        return self.protocol in (TCP, UDP) and not self.later

    @property
    def opens(self) -> bool:
        """Whether it asks for a TCP connection: SYN and no ACK."""
        return self.flags & (SYN | ACK) == SYN

    @property
    def flow(self) -> Flow:
        """The flow that a TCP or UDP packet is of."""
        return Flow(self.source, self.source_port, self.destination, self.port, self.protocol)


def read(frame: bytes, mac: bytes) -> Packet | str:
    """The packet in a frame for this MAC, or the name of the verdict that ends its way. Outermost header first."""
    if frame[:6] != mac:
        return "PASS_NOT_OUR_MAC"
    at, tags = 12, 0
    while (ethertype := int.from_bytes(frame[at : at + 2], "big")) in VLAN:
        if tags == TAGS_MAX:
            return "DROP_VLAN_DEPTH"
        if len(frame) < at + 6:
            return "DROP_TRUNCATED"
        at, tags = at + 4, tags + 1
    if ethertype == IPV4:
        return _read_ipv4(frame, at + 2)
    if ethertype == IPV6:
        return _read_ipv6(frame, at + 2)
    return "PASS_NOT_IP"


def _read_ipv4(frame: bytes, start: int) -> Packet | str:
    ip = frame[start:]
    if len(ip) < 20:
        return "DROP_TRUNCATED"
    header, length = 4 * (ip[0] & 15), int.from_bytes(ip[2:4], "big")
    if ip[0] >> 4 != 4 or header < 20 or length < header:
        return "DROP_BAD_IPV4"
    if length > len(ip):
        return "DROP_TRUNCATED"
    flags_and_offset = int.from_bytes(ip[6:8], "big")
    later = flags_and_offset & 0x1FFF != 0
    more = flags_and_offset & 0x2000 != 0
    found = _read_transport(ip[header:length], ip[9], later)
    if isinstance(found, str):
        return found
    fragment, transport = later or more, start + header
    return Packet(start, length, ip[12:16], ip[16:20], ip[1], ip[9], fragment, later, transport, *found)


def _read_ipv6(frame: bytes, start: int) -> Packet | str:
    ip = frame[start:]
    if len(ip) < 40:
        return "DROP_TRUNCATED"
    length = 40 + int.from_bytes(ip[4:6], "big")
    if ip[0] >> 4 != 6 or length > 0xFFFF:
        return "DROP_BAD_IPV6"
    if length > len(ip):
        return "DROP_TRUNCATED"
    rest, kind = ip[40:length], ip[6]
    walked, later, more = 0, False, False
    while kind in EXTENSIONS and not later:
        if walked == EXTENSIONS_MAX:
            return "DROP_IPV6_CHAIN"
        if len(rest) < 8:
            return "DROP_TRUNCATED"
        size = 8
        if kind == FRAGMENT:
            # Offset 0 and nothing to follow is the whole packet (RFC 6946).
            later = (rest[2] << 8 | rest[3] & 0xF8) != 0
            more = more or rest[3] & 1 != 0
        elif kind == AH:
            size = 4 * (rest[1] + 2)
        else:
            size = 8 * (rest[1] + 1)
        if len(rest) < size:
            return "DROP_TRUNCATED"
        rest, kind, walked = rest[size:], rest[0], walked + 1
    found = _read_transport(rest, kind, later)
    if isinstance(found, str):
        return found
    traffic_class = int.from_bytes(ip[:2], "big") >> 4 & 0xFF
    fragment, transport = later or more, start + length - len(rest)
    return Packet(start, length, ip[8:24], ip[24:40], traffic_class, kind, fragment, later, transport, *found)


def _read_transport(data: bytes, protocol: int, later: bool) -> tuple[int, int, int] | str:
    """Source port, destination port and TCP flags; a later fragment has none."""
    if later or protocol not in (TCP, UDP):
        return 0, 0, 0
    if len(data) < (20 if protocol == TCP else 8):
        return "DROP_TRUNCATED"
    ports = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
    if protocol == UDP:
        return *ports, 0
    if not 20 <= 4 * (data[12] >> 4) <= len(data):
        return "DROP_BAD_TCP"
    return *ports, data[13]

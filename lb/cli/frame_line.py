"""A frame in one short line, headers from the outside in; truncated frames as far as they go."""

import socket
from struct import error as struct_error
from struct import unpack_from

_FLAGS = "FSRPAUEC"
_TAGS = (0x8100, 0x88A8)
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_NAMES = {1: "ICMP", 2: "IGMP", 47: "GRE", 50: "ESP", 51: "AH", 58: "ICMPv6", 89: "OSPF", 132: "SCTP"}
_ECHO = {(1, 8): "echo request", (1, 0): "echo reply", (58, 128): "echo request", (58, 129): "echo reply"}
_EXTENSIONS = (0, 43, 60)
_GUE_PORT = 6080


def frame_line(frame: bytes, length: int) -> str:
    """Addresses, ports, protocol; an outer header is followed by what is within."""
    try:
        return _ethernet(frame)
    except (struct_error, IndexError, OSError, ValueError):  # as what reads numbers and addresses says it
        return f"cut off, {len(frame)} of {length} bytes: {frame[:14].hex()}"


def ip_frame_length(frame: bytes) -> int | None:
    """How long the frame is by what its first IP header says, padding left out; None if that cannot be read."""
    try:
        kind, at = _network(frame)
        if kind == _IPV4:
            return at + int(unpack_from("!H", frame, at + 2)[0])
        return at + 40 + int(unpack_from("!H", frame, at + 4)[0]) if kind == _IPV6 else None
    except struct_error:
        return None


def _network(frame: bytes) -> tuple[int, int]:
    """Ethertype and offset of what is behind MACs and VLAN tags."""
    (kind,) = unpack_from("!H", frame, 12)
    at = 14
    while kind in _TAGS:
        (kind,) = unpack_from("!H", frame, at + 2)
        at += 4
    return kind, at


def _ethernet(frame: bytes) -> str:
    kind, at = _network(frame)
    tags = "".join(f"vlan {unpack_from('!H', frame, tag)[0] & 0xFFF} " for tag in range(14, at, 4))
    if kind == _IPV4:
        return tags + _ipv4(frame, at)
    if kind == _IPV6:
        return tags + _ipv6(frame, at)
    if kind == _ARP:
        operation = unpack_from("!H", frame, at + 6)[0]
        sender, target = (socket.inet_ntoa(frame[at + n : at + n + 4]) for n in (14, 24))
        return f"{tags}ARP {'who has' if operation == 1 else 'reply for'} {target}, from {sender}"
    return f"{tags}ethertype 0x{kind:04x}"


def _ipv4(frame: bytes, at: int) -> str:
    total, fragment = unpack_from("!H2xH", frame, at + 2)
    header = (frame[at] & 15) * 4
    source, target = (socket.inet_ntoa(frame[at + n : at + n + 4]) for n in (12, 16))
    if fragment & 0x1FFF:
        return f"{source} > {target}: fragment at {(fragment & 0x1FFF) * 8}, length {total}"
    return _inner(frame, at + header, frame[at + 9], (source, target), total - header)


def _ipv6(frame: bytes, at: int) -> str:
    payload, protocol = unpack_from("!HB", frame, at + 4)
    source, target = (socket.inet_ntop(socket.AF_INET6, frame[at + n : at + n + 16]) for n in (8, 24))
    at += 40
    while protocol in _EXTENSIONS:
        protocol, size = frame[at], (frame[at + 1] + 1) * 8
        at, payload = at + size, payload - size
    if protocol == 44:
        return f"{source} > {target}: fragment, length {payload}"
    return _inner(frame, at, protocol, (source, target), payload)


def _inner(frame: bytes, at: int, protocol: int, ends: tuple[str, str], length: int) -> str:
    source, target = ends
    if protocol == 4:
        return f"{source} > {target}: IPIP, {_ipv4(frame, at)}"
    if protocol == 41:
        return f"{source} > {target}: IPIP, {_ipv6(frame, at)}"
    if protocol in (6, 17):
        ports = unpack_from("!HH", frame, at)
        line = f"{_with_port(source, ports[0])} > {_with_port(target, ports[1])}: "
        if protocol == 17:
            if ports[1] == _GUE_PORT and frame[at + 8 : at + 9] and frame[at + 8] >> 4 in (4, 6):
                inner = _ipv4 if frame[at + 8] >> 4 == 4 else _ipv6
                return f"{line}GUE, {inner(frame, at + 8)}"
            return f"{line}UDP, length {length - 8}"
        offset, flags = unpack_from("!BB", frame, at + 12)
        said = "".join(name for bit, name in enumerate(_FLAGS) if flags >> bit & 1) or "none"
        return f"{line}TCP [{said}], length {length - (offset >> 4) * 4}"
    name = _NAMES.get(protocol, f"protocol {protocol}")
    if protocol in (1, 58):
        kind, code = unpack_from("!BB", frame, at)
        name += f" {_ECHO.get((protocol, kind), f'type {kind} code {code}')}"
    return f"{source} > {target}: {name}, length {length}"


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

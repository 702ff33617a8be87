"""The input of explain: frames in hex, or a five-tuple, from which a frame is made."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from struct import pack

from pydantic import BaseModel, ConfigDict, Field

from lb.errors import FieldError, InvalidError
from lb.model.address import AnyAddress

LONGEST = 65557
"""Bytes of a frame, at most: the largest IP packet behind MACs and two VLAN tags."""
SOURCE_PORT = 40000
"""Taken where none is given."""
ECHO_IDENTIFIER = 1
"""Likewise, of an echo request."""
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1}
_PORTS = ("tcp", "udp")
_ICMPV6 = 58
_SOURCE_MAC = bytes.fromhex("020000000001")
"""Locally administered: nobody's."""
_SYN, _ACK = 0x02, 0x10
_BETWEEN = re.compile(r"[\s:.-]+|\b0[xX]")
"""What people put between the bytes of a frame."""

_STRICT = ConfigDict(extra="forbid", strict=True)


class HexQuestion(BaseModel):
    """A frame as it comes in, from the destination MAC on."""

    model_config = _STRICT

    hex: str = Field(
        description="the bytes in hex; blanks, colons, dots, dashes and 0x between them do not matter",
        examples=["02000000aa01 02000000cc01 0806"],
    )


class TupleQuestion(BaseModel):
    """A packet by its five-tuple: a SYN, else an ACK, of TCP; UDP with no data; or an echo request.

    Of an echo request the port of src is the identifier.
    """

    model_config = _STRICT

    src: str = Field(description="ADDRESS:PORT, [IPV6]:PORT or ADDRESS", examples=["198.51.100.7:40000"])
    dst: str = Field(description="as src; TCP and UDP need the port", examples=["192.0.2.10:80"])
    protocol: str = Field(description="tcp, udp or icmp", examples=["tcp"])
    syn: bool = Field(False, description="TCP only: the packet opens the connection")


@dataclass(frozen=True, slots=True)
class FiveTuple:
    """A TupleQuestion that holds. source_port_given: whether it was said or is SOURCE_PORT.

    For ICMP source_port is the identifier, ECHO_IDENTIFIER unless it was said, and port 0.
    """

    source: AnyAddress
    source_port: int
    destination: AnyAddress
    port: int
    protocol: str
    syn: bool
    source_port_given: bool


def frame_of_hex(text: str) -> bytes:
    """The frame; InvalidError says what is wrong with the text."""
    digits = _BETWEEN.sub("", text)
    says = None
    if not digits:
        says = "it is empty: write a frame in hex, from the destination MAC on"
    elif wrong := re.search("[^0-9a-fA-F]", digits):
        shown = wrong[0] if wrong[0].isprintable() else "\N{REPLACEMENT CHARACTER}"
        says = f'"{shown}" is not a hex digit: write a frame in 0 to 9 and a to f'
    elif len(digits) % 2:
        says = f"it has {len(digits)} hex digits, but a byte takes two: one is missing or too many"
    elif len(digits) > 2 * LONGEST:
        says = (
            f"the frame has {len(digits) // 2} bytes, but at most {LONGEST} are possible: shorten its payload"
        )
    if says:
        raise InvalidError.one("/hex", says)
    return bytes.fromhex(digits)


def tuple_of(question: TupleQuestion) -> FiveTuple:
    """The five-tuple; InvalidError names every field that is wrong."""
    found: list[FieldError] = []
    protocol = question.protocol.strip().lower()
    ends = []
    for name in ("src", "dst"):
        try:
            ends.append(_endpoint(getattr(question, name)))
        except ValueError as error:
            found.append(FieldError(f"/{name}", str(error)))
    if protocol not in _PROTOCOLS:
        says = f'"{protocol[:40]}" is not a known protocol: write tcp, udp or icmp, or give the frame in hex'
        found.append(FieldError("/protocol", says))
    if question.syn and protocol in _PROTOCOLS and protocol != "tcp":
        found.append(FieldError("/syn", f"{protocol} has no SYN: leave it out, or write tcp"))
    if len(ends) == 2:
        found += _misfits(protocol, *ends[0], *ends[1])
    if found:
        raise InvalidError(found)
    (source, source_port), (destination, port) = ends
    given = source_port is not None or protocol not in _PORTS
    if source_port is None:
        source_port = SOURCE_PORT if protocol in _PORTS else ECHO_IDENTIFIER
    return FiveTuple(source, source_port, destination, port or 0, protocol, question.syn, given)


def _misfits(
    protocol: str, source: AnyAddress, source_port: int | None, destination: AnyAddress, port: int | None
) -> list[FieldError]:
    """What is wrong between the fields."""
    found = []
    if source.version != destination.version:
        says = f"{source} and {destination} are of different families: give both as IPv4 or both as IPv6"
        found.append(FieldError("/dst", says))
    if protocol in _PORTS and port is None:
        shown = f"[{destination}]" if destination.version == 6 else str(destination)
        found.append(FieldError("/dst", f"{protocol} needs the port: write {shown}:80"))
    if protocol == "icmp" and port is not None:
        found.append(FieldError("/dst", "icmp has no ports: write the address alone"))
    return found


def _endpoint(text: str) -> tuple[AnyAddress, int | None]:
    """Address and port of ADDRESS, ADDRESS:PORT or [IPV6]:PORT; ValueError says what was meant."""
    stripped = text.strip()
    address, port = stripped, None
    if match := re.fullmatch(r"\[([^\]]*)\](?::(.*))?", stripped):
        address, port = match[1], match[2]
    elif stripped.count(":") == 1:
        address, _, port = stripped.partition(":")
    try:
        parsed = ip_address(address)
    except ValueError:
        raise ValueError(
            f'"{stripped[:60]}" is not an address: write 192.0.2.10:80, [2001:db8::10]:80, or the address alone'
        ) from None
    if isinstance(parsed, IPv6Address) and parsed.scope_id:
        raise ValueError(f"{parsed} names an interface, which a packet cannot: leave out %{parsed.scope_id}")
    if port is None:
        return parsed, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f'"{port[:20]}" is not a port: 0 to 65535')
    return parsed, int(port)


def frame_of_tuple(asked: FiveTuple, mac: bytes) -> bytes:
    """The frame that carries such a packet to an interface's MAC, with checksums that are right."""
    source, destination, six = asked.source.packed, asked.destination.packed, asked.source.version == 6
    number = _ICMPV6 if six and asked.protocol == "icmp" else _PROTOCOLS[asked.protocol]
    if asked.protocol == "tcp":
        flags = _SYN if asked.syn else _ACK
        at, payload = 16, pack("!HHIIBBHHH", asked.source_port, asked.port, 1, 0, 5 << 4, flags, 65535, 0, 0)
    elif asked.protocol == "udp":
        at, payload = 6, pack("!HHHH", asked.source_port, asked.port, 8, 0)
    else:
        at, payload = 2, pack("!BBHHH", 128 if six else 8, 0, 0, asked.source_port, 1)
    # ICMP over IPv4 alone has no pseudo-header (RFC 792); all else has (RFC 9293, RFC 768, RFC 4443).
    ahead = b"" if number == 1 else source + destination + pack("!II", len(payload), number)
    sum_ = _checksum(ahead + payload) or (0xFFFF if asked.protocol == "udp" else 0)
    payload = payload[:at] + pack("!H", sum_) + payload[at + 2 :]
    if six:
        head = pack("!IHBB", 6 << 28, len(payload), number, 64) + source + destination
    else:
        head = pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, number, 0) + source + destination
        head = head[:10] + pack("!H", _checksum(head)) + head[12:]
    return mac + _SOURCE_MAC + (b"\x86\xdd" if six else b"\x08\x00") + head + payload


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF

"""Random frames, sane, odd and broken; everything comes from the generator of chance given."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from random import Random
from typing import NamedTuple

import meet
from foreign import foreign_frames
from seeds import Seed, seeds, seeds_of
from states import (
    CLIENTS4,
    CLIENTS6,
    ELSEWHERE,
    NAT_PORTS,
    POOLS,
    QUIC_IDS,
    VIP_PREFIXES,
    VIPS,
    WITHIN_PREFIXES,
    Document,
)


class Target(NamedTuple):
    """A packed VIP, a protocol number, a port, and the QUIC ids that are known there."""

    vip: bytes
    protocol: int
    port: int
    ids: tuple[int, ...]


class Sent(NamedTuple):
    """A packet: packed addresses, ports, and the protocol's number."""

    source: bytes
    port: int
    destination: bytes
    to_port: int
    protocol: int


Known = tuple[Sent, Sent]
"""Of a flow of mode nat: what its backend sends, and as what the client gets that."""

PORTS = (0, 1, 9, 10, 53, 80, 81, 443, 7999, 8000, 8010, 8011, 65529, 65530, 65535)
SOURCE_PORTS = (0, 1, 4000, 40000, 40001, 65535)
NOBODYS = ("0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.5", "239.255.255.255", "::", "::1", "ff02::1")
NEARLY_NOBODYS = ("1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255", "240.0.0.1", "::2", "fe80::1")
LENGTHS = (547, 548, 549, 1231, 1232, 1233, 1452, 1453, 1460, 1461, 1472, 1473, 1480, 1481, 1500, 2000)
"""Of IP packets: what just holds the quote of a too big one, and what just fits 1500 with each outer header."""
ICMP = (1, 58)
LONGEST = 3400
"""BPF_PROG_TEST_RUN takes a frame that fits one page with its headroom."""

_VIP_ADDRESSES = (*VIPS, *WITHIN_PREFIXES)
_KINDS = ("",) * 7 + ("error", "error", "echo")
"""Of what goes to a service: mostly packets of its own."""


def _packed(addresses: Sequence[str]) -> dict[int, tuple[bytes, ...]]:
    """By family."""
    packed = [ip_address(a).packed for a in addresses]
    return {family: tuple(p for p in packed if len(p) == size) for family, size in ((4, 4), (6, 16))}


_CLIENTS = _packed((*CLIENTS4, *CLIENTS6))
_POOLS = _packed(POOLS)
_ODD_SOURCES = _packed((*NOBODYS, *NEARLY_NOBODYS, *_VIP_ADDRESSES))
_DESTINATIONS = _packed((*_VIP_ADDRESSES, *ELSEWHERE))


def targets(document: Document) -> list[Target]:
    """A port of each service, its first, and its last if it is a range; of a VIP prefix some addresses."""
    found = []
    for service in document["services"]:
        first, _, last = str(service["port"] or 0).replace("any", "7").partition("-")
        protocol = _number(service["protocol"], service["vip"])
        vips = [service["vip"]]
        if vips[0] in VIP_PREFIXES:
            vips = [a for a in _VIP_ADDRESSES if ":" in a and ip_address(a) in ip_network(service["vip"])]
        ids = tuple(b["quic_id"] for b in service["backends"] if b.get("quic_id"))
        ports = {int(first), int(last or first)}
        found += [Target(ip_address(v).packed, protocol, p, ids) for v in vips for p in sorted(ports)]
    return found


def _number(protocol: str, address: str) -> int:
    """Of a service's protocol, in packets of an address's family."""
    return {"tcp": 6, "udp": 17, "icmp": 58 if ":" in address else 1}[protocol]


def frame(
    chance: Random,
    towards: Sequence[Target] = (),
    document: Document | None = None,
    known: Sequence[Known] = (),
) -> bytes:
    """A frame from some client, most of them to these ports, with no, some or many mutations.

    document: a third of the frames meet its rules, or just miss them.
    """
    which = chance.random()
    if which < 0.05:
        return _mutated_foreign(chance)
    if document and which < 0.3 and (back := _returning(chance, document, known)) is not None:
        return back
    if document and document.get("rules") and chance.random() < 0.35:
        return _meeting(chance, document)
    ids: tuple[int, ...] = ()
    if towards and which < 0.75:
        destination, protocol, port, ids = chance.choice(towards)
        seed = chance.choice(_seeds_for(chance.choice(_KINDS), destination, protocol))
    else:
        family = chance.choice((4, 6))
        destination, port = chance.choice(_DESTINATIONS[family]), chance.choice(PORTS)
        seed = chance.choice(seeds(family))
    data = bytearray(seed.data)
    _address(chance, data, seed, destination, port)
    _fill(chance, data, seed, ids)
    for _ in range(chance.choice((0, 0, 0, 0, 1, 1, 2, 4))):
        _mutate(chance, data, seed)
    return bytes(data[:LONGEST]).ljust(14, b"\0")


def frames(
    chance: Random,
    towards: Sequence[Target],
    count: int,
    earlier: list[bytes],
    document: Document | None = None,
    *,
    known: Sequence[Known] = (),
) -> list[bytes]:
    """So many frames; a third are later ones of what came earlier, and the new ones are added to that."""
    some = []
    for _ in range(count):
        if earlier and chance.random() < 0.3:
            # Of the last ones, half the time: so that a flow goes on before it is blocked or attacked.
            some.append(again(chance, chance.choice(earlier[-20:] if chance.random() < 0.5 else earlier)))
        else:
            some.append(frame(chance, towards, document, known))
            earlier.append(some[-1])
    return some


def again(chance: Random, earlier: bytes) -> bytes:
    """A frame that was seen, as a later one of its flow if it is plain TCP."""
    data = bytearray(earlier)
    if len(data) > 47 and data[12:15] == b"\x08\x00\x45" and data[23] == 6:
        data[47] = chance.choice((0x10, 0x10, 0x18, 0x02, 0x12, 0x04, 0x06, 0x11))
    if len(data) > 67 and data[12:14] == b"\x86\xdd" and data[20] == 6:
        data[67] = chance.choice((0x10, 0x10, 0x18, 0x02, 0x12, 0x04, 0x06, 0x11))
    return bytes(data)


def _meeting(chance: Random, document: Document) -> bytes:
    """A frame that one of a document's rules meets in nearly every field, now and then mutated."""
    data = meet.frame(chance, chance.choice(document["rules"]), document["services"], (*CLIENTS4, *CLIENTS6))
    for _ in range(chance.choice((0, 0, 0, 0, 0, 0, 1, 2))):
        _mutate(chance, data, Seed(b"", "other", 4, 14, 34, 0))
    return bytes(data[:LONGEST]).ljust(14, b"\0")


def _returning(chance: Random, document: Document, known: Sequence[Known]) -> bytes | None:
    """What comes back of mode nat: a backend's packet, or an error from either side; None if nothing can.

    Most of it is of a flow that is known, the rest of where one may be.
    """
    reply, got = chance.choice(known) if known and chance.random() < 0.8 else (_guess(chance, document), None)
    if reply is None:
        return None
    which = chance.random()
    if which < 0.6:
        data, seed = _of_backend(chance, reply)
    elif which < 0.85 or got is None:
        data, seed = _error_about(chance, Sent(*reply[2:4], *reply[:2], reply.protocol), reply.source)
    else:
        data, seed = _error_about(chance, got, got.destination)
    _fill(chance, data, seed, ())
    for _ in range(chance.choice((0, 0, 0, 0, 0, 1, 2))):
        _mutate(chance, data, seed)
    return bytes(data[:LONGEST]).ljust(14, b"\0")


def _guess(chance: Random, document: Document) -> Sent | None:
    """What a backend of the document sends to where a flow may be."""
    served = [(s, b) for s in document["services"] if s["mode"] == "nat" for b in s["backends"]]
    if not served:
        return None
    service, backend = chance.choice(served)
    source = ip_address(backend["address"]).packed
    family = 4 if len(source) == 4 else 6
    first, _, last = str(service["port"] or 0).replace("any", "80").partition("-")
    port = backend.get("port") or int(chance.choice((first, last or first)))
    low, high = NAT_PORTS
    to, to_port = chance.choice(_POOLS[family]), chance.randint(low, high + 1)
    if service["nat_source"] == "keep":
        to, to_port = chance.choice(_CLIENTS[family]), chance.choice(SOURCE_PORTS)
    return Sent(source, port, to, to_port, _number(service["protocol"], backend["address"]))


def _of_backend(chance: Random, sent: Sent) -> tuple[bytearray, Seed]:
    seed = chance.choice(_seeds_for("", sent.source, sent.protocol))
    data = bytearray(seed.data)
    at = seed.ip + (12 if seed.family == 4 else 8)
    data[at : at + 2 * len(sent.source)] = sent.source + sent.destination
    _put_ports(data, seed, seed.transport, _ports(sent))
    return data, seed


def _error_about(chance: Random, sent: Sent, receiver: bytes) -> tuple[bytearray, Seed]:
    """From who should have received it, or from a router before that."""
    seed = chance.choice(_seeds_for("error", sent.source, sent.protocol))
    data = bytearray(seed.data)
    at = seed.ip + (12 if seed.family == 4 else 8)
    data[at : at + 2 * len(receiver)] = chance.choice((receiver, *_CLIENTS[seed.family])) + sent.source
    _quote(chance, data, seed, sent.source + sent.destination, _ports(sent))
    return data, seed


def _put_ports(data: bytearray, seed: Seed, at: int, ports: bytes) -> None:
    """Write source and destination port. Of echo: as its identifier the one that is not 0, the first in a request."""
    if seed.protocol not in ICMP:
        data[at : at + 4] = ports
        return
    is_request = ports[:2] != bytes(2)
    data[at] = {4: (0, 8), 6: (129, 128)}[seed.family][is_request]
    data[at + 4 : at + 6] = ports[:2] if is_request else ports[2:]


def _ports(sent: Sent) -> bytes:
    return sent.port.to_bytes(2, "big") + sent.to_port.to_bytes(2, "big")


def _seeds_for(kind: str, destination: bytes, protocol: int) -> tuple[Seed, ...]:
    """Packets of a service's protocol, errors that quote one, or echo requests."""
    family = 4 if len(destination) == 4 else 6
    if kind == "echo" or (not kind and protocol in ICMP):
        return seeds_of(family, "echo", 1 if family == 4 else 58)
    return seeds_of(family, kind or ("tcp" if protocol == 6 else "udp"), protocol)


def _address(chance: Random, data: bytearray, seed: Seed, destination: bytes, port: int) -> None:
    """Write addresses and ports; of an error, into the packet that it quotes too, the other way round."""
    client = chance.choice(_CLIENTS[seed.family])
    source = chance.choice(_ODD_SOURCES[seed.family]) if chance.random() < 0.06 else client
    at = seed.ip + (12 if seed.family == 4 else 8)
    data[at : at + 2 * len(source)] = source + destination
    ports = chance.choice(SOURCE_PORTS).to_bytes(2, "big"), port.to_bytes(2, "big")
    if seed.quote:
        _quote(chance, data, seed, destination + client, ports[1] + ports[0])
    elif seed.kind in ("tcp", "udp"):
        data[seed.transport : seed.transport + 4] = ports[0] + ports[1]
    elif seed.kind == "echo":
        data[seed.transport + 4 : seed.transport + 6] = ports[0]


def _quote(chance: Random, data: bytearray, seed: Seed, addresses: bytes, ports: bytes) -> None:
    """Write addresses and ports of the packet that an error quotes, and now and then how it quotes it."""
    at = seed.quote + (12 if seed.family == 4 else 8)
    data[at : at + len(addresses)] = addresses
    at = seed.quote + (4 * (data[seed.quote] & 15) if seed.family == 4 else 40)
    _put_ports(data, seed, at, ports)
    if chance.random() < 0.3:
        data[seed.transport] = chance.choice((3, 11, 12) if seed.family == 4 else (1, 2, 3, 4))
        data[seed.transport + 1] = chance.randint(0, 16)
        data[seed.transport + 4 : seed.transport + 8] = chance.choice((bytes(4), chance.randbytes(4)))
    if chance.random() < 0.3:  # as much of the transport as is asked for, its checksum among it or not
        data[:] = data[: at + chance.choice((4, 5, 6, 7, 8, 12, 16, 17, 18, 19, 20))].ljust(at + 4, b"\0")
        _set_length(data, seed, len(data) - seed.ip)


def _fill(chance: Random, data: bytearray, seed: Seed, ids: Sequence[int]) -> None:
    """Give a packet another payload or length; an echo request other sums."""
    if seed.kind == "udp" and chance.random() < (0.7 if ids else 0.1):
        data[seed.transport + 8 :] = quic_payload(chance, ids)
        _set_length(data, seed, len(data) - seed.ip)
    elif seed.kind == "echo":
        data[seed.ip + (8 if seed.family == 4 else 7)] = chance.choice((0, 1, 63, 64, 255))
        for at in (seed.transport + 2, *((seed.ip + 10,) if seed.family == 4 else ())):
            data[at : at + 2] = chance.choice((b"\0\0", b"\xff\xff", b"\xf7\xff", chance.randbytes(2)))
    if chance.random() < 0.2:
        length = chance.choice(LENGTHS)
        data[:] = data[: seed.ip + length].ljust(seed.ip + length, b"\x5a")
        _set_length(data, seed, length)


def _set_length(data: bytearray, seed: Seed, length: int) -> None:
    at = seed.ip + (2 if seed.family == 4 else 4)
    data[at : at + 2] = (length - (0 if seed.family == 4 else 40)).to_bytes(2, "big")


def quic_payload(chance: Random, ids: Sequence[int]) -> bytes:
    """What a QUIC packet begins with: a short header, or a long one of some version and type."""
    connection_id = _connection_id(chance, ids)
    rest = chance.randbytes(chance.choice((0, 0, 1, 20)))
    if chance.random() < 0.5:
        return bytes([0x40 | chance.getrandbits(6)]) + connection_id + rest
    version = chance.choice((1, 1, 0x6B3343CF, 0x6B3343CF, 0, 0xFF00001D, 0x6B3343CE))
    length = len(connection_id) + chance.choice((0, 0, 0, 0, 1, -1, len(rest)))
    head = bytes([0xC0 | chance.getrandbits(6)]) + version.to_bytes(4, "big") + bytes([max(length, 0)])
    return head + connection_id + rest


def _connection_id(chance: Random, ids: Sequence[int]) -> bytes:
    """An id of one of the four forms that carries a number, most often one of these, or is cut short."""
    number = chance.choice(ids if ids and chance.random() < 0.7 else (*QUIC_IDS, 0, 5))
    form = chance.choice((0, 1, 2, 3, 1, 2, 3))
    if chance.random() < 0.7:  # one that the number fits
        form = 1 if number <= 0xFFFF and chance.random() < 0.6 else 2 if number <= 0xFFFFFF else 3
    if form in (0, 1):
        low = chance.getrandbits(6)
        written = (form << 22 | (number & 0xFFFF) << 6 | low).to_bytes(3, "big")
    else:
        width = form + 1
        first = form << 6 | chance.getrandbits(6)
        written = bytes([first]) + (number & (1 << 8 * width) - 1).to_bytes(width, "big")
    if chance.random() < 0.1:
        return written[: chance.randint(0, len(written))]
    return written + chance.randbytes(chance.choice((0, 0, 3, 8, 15)))


def _mutated_foreign(chance: Random) -> bytes:
    """A frame of some common protocol, with bytes changed, cut or moved."""
    data = bytearray(chance.choice(foreign_frames()).data)
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        _mutate(chance, data, Seed(b"", "other", 4, 14, 34, 0))
    return bytes(data[:LONGEST]).ljust(14, b"\0")


def _mutate(chance: Random, data: bytearray, seed: Seed) -> None:
    """Change one thing, at headers rather than at payload."""
    last = max(len(data) - 1, 0)
    near = min(chance.choice((seed.ip, seed.transport, seed.quote or 12)) + chance.randint(0, 20), last)
    kind = chance.randint(0, 11)
    if kind <= 1:
        data[near] ^= 1 << chance.randint(0, 7)
    elif kind <= 3:
        data[near] = chance.choice(_TELLING)
    elif kind == 4:
        del data[chance.randint(14, max(14, len(data))) :]
    elif kind == 5:
        padding = chance.choice((1, 2, 4, 20, 46, 400))
        data += bytes(padding) if chance.random() < 0.8 else chance.randbytes(40)
    elif kind == 6:
        other = chance.choice(seeds(chance.choice((4, 6)))).data
        data[near:] = other[min(near + chance.choice((0, 0, 4, 20, -20)), len(other)) :]
    elif kind == 7:
        at = seed.ip + (2 if data[seed.ip : seed.ip + 1] < b"P" else 4)
        length = chance.getrandbits(16)
        if chance.random() < 0.7:
            length = len(data) - seed.ip + chance.choice((0, -1, 1, -20, -40, -41, -8, 4))
        data[at : at + 2] = (length & 0xFFFF).to_bytes(2, "big")
    elif kind == 8:
        some = chance.getrandbits(8) if chance.random() < 0.2 else 0x40 | chance.randint(3, 15)
        at = chance.choice((seed.ip, seed.quote or seed.ip))
        data[at : at + 1] = bytes([some])
    elif kind == 9:
        data[12:12] = chance.choice((b"\x81\x00\x00\x01", b"\x88\xa8\x00\x02", b"\x91\x00\x00\x03"))
    elif kind == 10:
        at = chance.choice((seed.transport + 12, seed.transport + 13, seed.ip + 6, seed.ip + 7))
        data[min(at, last)] = chance.getrandbits(8)
    else:
        del data[near : near + chance.choice((1, 2, 4, 8, 20))]
    data[:] = data.ljust(14, b"\0")


_TELLING = (0, 1, 4, 5, 6, 8, 17, 41, 43, 44, 50, 51, 58, 59, 60, 0x45, 0x4F, 0x60, 0x80, 0x81, 0xFF)
"""Bytes that mean something in headers."""

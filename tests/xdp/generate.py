"""Random configurations and random frames, sane, odd and broken; everything comes from the generator of chance given.

Addresses and ports are few, so that frames meet services, lists and each other's flows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

from plane import OUR_MAC
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from lb.errors import InvalidError
from lb.model import Config
from lb.model.document import from_mapping

Document = dict[str, Any]

VIPS = ("10.200.1.1", "10.200.1.2", "fc00:1::1", "fc00:1::2")
ELSEWHERE = ("10.200.9.9", "fc00:9::9")
CLIENTS = (
    "10.0.1.1",
    "10.0.1.2",
    "10.0.1.77",
    "10.0.2.1",
    "198.51.100.9",
    "fd00:0:0:1::1",
    "fd00:0:0:1::2",
    "2001:db8::9",
)
BACKENDS = (*(f"10.0.0.{n}" for n in range(11, 17)), *(f"fd00::{n}" for n in range(11, 17)))
SERVICE_PORTS = (80, 443, "any", "8000-8010", "1-9", "65530-65535")
PORTS = (0, 1, 9, 10, 53, 80, 81, 443, 7999, 8000, 8010, 8011, 65529, 65530, 65535)
SOURCE_PORTS = (0, 1, 4000, 40000, 40001, 65535)
MTUS = (0, 576, 1487, 1488, 1500, 1500, 1507, 1508, 1528, 9000)
"""Some just hold, and some just do not, what the two large seeds become with an outer header."""
SETTINGS: tuple[Document, ...] = (
    {"encap_source_ipv4": "192.0.2.0/24", "encap_source_ipv6": "2001:db8:0:7::/64"},
    {"encap_source_ipv4": "10.64.0.0/10", "encap_source_ipv6": "2001:db8:1:2:3:4::/96"},
)
"""Other outer sources than the default ones; few, since each is a program of its own."""
LONGEST = 3400
"""BPF_PROG_TEST_RUN takes a frame that fits one page with its headroom."""


Target = tuple[str, int, int]
"""A VIP, a protocol number and a port."""

_SOURCES4, _SOURCES6 = ([ip_address(c).packed for c in part] for part in (CLIENTS[:5], CLIENTS[5:]))


@dataclass(frozen=True, slots=True)
class Seed:
    """A sane frame, and where its IP header and its transport header begin."""

    data: bytes
    ip: int
    transport: int


def link(chance: Random) -> Document:
    """What the ways to the backends are like; the keys are attributes of RigDataPlane."""
    some = [b for b in BACKENDS if chance.random() < 0.1]
    return {
        "mtu": chance.choice(MTUS),
        "unresolved": [b for b in some if chance.random() < 0.5],
        "unreachable": [b for b in some if chance.random() < 0.3],
        "behind_gateway": [b for b in BACKENDS if chance.random() < 0.1],
        "ifindex": {b: 9 for b in BACKENDS if chance.random() < 0.15},
    }


def configuration(chance: Random) -> Document:
    """A valid document: up to eight services and two lists that overlap."""
    document: Document = {
        "services": [],
        "blocklist": _entries(chance, count=True),
        "allowlist": _entries(chance),
    }
    if chance.random() < 0.25:
        document["settings"] = chance.choice(SETTINGS)
    for number in range(chance.randint(1, 8)):
        more = {**document, "services": [*document["services"], _service(chance, f"s{number}")]}
        if _valid(more):
            document = more
    return document


def altered(chance: Random, document: Document) -> Document:
    """Most of the services, their backends drained, disabled, weighed anew, gone or new; none is enabled again."""
    services = []
    for service in document["services"]:
        if chance.random() < 0.1:
            continue  # one for any port may take its packets over
        backends = [dict(b) for b in service["backends"] if chance.random() < 0.85]
        for backend in backends:
            if backend["admin_state"] == "enabled" and chance.random() < 0.4:
                backend["admin_state"] = chance.choice(("draining", "disabled"))
            elif chance.random() < 0.2:
                backend["weight"] = chance.choice((0, 1, 7))
        held = {b["address"] for b in service["backends"]}
        family = [b for b in BACKENDS if service["mode"] != "l2" or (":" in b) == (":" in service["vip"])]
        new = [b for b in family if b not in held and chance.random() < 0.15]
        services.append({**service, "backends": backends + [_backend(chance, b) for b in new]})
    return {**document, "services": services}


def _valid(document: Document) -> bool:
    try:
        from_mapping(document, now=0.0, have=Config())
    except InvalidError:
        return False
    return True


def _service(chance: Random, name: str) -> Document:
    vip = chance.choice(VIPS)
    mode = chance.choice(("ipip", "ipip", "l2"))
    pool = [b for b in BACKENDS if mode != "l2" or (":" in b) == (":" in vip)]
    chosen = chance.sample(pool, chance.choice((0, 1, 2, 3, 4, 6)))
    return {
        "name": name,
        "vip": vip,
        "port": chance.choice(SERVICE_PORTS),
        "protocol": chance.choice(("tcp", "udp")),
        "mode": mode,
        "affinity": chance.choice(("flow", "flow", "source")),
        "backends": [_backend(chance, address) for address in chosen],
    }


def _backend(chance: Random, address: str) -> Document:
    state = chance.choice(("enabled", "enabled", "enabled", "draining", "disabled"))
    return {"address": address, "weight": chance.choice((1, 1, 1, 0, 2, 100, 65535)), "admin_state": state}


def _entries(chance: Random, *, count: bool = False) -> list[Document]:
    """Prefixes around the clients, most of them long; now and then so many that one /24 overflows its line."""
    entries: dict[str, Document] = {}
    for _ in range(chance.choice((0, 1, 3, 8, 40))):
        client = chance.choice(CLIENTS)
        width = 128 if ":" in client else 32
        length = width - int(width * chance.random() ** 3)
        near = ip_address(client).packed[:-1] + bytes([chance.choice((0, 1, 2, 3, 76, 77, 128, 255))])
        prefix = str(ip_network((near, length), strict=False))
        entries[prefix] = {"prefix": prefix}
        if count and chance.random() < 0.5:
            entries[prefix]["action"] = chance.choice(("drop", "count"))
    return list(entries.values())


@cache
def seeds() -> tuple[Seed, ...]:
    """Frames of every kind to every address."""
    found = []
    tags = (None, Dot1Q(vlan=7, prio=5), Dot1AD(vlan=7) / Dot1Q(vlan=8))
    for destination in (*VIPS, *ELSEWHERE):
        six = ":" in destination
        ip = (
            IPv6(src=CLIENTS[5], dst=destination, tc=0x8C)
            if six
            else IP(src=CLIENTS[0], dst=destination, tos=0x8C)
        )
        for packet, ahead in _packets(ip, six=six):
            for tag in tags:
                whole = Ether(src="02:00:00:00:cc:01", dst=OUR_MAC) / (tag / packet if tag else packet)
                at = 14 + (len(tag) if tag else 0)
                found.append(Seed(bytes(whole), at, at + (40 if six else 20) + ahead))
    found += [Seed(bytes(Ether(dst=OUR_MAC) / ARP()) + bytes(18), 14, 34)]
    return tuple(found)


@cache
def _seeds_for(vip: str, protocol: int) -> tuple[Seed, ...]:
    """The whole packets of this protocol to this address, with extensions and options or without."""
    address = ip_address(vip).packed
    ends = 20 if len(address) == 4 else 40
    kept = []
    for seed in seeds():
        ip = seed.data[seed.ip : seed.ip + ends]
        plain = ip[9 if len(address) == 4 else 6] == protocol and not (
            len(address) == 4 and ip[6:8] != bytes(2)
        )
        if ip[-len(address) :] == address and plain:
            kept.append(seed)
    return tuple(kept)


def _packets(ip: Packet, *, six: bool) -> list[tuple[Packet, int]]:
    """IP packets, and how many bytes stand between the IP header and the transport header."""
    udp, data = UDP(sport=40000, dport=80), Raw(b"question")
    packets: list[tuple[Packet, int]] = [
        (ip / TCP(sport=40000, dport=80, flags=f) / data, 0) for f in ("S", "A", "RA")
    ]
    packets += [(ip / udp / data, 0), (ip / udp / Raw(bytes(1440)), 0), (ip / udp / Raw(bytes(1472)), 0)]
    if not six:
        fragments = [ip.copy(), ip.copy()]
        fragments[0].flags, fragments[1].frag = "MF", 9
        optioned = ip.copy()
        optioned.options = [IPOption_NOP()] * 8
        packets += [(f / udp / data, 0) for f in fragments] + [(optioned / udp / data, 8)]
        return [*packets, (ip / ICMP() / data, 0), (ip / IP(dst=VIPS[0]) / udp, 0)]
    hop, options, routing = IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting()
    packets += [(ip / hop / udp / data, 8), (ip / hop / routing / options / TCP(dport=80, flags="S"), 24)]
    packets += [(ip / IPv6ExtHdrFragment(m=m, offset=o) / udp / data, 8) for m, o in ((0, 0), (1, 0), (0, 9))]
    authenticated = ip.copy()
    authenticated.nh = 51
    packets += [(authenticated / Raw(bytes([17, 4, *bytes(22)])) / udp / data, 24)]
    for count in (6, 7):
        chain = ip
        for _ in range(count):
            chain = chain / IPv6ExtHdrDestOpt()
        packets.append((chain / udp, 8 * count))
    return [*packets, (ip / ICMPv6EchoRequest(), 0), (ip / IP(dst=VIPS[0]) / udp, 0)]


def targets(document: Document) -> list[Target]:
    """A port of each service: its first, and its last if it is a range."""
    found = []
    for service in document["services"]:
        first, _, last = str(service["port"]).replace("any", "7").partition("-")
        protocol = 6 if service["protocol"] == "tcp" else 17
        found += [(service["vip"], protocol, int(port)) for port in (first, last or first)]
    return found


def frame(chance: Random, towards: Sequence[Target] = ()) -> bytes:
    """A frame: a seed from some client, half of them to these ports, with no, some or many mutations."""
    if towards and chance.random() < 0.6:
        vip, protocol, port = chance.choice(towards)
        seed = chance.choice(_seeds_for(vip, protocol))
    else:
        seed, port = chance.choice(seeds()), chance.choice(PORTS)
    data = bytearray(seed.data)
    four = data[seed.ip] >> 4 == 4
    source = chance.choice(_SOURCES4 if four else _SOURCES6)
    at = seed.ip + (12 if four else 8)
    data[at : at + len(source)] = source
    data[seed.transport : seed.transport + 2] = chance.choice(SOURCE_PORTS).to_bytes(2, "big")
    data[seed.transport + 2 : seed.transport + 4] = port.to_bytes(2, "big")
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2, 4))):
        _mutate(chance, data, seed)
    return bytes(data[:LONGEST]).ljust(14, b"\0")


def again(chance: Random, earlier: bytes) -> bytes:
    """A frame that was seen, as a later one of its flow if it is plain TCP."""
    data = bytearray(earlier)
    if len(data) > 47 and data[12:15] == b"\x08\x00\x45" and data[23] == 6:
        data[47] = chance.choice((0x10, 0x10, 0x18, 0x02, 0x12, 0x04, 0x06, 0x11))
    if len(data) > 67 and data[12:14] == b"\x86\xdd" and data[20] == 6:
        data[67] = chance.choice((0x10, 0x10, 0x18, 0x02, 0x12, 0x04, 0x06, 0x11))
    return bytes(data)


def _mutate(chance: Random, data: bytearray, seed: Seed) -> None:
    """Change one thing, at headers rather than at payload."""
    last = max(len(data) - 1, 0)
    near = min(chance.choice((seed.ip, seed.transport, 12)) + chance.randint(0, 20), last)
    kind = chance.randint(0, 11)
    if kind <= 1:
        data[near] ^= 1 << chance.randint(0, 7)
    elif kind <= 3:
        data[near] = chance.choice(
            (0, 1, 4, 5, 6, 8, 17, 41, 43, 44, 50, 51, 59, 60, 0x45, 0x4F, 0x60, 0x81, 0xFF)
        )
    elif kind == 4:
        del data[chance.randint(14, max(14, len(data))) :]
    elif kind == 5:
        data += (
            bytes(chance.choice((1, 2, 4, 20, 46, 400))) if chance.random() < 0.8 else chance.randbytes(40)
        )
    elif kind == 6:
        other = chance.choice(seeds()).data
        data[near:] = other[min(near + chance.choice((0, 0, 4, 20, -20)), len(other)) :]
    elif kind == 7:
        at = seed.ip + (2 if data[seed.ip : seed.ip + 1] < b"P" else 4)
        real = len(data) - seed.ip
        length = (
            real + chance.choice((0, -1, 1, -20, -40, -41, -8, 4))
            if chance.random() < 0.7
            else chance.getrandbits(16)
        )
        data[at : at + 2] = (length & 0xFFFF).to_bytes(2, "big")
    elif kind == 8:
        data[seed.ip : seed.ip + 1] = bytes(
            [chance.getrandbits(8) if chance.random() < 0.2 else 0x40 | chance.randint(3, 15)]
        )
    elif kind == 9:
        data[12:12] = chance.choice((b"\x81\x00\x00\x01", b"\x88\xa8\x00\x02", b"\x91\x00\x00\x03"))
    elif kind == 10:
        at = chance.choice((seed.transport + 12, seed.transport + 13, seed.ip + 6, seed.ip + 7))
        data[min(at, last)] = chance.getrandbits(8)
    else:
        del data[near : near + chance.choice((1, 2, 4, 8, 20))]
    data[:] = data.ljust(14, b"\0")

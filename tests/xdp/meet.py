"""Frames that a rule matches or just misses: at the edges of ports, lengths and prefixes, with flags, in pieces."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

from seeds import Seed, seeds, seeds_of

Document = dict[str, Any]

NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "sctp": 132}
BITS = {name: 1 << n for n, name in enumerate(("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"))}
MISSES = 0.08
"""How often a field is just missed."""
LONGEST = 3000


def frame(chance: Random, rule: Document, services: Sequence[Document], clients: Sequence[str]) -> bytearray:
    """A frame for us from one of the clients that a rule meets in nearly every field."""
    wanted = {**rule, **_of_service(rule, services)}
    prefix = wanted.get("source") or wanted.get("destination")
    family = chance.choice((4, 6)) if prefix is None else 6 if ":" in prefix else 4
    protocol = wanted.get("protocol")
    number = NUMBERS.get(protocol, protocol)
    seed = _seed(chance, family, number)
    data = bytearray(seed.data)
    _address(chance, data, seed, wanted, clients)
    if seed.kind in ("tcp", "udp"):
        for name, at in (("source_ports", 0), ("ports", 2)):
            if name in wanted:
                port = _number(chance, wanted[name])
                data[seed.transport + at : seed.transport + at + 2] = port.to_bytes(2, "big")
    if "tcp_flags" in wanted and seed.kind == "tcp":
        data[seed.transport + 13] = _flags(chance, wanted["tcp_flags"])
    if number is not None and seed.kind not in ("tcp", "udp", "echo"):
        data[seed.ip + (9 if family == 4 else 6)] = number
    if "length" in wanted:
        _lengthen(data, seed, _number(chance, wanted["length"]))
    if wanted.get("fragments") == "only" or chance.random() < MISSES:
        _break(chance, data, seed)
    return data


def _of_service(rule: Document, services: Sequence[Document]) -> Document:
    for service in services:
        if service["name"] == rule.get("service"):
            protocol = service["protocol"]
            if protocol == "icmp" and ":" in service["vip"]:
                protocol = "icmpv6"
            fields = {"destination": service["vip"], "protocol": protocol}
            return fields if service["port"] in ("any", None) else {**fields, "ports": service["port"]}
    return {}


def _seed(chance: Random, family: int, number: int | None) -> Seed:
    kinds = {6: "tcp", 17: "udp"}
    if number in kinds:
        return chance.choice(seeds_of(family, kinds[number], number))
    if number is None:
        return chance.choice(seeds(family))
    if number == (1 if family == 4 else 58):
        return chance.choice(seeds_of(family, "echo", number))
    return chance.choice([s for s in seeds(family) if s.kind == "other"])


def _address(chance: Random, data: bytearray, seed: Seed, wanted: Document, clients: Sequence[str]) -> None:
    at, size = (seed.ip + 12, 4) if seed.family == 4 else (seed.ip + 8, 16)
    own = [ip_address(c).packed for c in clients if (":" in c) == (seed.family == 6)]
    data[at : at + size] = _within(chance, wanted["source"]) if "source" in wanted else chance.choice(own)
    if "destination" in wanted:
        data[at + size : at + 2 * size] = _within(chance, wanted["destination"])


def _within(chance: Random, prefix: str) -> bytes:
    """An address in a prefix, most often its first or last; or one beside it."""
    network = ip_network(prefix, strict=False)
    first, count, size = int(network.network_address), network.num_addresses, network.max_prefixlen // 8
    number = first + chance.choice((0, count - 1, chance.randrange(count)))
    if chance.random() < MISSES:
        number = chance.choice((first - 1, first + count))
    return (number % (1 << 8 * size)).to_bytes(size, "big")


def _number(chance: Random, ranges: str | int) -> int:
    """A number of some ranges, most often the first or last of one; or one beside it."""
    low, _, high = chance.choice(str(ranges).split(",")).partition("-")
    first, last = int(low), int(high or low)
    number = chance.choice((first, last, chance.randint(first, last)))
    if chance.random() < MISSES:
        number = chance.choice((first - 1, last + 1))
    return number & 0xFFFF


def _flags(chance: Random, text: str) -> int:
    """The named flags as they must be, others as it happens; now and then one of the named otherwise."""
    flags = chance.choice((0, 0x10, 0x18, chance.getrandbits(8)))
    for name in text.split(","):
        bit = BITS[name.removeprefix("!")]
        flags = flags & ~bit if name.startswith("!") else flags | bit
        if chance.random() < MISSES:
            flags ^= bit
    return flags


def _lengthen(data: bytearray, seed: Seed, length: int) -> None:
    """Cut or fill the packet to a length, not below the headers that it has."""
    length = min(max(length, seed.transport - seed.ip), LONGEST)
    data[:] = data[: seed.ip + length].ljust(seed.ip + length, b"\x5a")
    at = seed.ip + (2 if seed.family == 4 else 4)
    data[at : at + 2] = (length - (0 if seed.family == 4 else 40)).to_bytes(2, "big")


def _break(chance: Random, data: bytearray, seed: Seed) -> None:
    """Make it a first, a middle or a last fragment, or (IPv6) one that is the whole packet."""
    more_and_offset = chance.choice(((1, 0), (1, 9), (0, 9), (0, 0)))
    more, offset = more_and_offset
    if seed.family == 4:
        data[seed.ip + 6 : seed.ip + 8] = (more << 13 | offset).to_bytes(2, "big")
        return
    at = seed.ip + 40
    header = bytes([data[seed.ip + 6], 0]) + (offset << 3 | more).to_bytes(2, "big") + bytes(4)
    data[at:at] = header
    data[seed.ip + 6] = 44
    length = int.from_bytes(data[seed.ip + 4 : seed.ip + 6], "big") + 8
    data[seed.ip + 4 : seed.ip + 6] = (length & 0xFFFF).to_bytes(2, "big")

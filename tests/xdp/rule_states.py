"""Random rules, as documents; everything comes from the generator of chance given.

What their limits let through does not depend on the clock: no unit comes back while frames run, or none ever lacks.
"""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

Document = dict[str, Any]

PORTS = (
    "80",
    "443",
    "53",
    "1-9",
    "8000-8010",
    "0-1023",
    "1024-65535",
    "80,443,8000-8010",
    "65535",
    "0",
    "10,81",
)
SOURCE_PORTS = ("40000", "0-1", "4000-40000", "0,65535", "40001-65535")
FLAGS = ("syn", "syn,!ack", "!syn", "ack", "rst", "fin,!psh", "syn,ack", "!fin,!syn,!rst,!psh,!ack,!urg")
LENGTHS = ("0-64", "20-41", "48", "49-1279", "1280", "1300-65535", "28,36-40,1500", "40-47,547-549")
PROTOCOLS = ("tcp", "tcp", "udp", "udp", "icmp", "icmpv6", "gre", "ah", "esp", "sctp", 0, 60, 4, 255)
PRIORITIES = (0, 10, 1000, 1000, 1000, 65535)
TIGHT = (1, 1, 2, 3, 7)
"""Packets or flows at once, at one a second."""
TIGHT_BYTES = (1, 60, 200, 1500, 5000)
WIDE = 1_000_000_000


def rules(
    chance: Random, document: Document, clients: Sequence[str], others: Sequence[str]
) -> list[Document]:
    """None, some or many rules for packets from these clients to a document's services and to other addresses."""
    many = chance.choice((0, 0, 0, 1, 2, 4, 8, 8, 16, 16))
    if chance.random() > 0.97:
        many = 150
    services = document["services"]
    return [_rule(chance, f"r{n}", services, clients, others, narrow=many > 16) for n in range(many)]


def altered(
    chance: Random,
    before: Sequence[Document],
    document: Document,
    clients: Sequence[str],
    others: Sequence[str],
) -> list[Document]:
    """Most of the rules before, some of them others now or promoted, in another order; and new ones."""
    services = {s["name"] for s in document["services"]}
    kept = [dict(r) for r in before if chance.random() < 0.85 and r.get("service") in (None, *services)]
    for rule in kept:
        if chance.random() < 0.2:
            rule["priority"] = chance.choice(PRIORITIES)
        if rule.get("count_only") and chance.random() < 0.3:
            rule["count_only"] = False
            rule.pop("ban_seconds", None)  # in force it would change the blocklist while frames run
    new = chance.choice((0, 0, 1, 3))
    return kept + [_rule(chance, f"n{n}", document["services"], clients, others) for n in range(new)]


def _rule(
    chance: Random,
    name: str,
    services: Sequence[Document],
    clients: Sequence[str],
    others: Sequence[str],
    *,
    narrow: bool = False,
) -> Document:
    action = (
        "drop" if narrow else chance.choice(("drop", "drop", "count", "limit", "limit", "limit", "allow"))
    )
    rule: Document = {"name": f"{chance.randrange(100)}-{name}", "action": action}
    rule["priority"] = chance.choice(PRIORITIES)
    if action in ("drop", "limit") and chance.random() < 0.3 and not narrow:
        rule["count_only"] = True
    if action == "limit":
        rule["limit"] = _limit(chance)
        if rule["limit"]["per"] == "source" and "count_only" in rule and chance.random() < 0.5:
            rule["ban_seconds"] = (
                60  # on trial it bans nobody: else the blocklist would change while frames run
            )
    # One address says of which family all are, so that they do not contradict each other.
    family = chance.choice((4, 6))
    often = 0.6 if action in ("drop", "allow") else 0.25
    if chance.random() < (1.0 if narrow else often):
        rule["source"] = _prefix(chance, _of(family, clients))
    if chance.random() < 0.25 and services:
        chosen = chance.choice(services)
        if "source" not in rule or (":" in chosen["vip"]) == (family == 6):
            _add(chance, rule, {"service": chosen["name"]})
            if chosen["protocol"] == "tcp" and chance.random() < 0.3:
                rule["tcp_flags"] = chance.choice(FLAGS)
            return rule
    if chance.random() < often:
        rule["destination"] = _prefix(chance, _of(family, others))
    if chance.random() < 0.4:
        rule["protocol"] = chance.choice(PROTOCOLS)
        if rule["protocol"] == "tcp" and chance.random() < 0.5:
            rule["tcp_flags"] = chance.choice(FLAGS)
    if rule.get("protocol", "tcp") in ("tcp", "udp") and chance.random() < 0.5:
        rule["ports"] = chance.choice(PORTS)
    _add(chance, rule, {})
    return rule


def _add(chance: Random, rule: Document, fields: Document) -> None:
    """These fields, and now and then some that any rule may have."""
    rule |= fields
    if rule.get("protocol", "tcp") in ("tcp", "udp") and chance.random() < 0.2:
        rule["source_ports"] = chance.choice(SOURCE_PORTS)
    if chance.random() < 0.2:
        rule["length"] = chance.choice(LENGTHS)
    if chance.random() < 0.2:
        rule["fragments"] = chance.choice(("only", "none"))


def _limit(chance: Random) -> Document:
    unit = chance.choice(("packets", "bytes", "new-flows"))
    limit: Document = {"unit": unit, "per": chance.choice(("source", "rule"))}
    if chance.random() < 0.2:
        limit["rate"] = WIDE
    else:
        limit |= {"rate": 1, "burst": chance.choice(TIGHT_BYTES if unit == "bytes" else TIGHT)}
    if limit["per"] == "source" and chance.random() < 0.5:
        limit |= {
            "ipv4_length": chance.choice((8, 24, 31, 32)),
            "ipv6_length": chance.choice((32, 64, 127, 128)),
        }
    return limit


def _of(family: int, addresses: Sequence[str]) -> list[str]:
    return [a for a in addresses if (":" in a) == (family == 6)]


def _prefix(chance: Random, addresses: Sequence[str]) -> str:
    """A prefix around one of these, most often a long one, or next to it."""
    address = ip_address(chance.choice(addresses))
    width = address.max_prefixlen
    length = width - int(width * chance.random() ** 3) if chance.random() < 0.8 else width
    near = address.packed[:-1] + bytes([address.packed[-1] ^ chance.choice((0, 0, 0, 1, 2, 128))])
    return str(ip_network((near, length), strict=False))

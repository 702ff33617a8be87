"""Random desired states and links; everything comes from the generator of chance given.

Addresses, ports and numbers are few, so that frames meet services, lists and each other's flows.
"""

from ipaddress import ip_address, ip_network
from random import Random
from typing import Any

import rule_states

from lb.errors import InvalidError
from lb.model import Config
from lb.model.document import from_mapping

Document = dict[str, Any]

VIPS = ("10.200.1.1", "10.200.1.2", "fc00:1::1", "fc00:1::2")
VIP_PREFIXES = ("fc00:1::/64", "fc00:1::/96", "fc00:1::/120")
"""One within the other, and two of the addresses in all of them."""
WITHIN_PREFIXES = ("fc00:1::3", "fc00:1::100:1", "fc00:1::1:0:0:1")
"""In all three, in two, in one."""
ELSEWHERE = ("10.200.9.9", "fc00:9::9", "fc00:1:0:1::1")
CLIENTS4 = ("10.0.1.1", "10.0.1.2", "10.0.1.77", "10.0.2.1", "198.51.100.9")
CLIENTS6 = ("fd00:0:0:1::1", "fd00:0:0:1::2", "2001:db8::9")
BACKENDS = (*(f"10.0.0.{n}" for n in range(11, 17)), *(f"fd00::{n}" for n in range(11, 17)))
_CLIENTS = (*CLIENTS4, *CLIENTS6)
_OTHERS = (*VIPS, *WITHIN_PREFIXES, *ELSEWHERE)
SERVICE_PORTS = (80, 443, "any", "8000-8010", "1-9", "65530-65535")
QUIC_IDS = (1, 77, 0xABCD, 0xFFFF, 0x10000, 0xABCDEF, 0x1000000, 0xFFFFFFFF)
MTUS = (0, 576, 1270, 1280, 1500, 1500, 1500, 9000)
"""What most ways take, and what makes even the shortest packets too big that are answered."""
POOLS = ("10.9.0.1", "10.9.0.2", "fd00:9::1")
NAT_PORTS = 40000, 40031
"""So few that they run out."""
_NAT = {"nat_pools": list(POOLS), "nat_ports": "{}-{}".format(*NAT_PORTS)}
NO_ANSWER, MANY = (_NAT | {"too_big_replies_per_second": most} for most in (0, 1_000_000))
"""Limits that do not depend on the clock."""
MANY_FLOWS = 1_000_000_000
"""A budget that begins no attack."""
SETTINGS: tuple[Document, ...] = (
    MANY,
    MANY,
    MANY,
    NO_ANSWER | {"answer_echo": False},
    MANY | {"drop_spoofed": False, "gue_port": 6081, "encap_source_ipv4": "192.0.2.0/24"},
    NO_ANSWER | {"encap_source_ipv4": "10.64.0.0/10", "encap_source_ipv6": "2001:db8:1:2:3:4::/96"},
)
"""Few, since each is a program of its own."""


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


def configuration(chance: Random, *, nat: bool = False) -> Document:
    """A valid document: up to eight services, two lists that overlap, and rules. nat: some are of mode nat.

    Then no VIP is a client: what a backend answers to one could be taken for a request.
    """
    some = [s for s in SETTINGS if s.get("drop_spoofed", True)] if nat else SETTINGS
    document: Document = {
        "services": [],
        "blocklist": _entries(chance, count=True),
        "allowlist": _entries(chance),
        "settings": chance.choice(some),
    }
    for number in range(chance.randint(1, 8)):
        more = {**document, "services": [*document["services"], _service(chance, f"s{number}", nat=nat)]}
        if _valid(more):
            document = more
    return document | {"rules": _usable(rule_states.rules(chance, document, _CLIENTS, _OTHERS), document)}


def guards(chance: Random, document: Document) -> dict[str, str]:
    """For guarded services that are under attack "attack" or, if nobody unknown comes in without a proof, "refuse"."""
    guarded = [s["name"] for s in document["services"] if s.get("flood_protection")]
    states = {name: chance.choice(("peace", "attack", "refuse")) for name in guarded}
    return {name: state for name, state in states.items() if state != "peace"}


def _usable(rules: list[Document], document: Document) -> list[Document]:
    """Those that do not contradict themselves."""
    return [rule for rule in rules if _valid({"services": document["services"], "rules": [rule]})]


def altered(chance: Random, document: Document, *, nat: bool = False) -> Document:
    """Most of the services, their backends drained, disabled, weighed anew, gone or new; none is enabled again.

    Now and then a service forwards or chooses in another way, and connection ids name others. Rules go, come or change.
    """
    services: list[Document] = []
    for service in document["services"]:
        if chance.random() < 0.1:
            continue  # one for any port or a shorter prefix may take its packets over
        changed = {**service, "backends": _altered_backends(chance, service)}
        if chance.random() < 0.2:
            fresh = _service(chance, service["name"], nat=nat)
            changed |= {
                key: fresh[key] for key in ("mode", "affinity", "nat_source") if chance.random() < 0.5
            }
        if service["protocol"] == "udp" and chance.random() < 0.2:
            changed["udp_migration"] = not service["udp_migration"]
        valid = _valid({**document, "services": [*services, changed]})
        services.append(changed if valid else service)
    after = {**document, "services": services}
    rules = rule_states.altered(chance, document.get("rules", []), after, _CLIENTS, _OTHERS)
    return {**after, "rules": _usable(rules, after)}


def _altered_backends(chance: Random, service: Document) -> list[Document]:
    backends = [dict(b) for b in service["backends"] if chance.random() < 0.85]
    for backend in backends:
        if backend["admin_state"] == "enabled" and chance.random() < 0.4:
            backend["admin_state"] = chance.choice(("draining", "disabled"))
        elif chance.random() < 0.2:
            backend["weight"] = chance.choice((0, 1, 7))
    held = {b["address"] for b in service["backends"]}
    mode = service["mode"]
    pool = _pool("l2" if service["nat_source"] == "keep" else mode, service["vip"])
    new = [b for b in pool if b not in held and chance.random() < 0.15]
    return _numbered(
        chance,
        backends + [_backend(chance, b, mode, service["protocol"]) for b in new],
        quic=service["quic"],
        anew=0.2,
    )


def _valid(document: Document) -> bool:
    try:
        from_mapping(document, now=0.0, have=Config())
    except InvalidError:
        return False
    return True


def _service(chance: Random, name: str, *, nat: bool) -> Document:
    vip, protocol = chance.choice((*VIPS, *VIP_PREFIXES)), chance.choice(("tcp", "udp"))
    mode = chance.choice(("ipip", "gue", "nat", "nat", "l2") if nat else ("ipip", "gue", "l2"))
    if mode == "nat" and chance.random() < 0.4:
        protocol = "icmp"
    source = "keep" if mode == "nat" and chance.random() < 0.3 else "pool"
    pool = _pool("l2" if source == "keep" else mode, vip)
    chosen = chance.sample(pool, chance.choice((0, 1, 2, 3, 4, 6)))
    quic = protocol == "udp" and mode != "nat" and chance.random() < 0.5
    guard = {"new_flows_per_second": MANY_FLOWS, "hold_seconds": 86400, "test_unknown": False}
    if protocol == "tcp":
        guard["test_unknown"] = chance.random() < 0.6
    return {
        "name": name,
        "vip": vip,
        "port": None if protocol == "icmp" else chance.choice(SERVICE_PORTS),
        "protocol": protocol,
        "mode": mode,
        "nat_source": source,
        "affinity": chance.choice(("flow", "flow", "source", "destination-port")),
        "udp_migration": protocol == "udp" and chance.random() < 0.4,
        "quic": quic,
        "flood_protection": guard if chance.random() < 0.5 else None,
        "backends": _numbered(chance, [_backend(chance, b, mode, protocol) for b in chosen], quic=quic),
    }


def _pool(mode: str, vip: str) -> list[str]:
    return [b for b in BACKENDS if mode != "l2" or (":" in b) == (":" in vip)]


def _backend(chance: Random, address: str, mode: str, protocol: str) -> Document:
    state = chance.choice(("enabled", "enabled", "enabled", "draining", "disabled"))
    made = {"address": address, "weight": chance.choice((1, 1, 1, 0, 2, 100, 65535)), "admin_state": state}
    if mode != "nat" or protocol == "icmp":
        return made
    return made | {"port": chance.choice((None, 8080, 65535))}


def _numbered(chance: Random, backends: list[Document], *, quic: bool, anew: float = 1.0) -> list[Document]:
    """The backends of a QUIC service with ids, most of them; `anew` of them other ones than before."""
    if not quic:
        return backends
    free = list(QUIC_IDS)
    chance.shuffle(free)
    for backend in backends:
        if backend.get("quic_id") in free and chance.random() >= anew:
            free.remove(backend["quic_id"])
            continue
        backend["quic_id"] = None
    for backend in backends:
        if backend["quic_id"] is None and free and chance.random() < 0.7:
            backend["quic_id"] = free.pop()
    return backends


def _entries(chance: Random, *, count: bool = False) -> list[Document]:
    """Prefixes around the clients, most of them long; now and then so many that one /24 overflows its line."""
    entries: dict[str, Document] = {}
    for _ in range(chance.choice((0, 1, 3, 8, 40))):
        client = chance.choice((*CLIENTS4, *CLIENTS6))
        width = 128 if ":" in client else 32
        length = width - int(width * chance.random() ** 3)
        near = ip_address(client).packed[:-1] + bytes([chance.choice((0, 1, 2, 3, 76, 77, 128, 255))])
        network = ip_network((near, length), strict=False)
        if any(ip_address(pool) in network for pool in POOLS):
            continue  # is refused
        prefix = str(network)
        entries[prefix] = {"prefix": prefix}
        if count and chance.random() < 0.5:
            entries[prefix]["action"] = chance.choice(("drop", "count"))
    return list(entries.values())

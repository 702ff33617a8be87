"""What is measured, as data: the states of the balancer, the traffic, the cases of each group, and the sweeps.

A flow or a blocked prefix has a number, and from it an address: multiplied by SCATTER modulo 2^32, and scaled to
SOURCES addresses from FIRST_SOURCE on (128.0.0.0 to 223.255.255.255: all could be a client's). Numbers in a row are
thus spread evenly, and the first two million lie in a /24 each of its own. Prefixes have the numbers from 1 on, flows
those from FIRST_FLOW on: a flow's source is never blocked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

SCATTER = 0x9E3779B1
FIRST_SOURCE, SOURCES = 128 << 24, 96 << 24
FIRST_PREFIX, FIRST_FLOW = 1, 1_000_001
ENDLESS = (1 << 32) - 1
"""As a number of flows: none comes again."""

VIP, VIP6 = "10.200.16.1", "fc00:1::1"
NO_VIP = "10.200.0.1"
NAT_POOL = [f"10.200.32.{n}" for n in range(4)]
TCP_PORT, UDP_PORT = 80, 53
BACKENDS = 10


@dataclass(frozen=True, slots=True)
class Setup:
    """A state of a balancer of its own.

    mode: of its services; prefixes: how many it blocks; rules: how many drop others' packets; limited: one rule
    allows each source a packet a second; guard: its services' flood protection.
    """

    mode: str = "ipip"
    protocols: tuple[str, ...] = ("tcp", "udp")
    vip: str = VIP
    prefixes: int = 0
    rules: int = 0
    limited: bool = False
    guard: Mapping[str, Any] | None = None


ATTACKED: Mapping[str, Any] = MappingProxyType({"new_flows_per_second": 1, "hold_seconds": 86400})
"""Flood protection of a service that is under attack from its second new flow on."""

# `crowded` is for more flows than a table keeps for long: in that of `plain`, they would be in the others' way.
SETUPS: Mapping[str, Setup] = MappingProxyType(
    {
        "plain": Setup(),
        "crowded": Setup(),
        "six": Setup(vip=VIP6, protocols=("tcp",)),
        "l2": Setup(mode="l2", protocols=("tcp",)),
        "nat": Setup(mode="nat", protocols=("udp",)),
        "deny1": Setup(prefixes=1),
        "deny100k": Setup(prefixes=100_000),
        "deny1m": Setup(prefixes=1_000_000),
        "guarded": Setup(protocols=("tcp",), guard=ATTACKED),
        "tested": Setup(protocols=("tcp",), guard={**ATTACKED, "test_unknown": True}),
        "after_all": Setup(),
        "rules1": Setup(rules=1),
        "rules1k": Setup(rules=1000),
        "limited": Setup(limited=True),
    }
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """64-byte frames (IPv6: 80) of `count` flows from number `first` on. vips: spread over so many VIPs in a row.

    reply: what backends answer to these flows, in mode nat.
    """

    protocol: str = "tcp:A"
    destination: str = VIP
    first: int = FIRST_FLOW
    count: int = 1
    random: bool = False
    vips: int = 1
    reply: bool = False

    @property
    def port(self) -> int:
        """The destination port."""
        return UDP_PORT if self.protocol == "udp" else TCP_PORT

    @property
    def length(self) -> int:
        """Of a frame, in bytes."""
        return 80 if ":" in self.destination else 64


@dataclass(frozen=True, slots=True)
class ProgramCase:
    """Nanoseconds a packet that the program adds to an empty one. action: what every packet must end as.

    goal: what we want to stay below. peer: "xdp-filter" blocks the same sources in the same rounds, a name of
    MEMORY does one load; versus: another case of these, and margin: by how much that may be exceeded.
    """

    name: str
    setup: str
    traffic: Traffic
    action: str = "tx"
    goal: float | None = None
    peer: str | None = None
    versus: str | None = None
    margin: float | None = None
    thorough: bool = False


MEMORY: Mapping[str, str] = MappingProxyType(
    {"one load of 16 MB": "load_flow_line", "one load of 32 MB": "load_prefix_cell"}
)
"""Programs of bare.c that read one place of a table as large as the balancer's, for the same packets."""
FLOWS, PREFIXES = MEMORY


def blocked(prefixes: int) -> Traffic:
    """Packets from inside each of so many prefixes, drawn at random."""
    return Traffic(first=FIRST_PREFIX, count=prefixes, random=prefixes > 1)


PROGRAM = (
    ProgramCase("tcp_established_1flow", "plain", Traffic(), goal=28),
    ProgramCase("tcp_established_10kflows", "plain", Traffic(count=10_000), goal=42, peer=FLOWS),
    ProgramCase("tcp_established_100kflows", "plain", Traffic(count=100_000), goal=75, peer=FLOWS),
    ProgramCase(
        "tcp_established_800kflows_random",
        "crowded",
        Traffic(count=800_000, random=True),
        goal=90,
        peer=FLOWS,
    ),
    ProgramCase("udp_established_1flow", "plain", Traffic("udp"), goal=33),
    ProgramCase("tcp6_established_1flow", "six", Traffic(destination=VIP6), goal=33),
    ProgramCase("tcp_new_flows_tracked", "crowded", Traffic("tcp:S", count=ENDLESS), goal=85, peer=FLOWS),
    ProgramCase(
        "new_flows_under_attack_refused",
        "guarded",
        Traffic("tcp:S", count=ENDLESS),
        action="drop",
        goal=90,
        thorough=True,
    ),
    ProgramCase(
        "new_flows_under_attack_tested",
        "tested",
        Traffic("tcp:S", count=ENDLESS),
        action="drop",
        goal=150,
        thorough=True,
    ),
    ProgramCase("nat_forward_1flow", "nat", Traffic("udp"), goal=60),
    ProgramCase("nat_reply_1flow", "nat", Traffic("udp", reply=True), goal=60),
    ProgramCase("nat_forward_100kflows", "nat", Traffic("udp", count=100_000), goal=150),
    ProgramCase("nat_reply_100kflows", "nat", Traffic("udp", count=100_000, reply=True), goal=150),
    ProgramCase(
        "nat_forward_100kflows_random", "nat", Traffic("udp", count=100_000, random=True), thorough=True
    ),
    ProgramCase(
        "nat_reply_100kflows_random",
        "nat",
        Traffic("udp", count=100_000, random=True, reply=True),
        thorough=True,
    ),
    ProgramCase("pass_no_service", "plain", Traffic(destination=NO_VIP), action="pass", goal=13),
    ProgramCase("drop_deny_1prefix", "deny1", blocked(1), action="drop", goal=8, peer="xdp-filter"),
    ProgramCase(
        "drop_deny_100k_random", "deny100k", blocked(100_000), action="drop", goal=25, peer="xdp-filter"
    ),
    ProgramCase("drop_deny_1m_random", "deny1m", blocked(1_000_000), action="drop", goal=25, peer=PREFIXES),
    ProgramCase(
        "established_behind_1m_prefixes",
        "deny1m",
        Traffic(count=800_000, random=True),
        versus="tcp_established_800kflows_random",
        margin=15,
    ),
    ProgramCase(
        "established_behind_1_rule", "rules1", Traffic(), versus="tcp_established_1flow", thorough=True
    ),
    ProgramCase(
        "established_behind_1k_rules", "rules1k", Traffic(), versus="tcp_established_1flow", thorough=True
    ),
    ProgramCase("drop_by_1k_rules", "rules1k", blocked(1), action="drop", thorough=True),
    ProgramCase("drop_over_limit", "limited", Traffic(), action="drop", thorough=True),
)

UNUSED = "unused_feature"
"""How many instructions longer the program of setup `plain` is after every feature was in use and is no longer."""

EVERYTHING: Mapping[str, Any] = MappingProxyType(
    {
        "services": [
            {
                "name": "stream",
                "vip": "10.200.0.2",
                "port": "any",
                "protocol": "tcp",
                "mode": "l2",
                "affinity": "source",
                "flood_protection": {"new_flows_per_second": 1},
                "health_check": {"type": "tcp", "port": 80, "passive": {"vote": True}},
                "backends": [{"address": "10.0.0.2"}],
            },
            {
                "name": "quic",
                "vip": "fc00:1::2",
                "port": 443,
                "protocol": "udp",
                "mode": "ipip",
                "quic": True,
                "udp_migration": True,
                "backends": [{"address": "10.0.0.3", "quic_id": 1}],
            },
            {
                "name": "range",
                "vip": "fc00:2::/64",
                "port": 443,
                "protocol": "udp",
                "mode": "gue",
                "affinity": "destination-port",
                "backends": [{"address": "10.0.0.4"}],
            },
            {
                "name": "translated",
                "vip": "fc00:3::1",
                "port": 80,
                "protocol": "tcp",
                "mode": "nat",
                "backends": [{"address": "10.0.0.5", "port": 8080}],
            },
            {
                "name": "kept",
                "vip": "10.200.0.3",
                "protocol": "icmp",
                "mode": "nat",
                "nat_source": "keep",
                "backends": [{"address": "10.0.0.6"}],
            },
        ],
        "settings": {"nat_pools": ["10.200.32.0"]},
        "blocklist": [{"prefix": "192.0.2.1/32"}, {"prefix": "2001:db8::1/128"}],
        "allowlist": [{"prefix": "192.0.2.2/32"}],
        "rules": [
            {"name": "allowed", "action": "allow", "source": "192.0.2.3/32", "destination": "10.200.0.2/32"},
            {
                "name": "dropped",
                "action": "drop",
                "protocol": "udp",
                "source_ports": "53",
                "length": "1400-9000",
            },
            {
                "name": "limited",
                "action": "limit",
                "ports": "443",
                "protocol": "tcp",
                "limit": {"rate": 1000, "unit": "new-flows"},
                "ban_seconds": 60,
            },
        ],
    }
)
"""A document that needs all features."""


@dataclass(frozen=True, slots=True)
class LabCase:
    """Nanoseconds of one core a packet, from the generator over a veth pair to where it is dropped.

    receiver: a setup of SETUPS, or a peer of peers.py. versus: the case it is compared with; goal: as a multiple of it.
    """

    name: str
    receiver: str
    traffic: Traffic = Traffic()
    versus: str | None = None
    goal: float | None = None


LAB = (
    LabCase("empty_drop", "empty_drop"),
    LabCase("empty_tx", "empty_tx"),
    LabCase("drop_deny", "deny1", blocked(1), versus="empty_drop", goal=1.3),
    LabCase("forward_ipip", "plain", versus="empty_tx", goal=1.6),
    LabCase("forward_l2", "l2", versus="empty_tx"),
    LabCase("forward_nat", "nat", Traffic("udp"), versus="nft_dnat", goal=0.4),
    LabCase("xdp_filter_drop", "xdp-filter", blocked(1), versus="empty_drop"),
    LabCase("nft_drop", "nft_drop", blocked(1), versus="empty_drop"),
    LabCase("nft_dnat", "nft_dnat", Traffic("udp"), versus="empty_tx"),
)


@dataclass(frozen=True, slots=True)
class ControlCase:
    """What the running daemon takes, asked by REST or CLI.

    tail: the goal is for the slowest percent; thorough: only the long run takes it.
    """

    name: str
    unit: str
    goal: float
    tail: bool = False
    thorough: bool = False


CONTROL = (
    ControlCase("import_1m", "s", 1.0),
    ControlCase("clear_1m", "s", 1.0),
    ControlCase("block_to_enforced", "ms", 20.0, tail=True),
    ControlCase("api_write_200_readers", "ms", 100.0, tail=True),
    ControlCase("event_to_last_reader", "ms", 500.0, tail=True),
    ControlCase("api_write_8_writers", "ms", 6.0),
    ControlCase("block_beside_1m_under_flood", "ms", 50.0, tail=True),
    ControlCase("expire_10k", "s", 1.0, thorough=True),
    ControlCase("entries_lifecycle", "s", 20.0, thorough=True),
    ControlCase("ring_1000_backends", "ms", 5.0),
    ControlCase("backend_change_to_enforced", "ms", 20.0, tail=True),
    ControlCase("apply_400x50", "s", 2.0),
    ControlCase("start_full", "s", 4.0),
    ControlCase("memory_1m", "MiB", 300.0),
)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A program figure as one thing grows. changes: flows, prefixes, services or backends of the setup."""

    name: str
    changes: str
    setup: str
    points: tuple[int, ...]
    traffic: Traffic
    action: str = "tx"


_TENS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
_FEW = Traffic(count=4096)
"""As many flows at each point, so that nothing grows but the services or the backends."""

SWEEPS = (
    Sweep("flows", "flows", "crowded", _TENS, Traffic(random=True)),
    Sweep("prefixes_blocked", "prefixes", "deny1", _TENS, blocked(1), action="drop"),
    Sweep("prefixes_passed", "prefixes", "deny1", (0, *_TENS[1:]), _FEW),
    Sweep("services", "services", "plain", (1, 4, 16, 64, 256, 1024, 4096), _FEW),
    Sweep("backends", "backends", "plain", (1, 4, 16, 64, 256, 1024, 4096), _FEW),
)


def addresses(first: int, count: int) -> npt.NDArray[np.uint32]:
    """IPv4 addresses of so many numbers in a row, as progbench.c reckons them too."""
    number = np.arange(first, first + count, dtype=np.uint64)
    scattered = number * np.uint64(SCATTER) & np.uint64(0xFFFFFFFF)
    return (FIRST_SOURCE + (scattered * np.uint64(SOURCES) >> np.uint64(32))).astype(np.uint32)


def source_of(number: int) -> str:
    """The address of a flow, or one inside a prefix."""
    return str(ip_address(int(addresses(number, 1)[0])))


def networks(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """The first address of the prefix of each number."""
    first = int(numbers[0])
    return addresses(first, int(numbers[-1]) - first + 1)[numbers - first] & np.uint32(0xFFFFFF00)


def prefixes_text(count: int, first: int = FIRST_PREFIX) -> str:
    """The file of so many blocked /24s, one a line."""
    found = addresses(first, count).tolist()
    return "".join(f"{a >> 24}.{a >> 16 & 255}.{a >> 8 & 255}.0/24\n" for a in found)


def rules_of(setup: Setup) -> list[dict[str, Any]]:
    """The rules of a setup as in a document: each drops TCP from a /24 that is blocked elsewhere, to some ports."""
    if setup.limited:
        return [{"name": "limited", "action": "limit", "limit": {"rate": 1, "burst": 1}}]
    found = addresses(FIRST_PREFIX, setup.rules).tolist()
    return [
        {
            "name": f"rule-{n}",
            "action": "drop",
            "source": f"{a >> 24}.{a >> 16 & 255}.{a >> 8 & 255}.0/24",
            "protocol": "tcp",
            "ports": f"{TCP_PORT}-{TCP_PORT + n}",
        }
        for n, a in enumerate(found)
    ]


def settings_of(setup: Setup) -> dict[str, Any]:
    """What a setup's services need beside them: NAT ports for many flows, which must outlive others' turns."""
    return {"nat_pools": NAT_POOL, "nat_opening_seconds": 3600} if setup.mode == "nat" else {}


def services_of(setup: Setup, backends: list[str], *, count: int = 1) -> list[dict[str, Any]]:
    """The services of a setup as in a document; count: on so many VIPs in a row."""
    return [
        {
            "name": f"{protocol}-{n}",
            "vip": str(ip_address(setup.vip) + n),
            "port": UDP_PORT if protocol == "udp" else TCP_PORT,
            "protocol": protocol,
            "mode": setup.mode,
            "flood_protection": dict(setup.guard) if setup.guard else None,
            "backends": [{"address": address} for address in backends],
        }
        for protocol in setup.protocols
        for n in range(count)
    ]

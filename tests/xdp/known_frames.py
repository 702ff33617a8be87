"""The known state and the frames that every program is asked; tests/known_answers.py answers them."""

from typing import Any

from frames import (
    BACKENDS4,
    BACKENDS6,
    ELSE4,
    ELSE6,
    LINK,
    VIP4,
    VIP6,
    network,
    patched,
    service,
    tcp,
    udp,
)
from known_case import Case, Stage, case, chained, tagged
from known_echo import ECHO_CASES4, ECHO_CASES6, PINGED
from known_guards import ATTACKED, GUARD_CASES, GUARDED
from known_icmp import ICMP_CASES, NARROW, NARROW6
from known_nat import NAT_CASES4, NAT_CASES6, SETTINGS, TRANSLATED
from known_quic import QUIC, QUIC_CASES
from known_rules import ALLOWED, RULE_CASES, RULES, SERVICES
from scapy.layers.inet import ICMP, TCP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q
from scapy.packet import Raw

ANY, AWAY, LOST, EMPTY = "10.200.1.2", "10.200.1.3", "10.200.1.98", "10.200.1.99"
"""VIPs: for any port; with its backends behind another interface, or of unknown MAC; with no backend."""
CHECKED = "10.200.1.97"
"""A VIP whose backends are checked through the data path."""
PORTS, MOVING, GUE4, GUE6, PREFIX = "10.200.1.7", "10.200.1.8", "10.200.1.5", "fc00:1::5", "fc00:1:2::"
"""VIPs: hashed by destination port; with UDP migration; with mode gue; and an IPv6 prefix of 64 bits."""
ELSEWHERE, UNRESOLVED = {"10.0.0.21", "10.0.0.22"}, {"10.0.0.31"}
MTU = {"10.0.0.41": 600, "10.0.0.42": 1300} | {f"10.0.0.{last}": 9000 for last in (11, 12, 13)}
SETTINGS_WITHOUT: dict[str, dict[str, Any]] = {
    "ECHO": {"answer_echo": False},
    "SPOOF": {"drop_spoofed": False},
    "TOO_BIG": {"too_big_replies_per_second": 0},
}
"""The settings by which a feature is not in use."""


def _document() -> dict[str, Any]:
    prefixes = ["1.64.0.0/15", "1.67.0.128/25", "fd66::/32", "fd67::1"]
    prefixes += [f"1.68.0.{last}" for last in range(2, 50, 2)]  # more than a line of deny4_lines holds
    counting = ("1.65.1.0/24", "fd66:0:1::/48")
    return {
        "services": [
            service(),
            service("dns", protocol="udp", port=53, mode="l2"),
            service("moving", vip=MOVING, protocol="udp", udp_migration=True),
            service("any", vip=ANY, port="any", affinity="source", backends=BACKENDS6),
            service("six", vip=VIP6, backends=BACKENDS6),
            service("six-udp", vip=VIP6, protocol="udp", port=443),
            service("six-l2", vip=VIP6, protocol="udp", port=53, mode="l2", backends=BACKENDS6),
            service("away", vip=AWAY, backends=["10.0.0.21", "10.0.0.22"]),
            service("away-l2", vip=AWAY, protocol="udp", mode="l2", backends=["10.0.0.21", "10.0.0.22"]),
            service("narrow", vip=NARROW, backends=["10.0.0.41"]),
            service("narrow6", vip=NARROW6, backends=["10.0.0.42"]),
            service("checked", vip=CHECKED, health_check={"type": "tcp"}),
            service("ports", vip=PORTS, port="any", affinity="destination-port"),
            service("gue", vip=GUE4, mode="gue"),
            service("gue-to6", vip=GUE4, protocol="udp", mode="gue", backends=BACKENDS6),
            service("gue-from6", vip=GUE6, mode="gue"),
            service("prefix", vip=f"{PREFIX}/64", backends=BACKENDS6),
            QUIC,
            service("lost", vip=LOST, backends=["10.0.0.31"]),
            service("empty", vip=EMPTY, backends=[]),
        ],
        "blocklist": [{"prefix": p} for p in prefixes] + [{"prefix": p, "action": "count"} for p in counting],
        "allowlist": [{"prefix": p} for p in ("1.65.2.0/24", "fd66:0:2::1")],
    }


def _drained(document: dict[str, Any]) -> dict[str, Any]:
    """The backends of `web` and `moving` drain, and another has come; all of `dns` but the last are disabled."""
    web, dns, moving, *others = document["services"]
    draining = [{"address": a, "admin_state": "draining"} for a in BACKENDS4]
    disabled = [{"address": a, "admin_state": "disabled"} for a in BACKENDS4[:2]]
    now = [
        {**web, "backends": [*draining, {"address": "10.0.0.14"}]},
        {**moving, "backends": [*draining, {"address": "10.0.0.14"}]},
        {**dns, "backends": [*disabled, {"address": BACKENDS4[2]}]},
    ]
    return {**document, "services": [*now, *others]}


def _guarded(document: dict[str, Any]) -> dict[str, Any]:
    """Guarded services besides."""
    return {**document, "services": [*document["services"], *GUARDED]}


def _translated(document: dict[str, Any]) -> dict[str, Any]:
    """Services of mode nat besides."""
    return {**document, "services": [*document["services"], *TRANSLATED, *PINGED], "settings": SETTINGS}


def _ruled(document: dict[str, Any]) -> dict[str, Any]:
    """Rules, and whom they are about."""
    return {
        **document,
        "services": [*document["services"], *SERVICES],
        "allowlist": [*document["allowlist"], {"prefix": ALLOWED}],
        "rules": RULES,
    }


PARSING = [
    case("ARP", "PASS_NOT_IP", LINK / ARP()),
    case("a MAC that is ours but for the last bit", "PASS_NOT_OUR_MAC", tcp(), differs="000000000001"),
    case("a MAC that is ours but for the first bit", "PASS_NOT_OUR_MAC", tcp(), differs="800000000000"),
    case("three VLAN tags", "DROP_VLAN_DEPTH", tagged(Dot1AD(), Dot1Q(), Dot1Q(), inner=tcp())),
    case("an IPv4 header cut off", "DROP_TRUNCATED", bytes(tcp())[:33]),
    case("an IPv6 header cut off", "DROP_TRUNCATED", bytes(tcp(dst=VIP6))[:53]),
    case("a TCP header cut off", "DROP_TRUNCATED", patched(bytes(tcp())[:53], 16, 39, 2)),
    case("an IPv4 packet longer than its frame", "DROP_TRUNCATED", bytes(tcp())[:-1]),
    case("an IPv6 packet longer than its frame", "DROP_TRUNCATED", bytes(tcp(dst=VIP6))[:-1]),
    case("an IPv4 header of 16 bytes", "DROP_BAD_IPV4", patched(tcp(), 14, 0x44)),
    case("IPv6 of version 5", "DROP_BAD_IPV6", patched(tcp(dst=VIP6), 14, 0x50)),
    case("a TCP header of 16 bytes", "DROP_BAD_TCP", patched(tcp(), 46, 0x40)),
    case("seven IPv6 extension headers", "DROP_IPV6_CHAIN", chained(*[IPv6ExtHdrDestOpt()] * 7)),
    case("GRE", "PASS_PROTOCOL", LINK / network(dst=ELSE4, proto=47) / b"\0\0\x08\0"),
    case("ICMP for no VIP", "PASS_PROTOCOL", LINK / network(dst=ELSE4) / ICMP()),
    case("a fragment for no VIP", "PASS_FRAGMENT", LINK / network(dst=ELSE4, frag=3) / b"later"),
    case("a fragment for a VIP", "DROP_FRAGMENT", LINK / network(frag=3) / b"later", "VIP4"),
    case("a first fragment", "DROP_FRAGMENT", LINK / network(flags="MF") / TCP(dport=80), "VIP4"),
    case(
        "an IPv6 fragment for a VIP",
        "DROP_FRAGMENT",
        LINK / network(dst=VIP6) / IPv6ExtHdrFragment(offset=3) / b"later",
        "VIP6",
    ),
    case("TCP for no VIP", "PASS_NO_SERVICE", tcp(dst=ELSE4)),
    case("TCP over IPv6 for no VIP", "PASS_NO_SERVICE", tcp(dst=ELSE6)),
    case("another port of a VIP", "PASS_NO_SERVICE", tcp(dport=81)),
    case("another protocol of a VIP", "PASS_NO_SERVICE", udp(dport=80)),
]


def _listed(name: str, src: str, needs: str, *, verdict: str = "DROP_BLOCKLIST") -> Case:
    return case(name, verdict, tcp(src=src, dst=ELSE6 if ":" in src else ELSE4), needs)


LISTS = [
    _listed("the first address of a blocked /15", "1.64.0.0", "DENY4"),
    _listed("the last address of a blocked /15", "1.65.255.255", "DENY4"),
    _listed("an address before a blocked /15", "1.63.255.255", "", verdict="PASS_NO_SERVICE"),
    _listed("an address behind a blocked /15", "1.66.0.0", "", verdict="PASS_NO_SERVICE"),
    _listed("an address in a blocked /25", "1.67.0.129", "DENY4"),
    _listed(
        "an address in the other half of a blocked /25's /24", "1.67.0.127", "", verdict="PASS_NO_SERVICE"
    ),
    _listed("one of many blocked addresses of a /24", "1.68.0.48", "DENY4"),
    _listed("an address between blocked ones of a /24", "1.68.0.47", "", verdict="PASS_NO_SERVICE"),
    _listed("count-only within blocked", "1.65.1.1", "", verdict="PASS_NO_SERVICE"),
    _listed("allowed within blocked", "1.65.2.1", "DENY4 ALLOW", verdict="PASS_NO_SERVICE"),
    _listed("IPv6, in a blocked /32", "fd66::9", "DENY6"),
    _listed("IPv6, a blocked address", "fd67::1", "DENY6"),
    _listed("IPv6, next to a blocked address", "fd67::2", "", verdict="PASS_NO_SERVICE"),
    _listed("IPv6, count-only within blocked", "fd66:0:1::1", "", verdict="PASS_NO_SERVICE"),
    _listed("IPv6, allowed within blocked", "fd66:0:2::1", "DENY6 ALLOW", verdict="PASS_NO_SERVICE"),
    case("blocked, and for a VIP", "DROP_BLOCKLIST", tcp(src="1.64.0.1"), "DENY4"),
    case("blocked GRE", "DROP_BLOCKLIST", LINK / network("1.64.0.1", ELSE4, proto=47) / b"\0", "DENY4"),
    case("a blocked fragment", "DROP_BLOCKLIST", LINK / network("1.64.0.1", ELSE4, frag=3) / b"1", "DENY4"),
]

SPOOFED = [
    _listed("a loopback source", "127.0.0.1", "SPOOF", verdict="DROP_SPOOFED"),
    _listed("a source of this host", "0.1.2.3", "SPOOF", verdict="DROP_SPOOFED"),
    _listed("a multicast source", "239.255.255.255", "SPOOF", verdict="DROP_SPOOFED"),
    _listed("a source before multicast", "223.255.255.255", "", verdict="PASS_NO_SERVICE"),
    _listed("the unspecified source", "::", "SPOOF", verdict="DROP_SPOOFED"),
    _listed("an IPv6 loopback source", "::1", "SPOOF", verdict="DROP_SPOOFED"),
    _listed("an IPv6 multicast source", "ff02::1", "SPOOF", verdict="DROP_SPOOFED"),
    _listed("a VIP as source", VIP4, "SPOOF VIP4", verdict="DROP_SPOOFED"),
    _listed("an IPv6 VIP as source", VIP6, "SPOOF VIP6", verdict="DROP_SPOOFED"),
    _listed("a source in a VIP prefix", f"{PREFIX}9", "SPOOF VIP6 VIP_PREFIX", verdict="DROP_SPOOFED"),
    case(
        "an answer to a check", "PASS_NO_SERVICE", tcp(src=VIP4, dst=ELSE4, dport=61000), "SPOOF VIP4 PROBES"
    ),
    case(
        "a VIP as source, to the port before",
        "DROP_SPOOFED",
        tcp(src=VIP4, dst=ELSE4, dport=60999),
        "SPOOF VIP4",
    ),
    case("a check's port of a VIP", "DROP_SPOOFED", tcp(src=VIP4, dst=PORTS, dport=64999), "SPOOF VIP4"),
    case(
        "a loopback source that may come", "PASS_NO_SERVICE", tcp(src="127.0.0.1", dst=ELSE4), lacks="SPOOF"
    ),
]

_V4, _V6 = "VIP4 IPIP", "VIP6 IPIP"
FORWARDED = [
    case("TCP, 4 in 4", "TX_IPIP", tcp(), _V4),
    case("the SYN again", "TX_IPIP", tcp(), f"{_V4} PASSIVE"),
    case(
        "TCP with a class, options and padding",
        "TX_IPIP",
        tcp(tos=0x8C, options=[IPOption_NOP()] * 4) / bytes(6),
        _V4,
    ),
    case("frame padding", "TX_IPIP", bytes(tcp(sport=40001)) + b"padding", _V4),
    case("TCP under one tag", "TX_IPIP", tagged(Dot1Q(vlan=100, prio=5), inner=tcp(sport=40002)), _V4),
    case(
        "TCP under two tags",
        "TX_IPIP",
        tagged(Dot1AD(vlan=200), Dot1Q(vlan=100), inner=tcp(sport=40003)),
        _V4,
    ),
    case("UDP, MAC rewrite", "TX_L2", udp(dport=53), "VIP4 L2"),
    case(
        "UDP under one tag, MAC rewrite",
        "TX_L2",
        tagged(Dot1Q(vlan=7), inner=udp(sport=40004, dport=53)),
        "VIP4 L2",
    ),
    case(
        "any port, 4 in 6", "TX_IPIP", tcp(dst=ANY, dport=12345, tos=0x8C), f"{_V4} ANY_PORT SOURCE_AFFINITY"
    ),
    case(
        "the same source, other ports",
        "TX_IPIP",
        tcp(dst=ANY, sport=9, dport=8),
        f"{_V4} ANY_PORT SOURCE_AFFINITY",
    ),
    case("TCP, 6 in 6", "TX_IPIP", tcp(dst=VIP6, tc=0x8C, fl=0x12345), _V6),
    case("UDP, 6 in 4", "TX_IPIP", udp(dst=VIP6, dport=443, tc=0x8C), _V6),
    case("UDP over IPv6, MAC rewrite", "TX_L2", udp(dst=VIP6, dport=53), "VIP6 L2"),
    case(
        "6 in 6 under two tags",
        "TX_IPIP",
        tagged(Dot1AD(vlan=2), Dot1Q(vlan=1), inner=tcp(dst=VIP6, sport=7)),
        _V6,
    ),
    case(
        "TCP behind extension headers",
        "TX_IPIP",
        chained(IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(), IPv6ExtHdrDestOpt()),
        _V6,
    ),
    case("out of another interface", "REDIRECT_IPIP", tcp(dst=AWAY), f"{_V4} REDIRECT"),
    case("out of another interface, MAC rewrite", "REDIRECT_L2", udp(dst=AWAY), "VIP4 L2 REDIRECT"),
    case("as large as the MTU allows", "TX_IPIP", tcp(dst=NARROW) / Raw(bytes(540)), _V4),
    case("GUE, 4 in 4", "TX_GUE", tcp(dst=GUE4, tos=0x8C), "VIP4 GUE"),
    case("GUE, 4 in 6", "TX_GUE", udp(dst=GUE4, tos=0x8C), "VIP4 GUE"),
    case("GUE, 6 in 4", "TX_GUE", tcp(dst=GUE6), "VIP6 GUE"),
    case("GUE under one tag", "TX_GUE", tagged(Dot1Q(vlan=9), inner=tcp(dst=GUE4, sport=8)), "VIP4 GUE"),
    case("one destination port", "TX_IPIP", tcp(dst=PORTS, dport=777), f"{_V4} ANY_PORT PORT_AFFINITY"),
    case(
        "that port, of another client",
        "TX_IPIP",
        tcp("10.0.9.9", PORTS, 1, 777),
        f"{_V4} ANY_PORT PORT_AFFINITY",
    ),
    case("a VIP prefix", "TX_IPIP", tcp(dst=f"{PREFIX}abcd"), f"{_V6} VIP_PREFIX"),
    case(
        "a VIP prefix's last address",
        "TX_IPIP",
        tcp(dst="fc00:1:2:0:ffff:ffff:ffff:ffff"),
        f"{_V6} VIP_PREFIX",
    ),
    case("behind a VIP prefix", "PASS_NO_SERVICE", tcp(dst="fc00:1:2:1::")),
    case("an unknown next hop", "DROP_NO_NEXT_HOP", tcp(dst=LOST), "VIP4"),
    case("no backend", "DROP_NO_BACKEND", tcp(dst=EMPTY), "VIP4"),
    case("a frame of 6000 bytes", "TX_IPIP", tcp(sport=40005) / Raw(bytes(6000)), f"{_V4} FRAGS"),
]

_KEPT, _REOPENED, _RESET = 50001, 50002, 50003
_REMEMBERED = [
    case("a connection opens", "TX_IPIP", tcp(sport=_KEPT), _V4),
    case("a connection goes on", "TX_IPIP", tcp(sport=_KEPT, flags="A"), _V4),
    case("another opens", "TX_IPIP", tcp(sport=_REOPENED), _V4),
    case("the other goes on", "TX_IPIP", tcp(sport=_REOPENED, flags="A"), _V4),
    case("a reset of no known connection", "TX_IPIP", tcp(sport=_RESET, flags="R"), _V4),
    case("a UDP flow", "TX_L2", udp(sport=_KEPT, dport=53), "VIP4 L2"),
    case("a UDP flow that may move", "TX_IPIP", udp(dst=MOVING), f"{_V4} UDP_MIGRATION"),
    case("that flow again", "TX_IPIP", udp(dst=MOVING), f"{_V4} UDP_MIGRATION"),
    case("the UDP flow again", "TX_L2", udp(sport=_KEPT, dport=53), "VIP4 L2"),
]
_AFTER_THE_SWITCH = [
    case(
        "a connection stays with its draining backend",
        "TX_IPIP",
        tcp(sport=_KEPT, flags="A"),
        _V4,
        remembers=True,
    ),
    case("a new connection goes by the new ring", "TX_IPIP", tcp(sport=50004), _V4),
    case("a connection opened anew goes by the new ring", "TX_IPIP", tcp(sport=_REOPENED), _V4),
    case("and stays there", "TX_IPIP", tcp(sport=_REOPENED, flags="A"), _V4, remembers=True),
    case("a reset was not remembered", "TX_IPIP", tcp(sport=_RESET, flags="A"), _V4),
    case("a UDP flow moves from a draining backend", "TX_IPIP", udp(dst=MOVING), f"{_V4} UDP_MIGRATION"),
    case("a UDP flow leaves a disabled backend", "TX_L2", udp(sport=_KEPT, dport=53), "VIP4 L2"),
]

STAGES = [
    Stage(_document(), [*PARSING, *LISTS, *SPOOFED, *FORWARDED, *ICMP_CASES, *QUIC_CASES, *_REMEMBERED]),
    Stage(_drained(_document()), _AFTER_THE_SWITCH),
    Stage(_translated(_document()), NAT_CASES4, nat_begins=True),
    Stage(_translated(_document()), NAT_CASES6, nat_begins=True),
    Stage(_translated(_document()), ECHO_CASES4, nat_begins=True),
    Stage(_translated(_document()), ECHO_CASES6, nat_begins=True),
    Stage(_guarded(_translated(_document())), GUARD_CASES, attacked=ATTACKED),
    Stage(_ruled(_guarded(_translated(_document()))), RULE_CASES, looked_at=True),
]

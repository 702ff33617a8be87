"""Known frames of mode nat: requests, replies and errors of flows, across the families, and when no port is left.

Each stage begins with no flow, and with the first port of each pool; frames that take ports of one pool need the same
features, so that every program gives them the same.
"""

from typing import Any

from frames import CLIENT4, CLIENT6, LINK, network, service, tcp, udp
from known_case import Case, case, tagged
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Dot1Q
from scapy.packet import Raw

POOL4, POOL6 = "10.9.0.1", "fd00:9::1"
FIRST, LAST = 1024, 1027
SETTINGS: dict[str, Any] = {"nat_pools": [POOL4, POOL6], "nat_ports": f"{FIRST}-{LAST}"}
VIP4, VIP6, KEPT4, KEPT6 = "10.200.1.20", "fc00:1::20", "10.200.1.21", "fc00:1::21"
WEB, DNS = 8080, 5353
"""Ports of the backends."""
_ROUTER4, _ROUTER6 = "198.51.100.1", "2001:db8::1"


def _service(name: str, vip: str, backend: str, port_there: int, **more: Any) -> dict[str, Any]:
    return service(name, vip=vip, mode="nat", backends=[{"address": backend, "port": port_there}], **more)


TRANSLATED = [
    _service("nat4", VIP4, "10.0.0.11", WEB),
    _service("nat4-to6", VIP4, "fd00::11", DNS, protocol="udp"),
    _service("nat6", VIP6, "fd00::11", WEB),
    _service("nat6-to4", VIP6, "10.0.0.11", DNS, protocol="udp"),
    _service("kept4", KEPT4, "10.0.0.12", WEB, nat_source="keep"),
    _service("kept4-too", KEPT4, "10.0.0.12", WEB, port=81, nat_source="keep"),
    _service("kept4-away", KEPT4, "10.0.0.21", DNS, protocol="udp", nat_source="keep"),
    _service("kept4-narrow", KEPT4, "10.0.0.41", WEB, port=82, nat_source="keep"),
    _service("kept6", KEPT6, "fd00::12", WEB, nat_source="keep"),
]


def _reply(src: str, dst: str, transport: Any, data: bytes = b"") -> Any:
    return LINK / network(src, dst) / transport / data


def error4(dst: str, quote: Any, src: str = _ROUTER4) -> Any:
    """An error from a router about a packet, of which 8 bytes of transport are quoted; likewise over IPv6."""
    return LINK / network(src, dst) / ICMP(type=3, code=1) / Raw(bytes(quote)[:28])


def error6(dst: str, quote: Any) -> Any:
    return LINK / network(_ROUTER6, dst) / ICMPv6DestUnreach() / Raw(bytes(quote)[:48])


_N4, _N6 = "VIP4 NAT", "VIP6 NAT"
_ANSWER = TCP(sport=WEB, dport=FIRST, flags="SA")

NAT_CASES4: list[Case] = [
    case("NAT, a reply before any request", "PASS_NO_SERVICE", _reply("10.0.0.11", POOL4, _ANSWER), _N4),
    case("NAT, what opens nothing", "DROP_NAT_NO_FLOW", tcp(dst=VIP4, flags="A"), _N4),
    case("NAT, a request", "TX_NAT", tcp(dst=VIP4, tos=0x8C, ttl=9), _N4),
    case("NAT, its reply", "TX_NAT_REPLY", _reply("10.0.0.11", POOL4, _ANSWER), _N4),
    case("NAT, the flow goes on", "TX_NAT", tcp(dst=VIP4, flags="A") / b"request", _N4),
    case(
        "NAT, and so does the other side",
        "TX_NAT_REPLY",
        _reply("10.0.0.11", POOL4, TCP(sport=WEB, dport=FIRST, flags="A"), b"reply"),
        _N4,
    ),
    case("NAT, from another than the backend", "PASS_NO_SERVICE", _reply("10.0.0.13", POOL4, _ANSWER), _N4),
    case("NAT, where the TTL ends", "DROP_TTL", tcp(dst=VIP4, flags="A", ttl=1), _N4),
    case(
        "NAT, an error from the backend's side",
        "TX_NAT_REPLY",
        error4(POOL4, IP(src=POOL4, dst="10.0.0.11") / TCP(sport=FIRST, dport=WEB)),
        _N4,
    ),
    case(
        "NAT, an error from the client's side",
        "TX_NAT",
        error4(VIP4, IP(src=VIP4, dst=CLIENT4) / TCP(sport=80, dport=40000)),
        _N4,
    ),
    case(
        "NAT, an error of no flow",
        "PASS_ICMP_ERROR",
        error4(POOL4, IP(src=POOL4, dst="10.0.0.11") / TCP(sport=FIRST + 1, dport=WEB)),
        _N4,
    ),
    case("NAT, a fragment for the pool", "DROP_FRAGMENT", LINK / network(dst=POOL4, frag=3) / b"later", _N4),
    case("NAT, under a tag", "TX_NAT", tagged(Dot1Q(vlan=9), inner=tcp(dst=VIP4, sport=40001)), _N4),
    case("NAT, the last port but one", "TX_NAT", tcp(dst=VIP4, sport=40002), _N4),
    case("NAT, the last port", "TX_NAT", tcp(dst=VIP4, sport=40003), _N4),
    case("NAT, no port left", "DROP_NAT_PORTS", tcp(dst=VIP4, sport=40004), _N4),
    case("NAT, a known flow with no port left", "TX_NAT", tcp(dst=VIP4, flags="A"), _N4),
    case("NAT, 4 to 6", "TX_NAT", udp(dst=VIP4, tos=0x8C), f"{_N4} NAT_CROSS"),
    case(
        "NAT, 6 back to 4",
        "TX_NAT_REPLY",
        _reply("fd00::11", POOL6, UDP(sport=DNS, dport=FIRST), b"answer"),
        f"{_N4} NAT_CROSS",
    ),
    case(
        "NAT, an error of 6 to 4",
        "TX_NAT_REPLY",
        error6(POOL6, IPv6(src=POOL6, dst="fd00::11") / UDP(sport=FIRST, dport=DNS)),
        f"{_N4} NAT_CROSS",
    ),
    case("NAT that keeps the source", "TX_NAT", tcp(dst=KEPT4), f"{_N4} NAT_KEEP"),
    case(
        "NAT that keeps the source, a reply",
        "TX_NAT_REPLY",
        _reply("10.0.0.12", CLIENT4, TCP(sport=WEB, dport=40000, flags="SA")),
        f"{_N4} NAT_KEEP",
    ),
    case(
        "NAT that keeps the source, the flow goes on", "TX_NAT", tcp(dst=KEPT4, flags="A"), f"{_N4} NAT_KEEP"
    ),
    case(
        "NAT that keeps the source, and so does the other side",
        "TX_NAT_REPLY",
        _reply("10.0.0.12", CLIENT4, TCP(sport=WEB, dport=40000, flags="A"), b"reply"),
        f"{_N4} NAT_KEEP",
    ),
    case("NAT that keeps the source, a clash", "DROP_NAT_CLASH", tcp(dst=KEPT4, dport=81), f"{_N4} NAT_KEEP"),
    case("NAT out of another interface", "REDIRECT_NAT", udp(dst=KEPT4), f"{_N4} NAT_KEEP REDIRECT"),
    case(
        "NAT, too big",
        "TX_TOO_BIG",
        tcp(dst=KEPT4, dport=82) / Raw(bytes(600)),
        f"{_N4} NAT_KEEP TOO_BIG",
    ),
]

_ANSWER6 = TCP(sport=WEB, dport=FIRST, flags="SA")
NAT_CASES6: list[Case] = [
    case("NAT over IPv6, a request", "TX_NAT", tcp(dst=VIP6, tc=0x8C, hlim=9), _N6),
    case("NAT over IPv6, its reply", "TX_NAT_REPLY", _reply("fd00::11", POOL6, _ANSWER6), _N6),
    case("NAT over IPv6, the flow goes on", "TX_NAT", tcp(dst=VIP6, flags="A") / b"request", _N6),
    case(
        "NAT over IPv6, an error from the backend's side",
        "TX_NAT_REPLY",
        error6(POOL6, IPv6(src=POOL6, dst="fd00::11") / TCP(sport=FIRST, dport=WEB)),
        _N6,
    ),
    case(
        "NAT over IPv6, an error from the client's side",
        "TX_NAT",
        error6(VIP6, IPv6(src=VIP6, dst=CLIENT6) / TCP(sport=80, dport=40000)),
        _N6,
    ),
    *(
        case(f"NAT over IPv6, from port {port}", "TX_NAT", tcp(dst=VIP6, sport=port), _N6)
        for port in range(40001, 40004)
    ),
    case("NAT over IPv6, no port left", "DROP_NAT_PORTS", tcp(dst=VIP6, sport=40004), _N6),
    case("NAT, 6 to 4", "TX_NAT", udp(dst=VIP6, tc=0x8C), f"{_N6} NAT_CROSS"),
    case(
        "NAT, 4 back to 6",
        "TX_NAT_REPLY",
        _reply("10.0.0.11", POOL4, UDP(sport=DNS, dport=FIRST), b"answer"),
        f"{_N6} NAT_CROSS",
    ),
    case(
        "NAT, an error of 4 to 6",
        "TX_NAT_REPLY",
        error4(POOL4, IP(src=POOL4, dst="10.0.0.11") / UDP(sport=FIRST, dport=DNS)),
        f"{_N6} NAT_CROSS",
    ),
    case("NAT over IPv6 that keeps the source", "TX_NAT", tcp(dst=KEPT6), f"{_N6} NAT_KEEP"),
    case(
        "NAT over IPv6 that keeps the source, a reply",
        "TX_NAT_REPLY",
        _reply("fd00::12", CLIENT6, TCP(sport=WEB, dport=40000, flags="SA")),
        f"{_N6} NAT_KEEP",
    ),
]

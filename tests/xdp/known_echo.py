"""Known frames of mode nat's echo: requests, replies and errors that quote either, across the families too.

As in known_nat, each stage begins with no flow and with the first identifier of each pool.
"""

from typing import Any

from frames import CLIENT4, CLIENT6, LINK, network, service
from known_case import Case, case, tagged
from known_nat import FIRST, KEPT4, KEPT6, POOL4, POOL6, VIP4, VIP6, error4, error6
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q

CROSS4, CROSS6 = "10.200.1.22", "fc00:1::22"
_IDENTIFIER = 77
_N4, _N6 = "VIP4 NAT NAT_ICMP", "VIP6 NAT NAT_ICMP"


def _service(name: str, vip: str, backend: str, **more: Any) -> dict[str, Any]:
    made = service(name, vip=vip, mode="nat", protocol="icmp", backends=[backend], **more)
    return {key: value for key, value in made.items() if key != "port"}


PINGED = [
    _service("ping4", VIP4, "10.0.0.11"),
    _service("ping4-to6", CROSS4, "fd00::11"),
    _service("ping4-kept", KEPT4, "10.0.0.12", nat_source="keep"),
    _service("ping6", VIP6, "fd00::11"),
    _service("ping6-to4", CROSS6, "10.0.0.11"),
    _service("ping6-kept", KEPT6, "fd00::12", nat_source="keep"),
]


def _request(dst: str, number: int = 1, identifier: int = _IDENTIFIER, **ip: Any) -> Any:
    kind = ICMPv6EchoRequest if ":" in dst else ICMP
    return LINK / network(dst=dst, **ip) / kind(id=identifier, seq=number) / b"payload"


def _echo_reply(src: str, dst: str, identifier: int = FIRST) -> Any:
    made: Any = ICMPv6EchoReply(id=identifier, seq=1)
    if ":" not in dst:
        made = ICMP(type=0, id=identifier, seq=1)
    return LINK / network(src, dst) / made / b"payload"


_ZEROS = LINK / network("10.0.0.11", POOL4) / ICMP(type=0, id=FIRST + 1, seq=0)

ECHO_CASES4: list[Case] = [
    case("echo through NAT", "TX_NAT", _request(VIP4, tos=0x8C, ttl=9), _N4),
    case("its reply", "TX_NAT_REPLY", _echo_reply("10.0.0.11", POOL4), _N4),
    case("echo goes on, under a tag", "TX_NAT", tagged(Dot1Q(vlan=9), inner=_request(VIP4, 2)), _N4),
    case("echo's reply from another", "PASS_PROTOCOL", _echo_reply("10.0.0.13", POOL4), _N4),
    case("echo whose identifier is 0", "TX_NAT", _request(VIP4, identifier=0), _N4),
    case("a reply that is all zeros then", "TX_NAT_REPLY", _ZEROS, _N4),
    case(
        "an error about a request",
        "TX_NAT_REPLY",
        error4(POOL4, IP(src=POOL4, dst="10.0.0.11") / ICMP(id=FIRST)),
        _N4,
    ),
    case(
        "an error about a reply",
        "TX_NAT",
        error4(VIP4, IP(src=VIP4, dst=CLIENT4) / ICMP(type=0, id=_IDENTIFIER)),
        _N4,
    ),
    case(
        "an error about a request of the VIP's",
        "PASS_ICMP_ERROR",
        error4(VIP4, IP(src=VIP4, dst=CLIENT4) / ICMP(id=_IDENTIFIER)),
        _N4,
    ),
    case("echo where the TTL ends", "DROP_TTL", _request(VIP4, ttl=1), _N4),
    case("echo, 4 to 6", "TX_NAT", _request(CROSS4, tos=0x8C), f"{_N4} NAT_CROSS"),
    case("echo, 6 back to 4", "TX_NAT_REPLY", _echo_reply("fd00::11", POOL6), f"{_N4} NAT_CROSS"),
    case(
        "an error about a request, 6 to 4",
        "TX_NAT_REPLY",
        error6(POOL6, IPv6(src=POOL6, dst="fd00::11") / ICMPv6EchoRequest(id=FIRST)),
        f"{_N4} NAT_CROSS",
    ),
    case("echo that keeps the source", "TX_NAT", _request(KEPT4), f"{_N4} NAT_KEEP"),
    case(
        "echo that keeps the source, its reply",
        "TX_NAT_REPLY",
        _echo_reply("10.0.0.12", CLIENT4, _IDENTIFIER),
        f"{_N4} NAT_KEEP",
    ),
    case("echo for a VIP without", "TX_ECHO", _request("10.200.1.1"), f"{_N4} ECHO"),
]

ECHO_CASES6: list[Case] = [
    case("echo over IPv6 through NAT", "TX_NAT", _request(VIP6, tc=0x8C, hlim=9), _N6),
    case("its reply over IPv6", "TX_NAT_REPLY", _echo_reply("fd00::11", POOL6), _N6),
    case(
        "an error about a request over IPv6",
        "TX_NAT_REPLY",
        error6(POOL6, IPv6(src=POOL6, dst="fd00::11") / ICMPv6EchoRequest(id=FIRST)),
        _N6,
    ),
    case(
        "an error about a reply over IPv6",
        "TX_NAT",
        error6(VIP6, IPv6(src=VIP6, dst=CLIENT6) / ICMPv6EchoReply(id=_IDENTIFIER)),
        _N6,
    ),
    case("echo, 6 to 4", "TX_NAT", _request(CROSS6, tc=0x8C), f"{_N6} NAT_CROSS"),
    case("echo, 4 back to 6", "TX_NAT_REPLY", _echo_reply("10.0.0.11", POOL4), f"{_N6} NAT_CROSS"),
    case(
        "an error about a request, 4 to 6",
        "TX_NAT_REPLY",
        error4(POOL4, IP(src=POOL4, dst="10.0.0.11") / ICMP(id=FIRST)),
        f"{_N6} NAT_CROSS",
    ),
    case("echo over IPv6 that keeps the source", "TX_NAT", _request(KEPT6), f"{_N6} NAT_KEEP"),
    case(
        "echo over IPv6 that keeps the source, its reply",
        "TX_NAT_REPLY",
        _echo_reply("fd00::12", CLIENT6, _IDENTIFIER),
        f"{_N6} NAT_KEEP",
    ),
    case("echo over IPv6 for a VIP without", "TX_ECHO", _request("fc00:1::1"), f"{_N6} ECHO"),
]

"""Known frames of rules and limits: for each field one that matches and one that does not.

Every rule has a protocol or TCP flags of its own. So it matches no other's frames, whichever fields a build looks at:
a build without a field does not see what a rule says of it. What is UDP here is the one rule's about UDP.
"""

from typing import Any

from frames import ELSE4, ELSE6, LINK, network, service, tcp, udp
from known_case import Case, case
from scapy.packet import Raw

LIMITED = "10.200.3.1"
ALLOWED = "1.70.0.0/24"
"""On the allowlist, and not in the blocklist."""
_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")
_SIZE = 60
"""Bytes of a frame of `_packet`. Limits of bytes are over for a minute: it may be long until the next frame comes."""
_A, _B, _A6, _B6 = "10.77.0.1", "10.78.0.1", "2001:db8:77::1", "2001:db8:78::1"
_BLOCKED, _ALLOWED = "1.64.0.1", "1.70.0.9"


def _packet(protocol: int, src: str = _A, dst: str = "", length: int = _SIZE - 14, **ip: Any) -> bytes:
    """A packet of a protocol that is nobody's; length: its own."""
    dst = dst or (ELSE6 if ":" in src else ELSE4)
    field, header = ("nh", 40) if ":" in dst else ("proto", 20)
    return bytes(LINK / network(src, dst, **{field: protocol}, **ip) / Raw(bytes(length - header)))


def _only(*flags: str, free: tuple[str, ...] = ()) -> dict[str, str]:
    """TCP with these flags and no others, but that some are free."""
    wanted = [name if name in flags else f"!{name}" for name in _FLAGS if name not in free]
    return {"protocol": "tcp", "tcp_flags": ",".join(wanted)}


def _rule(name: str, action: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "action": action, **fields}


def _limit(name: str, burst: int, unit: str = "bytes", *, per: str = "rule", **fields: Any) -> dict[str, Any]:
    return _rule(name, "limit", limit={"unit": unit, "rate": 1, "burst": burst, "per": per}, **fields)


RULES = [
    _rule("protocol", "drop", protocol=200),
    _rule("source", "drop", protocol=202, source="10.77.0.0/16"),
    _rule("source6", "drop", protocol=203, source="2001:db8:77::/48"),
    _rule("destination", "drop", protocol=204, destination=f"{ELSE4}/32"),
    _rule("destination6", "drop", protocol=205, destination=f"{ELSE6}/128"),
    _rule("source-port", "drop", source_ports="1000-1003", **_only("urg")),
    _rule("port", "drop", ports="777", **_only("psh")),
    _rule("length", "drop", protocol=206, length="40-45"),
    _rule("flags", "drop", **_only("fin", "urg")),
    _rule("fragments", "drop", protocol=207, fragments="only"),
    _rule("allow", "allow", protocol=208),
    _rule("allowed-before", "drop", protocol=208, priority=1),
    _rule("trial", "drop", protocol=209, count_only=True),
    _rule("count", "count", protocol=209),
    _limit("together", _SIZE, protocol=211),
    _limit("together-trial", _SIZE, protocol=212, count_only=True),
    # A source gets its bucket with one unit not yet paid for.
    _limit("each", _SIZE + 1, per="source", protocol=213),
    _limit("banned", _SIZE + 1, per="source", protocol=214, ban_seconds=60),
    _limit("flows", 1, "new-flows", **_only("ece", free=("syn", "ack"))),
    _limit("udp-flows", 1, "new-flows", service="limited"),
]
SERVICES = [service("limited", vip=LIMITED, protocol="udp", port=53)]


def _dropped(name: str, frame: Any, needs: str = "", verdict: str = "DROP_RULE") -> Case:
    return case(name, verdict, frame, f"RULES {needs}")


def _passed(name: str, frame: Any, needs: str = "", verdict: str = "PASS_PROTOCOL") -> Case:
    return case(name, verdict, frame, f"RULES {needs}")


def _tcp(name: str, verdict: str, needs: str, flags: str, *, sport: int = 9, dport: int = 9) -> Case:
    return case(name, verdict, tcp(_A, ELSE4, sport, dport, flags), f"RULES {needs}")


FIELD_CASES = [
    _dropped("a rule's protocol", _packet(200)),
    _dropped("a rule's protocol, IPv6", _packet(200, _A6)),
    _passed("another protocol than a rule's", _packet(201)),
    _dropped("a rule's source", _packet(202), "RULE_SOURCE"),
    _passed("another source than a rule's", _packet(202, _B), "RULE_SOURCE"),
    _dropped("a rule's IPv6 source", _packet(203, _A6), "RULE_SOURCE"),
    _passed("another IPv6 source than a rule's", _packet(203, _B6), "RULE_SOURCE"),
    _dropped("a rule's destination", _packet(204), "RULE_DESTINATION"),
    _passed("another destination than a rule's", _packet(204, dst=_B), "RULE_DESTINATION"),
    _dropped("a rule's IPv6 destination", _packet(205, _A6), "RULE_DESTINATION"),
    _passed("another IPv6 destination than a rule's", _packet(205, _A6, _B6), "RULE_DESTINATION"),
    _tcp("a rule's source port", "DROP_RULE", "RULE_SOURCE_PORT", "U", sport=1003),
    _tcp("another source port than a rule's", "PASS_NO_SERVICE", "RULE_SOURCE_PORT", "U", sport=1004),
    _tcp("a rule's port", "DROP_RULE", "RULE_PORT", "P", dport=777),
    _tcp("a rule's port as the source's", "PASS_NO_SERVICE", "RULE_PORT", "P", sport=777),
    _tcp("a rule's port with another flag", "PASS_NO_SERVICE", "RULE_PORT", "PA", dport=777),
    _dropped("a rule's length", _packet(206, length=45), "RULE_LENGTH"),
    _dropped("a rule's length and padding", _packet(206, length=40) + bytes(20), "RULE_LENGTH"),
    _passed("a length longer than a rule's", _packet(206, length=46), "RULE_LENGTH"),
    _tcp("a rule's flags", "DROP_RULE", "", "FU"),
    _tcp("one more flag than a rule's", "PASS_NO_SERVICE", "", "FUP"),
    _dropped("a fragment for a rule", _packet(207, frag=3)),
    _passed("no fragment for a rule of fragments", _packet(207)),
    _passed("a rule on trial", _packet(209)),
    _passed("allowed by a rule", _packet(208), "RULE_ALLOW"),
    _passed("blocked, and allowed by a rule", _packet(208, _BLOCKED), "RULE_ALLOW DENY4"),
    _dropped("blocked, and dropped by a rule", _packet(200, _BLOCKED), "DENY4", "DROP_BLOCKLIST"),
    _passed("on the allowlist, and dropped by a rule", _packet(200, _ALLOWED), "ALLOW"),
]

_EACH, _FLOWS = "LIMIT LIMIT_SOURCE", "LIMIT LIMIT_FLOWS"
_UDP_FLOWS = f"{_FLOWS} RULE_DESTINATION RULE_PORT VIP4 IPIP"
LIMIT_CASES = [
    _passed("within a limit for all", _packet(211), "LIMIT"),
    _dropped("over a limit for all", _packet(211, _B), "LIMIT", "DROP_LIMIT"),
    _passed("within a limit on trial", _packet(212), "LIMIT"),
    _passed("over a limit on trial", _packet(212), "LIMIT"),
    _passed("within a limit for each source", _packet(213), _EACH),
    _passed("another source within it", _packet(213, _B), _EACH),
    _dropped("over a limit for each source", _packet(213), _EACH, "DROP_LIMIT"),
    _passed("within a limit for each /64", _packet(213, _A6), _EACH),
    _passed("another /64 within it", _packet(213, _B6), _EACH),
    _dropped("over a limit for each /64", _packet(213, f"{_A6}1"), _EACH, "DROP_LIMIT"),
    _passed("within a limit that bans", _packet(214), f"{_EACH} BANS"),
    _dropped("over a limit that bans", _packet(214), f"{_EACH} BANS", "DROP_LIMIT"),
    _tcp("within a limit of new flows", "PASS_NO_SERVICE", _FLOWS, "SE"),
    _tcp("over a limit of new flows", "DROP_LIMIT", _FLOWS, "SE"),
    _tcp("no new flow, and a limit of them", "PASS_NO_SERVICE", _FLOWS, "SAE"),
    _passed("within a limit of UDP flows", udp(_A, LIMITED, 1, 53), _UDP_FLOWS, "TX_IPIP"),
    _dropped("over a limit of UDP flows", udp(_A, LIMITED, 2, 53), _UDP_FLOWS, "DROP_LIMIT"),
    case(
        "a UDP flow that was within its limit",
        "TX_IPIP",
        udp(_A, LIMITED, 1, 53),
        f"RULES {_UDP_FLOWS}",
        remembers=True,
    ),
]

SAMPLE_CASES = [
    case("forwarded, and looked at", "TX_IPIP", tcp(sport=40020), "VIP4 IPIP SAMPLES"),
    _dropped("dropped by a rule, and looked at", _packet(200, _B), "SAMPLES"),
    case("passed, and looked at", "PASS_NO_SERVICE", tcp(dst=ELSE4, sport=40020), "SAMPLES"),
]

RULE_CASES = [*FIELD_CASES, *LIMIT_CASES, *SAMPLE_CASES]

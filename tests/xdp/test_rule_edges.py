"""Rules at their edges: the first and last of each range and prefix, what has no port, and how many are asked."""

from typing import Any

import pytest
from frames import CLIENT4, CLIENT6, ELSE4, ELSE6, LINK, VIP4, VIP6, network, service, tcp, udp
from rig import Rig
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

pytestmark = pytest.mark.root

WEB = [
    service("web4"),
    service("web6", vip=VIP6),
    service("dns", protocol="udp", port="any"),
    service("range", vip="fc00:1:2::/64", port="8000-8010"),
]
FORWARDED, DROPPED, PASSED = "TX_IPIP", "DROP_RULE", "PASS_NO_SERVICE"


def rule(name: str = "one", action: str = "drop", **fields: Any) -> dict[str, Any]:
    """A rule's document."""
    return {"name": name, "action": action, **fields}


def dropped(rig: Rig, *frames: Any) -> list[bool]:
    """Of each frame whether a rule dropped it."""
    return [rig.verdict(frame) == DROPPED for frame in frames]


def test_source_and_destination_with_ports_and_protocol(rig: Rig) -> None:
    """Passes → dropped by a rule that names all of them → passes; who differs in one of them always passes."""
    wanted = rule(
        source="10.0.1.0/24", destination=VIP4, protocol="tcp", ports="80", source_ports="40000-40010"
    )
    met = [tcp("10.0.1.0"), tcp("10.0.1.255"), tcp(sport=40010), tcp(flags="A")]
    missed = [
        *(tcp("10.0.0.255"), tcp("10.0.2.0"), tcp(dst=ELSE4), tcp(dport=81)),
        *(tcp(sport=39999), tcp(sport=40011), udp(), tcp(dst=VIP6)),
    ]
    for rules, verdict in (([], FORWARDED), ([wanted], DROPPED), ([], FORWARDED)):
        rig.apply(services=WEB, rules=rules)
        assert {rig.verdict(frame) for frame in met} == {verdict}
        assert not any(dropped(rig, *missed))


@pytest.mark.parametrize(
    ("prefix", "within", "beside"),
    [
        ("10.0.1.1", ["10.0.1.1"], ["10.0.1.0", "10.0.1.2"]),
        ("10.0.1.64/26", ["10.0.1.64", "10.0.1.127"], ["10.0.1.63", "10.0.1.128"]),
        ("10.0.0.0/9", ["10.0.0.0", "10.127.255.255"], ["9.255.255.255", "10.128.0.0"]),
        ("fd00:0:0:1::/64", ["fd00:0:0:1::", "fd00:0:0:1:ffff:ffff:ffff:ffff"], ["fd00::1", "fd00:0:0:2::"]),
        ("fd00::2/127", ["fd00::2", "fd00::3"], ["fd00::1", "fd00::4"]),
        ("0.0.0.0/0", ["1.0.0.0", "223.255.255.255"], [CLIENT6]),
        ("::/0", ["fd00::1", "2001:db8::1"], [CLIENT4]),
    ],
)
def test_prefixes_end_where_they_end(rig: Rig, prefix: str, within: list[str], beside: list[str]) -> None:
    """The first and the last address of a prefix are in it, those beside it and of the other family are not."""
    for field in ("source", "destination"):
        rig.apply(rules=[rule(**{field: prefix})], settings={"drop_spoofed": False})
        frames = [
            udp(src=a, dst=ELSE6 if ":" in a else ELSE4)
            if field == "source"
            else udp(src=CLIENT6 if ":" in a else CLIENT4, dst=a)
            for a in (*within, *beside)
        ]

        assert dropped(rig, *frames) == [True] * len(within) + [False] * len(beside)


@pytest.mark.parametrize("field", ["ports", "source_ports"])
def test_ranges_of_ports_end_where_they_end(rig: Rig, field: str) -> None:
    """Of TCP and UDP the first and the last port of each range; the next ones are not in it."""
    rig.apply(rules=[rule(**{field: "0,80,8000-8010,65534-65535"})])
    side = "dport" if field == "ports" else "sport"

    for build in (tcp, udp):
        hits = [build(dst=ELSE4, **{side: port}) for port in (0, 80, 8000, 8005, 8010, 65534, 65535)]
        others = [build(dst=ELSE6, **{side: port}) for port in (1, 79, 81, 7999, 8011, 65533)]
        assert all(dropped(rig, *hits))
        assert not any(dropped(rig, *others))


def test_what_has_no_ports_meets_no_rule_that_names_one(rig: Rig) -> None:
    """ICMP, other protocols and later fragments have none, not even port 0; a first fragment has its own."""
    rig.apply(rules=[rule("to", ports="0-65535"), rule("from", source_ports="0-65535")])

    assert not any(
        dropped(
            rig,
            LINK / network(dst=ELSE4) / ICMP(),
            LINK / network(dst=ELSE4, proto=132) / Raw(bytes(20)),
            LINK / network(dst=ELSE4, frag=9, proto=17) / Raw(bytes(20)),
            LINK / network(dst=ELSE6) / IPv6ExtHdrFragment(offset=9, nh=6) / Raw(bytes(20)),
        )
    )
    assert all(dropped(rig, LINK / network(dst=ELSE4, flags="MF") / UDP(), tcp(dst=ELSE4)))


@pytest.mark.parametrize(
    ("protocol", "frame"),
    [
        ("icmp", LINK / network(dst=ELSE4) / ICMP()),
        ("icmpv6", LINK / network(dst=ELSE6) / ICMPv6EchoRequest()),
        ("gre", LINK / network(dst=ELSE4, proto=47) / Raw(bytes(8))),
        ("ah", LINK / network(dst=ELSE4, proto=51) / Raw(bytes(8))),
        (255, LINK / network(dst=ELSE6, nh=255)),
        (0, LINK / network(dst=ELSE4, proto=0)),
        ("udp", LINK / network(dst=ELSE6) / IPv6ExtHdrDestOpt() / UDP()),
        ("udp", LINK / network(dst=ELSE4, frag=3, proto=17) / Raw(bytes(8))),
        ("tcp", LINK / network(dst=ELSE6) / IPv6ExtHdrFragment(offset=3, nh=6) / Raw(bytes(8))),
    ],
)
def test_protocol_is_what_the_packet_carries(rig: Rig, protocol: str | int, frame: Any) -> None:
    """By number, behind IPv6's extension headers, of later fragments too; another protocol passes."""
    rig.apply(rules=[rule(protocol=protocol)])

    assert dropped(rig, frame) == [True]
    assert not any(
        dropped(rig, *(f for f in (tcp(dst=ELSE4), udp(dst=ELSE4)) if protocol not in ("tcp", "udp")))
    )


def test_tcp_flags_are_set_clear_or_either(rig: Rig) -> None:
    """Named flags must be set, those with ! clear, and others may be either."""
    rig.apply(rules=[rule(protocol="tcp", tcp_flags="syn,!ack")])
    frames = [tcp(dst=ELSE4, flags=flags) for flags in ("S", "SU", "SEC", "FSRPU", "SA", "A", "", "F")]

    assert dropped(rig, *frames) == [True] * 4 + [False] * 4


@pytest.mark.parametrize("dst", [ELSE4, ELSE6])
def test_length_is_the_ip_packets_own(rig: Rig, dst: str) -> None:
    """The first and the last length of a range, whatever padding and tags the frame has."""
    header = len(network(dst=dst))
    rig.apply(rules=[rule(length=f"{header + 8}-{header + 28}")])

    def sized(length: int) -> bytes:
        return bytes(LINK / network(dst=dst) / UDP() / Raw(bytes(length - 8)))

    assert dropped(rig, sized(8), sized(28), sized(29)) == [True, True, False]
    assert dropped(rig, sized(28) + bytes(40), sized(8) + bytes(1)) == [True, True]


@pytest.mark.parametrize(("fragments", "expected"), [("only", True), ("none", False)])
def test_fragments_only_or_none(rig: Rig, fragments: str, expected: bool) -> None:
    """First, middle and last pieces are fragments; a whole packet with a fragment header is none (RFC 6946)."""
    rig.apply(rules=[rule(fragments=fragments)])
    pieces = [
        LINK / network(dst=ELSE4, flags="MF") / UDP(),
        LINK / network(dst=ELSE4, flags="MF", frag=4, proto=17) / Raw(bytes(8)),
        LINK / network(dst=ELSE4, frag=4, proto=17) / Raw(bytes(8)),
        LINK / network(dst=ELSE6) / IPv6ExtHdrFragment(m=1) / UDP(),
        LINK / network(dst=ELSE6) / IPv6ExtHdrFragment(offset=4, nh=17) / Raw(bytes(8)),
    ]

    assert set(dropped(rig, *pieces)) == {expected}
    assert (
        dropped(rig, udp(dst=ELSE4), LINK / network(dst=ELSE6) / IPv6ExtHdrFragment() / UDP())
        == [not expected] * 2
    )


def test_service_stands_for_its_vip_port_and_protocol(rig: Rig) -> None:
    """An address or any of a prefix, a port, some or any, and the protocol; fragments where no port is asked."""
    rig.apply(services=WEB, rules=[rule("one", service="web4"), rule("two", service="range")])
    assert dropped(rig, tcp(), tcp(dport=81), udp(dport=80), tcp(dst=VIP6)) == [True, False, False, False]
    inside = [tcp(dst="fc00:1:2::9", dport=port) for port in (7999, 8000, 8010, 8011)]
    assert dropped(rig, *inside) == [False, True, True, False]
    assert dropped(rig, tcp(dst="fc00:1:3::9", dport=8000)) == [False]

    rig.apply(rules=[rule("any", service="dns")])
    later = LINK / network(frag=9, proto=17) / Raw(bytes(8))
    assert dropped(rig, udp(dport=1), udp(dport=65535), later, tcp()) == [True, True, True, False]


def test_service_that_changes_takes_its_rules_along(rig: Rig) -> None:
    """A rule that names a service means what the service is now."""
    rig.apply(services=WEB, rules=[rule(service="web4")])
    assert dropped(rig, tcp(), tcp(dport=81)) == [True, False]

    rig.apply(services=[service("web4", port=81), *WEB[1:]])
    assert dropped(rig, tcp(), tcp(dport=81)) == [False, True]


def test_spoofed_sources_meet_no_rule(rig: Rig) -> None:
    """What is nobody's is dropped as that, or by the blocklist, and no rule counts it or lets it in."""
    rules = [rule("a", "allow", source="127.0.0.0/8"), rule("b", "count")]
    for block, verdict in (([], "DROP_SPOOFED"), (["127.0.0.0/9"], "DROP_BLOCKLIST")):
        rig.apply(services=WEB, block=block, rules=rules)
        assert rig.verdict(tcp("127.0.0.1")) == verdict
    assert (rig.rule("a"), rig.rule("b")) == ((0, 0), (0, 0))


@pytest.mark.parametrize("flags", ["S", "A"])
def test_rules_ask_before_the_flow_table(rig: Rig, flags: str) -> None:
    """A flow that is known meets the rules with each of its packets."""
    rig.apply(services=WEB)
    assert rig.verdict(tcp(flags=flags)) == FORWARDED

    rig.apply(rules=[rule(source=CLIENT4)])
    assert rig.verdict(tcp(flags=flags)) == DROPPED


def test_so_many_rules_that_go_on_are_asked(rig: Rig) -> None:
    """The first 32 of those that match count, wherever they stand; what drops is asked before them."""
    counting = [rule(f"c{n:04}", "count", protocol="udp" if n % 25 else "tcp") for n in range(1000)]
    rig.apply(rules=counting)
    assert rig.verdict(tcp(dst=ELSE4)) == PASSED
    assert [rig.rule(f"c{n:04}")[0] for n in range(0, 800, 25)] == [1] * 32

    rig.apply(rules=[*counting, rule("last", priority=2000)])
    assert rig.verdict(tcp(dst=ELSE4)) == DROPPED
    assert rig.rule("last") == (1, 1)


def test_limits_are_asked_when_all_rules_were(rig: Rig) -> None:
    """The last of them first: who is over it pays nothing to those before, and each of them has counted the packet."""
    limits = [rule(n, "limit", limit={"rate": 1, "burst": b, "per": "rule"}) for n, b in (("a", 9), ("b", 2))]
    rig.apply(rules=[*limits, rule("c", "count")])

    assert [rig.verdict(udp(dst=ELSE4)) for _ in range(4)] == [PASSED, PASSED, "DROP_LIMIT", "DROP_LIMIT"]
    assert [rig.rule(name) for name in "abc"] == [(4, 0), (4, 2), (4, 0)]
    rig.apply(rules=limits[:1])
    assert [rig.verdict(udp(dst=ELSE4)) for _ in range(8)] == [PASSED] * 7 + ["DROP_LIMIT"]


def test_four_limits_of_a_packet_are_asked(rig: Rig) -> None:
    """The fifth that matches counts, and drops nothing."""
    wide, narrow = ({"rate": 1, "burst": burst, "per": "rule"} for burst in (100, 1))
    rig.apply(rules=[rule(f"l{n}", "limit", limit=narrow if n == 4 else wide) for n in range(5)])

    assert [rig.verdict(udp(dst=ELSE4)) for _ in range(3)] == [PASSED] * 3
    assert rig.rule("l4") == (3, 0)

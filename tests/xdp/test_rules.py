"""Rules in the packet path: each field, each action, the order, and count-only mode, by whole frames."""

from typing import Any

import pytest
from frames import (
    ANY_SOURCE,
    BACKENDS4,
    CLIENT4,
    CLIENT6,
    ELSE4,
    LINK,
    VIP4,
    VIP6,
    expect_encapsulated,
    network,
    service,
    tcp,
    udp,
    within,
)
from rig import Rig
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q
from scapy.packet import Raw

pytestmark = pytest.mark.root

WEB = [
    service("web"),
    service("dns", port="53-54", protocol="udp"),
    service("six", vip=VIP6),
    service("any", vip="10.200.1.9", port="any"),
]
DROPPED, FORWARDED = "DROP_RULE", "TX_IPIP"


def rule(name: str = "r", action: str = "drop", **more: Any) -> dict[str, Any]:
    return {"name": name, "action": action, **more}


def fragment(offset: int, *, more: bool, protocol: int = 6, dst: str = ELSE4, payload: bytes = b"") -> Any:
    """An IPv4 fragment at an offset in units of 8 bytes."""
    data = payload or bytes(TCP(sport=1, dport=80, flags="S"))
    return LINK / IP(src=CLIENT4, dst=dst, frag=offset, flags=int(more), proto=protocol) / Raw(data)


FIRST, LATER = fragment(0, more=True), fragment(5, more=False)
FIRST6 = LINK / network(CLIENT6, VIP6) / IPv6ExtHdrFragment(offset=0, m=1, nh=6) / TCP(dport=80, flags="S")
LATER6 = LINK / network(CLIENT6, VIP6) / IPv6ExtHdrFragment(offset=9, nh=6) / Raw(b"12345678")
ECHO = LINK / network() / ICMP()

# a rule's fields, frames that it drops, frames that it does not
FIELDS: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    "everything": ({}, [tcp(), udp(), ECHO, tcp(dst=VIP6), FIRST, LATER, FIRST6, LATER6], []),
    "source": ({"source": "10.0.1.0/31"}, [tcp(), udp(), LATER], [tcp(src="10.0.1.2"), tcp(dst=VIP6)]),
    "source 6": ({"source": "fd00::/16"}, [tcp(dst=VIP6), LATER6], [tcp(src="fc01::1", dst=VIP6), tcp()]),
    "all of IPv4": ({"source": "0.0.0.0/0"}, [tcp(), LATER, ECHO], [tcp(dst=VIP6)]),
    "destination": ({"destination": VIP4}, [tcp(), udp(), ECHO], [tcp(dst=ELSE4), tcp(dst=VIP6)]),
    "destination 6": ({"destination": "fc00:1::/64"}, [tcp(dst=VIP6), FIRST6], [tcp(dst="fc00:2::1"), tcp()]),
    "service": ({"service": "web"}, [tcp()], [tcp(dport=81), udp(), tcp(dst=ELSE4), tcp(dst=VIP6), ECHO]),
    "a range": ({"service": "dns"}, [udp(dport=53), udp(dport=54)], [udp(dport=55), tcp(dport=53)]),
    "service 6": ({"service": "six"}, [tcp(dst=VIP6), FIRST6], [tcp(), tcp(dst=VIP6, dport=81), LATER6]),
    "any port": ({"service": "any"}, [tcp(dst="10.200.1.9", dport=9)], [udp(dst="10.200.1.9"), tcp()]),
    "protocol": ({"protocol": "tcp"}, [tcp(), tcp(dst=VIP6), FIRST, LATER, LATER6], [udp(), ECHO]),
    "icmp": ({"protocol": "icmp"}, [ECHO], [tcp(), udp()]),
    "number": ({"protocol": 89}, [LINK / network(proto=89)], [ECHO, LINK / network(proto=88)]),
    "source port": (
        {"source_ports": "40000,50000-50001"},
        [tcp(), udp(), tcp(sport=50001, dst=VIP6)],
        [tcp(sport=39999), tcp(sport=50002), ECHO, LATER],
    ),
    "port": (
        {"ports": "0-79,81"},
        [tcp(dport=0), tcp(dport=79), udp(dport=81)],
        [tcp(), tcp(dport=82), ECHO, LATER, FIRST],
    ),
    "every port": ({"ports": "0-65535"}, [tcp(dport=0), tcp(dport=65535), FIRST], [ECHO, LATER, LATER6]),
    "length": (
        {"length": "40,60-65535"},
        [tcp(), tcp(dst=VIP6), LINK / network() / UDP(dport=80) / Raw(bytes(32))],
        [udp(), LINK / network() / UDP(dport=80) / Raw(bytes(31))],
    ),
    "padding": ({"length": "41-1500"}, [], [tcp() / Raw(b"")]),
    "flags": (
        {"protocol": "tcp", "tcp_flags": "syn,!ack"},
        [tcp(), tcp(flags="SPU"), FIRST],
        [tcp(flags="SA"), tcp(flags="A"), tcp(flags=""), udp(), LATER],
    ),
    "no flags": (
        {"protocol": "tcp", "tcp_flags": "!fin,!syn,!rst,!psh,!ack,!urg,!ece,!cwr"},
        [tcp(flags="")],
        [tcp(flags=flag) for flag in "FSRPAUEC"],
    ),
    "fragments": ({"fragments": "only"}, [FIRST, LATER, FIRST6, LATER6], [tcp(), ECHO]),
    "no fragments": ({"fragments": "none"}, [tcp(), ECHO], [FIRST, LATER, FIRST6, LATER6]),
    "first fragments": ({"fragments": "only", "ports": 80}, [FIRST, FIRST6], [LATER, LATER6, tcp()]),
    "behind a tag": ({"source_ports": 40000}, [within(Dot1Q(vlan=5), tcp())], [within(Dot1Q(vlan=5), ECHO)]),
    "all together": (
        {
            **{"source": "10.0.1.0/24", "destination": "10.200.0.0/16", "protocol": "tcp", "ports": 80},
            **{"source_ports": "40000", "length": "40", "tcp_flags": "syn", "fragments": "none"},
        },
        [tcp()],
        [tcp(src="10.0.2.1"), tcp(dst="10.201.1.1"), udp(), tcp(dport=81), tcp(sport=1), tcp(flags="A")],
    ),
}


@pytest.mark.parametrize(("fields", "matched", "others"), FIELDS.values(), ids=FIELDS)
def test_what_a_field_matches(
    rig: Rig, fields: dict[str, Any], matched: list[Any], others: list[Any]
) -> None:
    """Just these frames are dropped, and counted for the rule; what becomes of the others is as without it."""
    rig.apply(services=WEB, settings=ANY_SOURCE)
    without = [rig.verdict(frame) for frame in others]
    rig.apply(rules=[rule(**fields)])

    assert [rig.verdict(frame) for frame in matched] == [DROPPED] * len(matched)
    assert rig.matched("r") == (len(matched), len(matched))
    assert [rig.verdict(frame) for frame in others] == without
    assert rig.matched("r") == (len(matched), len(matched))


def test_order_of_rules(rig: Rig) -> None:
    """Allow before drop before what goes on, whatever their priorities; of one kind by priority, then by name."""
    wide, narrow = {"source": "10.0.0.0/8"}, {"source": "10.0.1.0/24"}
    rig.apply(
        services=WEB,
        rules=[
            rule("count", "count", priority=0),
            rule("b", priority=2, **wide),
            rule("a", priority=3, **narrow),
            rule("c", priority=2, **wide),
            rule("office", "allow", priority=9, source=CLIENT4),
        ],
    )

    assert rig.verdict(tcp()) == FORWARDED
    assert rig.verdict(tcp(src="10.0.1.2")) == DROPPED
    assert rig.verdict(tcp(src="11.0.0.1")) == FORWARDED
    assert {name: rig.matched(name) for name in ("office", "a", "b", "c", "count")} == {
        **{"office": (1, 0), "a": (0, 0), "b": (1, 1), "c": (0, 0), "count": (1, 0)}
    }


def test_count_only_counts_what_it_would_drop(rig: Rig) -> None:
    """The frame goes on as without the rule; promoted, the same rule drops, and goes on counting where it was."""
    rig.apply(services=WEB, rules=[rule(count_only=True, ports=80)])

    expect_encapsulated(rig.run(tcp()), tcp())
    assert rig.matched("r") == (1, 1)
    rig.apply(rules=[rule(ports=80)])
    assert rig.verdict(tcp()) == DROPPED
    assert rig.matched("r") == (2, 2)


def test_count_counts_and_goes_on(rig: Rig) -> None:
    """Packets and bytes, nothing dropped, for each rule that matches."""
    rig.apply(services=WEB, rules=[rule("a", "count"), rule("b", "count", protocol="tcp")])

    expect_encapsulated(rig.run(tcp()), tcp())
    assert rig.verdict(udp()) == "PASS_NO_SERVICE"
    tally = rig.reconciler.rule_tally("a")
    assert (tally.packets, tally.bytes) == (2, len(bytes(tcp())) + len(bytes(udp())))
    assert rig.matched("b") == (1, 0)


def test_lists_and_rules(rig: Rig) -> None:
    """Who is on the allowlist meets no rule; who is blocked only one that allows."""
    blocked, allowed = "10.0.1.2", "10.0.1.3"
    rig.apply(services=WEB, block=[blocked, allowed], allow=[allowed, CLIENT4], rules=[rule("all")])

    assert rig.verdict(tcp()) == FORWARDED
    assert rig.verdict(tcp(src=allowed)) == FORWARDED
    assert rig.verdict(tcp(src=blocked)) == "DROP_BLOCKLIST"
    assert rig.matched("all") == (0, 0)
    rig.apply(rules=[rule("all"), rule("in", "allow", ports=80)])
    assert rig.verdict(tcp(src=blocked)) == FORWARDED
    assert rig.verdict(tcp(src=blocked, dport=81)) == "DROP_BLOCKLIST"
    assert (rig.matched("all"), rig.matched("in")) == ((0, 0), (1, 0))
    assert rig.hits(f"{blocked}/32").packets == 2


def test_a_shared_limit(rig: Rig) -> None:
    """A burst passes, whoever sends it, and not one more; what the rule does not match is not counted for it."""
    limit = {"rate": 1, "burst": 3, "per": "rule"}
    rig.apply(services=WEB, rules=[rule("r", "limit", ports=80, limit=limit)])
    sources = [f"10.0.1.{n}" for n in range(1, 6)]

    assert [rig.verdict(tcp(src=source)) for source in sources] == [FORWARDED] * 3 + ["DROP_LIMIT"] * 2
    assert rig.verdict(tcp(dport=81)) == "PASS_NO_SERVICE"
    assert rig.matched("r") == (5, 2)


def test_a_limit_for_each_source(rig: Rig) -> None:
    """Who sends too much is dropped; another, of another prefix, is not; one of the same prefix shares its fate."""
    limit = {"rate": 1, "burst": 10, "per": "source", "ipv4_length": 24}
    rig.apply(services=WEB, rules=[rule("r", "limit", limit=limit)])

    seen = [rig.verdict(tcp()) for _ in range(30)]
    assert seen[0] == FORWARDED
    assert seen[-1] == "DROP_LIMIT"
    assert seen.count(FORWARDED) <= 12
    assert rig.verdict(tcp(src="10.0.1.77")) == "DROP_LIMIT"
    assert rig.verdict(tcp(src="10.0.2.1")) == FORWARDED


def test_a_limit_of_bytes(rig: Rig) -> None:
    """Frames as received count: three of 54 bytes are more than 110."""
    limit = {"rate": 1, "unit": "bytes", "burst": 110, "per": "rule"}
    rig.apply(services=WEB, rules=[rule("r", "limit", limit=limit)])

    assert [rig.verdict(tcp()) for _ in range(3)] == [FORWARDED, FORWARDED, "DROP_LIMIT"]


def test_a_limit_of_new_flows(rig: Rig) -> None:
    """SYNs are counted, and UDP packets whose flow is not known; all else passes."""
    limit = {"rate": 1, "unit": "new-flows", "burst": 2, "per": "rule"}
    rig.apply(services=WEB, rules=[rule("r", "limit", limit=limit)])

    assert [rig.verdict(tcp(flags="A")) for _ in range(3)] == [FORWARDED] * 3
    assert [rig.verdict(udp(sport=n, dport=53)) for n in (1, 1, 2, 2, 3, 1)] == [
        *[FORWARDED] * 4,
        *("DROP_LIMIT", FORWARDED),
    ]
    assert rig.verdict(tcp()) == "DROP_LIMIT"
    assert rig.verdict(tcp(flags="SA")) == FORWARDED
    assert rig.matched("r")[1] == 2


def test_a_limit_on_trial(rig: Rig) -> None:
    """What is over is counted and passes; put in force, it is dropped."""
    limited = rule("r", "limit", limit={"rate": 1, "burst": 2, "per": "rule"})
    rig.apply(services=WEB, rules=[{**limited, "count_only": True}])

    assert [rig.verdict(tcp()) for _ in range(4)] == [FORWARDED] * 4
    assert rig.matched("r") == (4, 2)
    rig.apply(rules=[limited])
    assert rig.verdict(tcp()) == "DROP_LIMIT"


def test_a_limit_that_changes_begins_anew(rig: Rig) -> None:
    """A raised rate holds at once: nobody pays for what the old one had not yet forgiven."""
    limited = rule("r", "limit", limit={"rate": 1, "burst": 60, "per": "rule"})
    rig.apply(services=WEB, rules=[limited])
    assert [rig.verdict(tcp()) for _ in range(61)][-2:] == [FORWARDED, "DROP_LIMIT"]

    rig.apply(rules=[{**limited, "limit": {"rate": 2, "burst": 60, "per": "rule"}}])
    assert rig.verdict(tcp()) == FORWARDED


MANY = [rule(f"d{n}", source=f"10.{n // 250}.{n % 250}.0/25", ports=f"{n}-{n + 9}") for n in range(960)]
MANY += [rule(f"c{n}", "count", length=f"{n}-65535") for n in range(20, 52)]
MANY += [rule(f"t{n}", priority=n, count_only=True, source_ports=f"{n}-{n + 30000}") for n in range(32)]


def test_a_thousand_rules(rig: Rig) -> None:
    """Each does what it says: the first and the last that drop, and all that count."""
    rig.apply(services=WEB, rules=MANY)

    assert rig.verdict(tcp(src="10.0.0.1", dport=5)) == DROPPED
    assert rig.verdict(tcp(src="10.3.209.127", dport=968)) == DROPPED
    assert rig.verdict(tcp(src="10.3.209.128", dport=968)) == "PASS_NO_SERVICE"
    assert (rig.matched("d0"), rig.matched("d959")) == ((1, 1), (1, 1))
    assert rig.verdict(tcp(src="10.3.209.127", dport=80)) == FORWARDED
    counted = [rig.matched(f"c{n}")[0] for n in range(20, 52)]
    assert counted == [2] * 21 + [0] * 11


def test_rules_come_and_go(exact_rig: Rig) -> None:
    """The program has what the rules need; when they need other things, it has these."""
    exact_rig.apply(services=[service()], rules=[rule(source="10.0.1.0/24")])
    assert exact_rig.verdict(tcp()) == DROPPED
    assert exact_rig.verdict(tcp(src="10.0.2.1")) == FORWARDED

    exact_rig.apply(rules=[rule(ports=81)])
    assert exact_rig.verdict(tcp(dport=81)) == DROPPED
    assert exact_rig.verdict(tcp()) == FORWARDED
    exact_rig.apply(rules=[])
    assert exact_rig.verdict(tcp(dport=81)) == "PASS_NO_SERVICE"
    exact_rig.reconciler._trim()
    assert not {name for name in exact_rig.program.build.features if "RULE" in name}


def test_rules_see_packets_as_they_came(rig: Rig) -> None:
    """The destination of a packet for a service is its VIP, not the backend that it goes to."""
    rig.apply(services=WEB, rules=[rule(f"r{n}", destination=backend) for n, backend in enumerate(BACKENDS4)])

    assert {rig.verdict(tcp(sport=n)) for n in range(40000, 40020)} == {FORWARDED}

"""Rules and limits: what is accepted, how it is shown, and every refusal by its field."""

from typing import Any

import pytest
from pydantic import ValidationError
from service_samples import named, service

from lb.errors import ConflictError, InvalidError, NotFoundError
from lb.model import Config, Rule
from lb.model.fields import field_errors
from lb.model.rule_match import in_order, warnings

LIMIT = {"action": "limit", "limit": {"rate": 100}}
TCP = {"protocol": "tcp"}


def rule(name: str = "r", action: str = "drop", **more: Any) -> Rule:
    """A rule that drops unless it is told otherwise."""
    return Rule.model_validate({"name": name, "action": action, **more})


def faults(document: dict[str, Any]) -> dict[str, str]:
    """What is wrong with a rule, by pointer."""
    with pytest.raises(ValidationError) as caught:
        Rule.model_validate({"name": "r", "action": "drop", **document})
    return {fault.pointer: fault.detail for fault in field_errors(caught.value)}


def test_defaults_of_a_rule() -> None:
    """What is not said asks nothing; the document has every field."""
    assert rule().model_dump(mode="json") == {
        "name": "r",
        "priority": 1000,
        "action": "drop",
        "count_only": False,
        "reason": "",
        **dict.fromkeys(("source", "destination", "service", "protocol", "source_ports", "ports")),
        **dict.fromkeys(("tcp_flags", "length", "fragments", "limit", "ban_seconds")),
    }


@pytest.mark.parametrize(
    ("field", "given", "shown"),
    [
        ("source", "203.0.113.7", "203.0.113.7/32"),
        ("destination", "2001:DB8::/32", "2001:db8::/32"),
        ("ports", 53, "53"),
        ("ports", "443, 80,81,8000-8080,8050-8100", "80-81,443,8000-8100"),
        ("source_ports", "0-65535", "0-65535"),
        ("length", "0-64,1400", "0-64,1400"),
        ("protocol", "TCP", "tcp"),
        ("protocol", 58, "icmpv6"),
        ("protocol", "89", 89),
        ("fragments", "only", "only"),
    ],
)
def test_fields_have_one_form(field: str, given: object, shown: object) -> None:
    """However a field is written, it is shown in one way, which is read as the same rule."""
    made = rule(**{field: given})

    assert made.model_dump(mode="json")[field] == shown
    assert Rule.model_validate(made.model_dump(mode="json")) == made


def test_tcp_flags_have_one_form() -> None:
    """In the order of their bits, small letters."""
    assert str(rule(tcp_flags=" !ACK , syn", **TCP).tcp_flags) == "syn,!ack"


@pytest.mark.parametrize(
    ("more", "at_once"),
    [
        ({"rate": 10}, 10),
        ({"rate": 10, "burst": 3}, 3),
        ({"rate": 10, "unit": "bytes"}, 65535),
        ({"rate": 10**6, "unit": "bytes"}, 10**6),
    ],
)
def test_burst_of_a_limit(more: dict[str, Any], at_once: int) -> None:
    """As many as in a second, of bytes a whole packet at least, unless it is said."""
    limit = rule(**{**LIMIT, "limit": more}).limit

    assert limit is not None
    assert limit.at_once == at_once


REFUSED = [
    ({"action": "limit"}, "/limit", "needs it"),
    ({"limit": {"rate": 5}}, "/limit", "leave it out"),
    ({**LIMIT, "limit": {"rate": 0}}, "/limit/rate", "greater than or equal to 1"),
    ({**LIMIT, "limit": {"rate": 10**12 + 1}}, "/limit/rate", "less than or equal to 1000000000000"),
    ({**LIMIT, "limit": {"rate": 1, "burst": 86401}}, "/limit/burst", "in a day"),
    ({**LIMIT, "limit": {"rate": 1, "per": "rule", "ipv4_length": 24}}, "/limit/ipv4_length", "leave it out"),
    ({**LIMIT, "limit": {"rate": 1, "ipv4_length": 7}}, "/limit/ipv4_length", "8"),
    ({**LIMIT, "limit": {"rate": 1, "ipv6_length": 129}}, "/limit/ipv6_length", "128"),
    ({**LIMIT, "limit": {"rate": 1, "unit": "flows"}}, "/limit/unit", "new-flows"),
    ({"action": "count", "count_only": True}, "/count_only", "drops nothing"),
    ({"action": "allow", "count_only": True}, "/count_only", "drops nothing"),
    ({"ban_seconds": 60}, "/ban_seconds", "whom to ban"),
    ({**LIMIT, "limit": {"rate": 1, "per": "rule"}, "ban_seconds": 60}, "/ban_seconds", "whom to ban"),
    ({**LIMIT, "ban_seconds": 10 * 366 * 86400}, "/ban_seconds", "10 years"),
    ({**LIMIT, "ban_seconds": 0}, "/ban_seconds", "1 second"),
    (
        {**LIMIT, "limit": {"rate": 1, "unit": "new-flows"}, "protocol": "icmp"},
        "/protocol",
        "icmp has no flows",
    ),
    (
        {**LIMIT, "limit": {"rate": 1, "unit": "new-flows"}, **TCP, "tcp_flags": "ack"},
        "/tcp_flags",
        "without ACK",
    ),
    ({"source": "10.0.0.0/8", "destination": "2001:db8::/32"}, "/destination", "one family"),
    ({"source": "10.0.0.1/8"}, "/source", "10.0.0.0/8"),
    ({"protocol": "icmp", "ports": 80}, "/ports", "not icmp"),
    ({"protocol": "sctp", "source_ports": 80}, "/source_ports", "not sctp"),
    ({"tcp_flags": "syn"}, "/tcp_flags", "set protocol to tcp"),
    ({"protocol": "udp", "tcp_flags": "syn"}, "/tcp_flags", "set protocol to tcp"),
    ({**TCP, "tcp_flags": "syn,!syn"}, "/tcp_flags", "both set and clear"),
    ({**TCP, "tcp_flags": "!syn,syn"}, "/tcp_flags", "both set and clear"),
    ({**TCP, "tcp_flags": "xmas"}, "/tcp_flags", '"xmas" is not a TCP flag'),
    ({**TCP, "tcp_flags": 2}, "/tcp_flags", "a text"),
    ({"length": "0-19"}, "/length", "shorter than 20"),
    ({"length": "20-39", "source": "::/0"}, "/length", "IPv6 packet is shorter than 40"),
    ({"ports": "80-"}, "/ports", "neither a number nor a range"),
    ({"ports": "81-80"}, "/ports", "80-81"),
    ({"ports": 65536}, "/ports", "0 to 65535"),
    ({"ports": True}, "/ports", "write a number"),
    ({"ports": ",".join(str(n) for n in range(0, 258, 2))}, "/ports", "129 ranges are too many"),
    ({"protocol": "tpc"}, "/protocol", '"tpc" is not an IP protocol'),
    ({"protocol": 256}, "/protocol", "0 to 255"),
    ({"service": "web", "destination": "10.0.0.1"}, "/destination", "leave destination out"),
    ({"service": "web", "ports": 80}, "/ports", "leave ports out"),
    ({"service": "web", "protocol": "tcp"}, "/protocol", "leave protocol out"),
    ({"priority": 65536}, "/priority", "65535"),
    ({"priority": -1}, "/priority", "0"),
    ({"fragments": "any"}, "/fragments", "only"),
    ({"name": "-"}, "/name", "begins with"),
    ({"port": 80}, "/port", "not known"),
]


@pytest.mark.parametrize(("document", "pointer", "words"), REFUSED)
def test_what_cannot_be_meant_is_refused(document: dict[str, Any], pointer: str, words: str) -> None:
    """Each fault, contradictions within a rule among them, is named by its field, with what to do."""
    found = faults(document)

    assert list(found) == [pointer]
    assert words in found[pointer]


SERVICES = named(
    service("web", vip="192.0.2.10", port=80),
    service("dns", vip="192.0.2.10", port=53, protocol="udp"),
    service("six", vip="2001:db8:5::/64", port="any"),
)


@pytest.mark.parametrize(
    ("more", "pointer", "words"),
    [
        ({"service": "wbe"}, "/service", 'no service "wbe"'),
        ({"service": "dns", "tcp_flags": "syn"}, "/tcp_flags", "is of udp"),
        ({"service": "six", "source": "10.0.0.0/8"}, "/source", "of one family"),
    ],
)
def test_a_rule_has_to_fit_its_service(more: dict[str, Any], pointer: str, words: str) -> None:
    """A service that is not there, or whose packets the rule cannot match, is refused by its field."""
    with pytest.raises(InvalidError) as caught:
        Config(services=SERVICES).with_rule(rule(**more))

    assert [(e.pointer, words in e.detail) for e in caught.value.errors] == [(pointer, True)]


def test_a_service_that_a_rule_names_stays() -> None:
    """It is not removed, nor made one that the rule does not fit; a change that leaves the rule right is made."""
    config = Config(services=SERVICES).with_rule(rule("no-fin", service="web", tcp_flags="fin"))

    with pytest.raises(ConflictError, match='rule "no-fin" names service "web"'):
        config.without_service("web")
    with pytest.raises(ConflictError, match=r'rule "no-fin".*is of udp'):
        config.with_service(service("web", vip="192.0.2.10", port=80, protocol="udp"))
    assert config.with_service(service("web", vip="192.0.2.11", port=80)).rules == config.rules
    assert config.without_rule("no-fin").without_service("web").services.keys() == {"dns", "six"}


def test_rules_are_found_by_name() -> None:
    """One that is not there is not found; one of the same name is replaced."""
    config = Config().with_rule(rule("a")).with_rule(rule("a", priority=5))

    assert config.rule("a").priority == 5
    with pytest.raises(NotFoundError, match='no rule "b"'):
        config.without_rule("b")


def test_rules_are_asked_in_order() -> None:
    """Those that allow, then those that drop, then the others, on trial too; of one kind by priority, then by name."""
    some = [
        *(rule("c"), rule("b", priority=1001), rule("a", "count"), rule("t", count_only=True, priority=2)),
        *(rule("z", priority=1), rule("y", "allow", priority=9999), rule("l", **LIMIT)),
    ]

    assert [each.name for each in in_order(some)] == ["y", "z", "c", "b", "t", "a", "l"]


BEHIND = [
    ({}, {"source": "10.0.0.0/8"}),
    ({"source": "10.0.0.0/8"}, {"source": "10.1.0.0/16", "ports": "80"}),
    ({"ports": "80-90"}, {"ports": "80-81,85"}),
    ({"destination": "192.0.2.0/24"}, {"service": "web"}),
    ({"service": "web"}, {"service": "web", "tcp_flags": "syn"}),
    ({"protocol": "tcp", "tcp_flags": "syn"}, {"protocol": "tcp", "tcp_flags": "syn,!ack"}),
    ({"fragments": "only"}, {"fragments": "only", "length": "40-60"}),
    ({"action": "allow", "priority": 9999, "protocol": "udp"}, {"protocol": "udp", "source_ports": 53}),
]
BESIDE = [
    ({"source": "10.1.0.0/16"}, {"source": "10.0.0.0/8"}),
    ({"ports": "0-65535"}, {}),
    ({"ports": "80-90"}, {"ports": "80-91"}),
    ({"protocol": "tcp", "tcp_flags": "syn,!ack"}, {"protocol": "tcp", "tcp_flags": "syn"}),
    ({"protocol": "tcp"}, {"ports": 80}),
    ({"source": "::/0"}, {"source": "10.0.0.0/8"}),
    ({"fragments": "none"}, {}),
    ({"count_only": True}, {"ports": 80}),
    ({"action": "count"}, {"ports": 80}),
    ({"action": "limit", "limit": {"rate": 1}}, {"ports": 80}),
    ({"priority": 1001}, {"ports": 80}),
]


@pytest.mark.parametrize(("first", "second"), BEHIND)
def test_a_rule_wholly_behind_another_is_warned_of(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Whichever of the two is new, the sentence names both; of two old ones nothing is said."""
    pair = {each.name: each for each in (rule(**{"name": "a", **first}), rule(**{"name": "b", **second}))}

    for new in ("a", "b"):
        assert [text.split(":")[0] for text in warnings(pair, SERVICES, [new])] == [
            'rule "b" is never reached'
        ]
    assert 'rule "a"' in warnings(pair, SERVICES, ["b"])[0]
    assert warnings(pair, SERVICES, []) == []


@pytest.mark.parametrize(("first", "second"), BESIDE)
def test_a_rule_that_can_be_reached_is_not_warned_of(first: dict[str, Any], second: dict[str, Any]) -> None:
    """A narrower rule, one that lets packets go on, or a later one, is in nobody's way."""
    pair = {each.name: each for each in (rule(**{"name": "a", **first}), rule(**{"name": "b", **second}))}

    assert not [text for text in warnings(pair, SERVICES, ["a", "b"]) if text.startswith('rule "b"')]


def test_promoting_ends_count_only() -> None:
    """Nothing else changes."""
    trial = rule(count_only=True, ports=80)

    assert trial.promoted() == rule(ports=80)
    assert (trial.ends, trial.promoted().ends) == (False, True)


def test_who_is_only_counted_is_not_banned() -> None:
    """A ban is only asked for where the limit is in force."""
    trial = rule(**LIMIT, ban_seconds="10m", count_only=True)

    assert (trial.ban_seconds, trial.bans, trial.promoted().bans) == (600, False, True)

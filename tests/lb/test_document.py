"""The configuration document: what it asks for, what it gets back, and where it is wrong."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from model_strategies import NOW, QUICK, configs

from lb.errors import InvalidError, MalformedError
from lb.model import Config, Prefix
from lb.model.document import KEYS, from_mapping, parse, to_document, to_yaml
from lb.model.entries import FEED_PREFIX, OPERATOR
from lb.model.entry_input import FAULTS_SHOWN
from lb.model.layers import Attributes, Layer

P = Prefix.parse
WEB = {"name": "web", "vip": "192.0.2.10", "port": 80, "protocol": "tcp"}
EXAMPLE = b"""\
services:
  - name: web
    vip: 192.0.2.10
    port: 80
    protocol: tcp
    backends:
      - {address: 10.0.0.11, weight: 2}
      - address: 10.0.0.12
        admin_state: draining
allowlist:
  - 198.51.100.7
blocklist:
  - prefix: 203.0.113.0/24
    reason: scanners
    ttl_seconds: 1h
  - {prefix: "2001:db8::/32", action: count, expires_at: 2027-01-15T09:00:00Z}
rules: []
settings:
  udp_idle_seconds: 60
"""


def without_expired(config: Config) -> Config:
    """What a document leaves: the operator's entries that have not expired, and the feeds' as they are."""
    lists = {}
    for name in ("blocklist", "allowlist"):
        found = getattr(config, name)
        lists[name] = found.with_layer(OPERATOR, found.layer(OPERATOR).without_expired(NOW))
    return replace(config, **lists)


def faults(text: bytes, have: Config | None = None) -> list[tuple[str, str, int | None]]:
    """Where a document is wrong, what is said of it, and the line."""
    with pytest.raises(InvalidError) as caught:
        parse(text, now=NOW, have=have or Config())
    return [(e.pointer, e.detail, e.line) for e in caught.value.errors]


def test_an_example() -> None:
    """Every section comes to be what it says."""
    config = parse(EXAMPLE, now=NOW, have=Config())
    web = config.service("web")

    assert [(str(b.address), b.weight, b.admin_state) for b in web.backends] == [
        ("10.0.0.11", 2, "enabled"),
        ("10.0.0.12", 1, "draining"),
    ]
    assert config.settings.udp_idle_seconds == 60
    assert config.allowlist.layer(OPERATOR) == Layer.of([(P("198.51.100.7"), Attributes(created_at=NOW))])
    assert [to_document(config, now=NOW)["blocklist"]] == [
        [
            {"prefix": "203.0.113.0/24", "reason": "scanners", "ttl_seconds": 3600},
            {"prefix": "2001:db8::/32", "action": "count", "expires_at": "2027-01-15T09:00:00Z"},
        ]
    ]


def test_the_canonical_document() -> None:
    """Every section is there, in one order, with what is needed to make the same state again."""
    assert to_document(Config(), now=NOW) == {
        "services": [],
        "allowlist": [],
        "blocklist": [],
        "rules": [],
        "feeds": [],
        "settings": {
            "encap_source_ipv4": "172.16.0.0/16",
            "encap_source_ipv6": "100::/64",
            "udp_idle_seconds": 30,
            "tcp_idle_seconds": 3600,
            "drop_spoofed": True,
            "answer_echo": True,
            "too_big_replies_per_second": 1000,
            "gue_port": 6080,
            "nat_pools": [],
            "nat_ports": "1024-65535",
            "nat_opening_seconds": 30,
            "nat_closing_seconds": 60,
            "nat_tcp_idle_seconds": 7440,
            "nat_udp_idle_seconds": 120,
            "nat_icmp_idle_seconds": 60,
            "max_moved_percent": None,
            "access": {
                "unix": [],
                "certificates": [],
                "loopback": "admin",
                "hosts": [],
                "limits": {
                    "requests_per_second": 1000.0,
                    "request_burst": 2000,
                    "streams_per_caller": 16,
                    "streams": 512,
                },
            },
        },
    }
    assert list(to_document(Config(), now=NOW)) == list(KEYS)


@QUICK
@given(configs())
def test_putting_back_what_was_got_changes_nothing(config: Config) -> None:
    """The document of a state, as JSON, as YAML or as it is, put onto that state is the very state."""
    document = to_document(config, now=NOW)
    expected = without_expired(config)

    assert from_mapping(document, now=NOW, have=config) == expected
    assert parse(json.dumps(document).encode(), now=NOW, have=config) == expected
    assert parse(to_yaml(document).encode(), now=NOW, have=config) == expected


@QUICK
@given(configs(), configs())
def test_a_document_is_the_whole(config: Config, other: Config) -> None:
    """Put onto another state, a document makes the same wishes, and leaves what its feeds hold there alone."""
    document = to_document(config, now=NOW)
    made = from_mapping(document, now=NOW, have=other)

    assert to_document(made, now=NOW) == document
    gone = {FEED_PREFIX + name for name in other.feeds.keys() - config.feeds.keys()}
    for owner, layer in other.blocklist.layers.items():
        if owner.startswith(FEED_PREFIX):
            assert made.blocklist.layers.get(owner) is (None if owner in gone else layer)


def test_entries_that_stay_keep_their_age() -> None:
    """An entry asked for again is not made anew; one that is changed is."""
    one = b"blocklist: [{prefix: 10.0.0.1, ttl_seconds: 60}, {prefix: 10.0.0.2, ttl_seconds: 60}]"
    two = b"blocklist: [{prefix: 10.0.0.1, ttl_seconds: 1m}, {prefix: 10.0.0.2, ttl_seconds: 61}]"
    have = parse(one, now=NOW, have=Config())
    later = parse(two, now=NOW + 30, have=have).blocklist.layer(OPERATOR)

    assert later.get(P("10.0.0.1")) == Attributes(created_at=NOW, ttl_seconds=60, expires_at=NOW + 60)
    assert later.get(P("10.0.0.2")) == Attributes(created_at=NOW + 30, ttl_seconds=61, expires_at=NOW + 91)


def test_an_entry_that_has_expired_is_made_anew() -> None:
    """What is asked for by TTL again, after its time, holds again; a deadline that has passed is left out."""
    text = b"""\
blocklist:
- {prefix: 10.0.0.1, ttl_seconds: 60}
- {prefix: 10.0.0.2, expires_at: 2027-01-15T08:01:00Z}
"""
    have = parse(text, now=NOW, have=Config())
    later = parse(text, now=NOW + 100, have=have).blocklist.layer(OPERATOR)

    assert len(have.blocklist) == 2
    assert len(later) == 1
    assert later.get(P("10.0.0.1")) == Attributes(created_at=NOW + 100, ttl_seconds=60, expires_at=NOW + 160)


def test_what_is_the_same_is_the_same_object() -> None:
    """Services and lists that are asked for again are not copied, so that nobody has to compare them."""
    have = parse(EXAMPLE, now=NOW, have=Config())
    again = parse(EXAMPLE, now=NOW + 1, have=have)

    assert again.service("web") is have.service("web")
    assert again.blocklist is have.blocklist
    assert again.allowlist is have.allowlist


@pytest.mark.parametrize(
    "text", [b"{}", b"services:\nblocklist: []\n", b'{"rules": null, "feeds": []}', b"services: []"]
)
def test_sections_left_out_are_empty(text: bytes) -> None:
    """A section that is missing or null is empty: the document is the whole."""
    have = parse(EXAMPLE, now=NOW, have=Config())

    assert parse(text, now=NOW, have=have) == Config()


def test_unknown_keys_are_named_with_their_line() -> None:
    """At every level, in YAML and in JSON."""
    assert faults(
        b"services:\n  - {name: a, vip: 192.0.2.1, port: 1, protocol: tcp,\n     prt: 2}\nblock: []\n"
    ) == [
        (
            "/block",
            f'"block" is not known here (did you mean "blocklist"?): the keys are {", ".join(KEYS)}',
            4,
        ),
        (
            "/services/0/prt",
            'this key is not known here (did you mean "port"?): correct it or leave it out',
            3,
        ),
    ]
    text = json.dumps(
        {"settings": {"mtu": 5}, "blocklist": ["10.0.0.1", {"prefix": "::1", "ttl": 3}]}, indent=1
    )
    lines = text.splitlines()
    assert [(p, lines[(line or 0) - 1].strip()) for p, _, line in faults(text.encode())] == [
        ("/settings/mtu", '"mtu": 5'),
        ("/blocklist/1/ttl", '"ttl": 3'),
    ]


def test_keys_given_twice_are_named_with_their_line() -> None:
    """A key that comes twice is not silently the last."""
    assert faults(b"services: []\nsettings: {}\nservices: []\n") == [
        ("/services", 'the key "services" is given twice', 3)
    ]


def test_every_fault_is_told() -> None:
    """One reading tells what is wrong in all sections."""
    text = b"""\
services:
- {name: a, vip: 10.0.0.0/8, port: 0, protocol: tcp}
blocklist:
- 10.0.0.1/8
- {prefix: 10.0.0.1, ttl_seconds: 1y}
allowlist: {}
rules: [{name: x}]
settings: {udp_idle_seconds: 0}
"""
    assert [(pointer, line) for pointer, _, line in faults(text)] == [
        ("/services/0/vip", 2),
        ("/services/0/port", 2),
        ("/rules/0/action", 7),
        ("/settings/udp_idle_seconds", 8),
        ("/allowlist", 6),
        ("/blocklist/0", 4),
        ("/blocklist/1/ttl_seconds", 5),
    ]


def test_rules_among_each_other() -> None:
    """Names are given once, and what a rule says of its service is looked up in the same document."""
    rules = [
        {"name": "a", "action": "drop", "service": "web"},
        {"name": "a", "action": "count", "service": "x"},
    ]

    assert faults(json.dumps({"services": [WEB], "rules": rules}).encode()) == [
        ("/rules/1/name", 'two rules are called "a": rename one', 1),
        ("/rules/1/service", 'there is no service "x": add it first, or leave service out', 1),
    ]


def test_services_among_each_other() -> None:
    """Names, ports and loops are checked between the services of a document, each fault at its place."""
    same_name = [WEB, {**WEB, "port": 81}]
    assert faults(json.dumps({"services": same_name}).encode()) == [
        ("/services/1/name", 'two services are called "web": rename one', 1)
    ]
    others = [
        {**WEB, "port": "any", "backends": [{"address": "192.0.2.11"}]},
        {**WEB, "name": "b", "vip": "192.0.2.11"},
        {**WEB, "name": "c", "port": "any"},
    ]
    assert {pointer for pointer, _, _ in faults(json.dumps({"services": others}).encode())} == {
        "/services/0/backends/0/address",
        "/services/2/port",
    }


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ([], ""),
        ("text", ""),
        (None, ""),
        ({"services": {}}, "/services"),
        ({"services": 0}, "/services"),
        ({"services": [0]}, "/services/0"),
        ({"settings": []}, "/settings"),
        ({"blocklist": "10.0.0.1"}, "/blocklist"),
        ({"blocklist": [None]}, "/blocklist/0"),
        ({1: 2}, "/1"),
    ],
)
def test_wrong_shapes(document: Any, pointer: str) -> None:
    """What is not shaped as a document is refused at its place."""
    with pytest.raises(InvalidError) as caught:
        from_mapping(document, now=NOW, have=Config())
    assert [e.pointer for e in caught.value.errors] == [pointer]


def test_faults_have_an_end() -> None:
    """A document that is wrong everywhere is not answered with as much."""
    text = json.dumps({"services": [{}] * 1000}).encode()
    assert len(faults(text)) == FAULTS_SHOWN


@pytest.mark.parametrize("text", [b"", b"# nothing\n", b"services: [", b'{"services": }'])
def test_what_is_no_document(text: bytes) -> None:
    """An empty file is no wish to have nothing."""
    with pytest.raises(MalformedError):
        parse(text, now=NOW, have=Config())

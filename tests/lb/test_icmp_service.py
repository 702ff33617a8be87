"""Services of protocol icmp: what a document may say, and which keys and rules are theirs."""

from typing import Any

import pytest
from service_samples import service

from lb.errors import ConflictError, InvalidError
from lb.model import Config
from lb.model.document import from_mapping, to_document
from lb.model.rule_match import ip_protocol
from lb.reconcile.vips import inherited_keys, service_keys

NOW = 1_900_000_000.0
PING = {"name": "ping", "vip": "192.0.2.10", "protocol": "icmp", "mode": "nat"}
BACKEND = {"address": "10.0.0.11"}


def read(*services: dict[str, Any], **more: Any) -> Config:
    """The desired state of a document with these services, and a pool of each family."""
    document = {"services": list(services), "settings": {"nat_pools": ["10.9.0.1", "fd00:9::1"]}, **more}
    return from_mapping(document, now=NOW, have=Config())


def test_document_and_back() -> None:
    """It has no port, left out or null; the document that is given back has null, and is read as the same."""
    config = read({**PING, "backends": [BACKEND]})

    document = to_document(config, now=NOW)

    assert document["services"][0]["port"] is None
    assert from_mapping(document, now=NOW, have=Config()) == config == read(document["services"][0])


@pytest.mark.parametrize(
    ("more", "pointer", "says"),
    [
        ({"port": 80}, "/port", "icmp has no ports: leave it out"),
        ({"port": "any"}, "/port", "icmp has no ports: leave it out"),
        ({"backends": [{**BACKEND, "port": 80}]}, "/backends/0/port", "icmp has no ports: leave it out"),
        ({"mode": "ipip"}, "/mode", "in mode ipip echo requests for a VIP are answered here"),
        ({"mode": "l2"}, "/mode", "use mode nat, or protocol tcp or udp"),
        ({"affinity": "destination-port"}, "/affinity", "icmp has no ports: use flow or source"),
        ({"udp_migration": True}, "/udp_migration", "an ICMP flow cannot change its backend"),
        (
            {"flood_protection": {"new_flows_per_second": 9, "test_unknown": True}},
            "/flood_protection/test_unknown",
            "only TCP retransmits what was lost",
        ),
        (
            {"health_check": {"type": "tcp"}},
            "/health_check/port",
            "the service has no port: give the port to check",
        ),
        ({"protocol": "udp"}, "/port", "this key is needed"),
        ({"protocol": "udp", "port": None}, "/port", "a port is a number, a range"),
    ],
)
def test_what_is_refused(more: dict[str, Any], pointer: str, says: str) -> None:
    """By the field that is wrong, and with what to do."""
    with pytest.raises(InvalidError) as caught:
        read({**PING, **more})

    assert [(error.pointer, says in error.detail) for error in caught.value.errors] == [
        (f"/services/0{pointer}", True)
    ]


def test_checks_that_say_their_port_or_need_none() -> None:
    """Any check with a port of its own, and commands."""
    for check in ({"type": "tcp", "port": 22}, {"type": "command", "command": ["/bin/ping", "-c1"]}):
        assert read({**PING, "health_check": check}).services["ping"].health_check is not None


def test_one_service_a_vip() -> None:
    """Two take the same packets; services of other protocols stand beside it."""
    web = {"name": "web", "vip": "192.0.2.10", "protocol": "tcp", "port": "any"}

    assert set(read(PING, web).services) == {"ping", "web"}
    with pytest.raises(InvalidError) as caught:
        read(PING, {**PING, "name": "other"})
    assert [(error.pointer, error.detail) for error in caught.value.errors] == [
        (
            "/services/1/vip",
            'service "other" and service "ping" both take icmp 192.0.2.10: change the VIP or the protocol of one',
        )
    ]
    with pytest.raises(ConflictError):
        read(PING).with_service(service("other", vip="192.0.2.10", protocol="icmp", mode="nat", port=None))


def test_keys() -> None:
    """Port 0 and the protocol's number in the VIP's family; a prefix within a prefix has them of that around it."""
    four = service("four", protocol="icmp", mode="nat", port=None)
    wide = service("wide", vip="fc00:1::/64", protocol="icmp", mode="nat", port=None)
    narrow = service("narrow", vip="fc00:1::/80")

    assert (ip_protocol(four), ip_protocol(wide)) == (1, 58)
    assert service_keys(four) == [(four.vip_packed, 0, 1, 0)]
    assert service_keys(wide) == [(wide.vip_packed, 0, 58, 64)]
    assert dict(inherited_keys([wide, narrow])) == {(narrow.vip_packed, 0, 58, 80): "wide"}


@pytest.mark.parametrize(
    ("rule", "pointer"),
    [
        ({"action": "drop", "source_ports": "7"}, "/source_ports"),
        ({"action": "drop", "tcp_flags": "syn"}, "/tcp_flags"),
        ({"action": "limit", "limit": {"rate": 9, "unit": "new-flows"}}, "/limit/unit"),
    ],
)
def test_rules_that_cannot_mean_it(rule: dict[str, Any], pointer: str) -> None:
    """A rule for such a service names no ports, no flags, and no limit of new flows."""
    with pytest.raises(InvalidError) as caught:
        read(PING, rules=[{"name": "r", "service": "ping", **rule}])

    assert [error.pointer for error in caught.value.errors] == [f"/rules/0{pointer}"]


def test_how_long_it_lives_is_a_setting() -> None:
    """No less than the 60 seconds of RFC 5508."""
    with pytest.raises(InvalidError) as caught:
        from_mapping({"settings": {"nat_icmp_idle_seconds": 59}}, now=NOW, have=Config())

    assert [error.pointer for error in caught.value.errors] == ["/settings/nat_icmp_idle_seconds"]

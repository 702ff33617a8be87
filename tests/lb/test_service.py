"""Services: what is accepted, what is refused, and where the fault is said to be."""

from ipaddress import IPv4Address
from typing import Any

import pytest
from pydantic import ValidationError

from lb.model import AdminState, Backend, Port, Service
from lb.model.fields import field_errors

WEB = {"name": "web", "vip": "192.0.2.10", "port": 80, "protocol": "tcp"}


def faults(**changes: Any) -> list[tuple[str, str]]:
    """Where a service with these changes is wrong, and what is said of it."""
    with pytest.raises(ValidationError) as caught:
        Service.model_validate(WEB | changes)
    return [(e.pointer, e.detail) for e in field_errors(caught.value)]


def test_a_backend_that_is_no_object_is_refused_in_the_words_of_the_document() -> None:
    """No class of ours is named to who has written an address alone."""
    says = 'it should be an object, with a key for each field, not "10.0.0.11"'

    assert faults(backends=["10.0.0.11"]) == [("/backends/0", says)]


def test_defaults() -> None:
    """Four keys are enough; the document names every field in its order."""
    assert Service.model_validate(WEB).model_dump(mode="json") == {
        "name": "web",
        "vip": "192.0.2.10",
        "port": 80,
        "protocol": "tcp",
        "mode": "ipip",
        "nat_source": "pool",
        "affinity": "flow",
        "udp_migration": False,
        "quic": False,
        "flood_protection": None,
        "labels": {},
        "health_check": None,
        "backends": [],
    }


def test_document_and_back() -> None:
    """What a service dumps is read as an equal service."""
    service = Service.model_validate(
        WEB
        | {
            "vip": "2001:DB8::1",
            "port": "8000-8010",
            "labels": {"team/owner": "é x"},
            "backends": [{"address": "10.0.0.1"}, {"address": "2001:db8::2", "admin_state": "draining"}],
        }
    )
    assert Service.model_validate(service.model_dump(mode="json")) == service
    assert Service.model_validate_json(service.model_dump_json()) == service


@pytest.mark.parametrize(
    ("given", "low", "high", "shown"),
    [
        (80, 80, 80, 80),
        ("80", 80, 80, 80),
        (" 443 ", 443, 443, 443),
        (65535, 65535, 65535, 65535),
        ("8000-8010", 8000, 8010, "8000-8010"),
        ("80-80", 80, 80, 80),
        ("1-65535", 1, 65535, "1-65535"),
        ("any", 0, 65535, "any"),
    ],
)
def test_ports(given: object, low: int, high: int, shown: object) -> None:
    """A port is a number, a range or any."""
    port = Port.parse(given)

    assert (port.low, port.high, port.to_json(), port.is_any) == (low, high, shown, given == "any")
    assert Port.parse(port.to_json()) == port


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (0, "port 0 is out of range: 1 to 65535"),
        (65536, "port 65536 is out of range: 1 to 65535"),
        (-1, "port -1 is out of range: 1 to 65535"),
        ("80-70000", "port 70000 is out of range: 1 to 65535"),
        ("90-80", "the range 90-80 is backwards: write 80-90"),
        ("http", '"http" is not a port: write a number, a range such as "8000-8010", or "any"'),
        ("８０", '"８０" is not a port: write a number, a range such as "8000-8010", or "any"'),
        ("80,81", '"80,81" is not a port: write a number, a range such as "8000-8010", or "any"'),
        (True, 'a port is a number, a range such as "8000-8010", or "any"'),
        (80.0, 'a port is a number, a range such as "8000-8010", or "any"'),
        (None, 'a port is a number, a range such as "8000-8010", or "any"'),
    ],
)
def test_ports_that_are_refused(given: object, says: str) -> None:
    """What is no port is refused in words that help."""
    assert faults(port=given) == [("/port", says)]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("192.0.2.0/24", '"192.0.2.0/24" is not an IPv4 or IPv6 address; leave the prefix length out'),
        ("web.example", '"web.example" is not an IPv4 or IPv6 address'),
        (
            "192.0.2.1:80",
            '"192.0.2.1:80" is not an IPv4 or IPv6 address; leave the port out, which is a field of its own',
        ),
        (
            "[fd00::1]:80",
            '"[fd00::1]:80" is not an IPv4 or IPv6 address; leave the port out, which is a field of its own',
        ),
        ("192.0.2.010", '"192.0.2.010" is not an IPv4 or IPv6 address'),
        ("fe80::1%eth0", "fe80::1%eth0 has a zone; write the address without %eth0"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1 is an IPv4-mapped address; write 192.0.2.1"),
        ("224.0.0.1", "224.0.0.1 is not an address that packets can be sent to: use a unicast address"),
        ("127.0.0.1", "127.0.0.1 is not an address that packets can be sent to: use a unicast address"),
        ("::", ":: is not an address that packets can be sent to: use a unicast address"),
        ("0.1.2.3", "0.1.2.3 is in a reserved range: use a unicast address"),
        ("255.255.255.255", "255.255.255.255 is in a reserved range: use a unicast address"),
        (3221225994, "an address is a string such as 192.0.2.1 or 2001:db8::1"),
    ],
)
def test_addresses_that_are_refused(given: object, says: str) -> None:
    """What is no unicast address is refused in words that help."""
    assert faults(vip=given) == [("/vip", says)]


@pytest.mark.parametrize(
    ("given", "shown", "length"),
    [
        ("fc00:1:2::/64", "fc00:1:2::/64", 64),
        ("FC00:1:2:0:ab00::/72", "fc00:1:2:0:ab00::/72", 72),
        ("fc00:1:2::ff00/120", "fc00:1:2::ff00/120", 120),
        ("fc00:1:2::/128", "fc00:1:2::", 0),
        ("fc00:1:2::7", "fc00:1:2::7", 0),
    ],
)
def test_vips_that_are_prefixes(given: str, shown: str, length: int) -> None:
    """A VIP may be an IPv6 prefix of length 64 to 120; /128 is the address."""
    service = Service.model_validate(WEB | {"vip": given})

    assert (str(service.vip), service.vip_length, len(service.vip_packed)) == (shown, length, 16)
    assert Service.model_validate(service.model_dump(mode="json")) == service
    assert Service.model_validate(dict(service)) == service


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("fc00:1:2::1/64", "fc00:1:2::1/64 has host bits set: the network is fc00:1:2::/64"),
        (
            "fc00:1::/48",
            "fc00:1::/48 is not a VIP: a VIP is an address, or an IPv6 prefix of length 64 to 120",
        ),
        (
            "fc00:1::/121",
            "fc00:1::/121 is not a VIP: a VIP is an address, or an IPv6 prefix of length 64 to 120",
        ),
        ("ff02::/64", "ff02::/64 holds addresses that no packet can be sent to: use a unicast prefix"),
        ("::/64", "::/64 holds addresses that no packet can be sent to: use a unicast prefix"),
        ("::1/128", "::1 is not an address that packets can be sent to: use a unicast address"),
        ("fc00::/x", '"fc00::/x" has no valid prefix length: 0 to 128'),
        ("192.0.2.0/24", '"192.0.2.0/24" is not an IPv4 or IPv6 address; leave the prefix length out'),
    ],
)
def test_vips_that_are_refused(given: str, says: str) -> None:
    """What is no prefix of addresses that clients can reach is refused, and the right one is named."""
    assert faults(vip=given) == [("/vip", says)]


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "a\n", "é", "a" * 64, None, 7])
def test_names_that_are_refused(name: object) -> None:
    """A name is plain, so that it fits a path, a label and a terminal."""
    assert [pointer for pointer, _ in faults(name=name)] == ["/name"]


def test_longest_name() -> None:
    """A name has up to 63 characters."""
    assert Service.model_validate(WEB | {"name": "a" * 63}).name == "a" * 63


def test_labels_that_are_refused() -> None:
    """Keys are plain, values are one line of text, and there are 32 at most."""
    assert faults(labels={"a b": "x"})[0][0] == "/labels/a b"
    assert faults(labels={"a": "x\ny"}) == [
        ("/labels/a", "it holds a control character or a line break: write plain text on one line")
    ]
    assert faults(labels={"a": "x" * 257})[0][0] == "/labels/a"
    assert faults(labels={"a": 1}) == [("/labels/a", "it should be a valid string, not 1")]
    assert faults(labels={str(n): "" for n in range(33)})[0][0] == "/labels"


def test_unknown_and_missing_keys() -> None:
    """Each is named by its pointer, all of them at once."""
    with pytest.raises(ValidationError) as caught:
        Service.model_validate({"name": "web", "vip": "192.0.2.1", "prot": 1, "a/b~c": 1})

    assert {(e.pointer, e.detail) for e in field_errors(caught.value, "/services/0")} == {
        ("/services/0/port", "this key is needed"),
        ("/services/0/protocol", "this key is needed"),
        (
            "/services/0/prot",
            'this key is not known here (did you mean "port"?): correct it or leave it out',
        ),
        ("/services/0/a~1b~0c", "this key is not known here: correct it or leave it out"),
    }


def test_words_of_choices() -> None:
    """A wrong choice is told the right ones."""
    assert faults(protocol="sctp") == [("/protocol", "it should be 'tcp', 'udp' or 'icmp', not \"sctp\"")]
    assert faults(backends=[{"address": "10.0.0.1", "weight": -1}]) == [
        ("/backends/0/weight", "it should be greater than or equal to 0, not -1")
    ]
    assert faults(backends=[{"address": "10.0.0.1", "weight": True}]) == [
        ("/backends/0/weight", "it should be a valid integer, not true")
    ]


def test_backends_among_each_other() -> None:
    """Every backend that is wrong is named by its place."""
    given = ["10.0.0.1", "192.0.2.10", "10.0.0.1", "2001:db8::1"]

    assert faults(mode="l2", backends=[{"address": a} for a in given]) == [
        (
            "/backends/1/address",
            "backend 192.0.2.10 is the VIP itself: packets would loop; use its own address",
        ),
        ("/backends/2/address", "backend 10.0.0.1 is listed twice: give each address once"),
        (
            "/backends/3/address",
            "backend 2001:db8::1 is IPv6 and the VIP IPv4: l2 forwards the packet unchanged, "
            "so use mode ipip or gue, or a backend of the same family",
        ),
    ]


@pytest.mark.parametrize("mode", ["l2", "ipip", "gue"])
def test_backend_within_the_vip(mode: str) -> None:
    """A backend within the VIP's prefix would get its packets back; one beside it is fine in every mode."""
    beside, within = {"address": "fc00:1:3::1"}, {"address": "fc00:1:2::1"}

    Service.model_validate(WEB | {"vip": "fc00:1:2::/64", "mode": mode, "backends": [beside]})
    assert faults(vip="fc00:1:2::/64", mode=mode, backends=[beside, within]) == [
        (
            "/backends/1/address",
            "backend fc00:1:2::1 lies in the VIP fc00:1:2::/64: packets would loop; use an address outside it",
        )
    ]


def test_options_of_udp_alone() -> None:
    """udp_migration and quic are refused for TCP, each by its name."""
    assert faults(udp_migration=True, quic=True) == [
        ("/udp_migration", "a TCP flow cannot change its backend: leave it out, or use protocol udp"),
        ("/quic", "QUIC is carried by UDP: leave it out, or use protocol udp"),
    ]
    service = Service.model_validate(WEB | {"protocol": "udp", "udp_migration": True, "quic": True})
    assert (service.udp_migration, service.quic) == (True, True)
    assert faults(protocol="udp", quic="yes") == [("/quic", 'it should be a valid boolean, not "yes"')]


def test_quic_ids() -> None:
    """Each backend may have one of its own, of 32 bits, where the service has quic."""
    given = [
        {"address": f"10.0.0.{n}", "quic_id": number} for n, number in enumerate([1, 2**32 - 1, None, 1])
    ]
    udp = {"protocol": "udp", "quic": True}

    assert [b.quic_id for b in Service.model_validate(WEB | udp | {"backends": given[:3]}).backends] == [
        1,
        2**32 - 1,
        None,
    ]
    assert faults(**udp, backends=given) == [
        ("/backends/3/quic_id", "backend 10.0.0.0 also has the quic_id 1: give each its own")
    ]
    assert faults(protocol="udp", backends=given[2:]) == [
        ("/backends/1/quic_id", "the service has no quic: set quic to true, or leave quic_id out")
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (0, "it should be greater than or equal to 1, not 0"),
        (2**32, "it should be less than or equal to 4294967295, not 4294967296"),
        ("7", 'it should be a valid integer, not "7"'),
    ],
)
def test_quic_ids_that_are_refused(given: object, says: str) -> None:
    """A quic_id is a number that a connection id can hold."""
    backends = [{"address": "10.0.0.1", "quic_id": given}]

    assert faults(protocol="udp", quic=True, backends=backends) == [("/backends/0/quic_id", says)]


@pytest.mark.parametrize("mode", ["ipip", "gue"])
def test_families_may_differ_in_a_tunnel(mode: str) -> None:
    """IPIP and GUE carry IPv4 in IPv6 and the other way round."""
    service = Service.model_validate(WEB | {"mode": mode, "backends": [{"address": "2001:db8::1"}]})
    assert str(service.backends[0].address) == "2001:db8::1"


@pytest.mark.parametrize(
    ("state", "weight"), [(AdminState.ENABLED, 7), (AdminState.DRAINING, 0), (AdminState.DISABLED, 0)]
)
def test_ring_weight(state: AdminState, weight: int) -> None:
    """Only an enabled backend has a share of new flows."""
    backend = Backend.model_validate({"address": "10.0.0.1", "weight": 7, "admin_state": state})
    assert backend.ring_weight == weight


def test_backend_by_address() -> None:
    """A backend is found by its address."""
    service = Service.model_validate(WEB | {"backends": [{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]})
    second = service.backends[1]

    assert service.backend(second.address) == second
    assert service.backend(IPv4Address("192.0.2.10")) is None

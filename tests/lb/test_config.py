"""The whole desired state: what services may stand beside each other, and the settings."""

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import QUICK
from pydantic import ValidationError

from lb.errors import ConflictError, NotFoundError
from lb.model import Config, Prefix, PrefixList, Service, Settings
from lb.model.clashes import clashes
from lb.model.fields import field_errors
from lb.model.layers import Attributes, Layer


def service(
    name: str, vip: str = "192.0.2.1", port: object = 80, protocol: str = "tcp", *backends: str
) -> Service:
    return Service.model_validate(
        {
            "name": name,
            "vip": vip,
            "port": port,
            "protocol": protocol,
            "backends": [{"address": a} for a in backends],
        }
    )


def test_services_by_name() -> None:
    """A service is added, replaced in its place, found and removed by its name."""
    config = Config().with_service(service("a")).with_service(service("b", port=81))
    changed = config.with_service(service("a", port=82))

    assert list(changed.services) == ["a", "b"]
    assert changed.service("a").port.low == 82
    assert list(changed.without_service("a").services) == ["b"]
    assert config.service("a").port.low == 80
    with pytest.raises(NotFoundError, match='there is no service "c"'):
        config.service("c")
    with pytest.raises(NotFoundError):
        config.without_service("c")


def test_two_services_of_one_name() -> None:
    """A set in which a name comes twice is refused."""
    with pytest.raises(ConflictError, match='two services are called "a"'):
        Config().with_services([service("a"), service("a", port=81)])


@pytest.mark.parametrize(
    ("one", "two", "clash"),
    [
        (80, 80, True),
        (80, "70-90", True),
        ("70-90", "90-100", True),
        ("70-90", "75-80", True),
        ("any", "any", True),
        (80, "any", False),
        ("1-65535", "any", False),
        (80, 81, False),
        ("70-90", "91-100", False),
    ],
)
def test_ports_of_one_vip(one: object, two: object, clash: bool) -> None:
    """Ports and ranges must not overlap; any stands behind them."""
    config = Config().with_service(service("a", port=one))
    if not clash:
        assert len(config.with_service(service("b", port=two)).services) == 2
        return
    with pytest.raises(ConflictError, match='service "b" and service "a" both take tcp'):
        config.with_service(service("b", port=two))


def test_same_port_elsewhere() -> None:
    """Another protocol or another VIP makes room for the same port."""
    services = [service("a"), service("b", protocol="udp"), service("c", vip="192.0.2.2")]
    assert len(Config().with_services(services).services) == 3


@QUICK
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), max_size=8))
def test_overlaps_are_found(ranges: list[tuple[int, int]]) -> None:
    """Some clash is named exactly if any two ranges overlap, and the later service is blamed."""
    services = [service(f"s{n}", port=f"{low}-{low + size}") for n, (low, size) in enumerate(ranges)]
    pairs = [
        (a.name, b.name)
        for a, b in combinations(services, 2)
        if a.port.low <= b.port.high and b.port.low <= a.port.high
    ]
    found = list(clashes(services))

    assert bool(found) == bool(pairs)
    for clash in found:
        first, later = (n for n in (s.name for s in services) if f'"{n}"' in clash.detail)
        assert (first, later) in pairs
        assert clash.service.name == later


def test_backend_that_is_a_vip() -> None:
    """A backend that is some service's VIP would make packets loop; it is found whichever comes last."""
    says = 'backend 192.0.2.2 of service "b" is the VIP of service "a": packets would loop'
    vip, loop = service("a", vip="192.0.2.2"), service("b", "192.0.2.3", 80, "tcp", "192.0.2.2")

    with pytest.raises(ConflictError, match=says):
        Config().with_service(vip).with_service(loop)
    with pytest.raises(ConflictError, match=says):
        Config().with_service(loop).with_service(vip)
    fine = service("b", vip="192.0.2.3")
    with pytest.raises(ConflictError, match=says):
        Config().with_service(vip).with_service(fine).with_service(loop)


def test_vip_prefixes_side_by_side() -> None:
    """An equal prefix with the same port clashes; nested prefixes, and an address within one, do not."""
    config = Config().with_service(service("a", vip="fc00:1:2::/64"))

    for vip in ("fc00:1:2::/80", "fc00:1:2::", "fc00:1:2::1", "fc00:1:3::/64"):
        assert len(config.with_service(service("b", vip=vip)).services) == 2
    with pytest.raises(ConflictError, match="both take tcp fc00:1:2::/64 port 80"):
        config.with_service(service("b", vip="fc00:1:2::/64"))


@pytest.mark.parametrize("prefix", ["fc00:1:2::/64", "fc00:1:2::/120"])
def test_backend_within_a_vip_of_another_service(prefix: str) -> None:
    """A backend in some service's VIP prefix would make packets loop; it is found whichever comes last."""
    says = f'backend fc00:1:2::7 of service "b" lies in {prefix}, the VIP of service "a": packets would loop'
    other = service("c", vip="fc00:1:2::/96", port=81)
    vip, loop = service("a", vip=prefix), service("b", "192.0.2.3", 80, "tcp", "fc00:1:3::7", "fc00:1:2::7")

    with pytest.raises(ConflictError, match=says):
        Config().with_service(vip).with_service(loop)
    with pytest.raises(ConflictError, match=says):
        Config().with_service(loop).with_service(vip)
    fine = service("b", "192.0.2.3", 80, "tcp", "fc00:1:3::7")
    with pytest.raises(ConflictError, match="packets would loop"):
        Config().with_services([vip, other, fine]).with_service(loop)
    assert [c.path for c in clashes([vip, other, loop])] == [("backends", 1, "address")]


def test_equality() -> None:
    """Configs are equal if they hold the same, in whatever order their services were added."""
    one = Config().with_service(service("a")).with_service(service("b", port=81))
    two = Config().with_service(service("b", port=81)).with_service(service("a"))
    listed = Config(
        blocklist=PrefixList().with_layer("operator", Layer.of([(Prefix(4, 0, 0), Attributes())]))
    )

    assert one == two
    assert one != Config()
    assert listed != Config()
    assert Config(settings=Settings(udp_idle_seconds=31)) != Config()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (
            "encap_source_ipv4",
            "172.16.0.1/16",
            "172.16.0.1/16 has host bits set: the network is 172.16.0.0/16",
        ),
        (
            "encap_source_ipv4",
            "172.16.0.0/25",
            "172.16.0.0/25 is too small to spread flows over: /24 or shorter",
        ),
        ("encap_source_ipv4", "100::/64", "100::/64 is not an IPv4 network"),
        ("encap_source_ipv4", 5, "a prefix is a string such as 192.0.2.0/24"),
        ("encap_source_ipv6", "100::/97", "100::/97 is too small to spread flows over: /96 or shorter"),
        ("encap_source_ipv6", "10.0.0.0/8", "10.0.0.0/8 is not an IPv6 network"),
        ("udp_idle_seconds", 0, "it should be greater than or equal to 1, not 0"),
        ("udp_idle_seconds", "30", 'it should be a valid integer, not "30"'),
        ("tcp_idle_seconds", 604801, "it should be less than or equal to 604800, not 604801"),
        ("drop_spoofed", 0, "it should be a valid boolean, not 0"),
        ("answer_echo", "no", 'it should be a valid boolean, not "no"'),
        ("too_big_replies_per_second", -1, "it should be greater than or equal to 0, not -1"),
        ("too_big_replies_per_second", 1_000_001, "it should be less than or equal to 1000000, not 1000001"),
        ("gue_port", 0, "it should be greater than or equal to 1, not 0"),
        ("gue_port", 65536, "it should be less than or equal to 65535, not 65536"),
        ("tcp_idle", 5, "this key is not known here: correct it or leave it out"),
    ],
)
def test_settings_that_are_refused(key: str, value: Any, says: str) -> None:
    """What is wrong with a setting is said in words that help."""
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({key: value})
    assert [(e.pointer, e.detail) for e in field_errors(caught.value)] == [(f"/{key}", says)]


def test_settings_and_back() -> None:
    """What the settings dump is read as equal settings."""
    settings = Settings.model_validate({"encap_source_ipv4": "10.9.0.0/24", "encap_source_ipv6": "fd00::/48"})

    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
    assert Settings.model_validate(dict(settings)) == settings

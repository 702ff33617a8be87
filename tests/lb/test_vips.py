"""The keys of services whose VIPs are prefixes: what the packet path finds is what nesting means."""

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import QUICK
from service_samples import named, service

from lb.dataplane.twin import SMALL
from lb.errors import CapacityError
from lb.model import Service
from lb.model.rule_match import ip_protocol
from lb.reconcile.services import ServicePlans, plan_services
from lb.reconcile.vips import ServiceKey, inherited_keys, service_keys, vip_keys, vip_prefixes

NET, SUB, HOST = "fc00:2::/64", "fc00:2::/80", "fc00:2::1"
VIPS = (NET, "fc00:2::/72", SUB, "fc00:2:0:0:8000::/65", "fc00:2::/120", HOST, "fc00:3::/64")
ADDRESSES = (
    "fc00:2::1",
    "fc00:2::2",
    "fc00:2::1:0",
    "fc00:2:0:0:1::",
    "fc00:2:0:0:ff::",
    "fc00:2:0:0:8000::1",
)
PORTS = ("any", 80, "80-81")


def packed(vip: str) -> bytes:
    return IPv6Network(vip).network_address.packed


def key(vip: str, port: int, protocol: int = 6) -> ServiceKey:
    return packed(vip), port, protocol, 0 if "/" not in vip else int(vip.rpartition("/")[2])


def test_keys_of_a_prefix() -> None:
    """They hold the network and the length, those of an address the length 0."""
    net = service("net", vip=NET, port="80-81")

    assert service_keys(net) == [key(NET, 80), key(NET, 81)]
    assert vip_keys([net, service("host", vip=HOST)]) == {key(NET, 0, 0), key(HOST, 0, 0)}
    assert vip_prefixes([net, service("host", vip=HOST)]) == {(packed(NET), 64)}


@pytest.mark.parametrize(
    ("services", "inherited"),
    [
        ([(NET, 80), (SUB, 81)], {(SUB, 80): NET}),
        ([(NET, "80-81"), (SUB, 81)], {(SUB, 80): NET}),
        ([(NET, "any"), (SUB, 81)], {(SUB, 0): NET}),
        ([(NET, 80), (SUB, "any")], {}),
        ([(NET, 80), (HOST, 81)], {}),
        ([(NET, 80), ("fc00:3::/80", 81)], {}),
        (
            [(NET, 80), ("fc00:2::/72", 81), (SUB, 82)],
            {("fc00:2::/72", 80): NET, (SUB, 81): "fc00:2::/72", (SUB, 80): NET},
        ),
    ],
)  # fmt: skip
def test_what_a_prefix_inherits(
    services: list[tuple[str, object]], inherited: dict[tuple[str, int], str]
) -> None:
    """The keys of the prefix around it that it has no service for; any port is a service for all ports."""
    wanted = {vip: service(f"s{n}", vip=vip, port=port) for n, (vip, port) in enumerate(services)}

    assert dict(inherited_keys(wanted.values())) == {
        key(*at): wanted[vip].name for at, vip in inherited.items()
    }


def meant(services: list[Service], address: str, port: int, protocol: int) -> str | None:
    """Whose packet it is: of all VIPs that hold the address, the narrowest that has a service for it."""
    holding = [
        s
        for s in services
        if (
            IPv6Address(address) in s.vip if isinstance(s.vip, IPv6Network) else s.vip == IPv6Address(address)
        )
    ]
    for length in range(128, 63, -1):
        some = [s for s in holding if (s.vip_length or 128) == length and ip_protocol(s) == protocol]
        exact = [s for s in some if not s.port.is_any and s.port.low <= port <= s.port.high]
        for chosen in (*exact, *(s for s in some if s.port.is_any)):
            return chosen.name
    return None


def found(services: list[Service], address: str, port: int, protocol: int) -> str | None:
    """The same from the keys alone, as the packet path asks them: the address, then the longest prefix."""
    keys = {k: s.name for s in services for k in service_keys(s)}
    inherited = dict(inherited_keys(services))
    assert not keys.keys() & inherited.keys()
    keys |= inherited
    around = [
        (network, length)
        for network, length in vip_prefixes(services)
        if IPv6Address(address) in IPv6Network((network, length))
    ]
    for network, length in [(packed(address), 0), *sorted(around, key=lambda p: -p[1])[:1]]:
        for asked in (port, 0):
            if (network, asked, protocol, length) in keys:
                return keys[network, asked, protocol, length]
    return None


@QUICK
@given(st.sets(st.tuples(st.sampled_from(VIPS), st.sampled_from(["tcp", "udp"]), st.sampled_from(PORTS))))
def test_the_narrowest_vip_that_has_a_service_takes_a_packet(wanted: set[tuple[str, str, object]]) -> None:
    """Whatever is nested in whatever, asking one prefix finds what asking all of them would."""
    taken = {(vip, protocol, port == "any"): port for vip, protocol, port in sorted(wanted, key=str)}
    services = [
        service(f"s{n}", vip=vip, protocol=protocol, port=port)
        for n, ((vip, protocol, _), port) in enumerate(taken.items())
    ]

    for address in ADDRESSES:
        for port in (80, 81, 82):
            for protocol in (6, 17):
                assert found(services, address, port, protocol) == meant(services, address, port, protocol)


def test_inherited_keys_count() -> None:
    """What prefixes inherit has to fit the table too: it is refused by the option's name, before anything is built."""
    wide = service("wide", vip=NET, port="1-500")
    subs = [service(f"s{n}", vip=f"fc00:2:0:0:{n:x}::/80", port=80) for n in range(1, 3)]

    plan_services(named(wide, subs[0]), ServicePlans(), SMALL)
    with pytest.raises(CapacityError, match="--service-ports"):
        plan_services(named(wide, *subs), ServicePlans(), SMALL)

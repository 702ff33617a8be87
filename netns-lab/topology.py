"""The lab as data: who stands where, with which addresses, and the desired state of each configuration.

Nothing here touches the kernel. build.py makes it real, lab.py prints it, the tests compare with it.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from types import MappingProxyType
from typing import Any

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

SERVERS: tuple[Network, ...] = (IPv4Network("10.0.0.0/24"), IPv6Network("fd00::/64"))
"""Where the balancer and the backends live."""
CLIENTS: tuple[Network, ...] = (IPv4Network("10.0.1.0/24"), IPv6Network("fd00:0:0:1::/64"))
VIPS: tuple[Network, ...] = (IPv4Network("10.200.1.0/24"), IPv6Network("fc00:1::/64"))
"""Every backend takes any address of these as its own, so a service can be tried on any of them."""

SERVER_MTU = 9000
"""Between balancer and backends: room for the outer header around a client's full-sized packet."""
CLIENT_MTU = 1500

LONGEST_INTERFACE_NAME = 15
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


class Role(StrEnum):
    """What a namespace is there for."""

    CLIENT = "client"
    SWITCH = "switch"
    BALANCER = "balancer"
    BACKEND = "backend"


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace with one interface, which a cable joins to the switch."""

    role: Role
    number: int
    mac: str
    mtu: int
    addresses: tuple[Interface, ...]

    @property
    def label(self) -> str:
        """Its name within the lab, and that of the switch's port that leads to it: "backend2"."""
        return f"{self.role}{self.number}"

    def address(self, family: int) -> str:
        """Its address of that family, as text."""
        return str(next(a.ip for a in self.addresses if a.version == family))


@dataclass(frozen=True, slots=True)
class Configuration:
    """A lab: hosts, the ports its backends answer on, and the document for /v1/config that it starts with.

    Backends answer HTTP on tcp_ports and name themselves on udp_ports, on all their addresses and every VIP.
    """

    hosts: tuple[Host, ...]
    tcp_ports: tuple[int, ...] = (80, 443, 8080)
    udp_ports: tuple[int, ...] = (53, 80, 443)
    document: Mapping[str, Any] = field(default_factory=dict)

    def of_role(self, role: Role) -> tuple[Host, ...]:
        """The hosts of one role, in order of their numbers."""
        return tuple(host for host in self.hosts if host.role is role)

    @property
    def balancer(self) -> Host:
        """The one balancer."""
        return self.of_role(Role.BALANCER)[0]

    @property
    def vips(self) -> tuple[str, ...]:
        """The VIPs of the document's services that are addresses, each once."""
        vips = (service["vip"] for service in self.document.get("services", ()))
        return tuple(dict.fromkeys(vip for vip in vips if "/" not in vip))


# The fourth and fifth bytes of a MAC tell the role, the last the number: a capture reads by itself.
_ROLE_CODE = MappingProxyType({Role.CLIENT: "c1:1e", Role.BALANCER: "ba:1a", Role.BACKEND: "ba:cc"})
_FIRST_HOST = MappingProxyType({Role.CLIENT: 1, Role.BALANCER: 1, Role.BACKEND: 11})


def _host(role: Role, number: int, networks: tuple[Network, ...], mtu: int) -> Host:
    def address(network: Network) -> Interface:
        # "11" is 11 in IPv4 and 0x11 in IPv6: the two look alike.
        last = _FIRST_HOST[role] + number - 1
        if isinstance(network, IPv6Network):
            return IPv6Interface((int(network.network_address) + int(str(last), 16), network.prefixlen))
        return IPv4Interface((int(network.network_address) + last, network.prefixlen))

    mac = f"02:00:{_ROLE_CODE[role]}:00:{number:02x}"
    return Host(role, number, mac, mtu, tuple(address(network) for network in networks))


def _hosts(clients: int, backends: int) -> tuple[Host, ...]:
    return (
        *(_host(Role.CLIENT, n, CLIENTS, CLIENT_MTU) for n in range(1, clients + 1)),
        _host(Role.BALANCER, 1, SERVERS, SERVER_MTU),
        *(_host(Role.BACKEND, n, SERVERS, SERVER_MTU) for n in range(1, backends + 1)),
    )


def _service(
    name: str, vip: str, protocol: str, port: int | str, backends: tuple[str, ...], **more: str | bool
) -> dict[str, Any]:
    return {
        "name": name,
        "vip": vip,
        "protocol": protocol,
        "port": port,
        **more,
        "backends": [{"address": address, "weight": 1} for address in backends],
    }


def _quic(service: dict[str, Any]) -> dict[str, Any]:
    """The service, routed by connection ids: each backend's is its place in the list, from 1."""
    numbered = [{**backend, "quic_id": number} for number, backend in enumerate(service["backends"], 1)]
    return {**service, "quic": True, "backends": numbered}


_HOSTS = _hosts(clients=2, backends=3)
_BACKENDS4 = tuple(host.address(4) for host in _HOSTS if host.role is Role.BACKEND)
_BACKENDS6 = tuple(host.address(6) for host in _HOSTS if host.role is Role.BACKEND)

_NAT_VIPS = MappingProxyType(
    {(4, 4): "10.200.1.1", (4, 6): "10.200.1.2", (6, 4): "fc00:1::3", (6, 6): "fc00:1::1"}
)
"""By family of the VIP and of the backends."""

_DEFAULT = (
    _service("web", "10.200.1.1", "tcp", 80, _BACKENDS4),
    _service("web6", "fc00:1::1", "tcp", 80, _BACKENDS6),
    _service("dns", "10.200.1.1", "udp", 53, _BACKENDS4),
    _service("dns6", "fc00:1::1", "udp", 53, _BACKENDS6),
    _service("web-l2", "10.200.1.2", "tcp", 80, _BACKENDS4, mode="l2"),
)

# One service of each kind that there is, with IPv4 and IPv6 on either side, and VIPs without any backend.
_CONFORMANCE = (
    _service("tcp4", "10.200.1.1", "tcp", 80, _BACKENDS4),
    _service("udp4", "10.200.1.1", "udp", 80, _BACKENDS4),
    _service("any-port", "10.200.1.2", "tcp", "any", _BACKENDS4),
    _service("tcp4-in-6", "10.200.1.3", "tcp", 80, _BACKENDS6),
    _service("ports-any", "10.200.1.4", "tcp", "any", _BACKENDS4, affinity="destination-port"),
    _quic(_service("quic4", "10.200.1.5", "udp", 443, _BACKENDS4)),
    _service("udp-moves", "10.200.1.6", "udp", 80, _BACKENDS4, udp_migration=True),
    _service("l2", "10.200.1.7", "tcp", 80, _BACKENDS4, mode="l2"),
    _service("source", "10.200.1.8", "tcp", 80, _BACKENDS4, affinity="source"),
    _service("ports", "10.200.1.9", "tcp", "8000-8010", _BACKENDS4),
    _service("gue4", "10.200.1.10", "tcp", 80, _BACKENDS4, mode="gue"),
    _service("gue4-in-6", "10.200.1.10", "udp", 80, _BACKENDS6, mode="gue"),
    _service("empty4", "10.200.1.99", "tcp", 80, ()),
    _service("tcp6", "fc00:1::1", "tcp", 80, _BACKENDS6),
    _quic(_service("quic6", "fc00:1::2", "udp", 443, _BACKENDS6)),
    _service("tcp6-in-4", "fc00:1::3", "tcp", 80, _BACKENDS4),
    _service("udp6", "fc00:1::3", "udp", 80, _BACKENDS6),
    _service("l2-6", "fc00:1::7", "tcp", 80, _BACKENDS6, mode="l2"),
    _service("gue6", "fc00:1::10", "tcp", 80, _BACKENDS6, mode="gue"),
    _service("empty6", "fc00:1::11", "tcp", 80, ()),
    _service("prefix6", "fc00:1:0:0:1::/80", "tcp", 80, _BACKENDS6),
    _service("prefix6-any", "fc00:1:0:0:1::/80", "tcp", "any", _BACKENDS4),
    _service("prefix6-one", "fc00:1:0:0:1::1", "tcp", 80, _BACKENDS4),
)


def _translated(
    name: str, vip: str, protocol: str, port: int, backends: tuple[str, ...], *, port_there: int
) -> dict[str, Any]:
    """A service of mode nat, whose backends listen on another port."""
    service = _service(name, vip, protocol, port, backends, mode="nat")
    return {**service, "backends": [{**backend, "port": port_there} for backend in service["backends"]]}


POOL: tuple[Interface, ...] = (IPv4Interface("10.0.0.50/24"), IPv6Interface("fd00::50/64"))
"""Addresses of the balancer that NAT sends from."""
# TCP and UDP with IPv4 and IPv6 on either side, to backends that know nothing of the VIPs.
_NAT = tuple(
    _translated(f"{kind}{vip}-to-{backends}", _NAT_VIPS[vip, backends], kind, 80, addresses, port_there=there)
    for kind, there in (("tcp", 8080), ("udp", 53))
    for vip in (4, 6)
    for backends, addresses in ((4, _BACKENDS4), (6, _BACKENDS6))
)
_WITH_POOL = tuple(
    replace(host, addresses=(*host.addresses, *POOL)) if host.role is Role.BALANCER else host
    for host in _HOSTS
)

CONFIGURATIONS: Mapping[str, Configuration] = MappingProxyType(
    {
        "default": Configuration(_HOSTS, document={"services": _DEFAULT}),
        "conformance": Configuration(
            _HOSTS, tcp_ports=(80, 443, 8000, 8005, 8010, 8080), document={"services": _CONFORMANCE}
        ),
        "nat": Configuration(
            _WITH_POOL,
            document={"services": _NAT, "settings": {"nat_pools": [str(address.ip) for address in POOL]}},
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Names:
    """What a lab of a given name calls its parts. ValueError if it cannot be part of a namespace's name."""

    lab: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.lab):
            raise ValueError(
                f'"{self.lab}" cannot name a lab: use up to 32 small letters, digits, inner hyphens'
            )

    def namespace(self, role: Role, number: int = 1) -> str:
        """The namespace of one host, or of the switch."""
        return f"sl-{self.lab}-{role}{number}"

    def is_namespace(self, name: str) -> bool:
        """Whether a namespace is this lab's. Lab "a" does not own those of lab "a-client1"."""
        return bool(re.fullmatch(rf"sl-{re.escape(self.lab)}-(?:{'|'.join(Role)})\d+", name))

    @property
    def balancer_interface(self) -> str:
        """The balancer's interface: unique on the machine, since pins are named by it and bpffs is shared."""
        name = f"sl-{self.lab}"
        if len(name) <= LONGEST_INTERFACE_NAME:
            return name
        return "sl-" + hashlib.blake2b(self.lab.encode(), digest_size=6).hexdigest()

    def interface(self, host: Host) -> str:
        """The interface of a host, inside its namespace."""
        return self.balancer_interface if host.role is Role.BALANCER else "eth0"


def namespaces(names: Names, configuration: Configuration) -> Iterator[tuple[Role, int, str]]:
    """Role, number and name of each namespace: the switch first, then the hosts."""
    yield Role.SWITCH, 1, names.namespace(Role.SWITCH)
    for host in configuration.hosts:
        yield host.role, host.number, names.namespace(host.role, host.number)

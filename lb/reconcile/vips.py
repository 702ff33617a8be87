"""Which packets are for which service: VIPs, ports and protocols as the keys of the service tables. Pure."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv6Network

from lb.model import Service
from lb.model.rule_match import ip_protocol

ServiceKey = tuple[bytes, int, int, int]
"""VIP (of a prefix the network), port (0: any), protocol (0 with port 0: it is a VIP), length of a prefix or 0."""
VipPrefix = tuple[bytes, int]
"""Network and length of a VIP that is a prefix."""

_Takers = dict[tuple[int, int], str]
"""Service name by port and protocol."""


def service_keys(service: Service) -> list[ServiceKey]:
    """The keys under which a service is found at its own VIP."""
    vip, length, protocol = service.vip_packed, service.vip_length, ip_protocol(service)
    return [(vip, port, protocol, length) for port in _ports(service)]


def vip_keys(services: Iterable[Service]) -> set[ServiceKey]:
    """The keys that mark an address, or a prefix, as a VIP."""
    return {(service.vip_packed, 0, 0, service.vip_length) for service in services}


def vip_prefixes(services: Iterable[Service]) -> set[VipPrefix]:
    """The VIPs that are prefixes."""
    return {(service.vip_packed, service.vip_length) for service in services if service.vip_length}


def inherited_keys(services: Iterable[Service]) -> Iterator[tuple[ServiceKey, str]]:
    """The keys that a VIP prefix has of the one around it, and the names of their services, key by key.

    The packet path asks the longest prefix only, so what that has no service for has to stand under it too. A
    prefix with a service for any port has one for all ports of the protocol.
    """
    takers: dict[IPv6Network, _Takers] = {}
    for service in services:
        if isinstance(service.vip, IPv6Network):
            own = takers.setdefault(service.vip, {})
            own.update(((port, ip_protocol(service)), service.name) for port in _ports(service))
    lengths = sorted({vip.prefixlen for vip in takers}, reverse=True)
    for vip in sorted(takers, key=lambda vip: vip.prefixlen):  # what is around it has its keys by then
        wider = (vip.supernet(new_prefix=length) for length in lengths if length < vip.prefixlen)
        around = next((takers[other] for other in wider if other in takers), {})
        own = takers[vip]
        whole = {protocol for port, protocol in own if not port}
        for (port, protocol), name in around.items():
            if protocol not in whole and (port, protocol) not in own:
                own[port, protocol] = name
                yield (vip.network_address.packed, port, protocol, vip.prefixlen), name


def _ports(service: Service) -> Iterable[int]:
    """Port numbers, 0 standing for any."""
    return (0,) if service.port.is_any else range(service.port.low, service.port.high + 1)

"""The addresses that NAT sends from, and what they conflict with."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from lb.model.address import AnyAddress, AnyVip, checked_unicast
from lb.model.entries import PrefixList
from lb.model.layers import Action
from lb.model.port import Port, PortField
from lb.model.prefix import BITS, Prefix
from lb.model.service import Fault, Mode, NatSource, Service

POOL_ADDRESSES_MOST = 254
"""Each has 65536 places in the tables of NAT."""

AnyPool = IPv4Network | IPv6Network


def _pool(value: object) -> AnyPool:
    prefix = Prefix.parse(str(value) if isinstance(value, IPv4Network | IPv6Network) else value)
    network = ip_network(str(prefix))
    if network.num_addresses > POOL_ADDRESSES_MOST:
        raise ValueError(f"{prefix} holds more than {POOL_ADDRESSES_MOST} addresses: name a longer prefix")
    for address in (network[0], network[-1]):
        checked_unicast(address)
    return network


def _ports(value: object) -> Port:
    port = Port.parse(value)
    if port.is_any:
        raise ValueError("name the ports, such as 1024-65535")
    return port


def _text(pool: AnyPool) -> str:
    return str(pool.network_address) if pool.num_addresses == 1 else str(pool)


Pool = Annotated[
    AnyPool, BeforeValidator(_pool, json_schema_input_type=str), PlainSerializer(_text, return_type=str)
]
PoolPorts = Annotated[PortField, BeforeValidator(_ports, json_schema_input_type=int | str)]


def pool_addresses(pools: Iterable[AnyPool]) -> list[AnyAddress]:
    """Each address once, in order."""
    return list(dict.fromkeys(address for pool in pools for address in pool))


def uses_pool(service: Service) -> bool:
    """Whether backends of a service get packets from the pool."""
    return service.mode is Mode.NAT and service.nat_source is NatSource.POOL


def pool_faults(pools: Iterable[AnyPool], services: Iterable[Service]) -> Iterator[Fault]:
    """Pools that are too many, or hold a VIP, a backend or an address of another pool; paths begin in the pools."""
    pools, services = list(pools), list(services)
    if sum(pool.num_addresses for pool in pools) > POOL_ADDRESSES_MOST:
        yield (), f"the pools hold more than {POOL_ADDRESSES_MOST} addresses: name fewer"
        return
    for index, pool in enumerate(pools):
        for other in pools[:index]:
            if other.version == pool.version and other.overlaps(pool):
                yield (index,), f"{_text(pool)} and {_text(other)} overlap: name each address once"
        for service in services:
            if _meets(pool, service.vip):
                yield (
                    (index,),
                    f'{_text(pool)} overlaps {service.vip}, the VIP of service "{service.name}": '
                    "replies could not be told from requests; use other addresses",
                )
            for backend in service.backends:
                if _meets(pool, backend.address):
                    yield (
                        (index,),
                        f'{_text(pool)} overlaps {backend.address}, a backend of service "{service.name}": '
                        "use addresses that only this machine has",
                    )


def _meets(pool: AnyPool, other: AnyVip) -> bool:
    if isinstance(other, IPv6Network):
        return isinstance(pool, IPv6Network) and pool.overlaps(other)
    return other in pool


def source_faults(pools: Iterable[AnyPool], service: Service) -> Iterator[Fault]:
    """Backends of a service that no pool has an address for."""
    families = {pool.version for pool in pools}
    if not uses_pool(service):
        return
    for index, backend in enumerate(service.backends):
        family = backend.address.version
        if family not in families:
            yield (
                ("backends", index, "address"),
                f"backend {backend.address} is IPv{family}, and nat_pools has no IPv{family} address to send from: "
                "name one in settings, or set nat_source to keep",
            )


Lists = tuple[PrefixList, PrefixList]
"""Blocklist and allowlist."""


def blocked_pools(
    pools: Iterable[AnyPool], lists: Lists, before: Iterable[AnyPool], lists_before: Lists, now: float
) -> Iterator[Fault]:
    """Pools of which an address would be dropped; but for what was so before, which somebody has forced."""
    known = set(pool_addresses(before))
    for index, pool in enumerate(pools):
        for address in pool:
            prefix = _dropping(address, lists, now)
            if prefix and not (address in known and _dropping(address, lists_before, now) == prefix):
                yield (
                    (index,),
                    f"{_text(pool)} overlaps {prefix} of the blocklist: unblock it, or use other addresses",
                )
                break


def _dropping(address: AnyAddress, lists: Lists, now: float) -> Prefix | None:
    """The prefix of the entry by which packets from an address are dropped; None: they are not."""
    blocked, allowed = lists
    if not blocked.layers:
        return None
    whole = Prefix(address.version, int(address), BITS[address.version])
    entry = next(blocked.covering(whole, now), None)
    if entry is None or entry.attributes.action is not Action.DROP:
        return None
    return entry.prefix if next(allowed.covering(whole, now), None) is None else None

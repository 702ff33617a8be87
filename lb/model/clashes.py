"""Services that exclude each other: they match the same packets, or a backend of one is another's VIP."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Network

from lb.model.address import AnyAddress, AnyVip
from lb.model.port import NO_PORT
from lb.model.service import Protocol, Service


@dataclass(frozen=True, slots=True)
class Clash:
    """Two services that cannot both be: where in the later of them, and why."""

    service: Service
    path: tuple[int | str, ...]
    detail: str


def clashes(services: Iterable[Service]) -> Iterator[Clash]:
    """Services that take the same packets, and backends that are a VIP."""
    services = list(services)
    yield from _overlaps(services)
    yield from loops(services, services)


def _overlaps(services: Iterable[Service]) -> Iterator[Clash]:
    """A port and a range of ports must not overlap; "any" stands behind all of them (exact port first)."""
    alike: dict[tuple[AnyVip, Protocol, bool], list[tuple[int, Service]]] = {}
    for index, service in enumerate(services):
        alike.setdefault((service.vip, service.protocol, service.port.is_any), []).append((index, service))
    for group in alike.values():
        group.sort(key=lambda item: item[1].port.low)
        widest = group[0]
        for item in group[1:]:
            if item[1].port.low <= widest[1].port.high:
                (_, first), (_, later) = sorted((widest, item), key=lambda pair: pair[0])
                both = f'service "{later.name}" and service "{first.name}" both take {later.protocol} {later.vip}'
                if later.port == NO_PORT:
                    yield Clash(later, ("vip",), f"{both}: change the VIP or the protocol of one")
                else:
                    says = f"{both} port {later.port}: change the VIP, the port or the protocol of one"
                    yield Clash(later, ("port",), says)
            if item[1].port.high > widest[1].port.high:
                widest = item


def loops(services: Iterable[Service], every: Iterable[Service]) -> Iterator[Clash]:
    """Backends of these services that are the VIP of any, or lie in one."""
    owners = {service.vip: service for service in every}
    lengths = sorted({vip.prefixlen for vip in owners if isinstance(vip, IPv6Network)}, reverse=True)
    for service in services:
        for index, backend in enumerate(service.backends):
            for vip in _vips_around(backend.address, lengths):
                if vip not in owners:
                    continue
                is_or_in = "is" if vip == backend.address else f"lies in {vip},"
                yield Clash(
                    service,
                    ("backends", index, "address"),
                    f'backend {backend.address} of service "{service.name}" {is_or_in} the VIP of service '
                    f'"{owners[vip].name}": packets would loop; use the backend\'s own address',
                )
                break


def _vips_around(address: AnyAddress, lengths: Iterable[int]) -> Iterator[AnyVip]:
    """The VIPs that would take packets for an address: itself, and its prefixes of these lengths."""
    yield address
    if address.version == 6:
        yield from (IPv6Network((int(address), length), strict=False) for length in lengths)

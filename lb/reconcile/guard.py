"""Keeps a change of the lists from locking out whoever makes it, or what the balancer itself needs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_address

from lb.dataplane.protocol import NextHop
from lb.model import Config, Service
from lb.model.address import AnyAddress
from lb.model.protect import Protected, check

_ND = " and its neighbour discovery"


@dataclass(frozen=True, slots=True)
class Guard:
    """For one change: who asks for it, by their addresses, and whether it may lock out what it likes."""

    callers: tuple[AnyAddress, ...] = ()
    force: bool = False

    def check(
        self, before: Config, after: Config, hops: Mapping[bytes, NextHop], now: float
    ) -> tuple[str, ...]:
        """Warnings; ConflictError if an address in use would be dropped. now: seconds since the epoch."""
        if self.force or not after.blocklist.layers:
            return ()
        new = list(_of_services(_differing(after, before)))
        known = {one.address for one in _of_services(_differing(before, after))}
        added = {one.address for one in new} - known
        if before.blocklist is after.blocklist and before.allowlist is after.allowlist:
            in_use = _once(one for one in new if one.address in added)
        else:
            in_use = _once([*self._callers(), *_gateways(hops), *_of_services(after.services.values())])
        return tuple(check(before, after, in_use, [one.address in added for one in in_use], now))

    def _callers(self) -> Iterator[Protected]:
        for address in self.callers:
            if not address.is_loopback:  # which no packet on a wire has
                yield Protected(
                    address, "the address that you call from", "all you send, this connection too,"
                )


NOBODY = Guard()
"""For changes that nobody calls for."""


def in_use(config: Config, hops: Mapping[bytes, NextHop]) -> list[Protected]:
    """Gateways, backends and VIPs: what whoever makes entries by themselves should leave out."""
    return _once([*_gateways(hops), *_of_services(config.services.values())])


def _gateways(hops: Mapping[bytes, NextHop]) -> Iterator[Protected]:
    """The routers between here and backends."""
    for backend, hop in hops.items():
        if hop.via is not None:
            address = ip_address(hop.via)
            role = f"the gateway to backend {ip_address(backend)}"
            yield Protected(address, role, f"its ICMP errors{_ND if address.version == 6 else ''}")


def _of_services(services: Iterable[Service]) -> Iterator[Protected]:
    """Their VIPs and backends. What a service sends back to clients does not come by here."""
    for service in services:
        net = service.vip if isinstance(service.vip, IPv6Network) else None
        vip, length = (net.network_address, net.prefixlen) if net else (ip_address(str(service.vip)), 128)
        cut = "answers that its backends route back through this host"
        yield Protected(vip, f'the VIP of service "{service.name}"', cut, length)
        for backend in service.backends:
            more = _ND if backend.address.version == 6 else ""
            cut = (
                f"its ICMP errors, its answers to health checks{more} (its answers to clients pass elsewhere)"
            )
            yield Protected(backend.address, f'a backend of service "{service.name}"', cut)


def _differing(config: Config, other: Config) -> list[Service]:
    """The services of a config that are not the same in another."""
    return [s for name, s in config.services.items() if other.services.get(name) is not s]


def _once(found: Iterable[Protected]) -> list[Protected]:
    """Each address once, with what was said of it first."""
    by_address: dict[AnyAddress, Protected] = {}
    for one in found:
        by_address.setdefault(one.address, one)
    return list(by_address.values())

"""Addresses in use: callers, gateways, backends, VIPs and addresses of NAT; computed once and kept."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv6Network, ip_address

from lb.dataplane.protocol import NextHop
from lb.model import Config, Mode, NatSource, Prefix, Service
from lb.model.address import AnyAddress
from lb.model.nat import pool_addresses
from lb.model.prefix import BITS
from lb.model.protect import Protected

_ND = " and its neighbour discovery"
LATELY_SECONDS = 86400
CALLERS_MOST = 256


class Callers:
    """Who changed something lately: their addresses, the newest so many."""

    def __init__(self) -> None:
        self._called: dict[AnyAddress, float] = {}

    def add(self, addresses: Iterable[AnyAddress], now: float) -> None:
        """They call now. One that no packet on a wire has is left out."""
        for address in addresses:
            if not address.is_loopback:
                self._called.pop(address, None)
                self._called[address] = now
        while len(self._called) > CALLERS_MOST:
            del self._called[next(iter(self._called))]

    def lately(self, now: float) -> list[Protected]:
        """As what is in use."""
        some = [address for address, at in list(self._called.items()) if at > now - LATELY_SECONDS]
        return [
            Protected(address, "an address that called the API lately", "everything it sends")
            for address in some
        ]


def in_use(
    config: Config, hops: Mapping[bytes, NextHop], callers: Iterable[Protected] = ()
) -> list[Protected]:
    """Callers, gateways, backends and VIPs: what whoever makes entries by themselves leaves out."""
    return once([*callers, *_gateways(hops), *of_services(config.services.values()), *_of_pools(config)])


def _gateways(hops: Mapping[bytes, NextHop]) -> Iterator[Protected]:
    """The routers between here and backends."""
    for backend, hop in hops.items():
        if hop.via is not None:
            address = ip_address(hop.via)
            role = f"the gateway to backend {ip_address(backend)}"
            yield Protected(address, role, f"its ICMP errors{_ND if address.version == 6 else ''}")


def of_services(services: Iterable[Service]) -> Iterator[Protected]:
    """Their VIPs and backends, and what each would lose."""
    for service in services:
        net = service.vip if isinstance(service.vip, IPv6Network) else None
        vip, length = (net.network_address, net.prefixlen) if net else (ip_address(str(service.vip)), 128)
        cut = "answers that its backends route back through this host"
        yield Protected(vip, f'the VIP of service "{service.name}"', cut, length)
        for backend in service.backends:
            more = _ND if backend.address.version == 6 else ""
            lost = f"its ICMP errors, its answers to health checks{more} ({_answers(service)})"
            yield Protected(backend.address, f'a backend of service "{service.name}"', lost)


def _answers(service: Service) -> str:
    """What becomes of those that its backends give to clients."""
    if service.mode is not Mode.NAT:
        return "its answers to clients pass elsewhere"
    if service.nat_source is NatSource.KEEP:
        return "and its answers to clients"
    return "its answers to clients pass"


def _of_pools(config: Config) -> Iterator[Protected]:
    """The addresses that NAT sends from."""
    for address in pool_addresses(config.settings.nat_pools):
        yield Protected(address, "an address of nat_pools", "what comes from it")


def once(found: Iterable[Protected]) -> list[Protected]:
    """Each address once, with what was said of it first."""
    by_address: dict[AnyAddress, Protected] = {}
    for one in found:
        by_address.setdefault(one.address, one)
    return list(by_address.values())


class Around:
    """Addresses in use by the prefixes around them: thousands are asked about with the writer's lock held."""

    def __init__(self, used: Iterable[Protected]) -> None:
        self.everyone = list(used)
        self._every = [(one, one.prefix) for one in self.everyone]
        self._known: dict[tuple[int, int], dict[int, list[tuple[Protected, Prefix]]]] = {}

    def within_any(self, prefixes: Iterable[Prefix]) -> list[Protected]:
        """Those that lie in one of these."""
        return once(one for prefix in prefixes for one, _ in self.within(prefix))

    def within(self, source: Prefix | None) -> list[tuple[Protected, Prefix]]:
        """Those that lie in a prefix; None: all."""
        if source is None:
            return self._every
        family, length = source.family, source.length
        left_out = BITS[family] - length
        known = self._known.get((family, length))
        if known is None:
            known = self._known[family, length] = {}
            for one, prefix in self._every:
                if prefix.family == family and prefix.length >= length:
                    known.setdefault(prefix.network >> left_out, []).append((one, prefix))
        return known.get(source.network >> left_out, [])


class Used:
    """Whom a state has in use, worked out again only where these may be others. A weight or a label changes nothing."""

    def __init__(self) -> None:
        self._around = Around(())
        self._services: Mapping[str, Service] = {}
        self._hops: Mapping[bytes, NextHop] = {}
        self._pools: object = ()

    def around(self, config: Config, hops: Mapping[bytes, NextHop]) -> Around:
        """Those of in_use, callers left out. hops: another object where any of them is another."""
        pools = config.settings.nat_pools
        same = hops is self._hops and pools == self._pools and _same_places(config.services, self._services)
        if not same:
            self._around = Around(in_use(config, hops))
        self._services, self._hops, self._pools = config.services, hops, pools
        return self._around


def _same_places(services: Mapping[str, Service], others: Mapping[str, Service]) -> bool:
    """Whether services have the same VIPs and backends, and what they send back takes the same way."""
    if services is others:
        return True
    return services.keys() == others.keys() and all(
        (other := others[name]) is service or _places(service) == _places(other)
        for name, service in services.items()
    )


def _places(service: Service) -> tuple[object, ...]:
    return service.vip, service.mode, service.nat_source, *(backend.address for backend in service.backends)

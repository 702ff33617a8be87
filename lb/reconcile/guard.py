"""Keeps a change of the lists from locking out whoever makes it, or what the balancer itself needs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_address

from lb.dataplane.protocol import NextHop
from lb.errors import ConflictError
from lb.model import Config, Prefix, Rule, Service
from lb.model.address import AnyAddress
from lb.model.nat import pool_addresses
from lb.model.prefix import BITS
from lb.model.protect import REMEDY, Protected, check
from lb.model.rule import RuleAction
from lb.model.rule_fields import TCP

_ND = " and its neighbour discovery"
LATELY_SECONDS = 86400
CALLERS_MOST = 256


@dataclass(frozen=True, slots=True)
class Guard:
    """For one change: who asks for it, by their addresses, and whether it may lock out what it likes."""

    callers: tuple[AnyAddress, ...] = ()
    force: bool = False

    def check(
        self, before: Config, after: Config, hops: Mapping[bytes, NextHop], now: float
    ) -> tuple[str, ...]:
        """Warnings; ConflictError if an address in use would be dropped. now: seconds since the epoch."""
        if self.force:
            return ()
        if after.rules is not before.rules:
            _check_rules(before, after, in_use(after, hops, self._callers()), now)
        if not after.blocklist.layers:
            return ()
        new = list(_of_services(_differing(after, before)))
        known = {one.address for one in _of_services(_differing(before, after))}
        added = {one.address for one in new} - known
        if before.blocklist is after.blocklist and before.allowlist is after.allowlist:
            used = _once(one for one in new if one.address in added)
        else:
            used = in_use(after, hops, self._callers())
        return tuple(check(before, after, used, [one.address in added for one in used], now))

    def _callers(self) -> Iterator[Protected]:
        for address in self.callers:
            if not address.is_loopback:  # which no packet on a wire has
                yield Protected(
                    address, "the address that you call from", "all you send, this connection too,"
                )


def _check_rules(before: Config, after: Config, used: Iterable[Protected], now: float) -> None:
    """ConflictError if a rule that is new, or not as it was, drops all (or all TCP) that an address in use sends."""
    fresh = [
        rule for name, rule in after.rules.items() if before.rules.get(name) != rule and _drops_all(rule)
    ]
    around = _Around(used)
    for rule in fresh:
        for one, prefix in around.within(rule.source):
            if next(after.allowlist.covering(prefix, now), None) is None:
                raise ConflictError(
                    f'rule "{rule.name}" drops what {rule.source or "anybody"} sends, which covers {one.address}, '
                    f"{one.role}: {one.cut} would be dropped; {REMEDY}"
                )


class _Around:
    """Addresses in use by the prefixes around them: a thousand rules are asked about with the writer's lock held."""

    def __init__(self, used: Iterable[Protected]) -> None:
        self._every = [(one, one.prefix) for one in used]
        self._known: dict[tuple[int, int], dict[int, list[tuple[Protected, Prefix]]]] = {}

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


def _drops_all(rule: Rule) -> bool:
    """Whether a rule looks at nothing but the source."""
    narrower = ("destination", "service", "source_ports", "ports", "tcp_flags", "length", "fragments")
    if rule.action is not RuleAction.DROP or rule.count_only or rule.protocol not in (None, TCP):
        return False
    return all(getattr(rule, name) is None for name in narrower)


NOBODY = Guard()
"""For changes that nobody calls for."""


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
            Protected(address, "from where the API was called lately", "all it sends") for address in some
        ]


def in_use(
    config: Config, hops: Mapping[bytes, NextHop], callers: Iterable[Protected] = ()
) -> list[Protected]:
    """Callers, gateways, backends and VIPs: what whoever makes entries by themselves leaves out."""
    return _once([*callers, *_gateways(hops), *_of_services(config.services.values()), *_of_pools(config)])


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


def _of_pools(config: Config) -> Iterator[Protected]:
    """The addresses that NAT sends from."""
    for address in pool_addresses(config.settings.nat_pools):
        yield Protected(address, "an address of nat_pools", "what comes from it")


def _differing(config: Config, other: Config) -> list[Service]:
    """The services of a config that are not the same in another."""
    return [s for name, s in config.services.items() if other.services.get(name) is not s]


def _once(found: Iterable[Protected]) -> list[Protected]:
    """Each address once, with what was said of it first."""
    by_address: dict[AnyAddress, Protected] = {}
    for one in found:
        by_address.setdefault(one.address, one)
    return list(by_address.values())

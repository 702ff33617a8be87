"""What rules match once the services they name are resolved; which rule is hidden by another. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network

from lb.model.prefix import Prefix
from lb.model.rule import Fragments, LimitUnit, Rule
from lb.model.rule_fields import PROTOCOLS, NumberSet, TcpFlags
from lb.model.service import Fault, Protocol, Service


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule asks of a packet; None asks nothing. protocol is a number."""

    source: Prefix | None
    destination: Prefix | None
    source_ports: NumberSet | None
    ports: NumberSet | None
    length: NumberSet | None
    protocol: int | None
    tcp_flags: TcpFlags | None
    fragments: Fragments | None

    @classmethod
    def of(cls, rule: Rule, services: Mapping[str, Service]) -> "Match":
        """With VIP, port and protocol of the rule's service; KeyError if there is none of that name."""
        destination, ports, protocol = rule.destination, rule.ports, rule.protocol
        if rule.service is not None:
            service = services[rule.service]
            destination, protocol = vip_prefix(service), ip_protocol(service)
            ports = None if service.port.is_any else NumberSet(((service.port.low, service.port.high),))
        return cls(
            rule.source,
            destination,
            rule.source_ports,
            ports,
            rule.length,
            protocol,
            rule.tcp_flags,
            rule.fragments,
        )

    def holds(self, other: "Match") -> bool:
        """Whether every field is the same or wider, so that every packet that other matches matches here."""
        return (
            (self.protocol is None or self.protocol == other.protocol)
            and (self.fragments is None or self.fragments is other.fragments)
            and (self.source is None or (other.source is not None and self.source.contains(other.source)))
            and (
                self.destination is None
                or (other.destination is not None and self.destination.contains(other.destination))
            )
            and _set_holds(self.ports, other.ports)
            and _set_holds(self.source_ports, other.source_ports)
            and _set_holds(self.length, other.length)
            and (
                self.tcp_flags is None
                or (other.tcp_flags is not None and self.tcp_flags.holds(other.tcp_flags))
            )
        )


def _set_holds(wide: NumberSet | None, narrow: NumberSet | None) -> bool:
    return wide is None or (narrow is not None and wide.holds(narrow))


def ip_protocol(service: Service) -> int:
    """The number of a service's protocol in clients' packets: ICMP over IPv6 has its own."""
    is_icmpv6 = service.protocol is Protocol.ICMP and service.vip.version == 6
    return PROTOCOLS["icmpv6" if is_icmpv6 else service.protocol]


def vip_prefix(service: Service) -> Prefix:
    """The VIP as a prefix: an address has all bits."""
    if isinstance(service.vip, IPv6Network):
        return Prefix(6, int(service.vip.network_address), service.vip.prefixlen)
    return Prefix(service.vip.version, int(service.vip), service.vip.max_prefixlen)


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """Rules as they are asked: those that allow, those that drop, the others; of a kind by priority, then by name."""
    return sorted(rules, key=lambda rule: rule.place)


def service_faults(rule: Rule, services: Mapping[str, Service]) -> Iterator[Fault]:
    """Why a rule cannot mean the service that it names."""
    if rule.service is None:
        return
    service = services.get(rule.service)
    if service is None:
        yield ("service",), f'there is no service "{rule.service}": add it first, or leave service out'
        return
    if rule.tcp_flags and service.protocol is not Protocol.TCP:
        yield (
            ("tcp_flags",),
            f'the service "{service.name}" is of {service.protocol}, which has no TCP flags: leave them out',
        )
    if service.protocol is Protocol.ICMP:
        if rule.source_ports:
            yield (
                ("source_ports",),
                f'the service "{service.name}" is of icmp, which has no ports: leave it out',
            )
        if rule.limit and rule.limit.unit is LimitUnit.NEW_FLOWS:
            yield (
                ("limit", "unit"),
                f'the service "{service.name}" is of icmp, whose flows this limit does not count: use unit packets',
            )
    if rule.source and rule.source.family != service.vip.version:
        yield (
            ("source",),
            f'source is IPv{rule.source.family} and the service "{service.name}" IPv{service.vip.version}, which no '
            "packet has: give two of one family",
        )


def warnings(rules: Mapping[str, Rule], services: Mapping[str, Service], changed: Iterable[str]) -> list[str]:
    """A sentence for each rule that is never reached, since an earlier one matches all that it does and ends the way.

    Only where one of the two is in changed.
    """
    new = set(changed)
    if not new:
        return []
    ordered = [(rule, Match.of(rule, services)) for rule in in_order(rules.values())]
    enders: list[tuple[Rule, Match]] = []
    new_enders: list[tuple[Rule, Match]] = []
    found = []
    for rule, match in ordered:
        is_new = rule.name in new
        for earlier, wide in enders if is_new else new_enders:
            if wide.holds(match):
                found.append(_hidden(rule, earlier))
                break
        if rule.ends:
            enders.append((rule, match))
            if is_new:
                new_enders.append((rule, match))
    return found


def _hidden(rule: Rule, earlier: Rule) -> str:
    does = f'rule "{earlier.name}" comes before it and {earlier.action}s all that it matches'
    return (
        f'rule "{rule.name}" is never reached: {does}; remove one of them, or make the earlier one narrower'
    )

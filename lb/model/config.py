"""The whole of what the operator wants, as one immutable value."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Field, PlainSerializer

from lb.errors import ConflictError, FieldError, InvalidError, NotFoundError
from lb.model.access import Access
from lb.model.clashes import Clash, clashes, loops
from lb.model.entries import FEED_PREFIX, PrefixList
from lb.model.feed import Feed
from lb.model.fields import Strict, pointer
from lb.model.layers import Layer
from lb.model.nat import Pool, PoolPorts, pool_faults, source_faults
from lb.model.owner import RULE_PREFIX
from lb.model.port import Port
from lb.model.prefix import Prefix
from lb.model.rule import Rule
from lb.model.rule_match import service_faults
from lb.model.service import Service

T = TypeVar("T")


def _room(family: int, longest: int) -> Callable[[object], IPv4Network | IPv6Network]:
    def network(value: object) -> IPv4Network | IPv6Network:
        prefix = Prefix.parse(str(value) if isinstance(value, IPv4Network | IPv6Network) else value)
        if prefix.family != family:
            raise ValueError(f"{prefix} is not an IPv{family} network")
        if prefix.length > longest:
            raise ValueError(f"{prefix} is too small to spread flows over: /{longest} or shorter")
        return ip_network(str(prefix))

    return network


SourceIPv4 = Annotated[
    IPv4Network,
    BeforeValidator(_room(4, 24), json_schema_input_type=str),
    PlainSerializer(str, return_type=str),
]
SourceIPv6 = Annotated[
    IPv6Network,
    BeforeValidator(_room(6, 96), json_schema_input_type=str),
    PlainSerializer(str, return_type=str),
]


class Settings(Strict):
    """What holds for every service. Settings of the process (interface, sockets) are in lb/settings.py."""

    encap_source_ipv4: SourceIPv4 = Field(
        IPv4Network("172.16.0.0/16"),
        description="outer IPv4 sources: the low bits vary by flow, for the backend's RSS",
    )
    encap_source_ipv6: SourceIPv6 = Field(
        IPv6Network("100::/64"), description="outer IPv6 sources: the low 32 bits vary by flow"
    )
    udp_idle_seconds: int = Field(
        30,
        ge=1,
        le=86400,
        strict=True,
        description="a UDP flow that has been silent for this long is a new one",
    )
    tcp_idle_seconds: int = Field(
        3600,
        ge=10,
        le=604800,
        strict=True,
        description="a TCP flow that has been silent for this long is forgotten",
    )
    drop_spoofed: bool = Field(
        True,
        strict=True,
        description="drop packets whose source cannot be a client's: this host's, loopback, multicast, or a VIP",
    )
    answer_echo: bool = Field(
        True, strict=True, description="answer echo requests for VIPs here; otherwise they go to the kernel"
    )
    too_big_replies_per_second: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        strict=True,
        description="how many clients per second are told that a packet is too big for its outer header; 0: none",
    )
    gue_port: int = Field(
        6080, ge=1, le=65535, strict=True, description="UDP port on which backends receive GUE"
    )
    max_moved_percent: float | None = Field(
        None,
        ge=0,
        le=100,
        strict=True,
        description="a change that would move more of any service's ring or live flows is refused; null: no bound",
    )
    access: Access = Field(default_factory=Access, description="who may use the API")
    nat_pools: tuple[Pool, ...] = Field(
        (),
        description="addresses and prefixes of this machine that mode nat sends from, for each family of backends",
        examples=[["192.0.2.50", "2001:db8::50"]],
    )
    nat_ports: PoolPorts = Field(
        Port(low=1024, high=65535),
        description="ports of these addresses that flows are assigned",
        json_schema_extra={"default": "1024-65535"},
    )
    nat_opening_seconds: int = Field(
        30,
        ge=1,
        le=3600,
        strict=True,
        description="a NAT flow without a reply ends after being silent for this long",
    )
    nat_closing_seconds: int = Field(
        60, ge=1, le=3600, strict=True, description="a closed TCP flow keeps its NAT port for this long"
    )
    nat_tcp_idle_seconds: int = Field(
        7440,
        ge=10,
        le=604800,
        strict=True,
        description="an open TCP flow of NAT ends after being silent for this long",
    )
    nat_udp_idle_seconds: int = Field(
        120,
        ge=1,
        le=86400,
        strict=True,
        description="a UDP flow of NAT with replies ends after being silent for this long",
    )
    nat_icmp_idle_seconds: int = Field(
        60,
        ge=60,
        le=86400,
        strict=True,
        description="an ICMP echo flow of NAT with replies ends after being silent for this long",
    )


@dataclass(frozen=True)
class Config:
    """Desired state. services and feeds by name, as they were added; rules by name, whose order means nothing.

    Configs are equal when they hold the same, whatever that order.
    """

    services: Mapping[str, Service] = field(default_factory=dict)
    blocklist: PrefixList = field(default_factory=PrefixList)
    allowlist: PrefixList = field(default_factory=PrefixList)
    settings: Settings = field(default_factory=Settings)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    feeds: Mapping[str, Feed] = field(default_factory=dict)

    def without_expired(self, now: float) -> "Config":
        """Without the entries whose time is over; itself if there are none."""
        deny, allow = self.blocklist.without_expired(now), self.allowlist.without_expired(now)
        if deny is self.blocklist and allow is self.allowlist:
            return self
        return replace(self, blocklist=deny, allowlist=allow)

    def service(self, name: str) -> Service:
        """The service of that name; NotFoundError names it."""
        return _named("service", self.services, name)

    def with_service(self, service: Service) -> "Config":
        """With a service added, or put in the place of the one of its name; ConflictError as in checked."""
        before = self.services.get(service.name)
        config = replace(self, services={**self.services, service.name: service})
        if before is None or any(
            getattr(before, f) != getattr(service, f) for f in ("vip", "port", "protocol")
        ):
            return config.checked()
        for _, detail in source_faults(self.settings.nat_pools, service):
            raise ConflictError(detail)
        for _, detail in pool_faults(self.settings.nat_pools, [service]):
            raise ConflictError(f"nat_pools: {detail}")
        # Only its backends can clash: a change of one among 20,000 need not look at the others.
        return _unless(loops([service], config.services.values()), config)

    def without_service(self, name: str) -> "Config":
        """Without the service of that name; NotFoundError if there is none, ConflictError if a rule names it."""
        self.service(name)
        rule = next((rule for rule in self.rules.values() if rule.service == name), None)
        if rule is not None:
            raise ConflictError(
                f'rule "{rule.name}" names service "{name}": remove the rule first, or give it a destination instead'
            )
        return replace(self, services={n: s for n, s in self.services.items() if n != name})

    def with_services(self, services: list[Service]) -> "Config":
        """With exactly these services; ConflictError if a name or a VIP is taken twice."""
        by_name: dict[str, Service] = {}
        for service in services:
            if service.name in by_name:
                raise ConflictError(f'two services are called "{service.name}": give each a name of its own')
            by_name[service.name] = service
        return replace(self, services=by_name).checked()

    def feed(self, name: str) -> Feed:
        """The feed of that name; NotFoundError names it."""
        return _named("feed", self.feeds, name)

    def with_feeds(self, feeds: Mapping[str, Feed]) -> "Config":
        """With exactly these feeds, by name. What one that is gone had on the blocklist goes with it."""
        blocklist = self.blocklist
        for name in self.feeds.keys() - feeds.keys():
            blocklist = blocklist.with_layer(FEED_PREFIX + name, Layer())
        return replace(self, feeds=feeds, blocklist=blocklist)

    def checked(self) -> "Config":
        """Itself, if no two services take the same packets and rules fit them; else ConflictError names both."""
        for rule in self.rules.values():
            for _, detail in service_faults(rule, self.services):
                raise ConflictError(f'rule "{rule.name}": {detail}')
        for _, detail in pool_faults(self.settings.nat_pools, self.services.values()):
            raise ConflictError(f"nat_pools: {detail}")
        for service in self.services.values():
            for _, detail in source_faults(self.settings.nat_pools, service):
                raise ConflictError(f'service "{service.name}": {detail}')
        return _unless(clashes(self.services.values()), self)

    def rule(self, name: str) -> Rule:
        """The rule of that name; NotFoundError names it."""
        return _named("rule", self.rules, name)

    def with_rule(self, rule: Rule) -> "Config":
        """With a rule added, or put in the place of the one of its name; InvalidError if its service does not fit."""
        found = [FieldError(pointer(*path), detail) for path, detail in service_faults(rule, self.services)]
        if found:
            raise InvalidError(found)
        return replace(self, rules={**self.rules, rule.name: rule})

    def without_rule(self, name: str) -> "Config":
        """Without the rule of that name, and whom it has banned; NotFoundError if there is none."""
        self.rule(name)
        return self.with_rules({n: r for n, r in self.rules.items() if n != name})

    def with_rules(self, rules: Mapping[str, Rule]) -> "Config":
        """With exactly these rules; whom one that is gone has banned is free again."""
        blocklist = self.blocklist
        for name in self.rules.keys() - rules.keys():
            blocklist = blocklist.with_layer(RULE_PREFIX + name, Layer())
        return replace(self, rules=rules, blocklist=blocklist)


def _named(kind: str, known: Mapping[str, T], name: str) -> T:
    try:
        return known[name]
    except KeyError:
        raise NotFoundError(
            f'there is no {kind} "{name}": "sluice {kind} list" shows the existing ones'
        ) from None


def _unless(found: Iterator[Clash], config: Config) -> Config:
    clash = next(found, None)
    if clash is not None:
        raise ConflictError(clash.detail)
    return config

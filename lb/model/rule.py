"""A rule: which packets it matches and what it does with them; and the limit that it may set. No I/O."""

from collections.abc import Iterator
from enum import StrEnum

from pydantic import Field, model_validator

from lb.model.entry_input import REASON_MAX, Duration, PrefixField
from lb.model.fields import OneLine, Strict, faults
from lb.model.rule_fields import (
    FLAGS,
    TCP,
    UDP,
    NumberSetField,
    ProtocolField,
    TcpFlagsField,
    show_protocol,
)
from lb.model.service import Fault, Name

PRIORITY_MAX = 65535
RATE_MAX = 10**12
"""A second's units: above it one unit would take less than a tick of the packet path's clock."""
BURST_SECONDS_MAX = 86400
"""A burst is at most what the rate allows in a day: a bucket's clock wraps after half a year."""
_WHOLE_PACKET = 65535
_IP_HEADER = {None: 20, 4: 20, 6: 40}


class RuleAction(StrEnum):
    """What a rule does to the packets that it matches."""

    DROP = "drop"
    COUNT = "count"
    LIMIT = "limit"
    ALLOW = "allow"


class LimitUnit(StrEnum):
    """What a limit counts. new-flows: TCP's SYNs, and UDP packets of services whose flow is not known."""

    PACKETS = "packets"
    BYTES = "bytes"
    NEW_FLOWS = "new-flows"


class LimitPer(StrEnum):
    """Who shares a limit: each source (or prefix of sources) has its own, or all that the rule matches have one."""

    SOURCE = "source"
    RULE = "rule"


class Fragments(StrEnum):
    """Fragments only, or none of them."""

    ONLY = "only"
    NONE = "none"


class Limit(Strict):
    """So many a second, and so many at once."""

    rate: int = Field(ge=1, le=RATE_MAX, strict=True, description="how many per second", examples=[1000])
    unit: LimitUnit = Field(LimitUnit.PACKETS, description="bytes are those of frames as received")
    burst: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="how many at once; null: as many as in a second, and for bytes at least 65535",
    )
    per: LimitPer = LimitPer.SOURCE
    ipv4_length: int = Field(
        32,
        ge=8,
        le=32,
        strict=True,
        description="IPv4 sources with this many leading bits in common share a limit",
    )
    ipv6_length: int = Field(
        64,
        ge=32,
        le=128,
        strict=True,
        description="IPv6 sources with this many leading bits in common share a limit",
    )

    @property
    def at_once(self) -> int:
        """Units of a burst."""
        if self.burst is not None:
            return self.burst
        return max(self.rate, _WHOLE_PACKET) if self.unit is LimitUnit.BYTES else self.rate

    @model_validator(mode="after")
    def _check(self) -> "Limit":
        faults(self._faults())
        return self

    def _faults(self) -> Iterator[Fault]:
        if self.at_once > self.rate * BURST_SECONDS_MAX:
            yield (
                ("burst",),
                f"{self.at_once} is more than the rate allows in a day ({self.rate * BURST_SECONDS_MAX}): "
                "lower the burst, or raise the rate",
            )
        if self.per is LimitPer.RULE:
            for name in ("ipv4_length", "ipv6_length"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    yield (name,), "all sources share this limit: leave it out, or set per to source"


class Rule(Strict):
    """Which packets, and what becomes of them. A field that is null asks nothing; all that are given must fit."""

    name: Name = Field(description="unique name", examples=["no-dns-answers"])
    priority: int = Field(
        1000,
        ge=0,
        le=PRIORITY_MAX,
        strict=True,
        description="the lowest is asked first, of equal ones the first by name; but those that allow before those "
        "that drop, and these before all others",
    )
    action: RuleAction = Field(description="drop and allow end the evaluation of rules")
    count_only: bool = Field(
        False, strict=True, description="only count what would be dropped; for drop and limit"
    )
    reason: OneLine = Field("", max_length=REASON_MAX, description="reason, on one line")
    source: PrefixField | None = Field(
        None, description="prefix of the source address", examples=["203.0.113.0/24"]
    )
    destination: PrefixField | None = Field(None, description="prefix of the destination address")
    service: Name | None = Field(
        None, description="name of a service: stands for its VIP, port and protocol", examples=[None, "web"]
    )
    protocol: ProtocolField | None = Field(
        None, description="tcp, udp, icmp, icmpv6, sctp, gre, esp, ah, or a number", examples=["udp"]
    )
    source_ports: NumberSetField | None = Field(
        None, description="of TCP and UDP", examples=["53", "1024-65535"]
    )
    ports: NumberSetField | None = Field(
        None, description="destination ports; for TCP and UDP", examples=["80,443,8000-8080"]
    )
    tcp_flags: TcpFlagsField | None = Field(
        None,
        description='set, or with "!" clear; flags that are not named may be either',
        examples=["syn,!ack"],
    )
    length: NumberSetField | None = Field(
        None, description="length of the IP packet in bytes", examples=["0-64"]
    )
    fragments: Fragments | None = Field(None, description="null: any packet")
    limit: Limit | None = Field(None, description="only for action limit, and required there")
    ban_seconds: Duration | None = Field(
        None,
        description="sources over the limit are blocked for this many seconds; only for a limit per source",
    )

    @model_validator(mode="after")
    def _check(self) -> "Rule":
        faults([*self._action_faults(), *self._service_faults(), *self._match_faults()])
        return self

    def _action_faults(self) -> Iterator[Fault]:
        is_limit = self.action is RuleAction.LIMIT
        if is_limit and self.limit is None:
            yield ("limit",), 'action "limit" needs it: give {"rate": N}, or another action'
        if not is_limit and self.limit is not None:
            yield ("limit",), f'action "{self.action}" has no limit: leave it out, or use action "limit"'
        if self.count_only and self.action in (RuleAction.COUNT, RuleAction.ALLOW):
            yield ("count_only",), f'action "{self.action}" drops nothing: leave it out, or use drop or limit'
        if self.ban_seconds is not None and (self.limit is None or self.limit.per is not LimitPer.SOURCE):
            yield (
                ("ban_seconds",),
                'only a limit with per "source" knows whom to ban: leave it out, or set one',
            )
        if self.limit is not None and self.limit.unit is LimitUnit.NEW_FLOWS:
            if self.protocol not in (None, TCP, UDP):
                yield (
                    ("protocol",),
                    f"{show_protocol(self.protocol)} has no flows, so this limit is never reached: use tcp or "
                    "udp, or unit packets",
                )
            if self.tcp_flags and self.tcp_flags.forbids(present=FLAGS["syn"], absent=FLAGS["ack"]):
                yield (
                    ("tcp_flags",),
                    'a new flow begins with SYN and without ACK, so this never matches one: write "syn,!ack"',
                )

    def _service_faults(self) -> Iterator[Fault]:
        if self.service is None:
            return
        for name in ("destination", "protocol", "ports"):
            if getattr(self, name) is not None:
                yield (
                    (name,),
                    f'the service "{self.service}" stands for its VIP, port and protocol: leave {name} out, or '
                    "leave service out",
                )

    def _match_faults(self) -> Iterator[Fault]:
        if self.source and self.destination and self.source.family != self.destination.family:
            yield (
                ("destination",),
                f"source is IPv{self.source.family} and destination IPv{self.destination.family}, which no packet "
                "has: give two of one family",
            )
        for name in ("source_ports", "ports"):
            if getattr(self, name) is not None and self.protocol not in (None, TCP, UDP):
                yield (
                    (name,),
                    f"only tcp and udp have ports, not {show_protocol(self.protocol)}: leave it out, or change "
                    "the protocol",
                )
        if self.tcp_flags and self.service is None and self.protocol != TCP:
            yield ("tcp_flags",), "only TCP has these flags: set protocol to tcp, or leave them out"
        least = _IP_HEADER[self.family]
        if self.length and self.length.greatest < least:
            what = f"IPv{self.family}" if self.family else "IP"
            yield (
                ("length",),
                f"no {what} packet is shorter than {least} bytes: give a range that includes that",
            )

    @property
    def family(self) -> int | None:
        """4 or 6 if its prefixes say so, None for both."""
        prefix = self.source or self.destination
        return prefix.family if prefix else None

    @property
    def ends(self) -> bool:
        """Whether no later rule is asked about a packet that it matches, whatever came before."""
        return self.action is RuleAction.ALLOW or (self.action is RuleAction.DROP and not self.count_only)

    @property
    def bans(self) -> bool:
        """Whether sources are banned: who would only be counted is not."""
        return self.ban_seconds is not None and not self.count_only

    @property
    def place(self) -> tuple[bool, bool, int, str]:
        """The key to sort rules by, in the order in which they are asked: allow > drop > all that go on."""
        return not self.ends, self.action is not RuleAction.ALLOW, self.priority, self.name

    def promoted(self) -> "Rule":
        """The same, doing what it has only counted."""
        return self.model_copy(update={"count_only": False})

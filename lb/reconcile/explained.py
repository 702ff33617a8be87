"""The answer of explain as values, and the view of the control plane that translates numbers to names."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from lb.dataplane.layout import Verdict
from lb.errors import ConflictError
from lb.model import Config, Entry, Rule
from lb.reconcile.observed import Hits, RuleTally
from lb.reconcile.services import ServicePlan


@lru_cache(maxsize=4096)
def address_text(packed: bytes) -> str:
    """An address as people write it."""
    return str(ip_address(packed))


@dataclass(frozen=True, slots=True)
class Step:
    """What one stage did. result: "continue", or the verdict that ended the way there."""

    stage: str
    result: str
    detail: str


@dataclass(frozen=True, slots=True)
class FlowEntry:
    """The flow table's entry. age_seconds: since the flow's last packet; established: else a newcomer."""

    age_seconds: int
    established: bool


@dataclass(frozen=True, slots=True)
class ListEntry:
    """The entry of the blocklist, or (allow) the allowlist. Times in seconds; ttl_left_seconds None: it stays."""

    allow: bool
    entry: Entry
    age_seconds: float
    ttl_left_seconds: float | None
    hits: Hits


@dataclass(frozen=True, slots=True)
class MetRule:
    """The rule that decided, and what it has matched so far."""

    rule: Rule
    tally: RuleTally


@dataclass(frozen=True, slots=True)
class Explained:
    """What becomes of one frame. via: flow, ring, quic-cid, or None; frame_out: None if it does not leave."""

    verdict: Verdict
    service: str | None
    backend: str | None
    via: str | None
    entry: FlowEntry | ListEntry | MetRule | None
    frame_out: bytes | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Way:
    """The way to a backend. mtu: of the IP packet, 0 unknown."""

    mtu: int
    interface: str


@dataclass(frozen=True)
class View:
    """What numbers mean, all of it at the moment when the frames ran.

    services: plans by number; ways: by place in `backends`; mac: the interface's own;
    entries: by (allow, entry number, packed source address); rules: by number.
    """

    config: Config
    verdicts: Mapping[int, Verdict]
    services: Mapping[int, ServicePlan]
    ways: Mapping[int, Way]
    entries: Mapping[tuple[bool, int, bytes], ListEntry]
    rules: Mapping[int, MetRule]
    mac: bytes

    def rule(self, number: int) -> MetRule:
        """The rule of that number; ConflictError if it has gone."""
        if number not in self.rules:
            raise ConflictError("a rule was removed while the frames ran: ask again")
        return self.rules[number]

    def plan(self, number: int) -> ServicePlan:
        """The service of that number; ConflictError if it has gone."""
        if number not in self.services:
            raise ConflictError("a service was removed while the frames ran: ask again")
        return self.services[number]

    def address(self, plan: ServicePlan, offset: int) -> str:
        """The address of a backend's place within its service; ConflictError if it has gone."""
        address = plan.places[offset] if offset < len(plan.places) else None
        if address is None:
            raise ConflictError(
                f'a backend of service "{plan.service.name}" was removed while the frames ran: ask again'
            )
        return address_text(address)

"""The documents of observed state: counters, events, captures, top talkers, and the daemon's readiness."""

from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.schemas import Collection
from lb.model import Action
from lb.model.times import format_moment
from lb.reconcile.observed import (
    FlowTableStats,
    GuardStats,
    NatStats,
    QuicStats,
    RuleTally,
    Tally,
    VerdictInfo,
)


class RuleCounts(BaseModel):
    """What a rule has matched since it was made, or the program was attached."""

    packets: int
    bytes: int
    dropped_packets: int = Field(description="of them dropped; in count-only mode: would have been dropped")
    dropped_bytes: int
    last_match_at: str | None = Field(
        json_schema_extra={"format": "date-time"}, description="null if none matched"
    )
    position: int = Field(description="the rule's place in the order of evaluation, from 1")

    @classmethod
    def of(cls, tally: RuleTally) -> "RuleCounts":
        """How a tally is shown."""
        last = None if tally.last_match_at is None else format_moment(tally.last_match_at)
        return cls.model_validate({**asdict(tally), "last_match_at": last})


class Verdicts(Collection[VerdictInfo]):
    """What can become of a packet, in order of number."""


class EventDocument(BaseModel):
    """One thing that happened."""

    id: int = Field(description="increases, over restarts too")
    time: str = Field(json_schema_extra={"format": "date-time"})
    kind: str = Field(examples=["config.changed"])
    level: Literal["info", "warning", "error"]
    text: str = Field(description="in one sentence")
    facts: dict[str, Any] = Field(description="the same as values; the keys depend on the kind")
    request_id: str | None = Field(description="the request that caused it; null if none")


class EventsPage(BaseModel):
    """Events, the oldest first."""

    items: list[EventDocument]
    total: int = Field(description="how many matching events are kept, from `after` on")
    next: int | None = Field(description="`after` of the next page; null on the last")
    last: int = Field(description="the number to go on from with Last-Event-ID")


class CapturedEntry(BaseModel):
    """The blocklist's entry for the source of a packet."""

    prefix: str
    owner: str = Field(examples=["operator"])
    action: Action
    reason: str


class CaptureRecord(BaseModel):
    """A line of a capture. `record` says which of the others it has: those of a packet, or figures.

    Of packets with the verdicts asked for: came; of these unseen were not handed out (the rate, or a full queue), lost
    were not taken in time, over_rate were left out here.
    """

    record: Literal["began", "packet", "progress", "end"]
    time: str | None = Field(None, json_schema_extra={"format": "date-time"})
    verdict: str | None = None
    action: str | None = None
    source: str | None = Field(
        None,
        description="its sender; of an ICMP error about a flow the address that the quoted packet was for",
    )
    entry: CapturedEntry | None = None
    rule: str | None = Field(None, description="the rule that decided")
    service: str | None = None
    backend: str | None = None
    interface: str | None = None
    length: int | None = Field(None, description="of the frame as it came")
    bytes: str | None = Field(None, description="the frame's first bytes as it left, in base64")
    packets: int | None = Field(None, description="shown so far")
    came: int | None = None
    unseen: int | None = None
    lost: int | None = None
    over_rate: int | None = None
    why: str | None = Field(None, description="why it ended: count, seconds, or a sentence")


class TopTalker(BaseModel):
    """One of those that send the most."""

    key: str = Field(description='address, prefix, service or verdict; "-" where there is none')
    packets_per_second: float
    share: float = Field(description="of all packets, 0 to 1")
    uncertainty: float = Field(description="how far the share may be off either way, with 95 % confidence")
    verdicts: dict[str, float] = Field(description="packets a second by verdict")


class TopTalkers(BaseModel):
    """Who sends the most."""

    by: Literal["source", "prefix", "service", "verdict"]
    seconds: float = Field(description="how long packets were sampled")
    packets: int = Field(description="packets that came, by the counters")
    sampled: int = Field(description="packets of these that were sampled")
    packets_per_second: float
    items: list[TopTalker]


class Stats(BaseModel):
    """Packet counters: totals since the program was attached."""

    verdicts: dict[str, Tally] = Field(description="by verdict")
    services: dict[str, Tally] = Field(description="by service: what came for it")
    backends: dict[str, dict[str, Tally]] = Field(description="by service, then address: what was sent to it")
    owners: dict[str, Tally] = Field(description='blocklist hits, by owner: "operator" or "feed:NAME"')
    flow_table: FlowTableStats = Field(description="what became of flow lookups")
    quic: QuicStats = Field(description="packets of services with quic, by what their connection id said")
    nat: NatStats = Field(description="flows of mode nat")
    rules: dict[str, RuleCounts] = Field(description="by rule, in the order of evaluation")
    flood_protection: dict[str, GuardStats] = Field(
        description="new flows under attack, by service, of those that have flood protection"
    )


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """The data plane is attached and in step with the desired state."""

    status: Literal["ready"] = "ready"
    revision: int = Field(description="the revision in force")

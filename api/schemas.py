"""The documents that only the API has: collections, operations, statistics, problems."""

from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from lb.model import Action, Backend, Feed, Rule, Service, Settings
from lb.model.address import Address
from lb.model.diff import Diff
from lb.model.entry_input import AllowlistInput, BlocklistInput
from lb.model.entry_view import AllowlistView, BlocklistView
from lb.model.owner import OPERATOR, Owner
from lb.model.times import format_moment
from lb.reconcile.disruption import ServiceMove
from lb.reconcile.observed import (
    FlowTableStats,
    GuardStats,
    Hits,
    NatStats,
    PendingStatus,
    QuicStats,
    RuleTally,
    Tally,
    VerdictInfo,
)

T = TypeVar("T")


class Problem(BaseModel):
    """An error (RFC 9457). Nothing was changed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:sluice:problem:invalid",
                    "title": "The request holds values that cannot be accepted",
                    "status": 422,
                    "detail": "/port: port 70000 is out of range: 1 to 65535",
                    "errors": [{"pointer": "/port", "detail": "port 70000 is out of range: 1 to 65535"}],
                }
            ]
        }
    )

    type: str = Field(description="names the class of problem; a URN")
    title: str = Field(description="the class of problem in words")
    status: int = Field(description="the HTTP status again")
    detail: str = Field(description="one sentence: what is wrong and what to do")
    errors: "list[Fault] | None" = Field(
        None, description="each fault of the request, where it has several fields"
    )
    reasons: list[str] | None = Field(None, description="why the data plane is not ready")
    request_id: str | None = Field(
        None,
        description="as in X-Request-Id: the log and the events have it too",
        examples=["9f86d081884c7d65"],
    )
    disruption: list[ServiceMove] | None = Field(None, description="of services, what moves too much")


class Fault(BaseModel):
    """One thing wrong with one field or parameter."""

    pointer: str = Field(description='JSON pointer into the body; "" for the whole, or for a parameter')
    detail: str = Field(description="the fault and the remedy")
    parameter: str | None = Field(None, description="the parameter of the path or query, if that is at fault")
    line: int | None = Field(None, description="the line (from 1), where the body was lines")


class Collection(BaseModel, Generic[T]):
    """Items, or one page of them."""

    items: list[T]
    total: int = Field(description="how many there are in all")
    next: str | None = Field(None, description="`after` of the next page; null on the last")


class Services(Collection[Service]):
    """Services, in the order they were added."""


class ServiceSet(BaseModel):
    """What is taken beside a bare array. total and next are not looked at."""

    items: list[Service]
    total: int | None = None
    next: None = None


class Backends(Collection[Backend]):
    """The backends of one service."""


class BackendSet(BaseModel):
    """What PUT takes beside a bare array: the document that GET gives. total and next are not looked at."""

    items: list[Backend]
    total: int | None = None
    next: None = None


class Rules(Collection[Rule]):
    """Rules, in the order in which they are asked."""


class RuleSet(BaseModel):
    """What is taken beside a bare array. total and next are not looked at."""

    items: list[Rule]
    total: int | None = None
    next: None = None


class RuleAnswer(Rule):
    """A rule as it was accepted."""

    warnings: list[str] = Field(description="what is accepted, but can hardly be meant")


class RulesAnswer(Rules):
    """Several rules as they were accepted."""

    warnings: list[str] = Field(description="what is accepted, but can hardly be meant")


class RuleCounts(BaseModel):
    """What a rule has matched since it was made, or the program was attached."""

    packets: int
    bytes: int
    dropped_packets: int = Field(description="of them dropped; in count-only mode: that would have been")
    dropped_bytes: int
    last_match_at: str | None = Field(
        json_schema_extra={"format": "date-time"}, description="null if none matched"
    )
    position: int = Field(description="the rule's place in the order in which rules are asked, from 1")

    @classmethod
    def of(cls, tally: RuleTally) -> "RuleCounts":
        """How a tally is shown."""
        last = None if tally.last_match_at is None else format_moment(tally.last_match_at)
        return cls.model_validate({**asdict(tally), "last_match_at": last})


class EntryHits(BaseModel):
    """Packets that an entry has decided since the program was attached."""

    packets: int
    bytes: int
    last_hit_at: str | None = Field(
        json_schema_extra={"format": "date-time"}, description="null if none came"
    )
    shared: bool = Field(description="the numbers are those of the whole feed")

    @classmethod
    def of(cls, hits: Hits) -> "EntryHits":
        """How hits are shown."""
        last = None if hits.last_hit_at is None else format_moment(hits.last_hit_at)
        return cls(packets=hits.packets, bytes=hits.bytes, last_hit_at=last, shared=hits.shared)


class AllowlistWord(BaseModel):
    """What one owner says of a prefix."""

    owner: str = Field(examples=["fail2ban"])
    reason: str
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    ttl_seconds: int | None
    expires_at: str | None = Field(json_schema_extra={"format": "date-time"})
    hits: EntryHits = Field(description="what it has decided while this owner's word was the foremost")


class BlocklistWord(AllowlistWord):
    """What one owner says of a prefix."""

    action: Action


class AllowlistItem(AllowlistInput):
    """An entry of the allowlist to be, and whose."""

    owner: Owner = OPERATOR


class BlocklistItem(BlocklistInput):
    """An entry of the blocklist to be, and whose."""

    owner: Owner = OPERATOR


class BlocklistEntry(BlocklistView):
    """An entry of the blocklist, and what it has decided."""

    hits: EntryHits


class AllowlistEntry(AllowlistView):
    """An entry of the allowlist, and what it has decided."""

    hits: EntryHits


class BlocklistDetail(BlocklistEntry):
    """An entry of the blocklist, and what each of its owners says."""

    entries: list[BlocklistWord] = Field(description="the foremost owner's first: its word counts")


class AllowlistDetail(AllowlistEntry):
    """An entry of the allowlist, and what each of its owners says."""

    entries: list[AllowlistWord] = Field(description="the foremost owner's first: its word counts")


class BlocklistPage(Collection[BlocklistEntry]):
    """A page of the blocklist."""


class AllowlistPage(Collection[AllowlistEntry]):
    """A page of the allowlist."""


class BlocklistSet(BaseModel):
    """What is taken beside a bare array. total and next are not looked at."""

    items: list[BlocklistItem]
    total: int | None = None
    next: None = None


class AllowlistSet(BaseModel):
    """What is taken beside a bare array. total and next are not looked at."""

    items: list[AllowlistItem]
    total: int | None = None
    next: None = None


class Changed(BaseModel):
    """What a change of many entries came to, in the layer of the owner they belong to."""

    added: int = Field(description="that were not there")
    replaced: int = Field(description="that were there and said something else")
    removed: int = Field(description="that are there no more")
    total: int = Field(description="entries the owner now holds")


class BlocklistAdded(BaseModel):
    """Several entries that were put on the blocklist."""

    items: list[BlocklistEntry]
    changed: Changed


class AllowlistAdded(BaseModel):
    """Several entries that were put on the allowlist."""

    items: list[AllowlistEntry]
    changed: Changed


class Verdicts(Collection[VerdictInfo]):
    """What can become of a packet, in order of number."""


class Revision(BaseModel):
    """One change of the desired state."""

    revision: int
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    actor: str = Field(description='who asked: "uid 0" on the unix socket, else an address')
    summary: str = Field(description="what was asked", examples=["PUT /v1/services/web"])


class Revisions(Collection[Revision]):
    """The history, the newest first."""


class ConfigDocument(BaseModel):
    """The whole of what the operator wants."""

    services: list[Service] = []
    allowlist: list[AllowlistInput] = []
    blocklist: list[BlocklistInput] = []
    rules: list[Rule] = []
    feeds: list[Feed] = []
    settings: Settings = Settings()


class ConfigChange(Diff):
    """What was changed, or would be, and what that moves."""

    disruption: list[ServiceMove] = Field(
        description="what moves of the services that were there and are not left as they are"
    )
    pending: PendingStatus | None = Field(None, description="this change, where it waits to be confirmed")

    @classmethod
    def of(cls, found: Diff, moves: Iterable[ServiceMove], pending: PendingStatus | None) -> "ConfigChange":
        """A difference, with what it moves."""
        return cls(**dict(found), disruption=list(moves), pending=pending)


class RollbackRequest(BaseModel):
    """Where to go back to."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"revision": 1}]})

    revision: int | None = Field(None, ge=1, description="null: the newest that differs")


class Confirmed(BaseModel):
    """What is kept."""

    revision: int = Field(description="that waited to be confirmed")


class EventDocument(BaseModel):
    """One thing that happened."""

    id: int = Field(description="goes up, over restarts too")
    time: str = Field(json_schema_extra={"format": "date-time"})
    kind: str = Field(examples=["config.changed"])
    level: Literal["info", "warning", "error"]
    text: str = Field(description="in one sentence")
    facts: dict[str, Any] = Field(description="the same as values; which, depends on the kind")
    request_id: str | None = Field(description="the request that it was done for; null if it was none")


class EventsPage(BaseModel):
    """Events, the oldest first."""

    items: list[EventDocument]
    total: int = Field(description="of those asked for, how many are kept from `after` on")
    next: int | None = Field(description="give it as `after` for the next page; null: this is the last")
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
    source: str | None = None
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
    why: str | None = Field(None, description="what ended it: count, seconds, or a sentence")


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
    seconds: float = Field(description="how long was looked")
    packets: int = Field(description="that came, by the counters")
    sampled: int = Field(description="of these, looked at")
    packets_per_second: float
    items: list[TopTalker]


class OperationState(StrEnum):
    """Whether flows are left."""

    RUNNING = "running"
    DONE = "done"


class FeedObserved(BaseModel):
    """What is seen of a feed. Packets are totals since the program was attached."""

    entries: int = Field(description="prefixes that it has on the blocklist")
    packets: int = Field(description="that its entries decided")
    bytes: int = Field(description="of the frames of these packets")
    last_success_at: str | None = Field(
        json_schema_extra={"format": "date-time"}, description="null: never yet"
    )
    last_attempt_at: str | None = Field(
        json_schema_extra={"format": "date-time"}, description="null: never yet"
    )
    next_refresh_at: str | None = Field(
        json_schema_extra={"format": "date-time"}, description="when it is due; null: at once"
    )
    error: str | None = Field(description="why the last attempt failed; null if it did not")
    failures: int = Field(description="attempts that failed since the last success")
    passed_over: int = Field(
        description="of a decisions stream: what the last answer had beside bans of addresses"
    )


class FeedView(Feed):
    """A feed, and what is seen of it."""

    observed: FeedObserved


class FeedsView(Collection[FeedView]):
    """Feeds, in the order they were added."""


class RefreshOperation(BaseModel):
    """The refresh of a feed that goes on after the answer."""

    id: str = Field(examples=["refresh~drop~3"])
    kind: Literal["refresh"] = "refresh"
    state: Literal["running", "done", "failed"]
    feed: str = Field(examples=["drop"])
    error: str | None = Field(None, description="why it failed")


class Operation(BaseModel):
    """Something that goes on after the answer: the draining of a backend."""

    id: str = Field(examples=["drain~web~10.0.0.11"])
    kind: Literal["drain"] = "drain"
    state: OperationState
    service: str = Field(examples=["web"])
    address: str = Field(examples=["10.0.0.11"])
    flows: int = Field(description="flows that the backend still holds")


class DrainRequest(BaseModel):
    """Backends of a service that are to drain."""

    model_config = ConfigDict(extra="forbid")

    addresses: list[Address] = Field(min_length=1, description="of backends that the service has")


class Drains(Collection[Operation]):
    """An operation for each backend, in the order in which they were named."""


class Stats(BaseModel):
    """Packet counters: totals since the program was attached."""

    verdicts: dict[str, Tally] = Field(description="by verdict")
    services: dict[str, Tally] = Field(description="by service: what came for it")
    backends: dict[str, dict[str, Tally]] = Field(description="by service, then address: what was sent to it")
    owners: dict[str, Tally] = Field(description='blocklist hits, by owner: "operator" or "feed:NAME"')
    flow_table: FlowTableStats = Field(description="what became of flow lookups")
    quic: QuicStats = Field(description="packets of services with quic, by what their connection id said")
    nat: NatStats = Field(description="flows of mode nat")
    rules: dict[str, RuleCounts] = Field(description="by rule, in the order in which they are asked")
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

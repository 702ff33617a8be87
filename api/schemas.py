"""The documents that only the API has: problems, collections of what is desired, its history, operations."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from lb.model import AdminState, Backend, Feed, Rule, Service, Settings
from lb.model.address import Address
from lb.model.diff import Diff
from lb.model.entry_input import AllowlistInput, BlocklistInput
from lb.reconcile.disruption import ServiceMove
from lb.reconcile.observed import PendingStatus

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
        None, description="each fault of the request, if it has several fields"
    )
    reasons: list[str] | None = Field(None, description="why the data plane is not ready")
    request_id: str | None = Field(
        None,
        description="as in X-Request-Id: the log and the events have it too",
        examples=["9f86d081884c7d65"],
    )
    disruption: list[ServiceMove] | None = Field(None, description="the services that move too much")


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


class Taken(BaseModel, Generic[T]):
    """What a write takes beside a bare array: what GET gives. total and next are not looked at."""

    items: list[T]
    total: int | None = None
    next: None = None


class Services(Collection[Service]):
    """Services, in the order they were added."""


class ServiceSet(Taken[Service]):
    """What is taken beside a bare array. total and next are not looked at."""


class Backends(Collection[Backend]):
    """The backends of one service."""


class BackendSet(Taken[Backend]):
    """What PUT takes beside a bare array: the document that GET gives. total and next are not looked at."""


class Rules(Collection[Rule]):
    """Rules, in the order in which they are asked."""


class RuleSet(Taken[Rule]):
    """What is taken beside a bare array. total and next are not looked at."""


class RuleAnswer(Rule):
    """A rule as it was accepted."""

    warnings: list[str] = Field(description="what is accepted, but is probably not intended")


class RulesAnswer(Rules):
    """Several rules as they were accepted."""

    warnings: list[str] = Field(description="what is accepted, but is probably not intended")


class Revision(BaseModel):
    """One change of the desired state."""

    revision: int
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    actor: str = Field(description='the caller: "uid 0" on the unix socket, otherwise an address')
    summary: str = Field(description="what was requested", examples=["PUT /v1/services/web"])


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

    disruption: list[ServiceMove] = Field(description="what moves, of existing services that change")
    pending: PendingStatus | None = Field(None, description="this change, if it waits to be confirmed")

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


class OperationState(StrEnum):
    """Whether flows are left."""

    RUNNING = "running"
    DONE = "done"


class FeedObserved(BaseModel):
    """What is seen of a feed. Packets are totals since the program was attached."""

    entries: int = Field(description="its prefixes on the blocklist")
    packets: int = Field(description="packets that its entries decided")
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
        description="for a decisions stream: other decisions in the last answer, besides bans of addresses"
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
    admin_state: AdminState = Field(description="draining, or disabled meanwhile, which has ended its flows")
    flows: int = Field(description="flows that the backend still has")


class DrainRequest(BaseModel):
    """Backends of a service that are to drain."""

    model_config = ConfigDict(extra="forbid")

    addresses: list[Address] = Field(min_length=1, description="of backends of the service")


class Drains(Collection[Operation]):
    """An operation for each backend, in the order in which they were named."""

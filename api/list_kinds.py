"""What sets the blocklist and the allowlist apart; their routes are the same."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Query

from api.etags import etag_from_digest, etag_of
from api.schemas import (
    AllowlistAdded,
    AllowlistEntry,
    AllowlistPage,
    AllowlistSet,
    BlocklistAdded,
    BlocklistEntry,
    BlocklistPage,
    BlocklistSet,
    EntryHits,
)
from lb.model import Action, Config, Entry, Prefix, PrefixList
from lb.model.entry_input import AllowlistInput, BlocklistInput
from lb.model.entry_view import AllowlistView, BlocklistView
from lb.model.service import Name
from lb.reconcile.loop import Reconciler


@dataclass(frozen=True, slots=True)
class TextQuery:
    """What the query says of a list sent as lines: whose they are, and what each says beside its prefix."""

    feed: str | None = None
    said: dict[str, Any] = field(default_factory=dict)


Feed = Annotated[Name | None, Query(description="text only: the lines become all that this feed holds")]
Reason = Annotated[str | None, Query(description="text only: why, of every line")]
Ttl = Annotated[str | None, Query(description="text only: seconds to live of every line", examples=["3600"])]
Act = Annotated[Action | None, Query(description="text only: what becomes of the packets of every line")]


async def _allowlist_query(feed: Feed = None, reason: Reason = None, ttl_seconds: Ttl = None) -> TextQuery:
    return _query(feed, reason=reason, ttl_seconds=ttl_seconds)


async def _blocklist_query(
    feed: Feed = None, reason: Reason = None, ttl_seconds: Ttl = None, action: Act = None
) -> TextQuery:
    return _query(feed, reason=reason, ttl_seconds=ttl_seconds, action=action)


def _query(feed: str | None, **said: object) -> TextQuery:
    return TextQuery(feed, {name: value for name, value in said.items() if value is not None})


@dataclass(frozen=True, slots=True)
class ListKind:
    """A prefix list of the configuration: where it is kept, what it takes and what it shows.

    one_or_many and many are the types of its bodies, for the OpenAPI document.
    """

    name: str
    of: Callable[[Config], PrefixList]
    put: Callable[[Config, PrefixList], Config]
    is_allow: bool
    query: Callable[..., Awaitable[TextQuery]]
    takes: type[AllowlistInput]
    one_or_many: Any
    many: Any
    view: type[AllowlistView]
    entry: Any
    page: Any
    added: Any

    def etag_of_all(self, entries: PrefixList, now: float) -> str:
        """The tag of the whole list, every owner's, without what has expired."""
        return etag_from_digest(entries.without_expired(now).digest())

    def etag(self, entry: Entry) -> str:
        """The tag of one entry: hits are no part of it, or no If-Match would ever fit."""
        return etag_of(self.view.of(entry).model_dump(mode="json"))

    def shown(self, entries: list[Entry], reconciler: Reconciler) -> list[Any]:
        """Entries with what they have decided."""
        hits = reconciler.hits([e.prefix for e in entries], allow=self.is_allow)
        return [
            self.entry(**vars(self.view.of(e)), hits=EntryHits.of(h))
            for e, h in zip(entries, hits, strict=True)
        ]

    def location(self, prefix: Prefix) -> str:
        """The path of one entry."""
        return f"/v1/{self.name}/{quote(str(prefix), safe='')}"


BLOCKLIST = ListKind(
    name="blocklist",
    of=lambda config: config.blocklist,
    put=lambda config, entries: replace(config, blocklist=entries),
    is_allow=False,
    query=_blocklist_query,
    takes=BlocklistInput,
    one_or_many=BlocklistInput | list[BlocklistInput] | BlocklistSet,
    many=list[BlocklistInput] | BlocklistSet,
    view=BlocklistView,
    entry=BlocklistEntry,
    page=BlocklistPage,
    added=BlocklistAdded,
)
ALLOWLIST = ListKind(
    name="allowlist",
    of=lambda config: config.allowlist,
    put=lambda config, entries: replace(config, allowlist=entries),
    is_allow=True,
    query=_allowlist_query,
    takes=AllowlistInput,
    one_or_many=AllowlistInput | list[AllowlistInput] | AllowlistSet,
    many=list[AllowlistInput] | AllowlistSet,
    view=AllowlistView,
    entry=AllowlistEntry,
    page=AllowlistPage,
    added=AllowlistAdded,
)

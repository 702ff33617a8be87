"""What distinguishes the blocklist from the allowlist; their routes are the same."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Query

from api.entry_schemas import (
    AllowlistAdded,
    AllowlistDetail,
    AllowlistEntry,
    AllowlistItem,
    AllowlistPage,
    AllowlistSet,
    AllowlistWord,
    BlocklistAdded,
    BlocklistDetail,
    BlocklistEntry,
    BlocklistItem,
    BlocklistPage,
    BlocklistSet,
    BlocklistWord,
    EntryHits,
)
from api.etags import etag_from_digest, etag_of
from lb.model import Action, Config, Entry, Prefix, PrefixList
from lb.model.entry_input import AllowlistInput, BlocklistInput
from lb.model.entry_view import AllowlistView, BlocklistView
from lb.model.owner import Owner
from lb.model.service import Name
from lb.reconcile.loop import Reconciler


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What the query says of entries that are sent: whose they are, and of lines what each says beside its prefix."""

    owner: str | None = None
    feed: str | None = None
    said: dict[str, Any] = field(default_factory=dict)


Whose = Annotated[
    Owner | None, Query(description="owner of the entries that do not name one; default: operator")
]
Feed = Annotated[Name | None, Query(description="text only: the lines replace all entries of this feed")]
Reason = Annotated[str | None, Query(description="text only: reason, for every line")]
Ttl = Annotated[
    str | None, Query(description="text only: time to live in seconds, for every line", examples=["3600"])
]
Act = Annotated[Action | None, Query(description="text only: action, for every line")]


async def _allowlist_query(
    owner: Whose = None, feed: Feed = None, reason: Reason = None, ttl_seconds: Ttl = None
) -> ListQuery:
    return _query(owner, feed, reason=reason, ttl_seconds=ttl_seconds)


async def _blocklist_query(
    owner: Whose = None, feed: Feed = None, reason: Reason = None, ttl_seconds: Ttl = None, action: Act = None
) -> ListQuery:
    return _query(owner, feed, reason=reason, ttl_seconds=ttl_seconds, action=action)


def _query(owner: str | None, feed: str | None, **said: object) -> ListQuery:
    return ListQuery(owner, feed, {name: value for name, value in said.items() if value is not None})


@dataclass(frozen=True, slots=True)
class ListKind:
    """A prefix list of the configuration: where it is kept, what it takes and what it shows.

    item, one_or_many and many are the types of its bodies, for the OpenAPI document.
    """

    name: str
    of: Callable[[Config], PrefixList]
    put: Callable[[Config, PrefixList], Config]
    is_allow: bool
    query: Callable[..., Awaitable[ListQuery]]
    takes: type[AllowlistInput]
    item: Any
    one_or_many: Any
    many: Any
    view: type[AllowlistView]
    entry: Any
    word: Any
    detail: Any
    page: Any
    added: Any

    def etag_of_all(self, entries: PrefixList, now: float) -> str:
        """The tag of the whole list, every owner's, without what has expired."""
        return etag_from_digest(entries.without_expired(now).digest())

    def etag(self, entry: Entry) -> str:
        """The tag of one entry: hits are no part of it, or no If-Match would ever fit."""
        return etag_of(self.view.of(entry).model_dump(mode="json"))

    def shown(self, entries: list[Entry], reconciler: Reconciler, owner: str | None = None) -> list[Any]:
        """Entries with what they have decided; all of them that owner's, if one is named."""
        hits = reconciler.hits([e.prefix for e in entries], allow=self.is_allow, owner=owner)
        return [
            self.entry(**vars(self.view.of(e)), hits=EntryHits.of(h))
            for e, h in zip(entries, hits, strict=True)
        ]

    def detailed(self, entry: Entry, reconciler: Reconciler) -> Any:
        """One entry with what each of its owners says, and what it has decided by that."""
        alone = [
            Entry(entry.prefix, said, (owner,)) for owner, said in zip(entry.owners, entry.said, strict=True)
        ]
        words = [self.shown([one], reconciler, one.owners[0])[0] for one in alone]
        keys = self.word.model_fields
        said = [self.word(**{key: getattr(one, key) for key in keys}) for one in words]
        return self.detail(**vars(self.shown([entry], reconciler)[0]), entries=said)

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
    item=BlocklistItem,
    one_or_many=BlocklistItem | list[BlocklistItem] | BlocklistSet,
    many=list[BlocklistItem] | BlocklistSet,
    view=BlocklistView,
    entry=BlocklistEntry,
    word=BlocklistWord,
    detail=BlocklistDetail,
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
    item=AllowlistItem,
    one_or_many=AllowlistItem | list[AllowlistItem] | AllowlistSet,
    many=list[AllowlistItem] | AllowlistSet,
    view=AllowlistView,
    entry=AllowlistEntry,
    word=AllowlistWord,
    detail=AllowlistDetail,
    page=AllowlistPage,
    added=AllowlistAdded,
)

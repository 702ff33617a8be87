"""The documents of blocklist and allowlist: entries, what each owner says, and the result of a bulk change."""

from pydantic import BaseModel, Field

from api.schemas import Collection, Taken
from lb.model import Action
from lb.model.entry_input import AllowlistInput, BlocklistInput
from lb.model.entry_view import AllowlistView, BlocklistView
from lb.model.owner import OPERATOR, Owner
from lb.model.times import format_moment
from lb.reconcile.observed import Hits


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
    hits: EntryHits = Field(description="what it has decided while this owner took precedence")


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

    entries: list[BlocklistWord] = Field(description="in order of precedence: the first one decides")


class AllowlistDetail(AllowlistEntry):
    """An entry of the allowlist, and what each of its owners says."""

    entries: list[AllowlistWord] = Field(description="in order of precedence: the first one decides")


class BlocklistPage(Collection[BlocklistEntry]):
    """A page of the blocklist."""


class AllowlistPage(Collection[AllowlistEntry]):
    """A page of the allowlist."""


class BlocklistSet(Taken[BlocklistItem]):
    """What is taken beside a bare array. total and next are not looked at."""


class AllowlistSet(Taken[AllowlistItem]):
    """What is taken beside a bare array. total and next are not looked at."""


class Changed(BaseModel):
    """What a change of many entries came to, in the layer of the owner they belong to."""

    added: int = Field(description="entries that are new")
    replaced: int = Field(description="entries that existed and have changed")
    removed: int = Field(description="entries that were removed")
    total: int = Field(description="entries the owner now holds")


class BlocklistAdded(BaseModel):
    """Several entries that were put on the blocklist."""

    items: list[BlocklistEntry]
    changed: Changed


class AllowlistAdded(BaseModel):
    """Several entries that were put on the allowlist."""

    items: list[AllowlistEntry]
    changed: Changed

"""Entries of the blocklist and allowlist as they are shown, one by one or as part of a document."""

from typing import Any

from pydantic import BaseModel, Field

from lb.model.columns import FAMILIES
from lb.model.entries import Entry
from lb.model.layers import Action, Attributes, Layer
from lb.model.prefix import Prefix
from lb.model.times import format_moment


class AllowlistView(BaseModel):
    """An entry of the allowlist, with what its foremost owner says of it."""

    prefix: str = Field(examples=["203.0.113.0/24"])
    reason: str
    owner: str = Field(description='"operator", or "feed:NAME"', examples=["operator"])
    owners: list[str] = Field(description="all owners of this very prefix, in order of precedence")
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    ttl_seconds: int | None = Field(description="the TTL that was given; null if none")
    expires_at: str | None = Field(
        json_schema_extra={"format": "date-time"}, description="null if it does not expire"
    )

    @classmethod
    def of(cls, entry: Entry) -> "AllowlistView":
        """How an entry is shown."""
        said = entry.attributes
        return cls(
            prefix=str(entry.prefix),
            reason=said.reason,
            owner=entry.owners[0],
            owners=list(entry.owners),
            created_at=format_moment(said.created_at),
            ttl_seconds=said.ttl_seconds,
            expires_at=None if said.expires_at is None else format_moment(said.expires_at),
        )


class BlocklistView(AllowlistView):
    """An entry of the blocklist, with what its foremost owner says of it."""

    action: Action = Field(description="what becomes of its packets")

    @classmethod
    def of(cls, entry: Entry) -> "BlocklistView":
        """How an entry is shown."""
        return cls(action=entry.attributes.action, **dict(AllowlistView.of(entry)))


def wish_document(attributes: Attributes) -> dict[str, Any]:
    """What attributes ask for, in the keys of an entry of a document; what is the default is left out."""
    document: dict[str, Any] = {}
    if attributes.action is not Action.DROP:
        document["action"] = attributes.action.value
    if attributes.reason:
        document["reason"] = attributes.reason
    if attributes.ttl_seconds is not None:
        document["ttl_seconds"] = attributes.ttl_seconds
    elif attributes.expires_at is not None:
        document["expires_at"] = format_moment(attributes.expires_at)
    return document


def entry_documents(layer: Layer, now: float) -> list[dict[str, Any]]:
    """The unexpired entries of a layer, in order, as a document holds them."""
    wishes = [wish_document(attributes) for attributes in layer.attributes]
    documents: list[dict[str, Any]] = []
    for family in FAMILIES:
        column = layer.active(family, now)
        documents += [
            {"prefix": str(Prefix.from_key(key)), **wishes[number]}
            for key, number in zip(column.keys.tolist(), column.ids.tolist(), strict=True)
        ]
    return documents

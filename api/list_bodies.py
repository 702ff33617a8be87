"""Reads what is sent to a prefix list: one entry, many, or lines of text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from api.bodies import Body, Media
from api.inputs import items_of, validated
from api.list_kinds import ListKind, TextQuery
from api.problems import parameter_error
from lb.errors import FieldError, InvalidError
from lb.model import Prefix
from lb.model.entries import FEED_PREFIX, OPERATOR
from lb.model.entry_input import read_entries
from lb.model.fields import field_errors
from lb.model.layers import Attributes, Layer
from lb.model.listfile import parse_list

_SHOWN_ONLY = frozenset({"owner", "owners", "created_at", "hits"})
"""Keys of an entry that GET shows and nobody can set."""
_ANY = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Entries to put on a list; whole: nothing else of the owner's stays."""

    layer: Layer
    owner: str = OPERATOR
    whole: bool = False
    is_single: bool = False
    is_text: bool = False


def read_added(kind: ListKind, body: Body, query: TextQuery, now: float) -> Wanted:
    """What POST brings: one entry, an array or collection of them, or lines; InvalidError, MalformedError."""
    if body.media is Media.TEXT:
        return _read_text(kind, body, query, now)
    _refuse_text_parameters(query)
    data = body.json()
    if isinstance(data, Mapping) and "items" not in data:
        return Wanted(Layer.of([_read_entry(kind, data, now)]), is_single=True)
    items, at = items_of(data)
    return Wanted(read_entries(kind.takes, items, now=now, at=at))


def read_whole(kind: ListKind, body: Body, query: TextQuery, now: float) -> Wanted:
    """What PUT brings: all of the operator's entries, as an array, as the document GET gives, or as lines."""
    if body.media is Media.TEXT:
        wanted = _read_text(kind, body, query, now)
        return Wanted(wanted.layer, wanted.owner, whole=True, is_text=True)
    _refuse_text_parameters(query)
    items, at = items_of(body.json())
    foreign = [
        FieldError(f"{at}/{index}/owner", f"this entry is that of {item['owner']}: leave it out")
        for index, item in enumerate(items)
        if isinstance(item, Mapping) and item.get("owner", OPERATOR) != OPERATOR
    ]
    if foreign:
        raise InvalidError(foreign)
    return Wanted(read_entries(kind.takes, [_writable(i) for i in items], now=now, at=at), whole=True)


def read_kept(kind: ListKind, data: Mapping[str, Any], prefix: Prefix, now: float) -> Attributes:
    """What is sent to the path of that prefix; InvalidError if the body names another."""
    named, attributes = _read_entry(kind, {"prefix": str(prefix), **data}, now)
    if named != prefix:
        raise InvalidError.one("/prefix", f"the path names {prefix}: leave the prefix out, or write the same")
    return attributes


def prefixes_of(layer: Layer) -> list[Prefix]:
    """Its prefixes, in order."""
    return [Prefix.from_key(key) for column in layer.columns.values() for key in column.keys.tolist()]


def _read_entry(kind: ListKind, data: Mapping[str, Any], now: float) -> tuple[Prefix, Attributes]:
    return validated(TypeAdapter(kind.takes), _writable(data)).entry(now)


def _writable(item: Any) -> Any:
    """An entry without what GET shows beside what can be set; of a TTL and its end, the TTL counts."""
    if not isinstance(item, Mapping) or "created_at" not in item:
        return item
    left_out = _SHOWN_ONLY | ({"expires_at"} if item.get("ttl_seconds") is not None else set())
    return {key: value for key, value in item.items() if key not in left_out}


def _read_text(kind: ListKind, body: Body, query: TextQuery, now: float) -> Wanted:
    try:
        said = kind.takes.model_validate({**query.said, "prefix": _ANY})
    except ValidationError as error:
        fault = field_errors(error)[0]
        raise parameter_error("query", fault.pointer.removeprefix("/"), fault.detail) from None
    layer = Layer().with_keys(parse_list(body.data), said.attributes(now))
    if query.feed is None:
        return Wanted(layer, is_text=True)
    return Wanted(layer, FEED_PREFIX + query.feed, whole=True, is_text=True)


def _refuse_text_parameters(query: TextQuery) -> None:
    names = [*query.said, *(["feed"] if query.feed is not None else [])]
    if names:
        raise parameter_error(
            "query", names[0], "it is for text/plain only: say it in each entry of the JSON"
        )

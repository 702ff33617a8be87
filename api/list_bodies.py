"""Reads what is sent to a prefix list: one entry, many, or lines of text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from api.bodies import Body, Media
from api.inputs import items_of, validated
from api.list_kinds import ListKind, ListQuery
from api.problems import parameter_error
from lb.errors import FieldError, InvalidError
from lb.model import Prefix
from lb.model.entry_input import read_entries
from lb.model.fields import field_errors
from lb.model.layers import Attributes, Layer
from lb.model.listfile import parse_list
from lb.model.owner import FEED_PREFIX, OPERATOR, parse_owner

_SHOWN_ONLY = frozenset({"owners", "entries", "created_at", "hits"})
"""Keys of an entry that GET shows and nobody can set."""
_ANY = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Entries to put on a list, by owner; whole: nothing else of the owner's stays."""

    layers: Mapping[str, Layer]
    whole: bool = False
    is_single: bool = False
    is_text: bool = False


def read_added(kind: ListKind, body: Body, query: ListQuery, now: float) -> Wanted:
    """What POST brings: one entry, an array or collection of them, or lines; InvalidError, MalformedError."""
    if body.media is Media.TEXT:
        return _read_text(kind, body, query, now)
    _refuse_text_parameters(query)
    data = body.json()
    if isinstance(data, Mapping) and "items" not in data:
        owner, said = _owner_of(data, query.owner or OPERATOR)
        return Wanted({owner: Layer.of([_read_entry(kind, said, now)])}, is_single=True)
    items, at = items_of(data)
    whose = query.owner or OPERATOR
    return Wanted(_read_items(kind, items, at, whose, now) or {whose: Layer()})


def read_whole(kind: ListKind, body: Body, query: ListQuery, now: float) -> Wanted:
    """What PUT brings: all of an owner's entries, as an array, as the document GET gives, or as lines."""
    if body.media is Media.TEXT:
        return replace(_read_text(kind, body, query, now), whole=True)
    _refuse_text_parameters(query)
    items, at = items_of(body.json())
    whose = query.owner or OPERATOR
    foreign = [
        FieldError(f"{at}/{index}/owner", f"this entry belongs to {item['owner']}: leave it out")
        for index, item in enumerate(items)
        if isinstance(item, Mapping) and item.get("owner", whose) != whose
    ]
    if foreign:
        raise InvalidError(foreign)
    return Wanted({whose: Layer(), **_read_items(kind, items, at, whose, now)}, whole=True)


def _read_items(kind: ListKind, items: Sequence[Any], at: str, whose: str, now: float) -> Mapping[str, Layer]:
    """Entries by owner; those that do not say are of `whose`."""
    places: dict[str, list[int]] = {}
    said: list[Any] = []
    for index, item in enumerate(items):
        owner = whose
        if isinstance(item, Mapping):
            owner, item = _owner_of(item, whose, f"{at}/{index}")  # noqa: PLW2901  # without its owner
        said.append(_writable(item))
        places.setdefault(owner, []).append(index)
    return {
        owner: read_entries(kind.takes, [said[n] for n in some], now=now, at=at, places=some)
        for owner, some in places.items()
    }


def _owner_of(item: Mapping[str, Any], whose: str, at: str = "") -> tuple[str, dict[str, Any]]:
    """Whose an entry is, and the rest of what it says; InvalidError."""
    rest = {key: value for key, value in item.items() if key != "owner"}
    try:
        return parse_owner(str(item["owner"])) if item.get("owner") is not None else whose, rest
    except ValueError as error:
        raise InvalidError.one(f"{at}/owner", str(error)) from None


def read_kept(
    kind: ListKind, data: Mapping[str, Any], prefix: Prefix, whose: str, now: float
) -> tuple[str, Attributes]:
    """What is sent to the path of that prefix, with its owner; InvalidError if the body names another prefix."""
    owner, said = _owner_of(data, whose)
    named, attributes = _read_entry(kind, {"prefix": str(prefix), **said}, now)
    if named != prefix:
        raise InvalidError.one("/prefix", f"the path names {prefix}: leave the prefix out, or write the same")
    return owner, attributes


def prefixes_of(layers: Mapping[str, Layer]) -> list[Prefix]:
    """Their prefixes, each once, in order."""
    found = {
        Prefix.from_key(key)
        for layer in layers.values()
        for column in layer.columns.values()
        for key in column.keys.tolist()
    }
    return sorted(found)


def _read_entry(kind: ListKind, data: Mapping[str, Any], now: float) -> tuple[Prefix, Attributes]:
    return validated(TypeAdapter(kind.takes), _writable(data)).entry(now)


def _writable(item: Any) -> Any:
    """An entry without what GET shows beside what can be set; of a TTL and its end, the TTL counts."""
    if not isinstance(item, Mapping) or "created_at" not in item:
        return item
    left_out = _SHOWN_ONLY | ({"expires_at"} if item.get("ttl_seconds") is not None else set())
    return {key: value for key, value in item.items() if key not in left_out}


def _read_text(kind: ListKind, body: Body, query: ListQuery, now: float) -> Wanted:
    try:
        said = kind.takes.model_validate({**query.said, "prefix": _ANY})
    except ValidationError as error:
        fault = field_errors(error)[0]
        raise parameter_error("query", fault.pointer.removeprefix("/"), fault.detail) from None
    layer = Layer().with_keys(parse_list(body.data), said.attributes(now))
    if query.feed is None:
        return Wanted({query.owner or OPERATOR: layer}, is_text=True)
    if query.owner is not None:
        raise parameter_error("query", "owner", "feed names the owner already: give one of them")
    return Wanted({FEED_PREFIX + query.feed: layer}, whole=True, is_text=True)


def _refuse_text_parameters(query: ListQuery) -> None:
    names = [*query.said, *(["feed"] if query.feed is not None else [])]
    if names:
        raise parameter_error(
            "query", names[0], "it is for text/plain only: put it in each entry of the JSON"
        )

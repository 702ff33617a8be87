"""The difference between two desired states, for people to read before they apply it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field

from lb.model.columns import FAMILIES, Keys
from lb.model.config import Config
from lb.model.delta import Delta, compare, wish
from lb.model.entries import OPERATOR, PrefixList
from lb.model.entry_view import wish_document
from lb.model.feed import Feed
from lb.model.layers import Layer
from lb.model.prefix import Prefix
from lb.model.rule import Rule
from lb.model.rule_match import warnings
from lb.model.service import Service

ENTRIES_SHOWN = 100
"""Entries of one list that are shown; the counts are of all."""

Op = Literal["add", "remove", "change"]
Kind = Literal["service", "backend", "allowlist", "blocklist", "rule", "feed", "setting"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LISTS: tuple[Kind, ...] = ("allowlist", "blocklist")


class Change(BaseModel):
    """One thing that is added, removed or changed."""

    op: Op
    kind: Kind
    name: str = Field(
        description="the service, SERVICE/ADDRESS, the prefix, the feed or the setting",
        examples=["web/10.0.0.11"],
    )
    before: Any = Field(
        None, description="what it was; for a change, only the fields that differ; null if new"
    )
    after: Any = Field(
        None, description="what it will be; for a change, only the fields that differ; null if removed"
    )


class Counts(BaseModel):
    """How many of one kind."""

    add: int = 0
    remove: int = 0
    change: int = 0


class Diff(BaseModel):
    """What differs between two desired states."""

    same: bool = Field(description="whether both ask for the same")
    changes: list[Change] = Field(description=f"for entries, only the first {ENTRIES_SHOWN} of each list")
    counts: dict[Kind, Counts] = Field(description="how many there are of each kind, whether shown or not")
    warnings: list[str] = Field([], description="what is accepted, but is probably not intended")


def diff(have: Config, want: Config, *, now: float | None = None) -> Diff:
    """How have becomes want. Entries differ by what they ask for, not by when it was asked.

    now: entries that have expired by then (seconds since the epoch) are passed over.
    """
    counts = {kind: Counts() for kind in KINDS}
    changes = [*_services(have, want), *_rules(have, want), *_feeds(have, want), *_settings(have, want)]
    new_rules = [change.name for change in changes if change.kind == "rule" and change.op != "remove"]
    for change in changes:
        _count(counts[change.kind], change.op, 1)
    for kind in LISTS:
        old, new = (
            entries if now is None else entries.without_expired(now)
            for entries in (getattr(have, kind), getattr(want, kind))
        )
        changes += _entries(kind, old, new, counts[kind])
    said = warnings(want.rules, want.services, new_rules)
    return Diff(same=not changes, changes=changes, counts=counts, warnings=said)


def _count(counts: Counts, op: Op, more: int) -> None:
    setattr(counts, op, getattr(counts, op) + more)


def _services(have: Config, want: Config) -> Iterator[Change]:
    for name in _names(have.services, want.services):
        old, new = have.services.get(name), want.services.get(name)
        if old is None or new is None:
            yield _whole("service", name, old, new)
        elif old is not new:
            yield from _service(old, new)


def _service(old: Service, new: Service) -> Iterator[Change]:
    own = _part("service", old.name, old, new, [f for f in Service.model_fields if f != "backends"])
    if own.after:
        yield own
    olds, news = ({str(b.address): b for b in service.backends} for service in (old, new))
    for address in _names(olds, news):
        one, two = olds.get(address), news.get(address)
        name = f"{old.name}/{address}"
        if one is None or two is None:
            yield _whole("backend", name, one, two)
        elif one != two:
            yield _part("backend", name, one, two, list(type(one).model_fields))


def _rules(have: Config, want: Config) -> Iterator[Change]:
    for name in _names(have.rules, want.rules):
        old, new = have.rules.get(name), want.rules.get(name)
        if old is None or new is None:
            yield _whole("rule", name, old, new)
        elif old is not new and old != new:
            yield _part("rule", name, old, new, list(Rule.model_fields))


def _feeds(have: Config, want: Config) -> Iterator[Change]:
    for name in _names(have.feeds, want.feeds):
        old, new = have.feeds.get(name), want.feeds.get(name)
        if old is None or new is None:
            yield _whole("feed", name, old, new)
        elif old != new:
            yield _part("feed", name, old, new, list(Feed.model_fields))


def _settings(have: Config, want: Config) -> Iterator[Change]:
    before, after = have.settings.model_dump(mode="json"), want.settings.model_dump(mode="json")
    for name, value in after.items():
        if before[name] != value:
            yield Change(op="change", kind="setting", name=name, before=before[name], after=value)


def _entries(kind: Kind, have: PrefixList, want: PrefixList, counts: Counts) -> list[Change]:
    shown: list[Change] = []
    for owner in _names(have.layers, want.layers):
        old, new = have.layer(owner), want.layer(owner)
        delta = compare(old, new, by=wish)
        for op, keys in _parts(delta):
            for family in FAMILIES:
                _count(counts, op, len(keys[family]))
                for key in keys[family][: ENTRIES_SHOWN - len(shown)].tolist():
                    prefix = Prefix.from_key(key)
                    shown.append(
                        Change(
                            op=op,
                            kind=kind,
                            name=str(prefix),
                            before=_entry(old, prefix, owner),
                            after=_entry(new, prefix, owner),
                        )
                    )
    return shown


def _parts(delta: Delta) -> tuple[tuple[Op, Mapping[int, Keys]], ...]:
    return ("add", delta.added), ("remove", delta.gone), ("change", delta.altered)


def _entry(layer: Layer, prefix: Prefix, owner: str) -> dict[str, Any] | None:
    said = layer.get(prefix)
    if said is None:
        return None
    return wish_document(said) if owner == OPERATOR else {"owner": owner, **wish_document(said)}


def _names(old: Iterable[str], new: Iterable[str]) -> list[str]:
    """The names of both, each once, in the order in which they come."""
    return list(dict.fromkeys([*old, *new]))


def _whole(kind: Kind, name: str, old: BaseModel | None, new: BaseModel | None) -> Change:
    before, after = (None if model is None else model.model_dump(mode="json") for model in (old, new))
    return Change(op="add" if old is None else "remove", kind=kind, name=name, before=before, after=after)


def _part(kind: Kind, name: str, old: BaseModel, new: BaseModel, fields: list[str]) -> Change:
    """A change, of these fields those that differ."""
    differing = {field for field in fields if getattr(old, field) != getattr(new, field)}
    return Change(
        op="change",
        kind=kind,
        name=name,
        before=old.model_dump(mode="json", include=differing),
        after=new.model_dump(mode="json", include=differing),
    )

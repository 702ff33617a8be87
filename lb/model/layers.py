"""A layer: the prefixes of one owner, and what each says beside its prefix."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from lb.model.columns import FAMILIES, KEY_TYPE, Column, Keys, Mask, sorted_unique
from lb.model.prefix import BITS, Prefix


class Action(StrEnum):
    """What a blocklist entry does to a packet from its prefix."""

    DROP = "drop"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What an entry says beside its prefix; times are seconds since the epoch."""

    action: Action = Action.DROP
    reason: str = ""
    created_at: float = 0.0
    ttl_seconds: int | None = None
    expires_at: float | None = None

    def is_active(self, now: float) -> bool:
        """Whether the entry still holds at that time."""
        return self.expires_at is None or self.expires_at > now

    @property
    def wish(self) -> tuple[Action, str, int | None, float | None]:
        """What is asked for: without the creation time, and of a TTL its length, not its end."""
        return (
            self.action,
            self.reason,
            self.ttl_seconds,
            self.expires_at if self.ttl_seconds is None else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Timed:
    """Entries of one family that end by themselves, the earliest first: deadlines (since the epoch) and keys."""

    deadlines: npt.NDArray[np.float64]
    keys: Keys

    def due(self, now: float) -> int:
        """How many have ended by then."""
        return int(np.searchsorted(self.deadlines, now, "right"))

    def after(self, now: float) -> "Timed":
        """Those that are left then."""
        count = self.due(now)
        return Timed(self.deadlines[count:], self.keys[count:])


def _columns() -> dict[int, Column]:
    return {family: Column.empty(family) for family in FAMILIES}


def _from_zero(columns: Mapping[int, Column], attributes: tuple[Attributes, ...]) -> "Layer":
    """Used attributes only, each once, numbered in the order in which the keys first use them."""
    ids = np.concatenate([columns[f].ids for f in FAMILIES])
    first = np.full(len(attributes), len(ids), np.int64)
    first[ids[::-1]] = np.arange(len(ids) - 1, -1, -1)  # of several writes to one place the last one stays
    order = np.argsort(first, kind="stable")[: int((first < len(ids)).sum())]
    numbers: dict[Attributes, int] = {}
    new_ids = np.zeros(len(attributes), np.uint32)
    for old in order.tolist():
        new_ids[old] = numbers.setdefault(attributes[old], len(numbers))
    return Layer({f: Column(c.keys, new_ids[c.ids]) for f, c in columns.items()}, tuple(numbers))


@dataclass(frozen=True, eq=False)
class Layer:
    """What one owner holds: a column a family, and the attributes their ids point into.

    Layers are equal when the same prefixes say the same, however their attributes are numbered.
    """

    columns: Mapping[int, Column] = field(default_factory=_columns)
    attributes: tuple[Attributes, ...] = ()

    __hash__ = None  # type: ignore[assignment]  # it would have to look at every prefix

    def __len__(self) -> int:
        """How many prefixes."""
        return sum(len(column) for column in self.columns.values())

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Layer):
            return NotImplemented
        mine, theirs = self.columns, other.columns
        if any(
            mine[f].keys is not theirs[f].keys and not np.array_equal(mine[f].keys, theirs[f].keys)
            for f in FAMILIES
        ):
            return False
        return self._says_the_same(other) or self.canonical._says_the_same(other.canonical)

    def _says_the_same(self, other: "Layer") -> bool:
        return self.attributes == other.attributes and all(
            np.array_equal(self.columns[f].ids, other.columns[f].ids) for f in FAMILIES
        )

    @classmethod
    def of(cls, entries: Iterable[tuple[Prefix, Attributes]]) -> "Layer":
        """From single entries; of one prefix given twice the last counts."""
        numbers: dict[Attributes, int] = {}
        keys: dict[int, list[int | bytes]] = {f: [] for f in FAMILIES}
        ids: dict[int, list[int]] = {f: [] for f in FAMILIES}
        for prefix, attributes in entries:
            keys[prefix.family].append(prefix.key)
            ids[prefix.family].append(numbers.setdefault(attributes, len(numbers)))
        columns = {
            f: Column.of(np.array(keys[f], KEY_TYPE[f]), np.array(ids[f], np.uint32)) for f in FAMILIES
        }
        return cls(columns, tuple(numbers))

    @cached_property
    def canonical(self) -> "Layer":
        """The same content with used attributes only, each once, numbered by first use."""
        return _from_zero(self.columns, self.attributes)

    @cached_property
    def deadlines(self) -> npt.NDArray[np.float64]:
        """When each of the attributes ends, in seconds since the epoch; infinity if never."""
        ends = [np.inf if a.expires_at is None else a.expires_at for a in self.attributes]
        return np.array(ends, np.float64)

    @cached_property
    def timed(self) -> Mapping[int, Timed]:
        """By family the entries that end by themselves: who looks for those that are due looks at no others."""
        ends = np.isfinite(self.deadlines)
        found = {}
        for family, column in self.columns.items():
            at = np.flatnonzero(ends[column.ids]) if ends.any() else np.empty(0, np.intp)
            deadlines = self.deadlines[column.ids[at]]
            order = np.argsort(deadlines, kind="stable")
            found[family] = Timed(deadlines[order], column.keys[at[order]])
        return found

    @cached_property
    def lengths(self) -> Mapping[int, tuple[int, ...]]:
        """By family the lengths that its prefixes have, the longest first."""
        four = self.columns[4].keys.astype("<u8", copy=False).view(np.uint8)[::8]
        six = np.frombuffer(self.columns[6].keys.tobytes(), np.uint8)[16::17]
        found = {4: np.bincount(four), 6: np.bincount(six)}
        return {family: tuple(np.flatnonzero(counts)[::-1].tolist()) for family, counts in found.items()}

    def active_among(self, family: int, keys: Keys, now: float) -> tuple[Mask, Mask]:
        """Of some keys which it holds, unexpired, and which of these only count."""
        at, known = self.columns[family].locate(keys)
        ids = self.columns[family].ids[at[known]]
        known[known] = self.deadlines[ids] > now
        counting = np.zeros(len(keys), bool)
        counting[known] = [
            self.attributes[n].action is Action.COUNT for n in self.columns[family].ids[at[known]]
        ]
        return known, counting

    @cached_property
    def digest(self) -> bytes:
        """Names the content: equal layers have equal digests."""
        said = [
            (a.action is Action.COUNT, a.reason, a.created_at, a.ttl_seconds, a.expires_at)
            for a in self.canonical.attributes
        ]
        state = blake2b(repr(said).encode(), digest_size=16)
        for family in FAMILIES:
            column = self.canonical.columns[family]
            state.update(len(column).to_bytes(8, "little"))
            state.update(column.keys.tobytes())
            state.update(column.ids.tobytes())
        return state.digest()

    def overlapping(self, prefix: Prefix) -> "Layer":
        """Only the prefixes that contain this one, or lie in it."""
        family, width = prefix.family, BITS[prefix.family]
        column = self.columns[family]
        above = [prefix.shortened(length) for length in self.lengths[family] if length < prefix.length]
        found = [at for one in sorted(above) if (at := column.find(one.key)) is not None]
        beyond = prefix.network + (1 << width - prefix.length)
        ends = [prefix.key] if beyond >> width else [prefix.key, Prefix(family, beyond, 0).key]
        places = np.searchsorted(column.keys, np.array(ends, column.keys.dtype)).tolist()
        within = range(places[0], places[1] if len(places) > 1 else len(column))
        part = column.at(np.array([*found, *within], np.intp))
        return Layer({**_columns(), family: part}, self.attributes)

    def get(self, prefix: Prefix) -> Attributes | None:
        """The attributes of that very prefix, or None."""
        column = self.columns[prefix.family]
        at = column.find(prefix.key)
        return None if at is None else self.attributes[column.ids[at]]

    def with_entries(self, entries: Iterable[tuple[Prefix, Attributes]]) -> "Layer":
        """With single entries added or replaced; of one prefix given twice the last counts."""
        return self.united(Layer.of(entries))

    def with_keys(self, keys: Mapping[int, Keys], attributes: Attributes) -> "Layer":
        """With many keys that share their attributes (an import); keys need be neither sorted nor unique."""
        columns = _columns()
        for family, some in keys.items():
            unique = sorted_unique(some)
            columns[family] = Column(unique, np.zeros(len(unique), np.uint32))
        return self.united(Layer(columns, (attributes,)))

    def united(self, other: "Layer") -> "Layer":
        """With the entries of another layer added or put in the place of one's own."""
        offset = len(self.attributes)
        columns = {}
        for family, mine in self.columns.items():
            column = other.columns[family]
            columns[family] = (
                mine.merged(column.keys, (column.ids + offset).astype(np.uint32)) if len(column) else mine
            )
        return Layer(columns, self.attributes + other.attributes).compacted()

    def without(self, prefixes: Iterable[Prefix]) -> "Layer":
        """Without these prefixes; those that are not there are passed over."""
        gone: dict[int, list[int | bytes]] = {f: [] for f in FAMILIES}
        for prefix in prefixes:
            gone[prefix.family].append(prefix.key)
        return self.without_keys({f: np.array(keys, KEY_TYPE[f]) for f, keys in gone.items()})

    def without_keys(self, gone: Mapping[int, Keys]) -> "Layer":
        """Without these keys; those that are not there are passed over."""
        columns = {
            f: c.without(gone[f]) if f in gone and len(gone[f]) else c for f, c in self.columns.items()
        }
        if all(columns[f] is self.columns[f] for f in FAMILIES):
            return self
        return Layer(columns, self.attributes).compacted()

    def compacted(self) -> "Layer":
        """With attributes that nothing uses left out, once they are the larger part."""
        if len(self.attributes) <= 2 * len(self) + 8:
            return self
        return self.canonical

    def due(self, now: float) -> dict[int, Keys]:
        """By family the keys whose time is over, sorted; no family where there are none."""
        found = {family: timed.keys[: timed.due(now)] for family, timed in self.timed.items()}
        return {family: np.sort(keys) for family, keys in found.items() if len(keys)}

    def active(self, family: int, now: float) -> Column:
        """The keys of one family that have not expired."""
        gone = self.due(now).get(family)
        return self.columns[family] if gone is None else self.columns[family].without(gone)

    def without_expired(self, now: float) -> "Layer":
        """Without the entries whose time is over; itself if there are none."""
        gone = self.due(now)
        if not gone:
            return self
        layer = self.without_keys(gone)
        vars(layer)["timed"] = {family: timed.after(now) for family, timed in self.timed.items()}
        return layer

    def next_expiry(self, now: float) -> float | None:
        """The earliest deadline after now, or None."""
        to_come = [timed.after(now).deadlines[:1] for timed in self.timed.values()]
        return float(min(np.concatenate(to_come), default=np.inf)) if any(map(len, to_come)) else None

    def count(self, now: float) -> int:
        """How many prefixes have not expired."""
        return sum(len(self.active(f, now)) for f in FAMILIES)

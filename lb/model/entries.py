"""Blocklist and allowlist: prefixes in layers, one layer an owner, kept as sorted numpy columns.

A list of a million prefixes is a few arrays, so that it is copied, searched and compared in milliseconds.
Every value here is immutable: a change returns a new list that shares what did not change.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b

import numpy as np

from lb.model.columns import FAMILIES, KEY_TYPE, Column, Ids, Keys, sorted_unique
from lb.model.delta import compare, wish
from lb.model.layers import Action, Attributes, Layer
from lb.model.owner import FEED_PREFIX, OPERATOR
from lb.model.prefix import Prefix

__all__ = [
    "FAMILIES",
    "FEED_PREFIX",
    "KEY_TYPE",
    "OPERATOR",
    "Action",
    "Attributes",
    "Column",
    "Entry",
    "Ids",
    "Keys",
    "Layer",
    "PrefixList",
    "differing",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One prefix with what its foremost owner says of it, and all its owners, the foremost first.

    said: what each of them says, in the same order.
    """

    prefix: Prefix
    attributes: Attributes
    owners: tuple[str, ...]
    said: tuple[Attributes, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class PrefixList:
    """A blocklist or an allowlist: layers by owner, the operator's foremost."""

    layers: Mapping[str, Layer] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many entries, a prefix counted once an owner."""
        return sum(len(layer) for layer in self.layers.values())

    def layer(self, owner: str) -> Layer:
        """What that owner holds; an empty layer if nothing."""
        return self.layers.get(owner) or Layer()

    def with_layer(self, owner: str, layer: Layer) -> "PrefixList":
        """With one owner's layer replaced, or taken out if it is empty. The operator's stays foremost."""
        layers = {**self.layers, owner: layer}
        names = sorted((n for n in layers if len(layers[n])), key=lambda n: (n != OPERATOR, n))
        return PrefixList({n: layers[n] for n in names})

    def only(self, owner: str | None) -> "PrefixList":
        """What one owner holds; itself for None."""
        if owner is None:
            return self
        return PrefixList({owner: self.layers[owner]} if owner in self.layers else {})

    def overlapping(self, prefix: Prefix | None) -> "PrefixList":
        """The entries that contain a prefix, or lie in it; itself for None."""
        if prefix is None:
            return self
        parts = {owner: layer.overlapping(prefix) for owner, layer in self.layers.items()}
        return PrefixList({owner: layer for owner, layer in parts.items() if len(layer)})

    def get(self, prefix: Prefix, now: float) -> Entry | None:
        """The unexpired entry for that very prefix, or None.

        The operator's word is foremost; of the others', an entry that drops comes before one that counts.
        """
        held = [
            (owner, attributes)
            for owner, layer in self.layers.items()
            if (attributes := layer.get(prefix)) is not None and attributes.is_active(now)
        ]
        if not held:
            return None
        held.sort(key=lambda one: (one[0] != OPERATOR, one[1].action is Action.COUNT))
        return Entry(prefix, held[0][1], tuple(owner for owner, _ in held), tuple(said for _, said in held))

    def count(self, now: float) -> int:
        """How many prefixes have an unexpired entry, each counted once however many own it."""
        total = 0
        for family in FAMILIES:
            columns = [c.keys for layer in self.layers.values() if len(c := layer.active(family, now))]
            total += len(columns[0]) if len(columns) == 1 else len(_union(columns, family))
        return total

    def without_expired(self, now: float) -> "PrefixList":
        """Without the entries whose time is over; itself if there are none."""
        layers = {owner: layer.without_expired(now) for owner, layer in self.layers.items()}
        if all(layers[owner] is layer for owner, layer in self.layers.items()):
            return self
        return PrefixList({owner: layer for owner, layer in layers.items() if len(layer)})

    def next_expiry(self, now: float) -> float | None:
        """The earliest deadline after now, or None."""
        deadlines = (layer.next_expiry(now) for layer in self.layers.values())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def page(self, now: float, after: Prefix | None = None, limit: int = 1000) -> list[Entry]:
        """Up to limit unexpired entries in order of family, network and length, those after one prefix."""
        entries: list[Entry] = []
        for family in FAMILIES:
            if after is not None and after.family > family:
                continue
            key = after.key if after is not None and after.family == family else None
            room = limit - len(entries)
            windows = [layer.active(family, now).after(key, room) for layer in self.layers.values()]
            for found in _union(windows, family)[:room].tolist():
                entry = self.get(Prefix.from_key(found), now)
                if entry is not None:
                    entries.append(entry)
        return entries

    def covering(self, prefix: Prefix, now: float) -> Iterator[Entry]:
        """The entries that contain a prefix, the longest first; its own among them."""
        for length in range(prefix.length, -1, -1):
            entry = self.get(prefix.shortened(length), now)
            if entry is not None:
                yield entry

    def digest(self) -> str:
        """Names the content: equal lists have equal digests."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        state = blake2b(digest_size=12)
        for owner, layer in sorted(self.layers.items()):
            state.update(repr(owner).encode() + layer.digest)
        return state.hexdigest()


def _union(columns: Sequence[Keys], family: int) -> Keys:
    """All keys of several sorted columns, in order and each once."""
    return sorted_unique(np.concatenate([np.empty(0, KEY_TYPE[family]), *columns]))


def differing(
    have: Layer, want: Sequence[tuple[Prefix, Attributes]]
) -> tuple[list[tuple[Prefix, Attributes]], list[Prefix]]:
    """What to add (or replace) and what to remove so that a layer says what a document says.

    An entry that asks for the same as before is left as it is, with its creation time and deadline.
    """
    wanted = dict(want)
    changes = compare(have, Layer.of(wanted.items()), by=wish)
    put = {
        Prefix.from_key(k)
        for part in (changes.added, changes.altered)
        for keys in part.values()
        for k in keys.tolist()
    }
    gone = [Prefix.from_key(key) for keys in changes.gone.values() for key in keys.tolist()]
    return [(prefix, attributes) for prefix, attributes in wanted.items() if prefix in put], gone

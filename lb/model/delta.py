"""The difference between two layers of prefixes; unchanged entries keep their age."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lb.model.columns import FAMILIES, Column, Ids, Keys, Mask
from lb.model.layers import Attributes, Layer
from lb.stretches import unequal

Identity = Callable[[Attributes], Hashable]
"""Two attributes are the same when this says the same of both."""


def exactly(attributes: Attributes) -> Hashable:
    """Every attribute counts, the creation time and the deadline too."""
    return attributes


def wish(attributes: Attributes) -> Hashable:
    """What is asked for counts, not when it was asked."""
    return attributes.wish


@dataclass(frozen=True, slots=True)
class Delta:
    """How one layer becomes another, a sorted array of keys a family.

    added: only the newer has them; altered: both have them and say different things; gone: only the older.
    """

    added: Mapping[int, Keys]
    altered: Mapping[int, Keys]
    gone: Mapping[int, Keys]

    def __len__(self) -> int:
        """How many prefixes differ."""
        return sum(len(keys) for part in (self.added, self.altered, self.gone) for keys in part.values())


def compare(old: Layer, new: Layer, *, by: Identity = exactly) -> Delta:
    """What to do to old to get new."""
    same = _Sameness(old.attributes, new.attributes, by)
    added: dict[int, Keys] = {}
    altered: dict[int, Keys] = {}
    gone: dict[int, Keys] = {}
    for family in FAMILIES:
        ours, theirs = old.columns[family], new.columns[family]
        ours, theirs = _unequal(ours, theirs, same)
        at, known = ours.locate(theirs.keys)
        added[family] = theirs.keys[~known]
        altered[family] = theirs.keys[known][~same.of(ours.ids[at[known]], theirs.ids[known])]
        left = np.ones(len(ours), bool)
        left[at[known]] = False
        gone[family] = ours.keys[left]
    return Delta(added, altered, gone)


def equal_ends(old: Layer, new: Layer, *, by: Identity = exactly) -> Mapping[int, tuple[int, int]]:
    """By family how many entries are equal from the first one on, and of the rest how many from the last one back.

    One change in a million entries is found at once.
    """
    same = _Sameness(old.attributes, new.attributes, by)
    return {f: _equal_ends(old.columns[f], new.columns[f], same) for f in FAMILIES}


def restricted(layer: Layer, keys: Mapping[int, Keys]) -> Layer:
    """Only those entries of a layer whose keys (sorted, all of them there) are given."""
    columns = {}
    for family in FAMILIES:
        column = layer.columns[family]
        at, _ = column.locate(keys[family])
        columns[family] = Column(keys[family], column.ids[at])
    return Layer(columns, layer.attributes).canonical


def settled(have: Layer, want: Layer) -> Layer:
    """What is wanted, where an entry that asks for the same as before keeps its creation time and deadline.

    It is have itself if nothing differs.
    """
    same = _Sameness(have.attributes, want.attributes, wish)
    columns = {}
    unchanged = len(have) == len(want)
    for family in FAMILIES:
        old, new = have.columns[family], want.columns[family]
        at, kept = old.locate(new.keys)
        kept[kept] = same.of(old.ids[at[kept]], new.ids[kept])
        ids: Ids = (new.ids + len(have.attributes)).astype(np.uint32)
        ids[kept] = old.ids[at[kept]]
        columns[family] = Column(new.keys, ids)
        unchanged = unchanged and bool(kept.all())
    return have if unchanged else Layer(columns, have.attributes + want.attributes).canonical


class _Sameness:
    """Compares the attributes of two layers by their ids, looking at those only that may differ."""

    def __init__(self, old: tuple[Attributes, ...], new: tuple[Attributes, ...], by: Identity) -> None:
        self._old, self._new, self._by = old, new, by
        # A layer made from another by single changes goes on with its attributes: then equal ids are equal.
        self._continued = new[: len(old)] == old

    def of(self, old_ids: Ids, new_ids: Ids) -> Mask:
        """For each pair of ids whether both say the same."""
        same = old_ids == new_ids if self._continued else np.zeros(len(old_ids), bool)
        unsure = ~same
        if unsure.any():
            numbers: dict[Hashable, int] = {}
            ours = self._numbered(self._old, old_ids[unsure], numbers)
            theirs = self._numbered(self._new, new_ids[unsure], numbers)
            same[unsure] = ours == theirs
        return same

    def _numbered(
        self, attributes: tuple[Attributes, ...], ids: Ids, numbers: dict[Hashable, int]
    ) -> npt.NDArray[np.int64]:
        table = np.zeros(len(attributes), np.int64)
        for used in np.flatnonzero(np.bincount(ids)).tolist():
            table[used] = numbers.setdefault(self._by(attributes[used]), len(numbers))
        return table[ids]


def _unequal(old: Column, new: Column, same: _Sameness) -> tuple[Column, Column]:
    """Both without what is the same in them."""
    ours, theirs = unequal(
        old.keys, new.keys, lambda a, b: (old.keys[a] == new.keys[b]) & same.of(old.ids[a], new.ids[b])
    )
    return old.at(ours), new.at(theirs)


def _equal_ends(old: Column, new: Column, same: _Sameness) -> tuple[int, int]:
    """How many entries are equal from the first one on, and of the rest how many from the last one back."""
    shorter = min(len(old), len(new))
    head = _equal_run(old.part(0, shorter), new.part(0, shorter), same)
    rest = shorter - head
    ours, theirs = old.part(len(old) - rest, len(old)), new.part(len(new) - rest, len(new))
    return head, _equal_run(ours.backwards(), theirs.backwards(), same)


def _equal_run(old: Column, new: Column, same: _Sameness) -> int:
    """How many entries from the first are equal; both are of one length."""
    differ = old.keys != new.keys
    run = int(differ.argmax()) if differ.any() else len(old)
    equal = same.of(old.ids[:run], new.ids[:run])
    return run if equal.all() else int(equal.argmin())

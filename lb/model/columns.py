"""Sorted columns of prefix keys in numpy: a million prefixes that are quick to search and to change."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

FAMILIES = (4, 6)
KEY_TYPE: Mapping[int, np.dtype[np.generic]] = MappingProxyType({4: np.dtype(np.uint64), 6: np.dtype("S17")})
"""How a key is stored: IPv4 as network << 8 | length, IPv6 as 16 bytes of network and one of length."""

Keys = npt.NDArray[np.generic]
Ids = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]


def is_ascending(keys: Keys) -> bool:
    """Whether keys are sorted and each is there once."""
    return bool(np.greater(keys[1:], keys[:-1]).all())


def sorted_unique(keys: Keys) -> Keys:
    """The keys in order, each once; quick if they come so."""
    if is_ascending(keys):
        return keys
    # np.unique takes ten times as long. Keys of IPv4 take 40 bits, and numpy sorts signed integers faster.
    ordered = np.sort(keys.view(np.int64)).view(keys.dtype) if keys.dtype == np.uint64 else np.sort(keys)
    first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Sorted unique keys of one family, and for each the index of its attributes in the layer."""

    keys: Keys
    ids: Ids

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def empty(cls, family: int) -> "Column":
        """No keys."""
        return cls(np.empty(0, KEY_TYPE[family]), np.empty(0, np.uint32))

    @classmethod
    def of(cls, keys: Keys, ids: Ids) -> "Column":
        """From keys in any order; of a key given twice the last counts."""
        if is_ascending(keys):
            return cls(keys, ids)
        order = np.argsort(keys, kind="stable")
        keys, ids = keys[order], ids[order]
        last = np.ones(len(keys), bool)
        np.not_equal(keys[1:], keys[:-1], out=last[:-1])
        return cls(keys[last], ids[last])

    def find(self, key: int | bytes) -> int | None:
        """The position of a key, or None."""
        wanted = np.asarray(key, self.keys.dtype)
        at = int(np.searchsorted(self.keys, wanted))
        return at if at < len(self.keys) and self.keys[at] == wanted else None

    def locate(self, keys: Keys) -> tuple[Positions, Mask]:
        """For each key the position where it is or would go, and whether it is there."""
        at = np.searchsorted(self.keys, keys)
        if not len(self.keys):
            return at, np.zeros(len(keys), bool)
        return at, self.keys[np.minimum(at, len(self.keys) - 1)] == keys

    def merged(self, keys: Keys, ids: Ids) -> "Column":
        """With these sorted unique keys put in; those that were there take the new attributes."""
        at, known = self.locate(keys)
        mine = self.ids
        if known.any():
            mine = mine.copy()
            mine[at[known]] = ids[known]
        new = ~known
        if not new.any():
            return Column(self.keys, mine)
        return Column(np.insert(self.keys, at[new], keys[new]), np.insert(mine, at[new], ids[new]))

    def without(self, keys: Keys) -> "Column":
        """Without these keys, in any order; those that are not there are passed over."""
        at, known = self.locate(keys)
        if not known.any():
            return self
        keep = np.ones(len(self.keys), bool)
        keep[at[known]] = False
        return self.where(keep)

    def where(self, keep: Mask) -> "Column":
        """Only the keys whose place in the mask is true."""
        return self if keep.all() else Column(self.keys[keep], self.ids[keep])

    def after(self, key: int | bytes | None, limit: int) -> Keys:
        """Up to limit keys greater than one key; from the first if it is None."""
        start = (
            0 if key is None else int(np.searchsorted(self.keys, np.asarray(key, self.keys.dtype), "right"))
        )
        return self.keys[start : start + limit]

    def part(self, start: int, stop: int) -> "Column":
        """The keys from one position up to another."""
        return Column(self.keys[start:stop], self.ids[start:stop])

    def at(self, positions: Positions) -> "Column":
        """The keys at these positions, which are in order."""
        return self if len(positions) == len(self) else Column(self.keys[positions], self.ids[positions])

    def backwards(self) -> "Column":
        """The keys in falling order: for a look from the end only."""
        return Column(self.keys[::-1], self.ids[::-1])

"""Assigns entry numbers: an identity, a 64-bit word of prefix and action (or owner and action), keeps its number.

The identity is kept beside the counters, so that a restart finds whose the hits are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import U16, U64
from lb.errors import CapacityError
from lb.model.columns import Keys
from lb.model.entries import OPERATOR, Action

_C = layout().constants

FOR_OWNERS = 1024
"""Numbers of each action that are left for owners whose entries share one."""
_SEEN_BITS = 18
_SEEN_MASK = np.uint64((1 << _SEEN_BITS) - 1)


@dataclass(frozen=True, slots=True)
class Numbering:
    """Ranges that numbers are taken from, by action; low included, high not. size: of the array of owners."""

    ranges: Mapping[Action, tuple[int, int]]
    size: int

    def own(self, action: Action) -> int:
        """Operator entries with a number of their own: half of what there is, for new ones stand beside the old."""
        low, high = self.ranges[action]
        return (high - low - FOR_OWNERS) // 2


DENY = Numbering(
    {Action.DROP: (1, _C["ENTRY_COUNT_ONLY"]), Action.COUNT: (_C["ENTRY_COUNT_ONLY"], _C["ENTRY_NUMBERS"])},
    _C["ENTRY_NUMBERS"],
)
ALLOW = Numbering({Action.DROP: (1, _C["ALLOW_NUMBERS"])}, _C["ALLOW_NUMBERS"])


def _mix(words: U64) -> U64:
    """SplitMix64's finalizer (Steele, Lea, Flood, OOPSLA 2014): different words stay different."""
    z = words + np.uint64(0x9E3779B97F4A7C15)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def entry_identities(family: int, keys: Keys, action: Action, owner: str = OPERATOR) -> U64:
    """The identity of each entry."""
    salt = np.uint64((family << 1 | (action is Action.COUNT)) << 56)
    if owner != OPERATOR:
        salt ^= np.uint64(owner_identity(owner, action))
    if family == 4:
        return _mix(keys.astype(np.uint64) ^ salt)
    lanes = np.frombuffer(keys.astype("S24").tobytes(), np.uint64).reshape(-1, 3)
    return _mix(_mix(_mix(lanes[:, 0]) ^ lanes[:, 1]) ^ lanes[:, 2] ^ salt)


def owner_identity(owner: str, action: Action) -> int:
    """The identity of all entries of an owner that share a number."""
    return int.from_bytes(blake2b(f"{owner}\0{action}".encode(), digest_size=8).digest(), "little") or 1


class Numbers:
    """Gives out numbers: the one an identity had, else one that nobody had before."""

    def __init__(self, numbering: Numbering, before: U64) -> None:
        self.numbering, self._before = numbering, before
        self.owners = np.zeros_like(before)
        held = np.flatnonzero(before)
        self._held = held[np.argsort(before[held])]
        self._identities = before[self._held]
        self._seen = np.zeros(1 << _SEEN_BITS, bool)
        self._seen[self._identities & _SEEN_MASK] = True
        self._free = {
            action: iter(np.flatnonzero(before[low:high] == 0) + low)
            for action, (low, high) in numbering.ranges.items()
        }

    def known(self, identities: U64) -> U16:
        """The number that each had, or 0."""
        numbers = np.zeros(len(identities), np.uint16)
        some = np.flatnonzero(self._seen[identities & _SEEN_MASK])  # most of a million are ruled out so
        at = np.searchsorted(self._identities, identities[some])
        at[at == len(self._held)] = 0
        numbers[some] = np.where(self._identities[at] == identities[some], self._held[at], 0)
        return numbers

    def give(self, identities: U64, action: Action) -> U16:
        """A number for each. CapacityError if there are not enough."""
        numbers = self.known(identities)
        for at in np.flatnonzero(numbers == 0).tolist():
            number = next(self._free[action], None)
            if number is None:
                raise CapacityError("there are more owners of list entries than rule numbers: remove a feed")
            numbers[at] = number
        self.owners[numbers] = identities
        return numbers

    def keep(self, numbers: U16) -> None:
        """These stay whose they were."""
        self.owners[numbers] = self._before[numbers]

"""Blocklist and allowlist to map contents: which prefix has which rule number. Pure.

Numbers stay while they are wanted. An operator's entry has a number of its own (its hits are exact) while there
are some; a feed's entries share the feed's.
A number belongs to an identity, a 64-bit word that depends on the prefix and action (or owner and action) alone; it is
kept beside the counters, so that a restart finds whose the hits are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from lb.dataplane.deny4 import pack
from lb.dataplane.layout import layout
from lb.errors import CapacityError
from lb.model.entries import FAMILIES, OPERATOR, Action, PrefixList
from lb.model.layers import Layer

_C = layout().constants
U64 = npt.NDArray[np.uint64]
U16 = npt.NDArray[np.uint16]

OWN_NUMBERS = 8192
"""Operator entries with a number of their own, an action; what comes after shares one. Leaves room for feeds."""


@dataclass(frozen=True, slots=True)
class Numbering:
    """Ranges that numbers are taken from, by action; low included, high not."""

    ranges: Mapping[Action, tuple[int, int]]


DENY = Numbering(
    {Action.DROP: (1, _C["RULE_COUNT_ONLY"]), Action.COUNT: (_C["RULE_COUNT_ONLY"], _C["RULE_NUMBERS"])}
)
ALLOW = Numbering({Action.DROP: (1, _C["ALLOW_NUMBERS"])})


@dataclass(frozen=True)
class ListPlan:
    """One list as the maps hold it.

    ipv4: packed entries (dataplane.deny4.pack), sorted; ipv6: 17-byte keys, with ipv6_rules; numbers: by identity;
    shared: numbers that several entries share, with their owner.
    """

    ipv4: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    ipv6: npt.NDArray[np.bytes_] = field(default_factory=lambda: np.empty(0, "S17"))
    ipv6_rules: U16 = field(default_factory=lambda: np.empty(0, np.uint16))
    numbers: Mapping[int, int] = field(default_factory=dict)
    shared: Mapping[int, str] = field(default_factory=dict)


def _mix(words: U64) -> U64:
    """SplitMix64's finalizer (Steele, Lea, Flood, OOPSLA 2014)."""
    z = words + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def entry_identities(family: int, keys: npt.NDArray[np.generic], action: Action) -> U64:
    """The identity of each entry."""
    salt = np.uint64(family << 1 | (action is Action.COUNT))
    if family == 4:
        return _mix(_mix(keys.astype(np.uint64)) ^ salt)
    lanes = np.frombuffer(keys.astype("S24").tobytes(), np.uint64).reshape(-1, 3)
    return _mix(_mix(_mix(_mix(lanes[:, 0]) ^ lanes[:, 1]) ^ lanes[:, 2]) ^ salt)


def owner_identity(owner: str, action: Action) -> int:
    """The identity of all entries of an owner that share a number."""
    return int.from_bytes(blake2b(f"{owner}\0{action}".encode(), digest_size=8).digest(), "little") or 1


class _Numbers:
    """Gives out numbers: the one an identity had, else one that nobody had before."""

    def __init__(self, numbering: Numbering, before: Mapping[int, int]) -> None:
        self.before, self.given = before, dict[int, int]()
        taken = set(before.values())
        self._free = {a: iter([n for n in range(*r) if n not in taken]) for a, r in numbering.ranges.items()}

    def get(self, identity: int, action: Action) -> int:
        number = self.given.get(identity) or self.before.get(identity) or next(self._free[action], 0)
        if not number:
            raise CapacityError("there are more owners of list entries than rule numbers: remove a feed")
        self.given[identity] = number
        return number


def plan_list(wanted: PrefixList, before: ListPlan, numbering: Numbering, now: float) -> ListPlan:
    """Number every unexpired entry. Where owners hold the same prefix the foremost one's number counts."""
    numbers = _Numbers(numbering, before.numbers)
    shared: dict[int, str] = {}
    found: dict[int, list[tuple[npt.NDArray[np.generic], U16]]] = {f: [] for f in FAMILIES}
    own_left = dict.fromkeys(numbering.ranges, _own_numbers(numbering))
    for owner, layer in wanted.layers.items():
        for family in FAMILIES:
            column = layer.active(family, now)
            actions = _actions(layer)[column.ids] if len(layer.attributes) else np.empty(0, bool)
            rules = np.zeros(len(column.keys), np.uint16)
            for action in numbering.ranges:
                mine = np.flatnonzero(actions == (action is Action.COUNT))
                if not len(mine):
                    continue
                own = mine[:0]
                if owner == OPERATOR:
                    own = _own(
                        entry_identities(family, column.keys[mine], action), mine, before, own_left[action]
                    )
                    own_left[action] -= len(own)
                    identities = entry_identities(family, column.keys[own], action).tolist()
                    rules[own] = [numbers.get(identity, action) for identity in identities]
                if len(own) < len(mine):
                    number = numbers.get(owner_identity(owner, action), action)
                    shared[number] = owner
                    rules[mine[rules[mine] == 0]] = number
            found[family].append((column.keys, rules))
    keys4, rules4 = _joined(4, found[4])
    keys6, rules6 = _joined(6, found[6])
    return ListPlan(pack(keys4.astype(np.uint64), rules4), keys6.astype("S17"), rules6, numbers.given, shared)


def _own_numbers(numbering: Numbering) -> int:
    """How many entries of an action may have a number of their own: half of a small range is left to owners."""
    return min(OWN_NUMBERS, *(high - low >> 1 for low, high in numbering.ranges.values()))


def _actions(layer: Layer) -> npt.NDArray[np.bool_]:
    return np.fromiter((a.action is Action.COUNT for a in layer.attributes), bool, len(layer.attributes))


def _own(
    identities: U64, places: npt.NDArray[np.int64], before: ListPlan, room: int
) -> npt.NDArray[np.int64]:
    """Which entries get a number of their own: those that have one, then the first."""
    if len(places) <= room:
        return places
    had = np.isin(identities, np.fromiter(before.numbers, np.uint64, len(before.numbers)))
    return np.sort(np.concatenate([places[had], places[~had]])[:room])


def _joined(
    family: int, parts: list[tuple[npt.NDArray[np.generic], U16]]
) -> tuple[npt.NDArray[np.generic], U16]:
    """All layers in one: of one key the first layer's rule."""
    parts = [p for p in parts if len(p[0])]
    if not parts:
        return np.empty(0, np.uint64 if family == 4 else "S17"), np.empty(0, np.uint16)
    if len(parts) == 1:
        return parts[0]
    keys, first = np.unique(np.concatenate([k for k, _ in parts]), return_index=True)
    return keys, np.concatenate([r for _, r in parts])[first]


def rules_of(plan: ListPlan, family: int, keys: Iterable[int | bytes]) -> list[int]:
    """The rule number of each key, 0 where it has none."""
    rules = []
    for key in keys:
        if family == 4:
            low = np.uint64(int(key) << 16)
            at = int(np.searchsorted(plan.ipv4, low))
            hit = at < len(plan.ipv4) and int(plan.ipv4[at]) >> 16 == key
            rules.append(int(plan.ipv4[at]) & 0xFFFF if hit else 0)
        else:
            at = int(np.searchsorted(plan.ipv6, np.asarray(key, "S17")))
            hit = at < len(plan.ipv6) and plan.ipv6[at] == np.asarray(key, "S17")
            rules.append(int(plan.ipv6_rules[at]) if hit else 0)
    return rules

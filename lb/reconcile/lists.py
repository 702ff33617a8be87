"""Blocklist and allowlist to map contents: which prefix has which rule number. Pure; numbers stay while wanted.

An operator's entry has a number of its own (its hits are exact) while there are some; a feed's entries share the
feed's. A number belongs to an identity, a 64-bit word that depends on the prefix and action (or owner and action)
alone; it is kept beside the counters, so that a restart finds whose the hits are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from lb.dataplane.deny4 import pack
from lb.dataplane.layout import layout
from lb.dataplane.tables import U16, U64
from lb.errors import CapacityError
from lb.model.columns import KEY_TYPE, Column, Keys, Positions
from lb.model.entries import FAMILIES, OPERATOR, Action, PrefixList
from lb.model.layers import Layer

_C = layout().constants

FOR_OWNERS = 1024
"""Numbers of each action that are left for owners whose entries share one."""
_RULE = np.uint64(0xFFFF)
_FEW = 256
"""So many entries are put among a million faster one by one than by numpy.insert."""
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
    {Action.DROP: (1, _C["RULE_COUNT_ONLY"]), Action.COUNT: (_C["RULE_COUNT_ONLY"], _C["RULE_NUMBERS"])},
    _C["RULE_NUMBERS"],
)
ALLOW = Numbering({Action.DROP: (1, _C["ALLOW_NUMBERS"])}, _C["ALLOW_NUMBERS"])


@dataclass(frozen=True)
class Part:
    """What one owner's layer has in the maps, as in ListPlan: the next plan takes it as it is while the layer stays.

    numbers: the rule numbers in use; shared: those of them that several entries share.
    """

    layer: Layer
    until: float
    ipv4: U64
    ipv6: Column
    numbers: U16
    shared: tuple[int, ...]


@dataclass(frozen=True)
class ListPlan:
    """One list as the maps hold it.

    ipv4: packed entries (dataplane.deny4.pack), sorted; ipv6: 17-byte keys, sorted, with ipv6_rules; owners: whose
    each number is, 0 nobody's; shared: numbers that several entries share, with their owner; until: when the first
    entry's time is over, seconds since the epoch; wanted: what it was made of; parts: its layers, by owner.
    """

    owners: U64
    ipv4: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    ipv6: Keys = field(default_factory=lambda: np.empty(0, KEY_TYPE[6]))
    ipv6_rules: U16 = field(default_factory=lambda: np.empty(0, np.uint16))
    shared: Mapping[int, str] = field(default_factory=dict)
    until: float = math.inf
    wanted: PrefixList | None = None
    parts: Mapping[str, Part] = field(default_factory=dict, repr=False)


def _mix(words: U64) -> U64:
    """SplitMix64's finalizer (Steele, Lea, Flood, OOPSLA 2014): different words stay different."""
    z = words + np.uint64(0x9E3779B97F4A7C15)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def entry_identities(family: int, keys: Keys, action: Action) -> U64:
    """The identity of each entry."""
    salt = np.uint64((family << 1 | (action is Action.COUNT)) << 56)
    if family == 4:
        return _mix(keys.astype(np.uint64) ^ salt)
    lanes = np.frombuffer(keys.astype("S24").tobytes(), np.uint64).reshape(-1, 3)
    return _mix(_mix(_mix(lanes[:, 0]) ^ lanes[:, 1]) ^ lanes[:, 2] ^ salt)


def owner_identity(owner: str, action: Action) -> int:
    """The identity of all entries of an owner that share a number."""
    return int.from_bytes(blake2b(f"{owner}\0{action}".encode(), digest_size=8).digest(), "little") or 1


class _Numbers:
    """Gives out numbers: the one an identity had, else one that nobody had before."""

    def __init__(self, numbering: Numbering, before: U64) -> None:
        self.owners = np.zeros_like(before)
        held = np.flatnonzero(before)
        self._held = held[np.argsort(before[held])]
        self._identities = before[self._held]
        self._seen = np.zeros(1 << _SEEN_BITS, bool)
        self._seen[self._identities & _SEEN_MASK] = True
        self._free = {
            action: iter((np.flatnonzero(before[low:high] == 0) + low).tolist())
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


def plan_list(wanted: PrefixList, before: ListPlan, numbering: Numbering, now: float) -> ListPlan:
    """Number every unexpired entry. Where owners hold the same prefix the foremost one's number counts.

    It is the plan before if nothing is to be done. CapacityError: there are more owners than numbers.
    """
    if wanted is before.wanted and now < before.until:
        return before
    numbers = _Numbers(numbering, before.owners)
    parts: dict[str, Part] = {}
    for owner, layer in wanted.layers.items():
        part = before.parts.get(owner)
        if part is not None and part.layer is layer and now < part.until:
            numbers.owners[part.numbers] = before.owners[part.numbers]
            parts[owner] = part
        else:
            parts[owner] = _part(owner, layer, numbers, numbering, now)
    ipv4, ipv6 = np.empty(0, np.uint64), Column.empty(6)
    for part in parts.values():
        ipv4, ipv6 = _joined4(ipv4, part.ipv4), _joined(ipv6, part.ipv6)
    return ListPlan(
        owners=numbers.owners,
        ipv4=ipv4,
        ipv6=ipv6.keys,
        ipv6_rules=ipv6.ids.astype(np.uint16),
        shared={number: owner for owner, part in parts.items() for number in part.shared},
        until=min((part.until for part in parts.values()), default=math.inf),
        wanted=wanted,
        parts=parts,
    )


def _part(owner: str, layer: Layer, numbers: _Numbers, numbering: Numbering, now: float) -> Part:
    """Number one owner's entries."""
    counting = np.array([a.action is Action.COUNT for a in layer.attributes], bool)
    columns = {family: layer.active(family, now) for family in FAMILIES}
    rules = {family: np.zeros(len(columns[family]), np.uint32) for family in FAMILIES}
    shared: list[int] = []
    for action in numbering.ranges:
        some = {f: np.flatnonzero(counting[columns[f].ids] == (action is Action.COUNT)) for f in FAMILIES}
        if owner == OPERATOR:
            keys = {f: columns[f].keys[some[f]] for f in FAMILIES}
            for f, (own, given) in _own_numbers(keys, action, numbers, numbering.own(action)).items():
                rules[f][some[f][own]] = given
                some[f] = np.delete(some[f], own)
        if any(map(len, some.values())):
            number = int(numbers.give(np.array([owner_identity(owner, action)], np.uint64), action)[0])
            shared.append(number)
            for f in FAMILIES:
                rules[f][some[f]] = number
    used = np.zeros(numbering.size, bool)
    for f in FAMILIES:
        used[rules[f]] = True
    deadline = layer.next_expiry(now)
    return Part(
        layer=layer,
        until=math.inf if deadline is None else deadline,
        ipv4=pack(columns[4].keys.astype(np.uint64), rules[4]),
        ipv6=Column(columns[6].keys, rules[6]),
        numbers=np.flatnonzero(used).astype(np.uint16),
        shared=tuple(shared),
    )


def _own_numbers(
    keys: Mapping[int, Keys], action: Action, numbers: _Numbers, most: int
) -> dict[int, tuple[Positions, U16]]:
    """Which entries of each family get a number of their own, and which: those that had one, then the first."""
    identities = {family: entry_identities(family, some, action) for family, some in keys.items()}
    had = {family: numbers.known(some) != 0 for family, some in identities.items()}
    room = most - sum(int(some.sum()) for some in had.values())
    given = {}
    for family, some in identities.items():
        new = np.flatnonzero(~had[family])[: max(room, 0)]
        own = np.concatenate([np.flatnonzero(had[family]), new])
        given[family] = own, numbers.give(some[own], action)
        room -= len(new)
    return given


def _joined4(first: U64, second: U64) -> U64:
    """Packed entries of both in one: of a key that both hold the first one's rule."""
    few, many = (first, second) if len(first) < len(second) else (second, first)
    if not len(few):
        return many
    at = np.searchsorted(many, few & ~_RULE)
    known = many[np.minimum(at, len(many) - 1)] & ~_RULE == few & ~_RULE
    if few is first and known.any():
        many = many.copy()
        many[at[known]] = few[known]
    at, few = at[~known], few[~known]
    if len(few) > _FEW:
        return np.insert(many, at, few)
    cuts = zip([0, *at.tolist()], [*at.tolist(), len(many)], strict=True)
    pieces = [many[start:stop] for start, stop in cuts]
    return np.concatenate([piece for n, p in enumerate(pieces) for piece in (p, few[n : n + 1])])


def _joined(first: Column, second: Column) -> Column:
    """Both in one: of a key that both hold the first one's rule."""
    if len(first) < len(second):
        return second.merged(first.keys, first.ids)
    _, known = first.locate(second.keys)
    return first.merged(second.keys[~known], second.ids[~known])


def rules_of(plan: ListPlan, family: int, keys: Sequence[int | bytes]) -> list[int]:
    """The rule number of each key, 0 where it has none."""
    if not len(plan.ipv4 if family == 4 else plan.ipv6):
        return [0] * len(keys)
    if family == 4:
        keys4 = np.array(keys, np.uint64)
        entries = plan.ipv4.take(np.searchsorted(plan.ipv4, keys4 << np.uint64(16)), mode="clip")
        rules = np.where(entries >> np.uint64(16) == keys4, entries & np.uint64(0xFFFF), np.uint64(0))
        return [int(rule) for rule in rules]
    keys6 = np.array(keys, KEY_TYPE[6])
    at = np.searchsorted(plan.ipv6, keys6)
    hit = plan.ipv6.take(at, mode="clip") == keys6
    return [int(rule) for rule in np.where(hit, plan.ipv6_rules.take(at, mode="clip"), 0)]

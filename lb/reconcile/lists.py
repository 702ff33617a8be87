"""Blocklist and allowlist to map contents: which prefix has which rule number. Pure; numbers stay while wanted.

An operator's entry has a number of its own (its hits are exact) while there are some; a feed's entries share the
feed's. Of a layer that changes only what lies between its ends that are the same is numbered anew.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np

from lb.dataplane.deny4 import pack
from lb.dataplane.tables import U16, U64, Array
from lb.model.columns import KEY_TYPE, Column, Keys, Positions
from lb.model.delta import equal_ends
from lb.model.entries import FAMILIES, OPERATOR, Action, PrefixList
from lb.model.layers import Layer
from lb.reconcile.numbering import Numbering, Numbers, entry_identities, owner_identity

_RULE = np.uint64(0xFFFF)
_FEW = 256
"""So many entries are put among a million faster one by one than by numpy.insert."""


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


_NOTHING = Part(Layer(), math.inf, np.empty(0, np.uint64), Column.empty(6), np.empty(0, np.uint16), ())


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


def plan_list(wanted: PrefixList, before: ListPlan, numbering: Numbering, now: float) -> ListPlan:
    """Number every unexpired entry. Where owners hold the same prefix the foremost one's number counts.

    It is the plan before if nothing is to be done. CapacityError: there are more owners than numbers.
    """
    if wanted is before.wanted and now < before.until:
        return before
    numbers = Numbers(numbering, before.owners)
    parts: dict[str, Part] = {}
    for owner, layer in wanted.layers.items():
        part = before.parts.get(owner, _NOTHING)
        if part.layer is layer and now < part.until:
            numbers.keep(part.numbers)
            parts[owner] = part
        else:
            parts[owner] = _part(owner, layer, part, numbers, now)
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


def _part(owner: str, layer: Layer, before: Part, numbers: Numbers, now: float) -> Part:
    """Number one owner's entries, those that are not as before."""
    columns = {family: layer.active(family, now) for family in FAMILIES}
    kept = _kept(before, layer, columns)
    used = np.zeros(numbers.numbering.size, bool)
    for f, rules_before in ((4, (before.ipv4 & _RULE).astype(np.uint16)), (6, before.ipv6.ids)):
        used[rules_before[: kept[f][0]]] = used[rules_before[len(rules_before) - kept[f][1] :]] = True
    numbers.keep(np.flatnonzero(used).astype(np.uint16))
    shared = {number for number in before.shared if used[number]}

    counting = np.array([a.action is Action.COUNT for a in layer.attributes], bool)
    middle = {f: c.part(kept[f][0], len(c) - kept[f][1]) for f, c in columns.items()}
    new = {
        action: {f: np.flatnonzero(counting[c.ids] == (action is Action.COUNT)) for f, c in middle.items()}
        for action in numbers.numbering.ranges
    }
    most = dict.fromkeys(new, 0)
    for action, (low, high) in numbers.numbering.ranges.items() if owner == OPERATOR else ():
        sharing = sum(low <= n < high for n in shared)
        most[action] = numbers.numbering.own(action) - int(used[low:high].sum()) + sharing
        if sharing and most[action] > sum(map(len, new[action].values())):
            return _part(owner, layer, _NOTHING, numbers, now)  # some of those that share can have their own
    rules = {f: np.zeros(len(c), np.uint32) for f, c in middle.items()}
    for action, some in new.items():
        if owner == OPERATOR:
            keys = {f: c.keys[some[f]] for f, c in middle.items()}
            for f, (own, given) in _own_numbers(keys, action, numbers, most[action]).items():
                rules[f][some[f][own]] = given
                some[f] = np.delete(some[f], own)
        if any(map(len, some.values())):
            number = int(numbers.give(np.array([owner_identity(owner, action)], np.uint64), action)[0])
            shared.add(number)
            for f in FAMILIES:
                rules[f][some[f]] = number
    for f in FAMILIES:
        used[rules[f]] = True
    packed = pack(middle[4].keys.astype(np.uint64), rules[4])
    deadline = layer.next_expiry(now)
    return Part(
        layer=layer,
        until=math.inf if deadline is None else deadline,
        ipv4=_between(before.ipv4, kept[4], packed),
        ipv6=Column(columns[6].keys, _between(before.ipv6.ids, kept[6], rules[6])),
        numbers=np.flatnonzero(used).astype(np.uint16),
        shared=tuple(shared),
    )


def _kept(before: Part, layer: Layer, columns: Mapping[int, Column]) -> Mapping[int, tuple[int, int]]:
    """Of each family how many entries, from the first and from the last one on, are as they were."""
    had = {4: len(before.ipv4), 6: len(before.ipv6)}
    if all(columns[f] is layer.columns[f] and had[f] == len(before.layer.columns[f]) for f in FAMILIES):
        return equal_ends(before.layer, layer, by=attrgetter("action"))
    return dict.fromkeys(FAMILIES, (0, 0))  # entries have expired: positions in the layer are not those here


def _between(old: Array, kept: tuple[int, int], middle: Array) -> Array:
    """What is new between the ends that are kept."""
    head, tail = kept
    return np.concatenate([old[:head], middle, old[len(old) - tail :]]) if head or tail else middle


def _own_numbers(
    keys: Mapping[int, Keys], action: Action, numbers: Numbers, most: int
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

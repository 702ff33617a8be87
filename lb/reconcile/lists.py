"""Blocklist and allowlist to map contents: which prefix has which rule number. Pure; numbers stay while wanted.

An entry has a number of its own (its hits are exact) while there are some; a feed's entries share the feed's. Of a
layer that changes only what lies between its ends that are the same is numbered anew, and what is over is taken out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from lb.dataplane.deny4 import pack
from lb.dataplane.tables import U16, U64, Array
from lb.model.columns import KEY_TYPE, Column, Keys, Positions, sorted_unique
from lb.model.delta import equal_ends
from lb.model.entries import FAMILIES, FEED_PREFIX, Action, PrefixList
from lb.model.layers import Layer
from lb.reconcile.foremost import Numbered, among, foremost, numbers_of, together, without
from lb.reconcile.numbering import Numbering, Numbers, entry_identities, owner_identity


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

    @property
    def entries(self) -> Numbered:
        """Of both families."""
        return self.ipv4, self.ipv6


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

    @cached_property
    def entries(self) -> Numbered:
        """Of both families."""
        return self.ipv4, Column(self.ipv6, self.ipv6_rules.astype(np.uint32))


def plan_list(wanted: PrefixList, before: ListPlan, numbering: Numbering, now: float) -> ListPlan:
    """Number every unexpired entry. Where owners hold the same prefix the foremost one's number counts.

    It is the plan before if nothing is to be done. Its `wanted` is without what has expired, where nothing else
    changed. CapacityError: there are more owners than numbers.
    """
    if wanted is before.wanted:
        return before if now < before.until else _expired(before, now)
    numbers = Numbers(numbering, before.owners)
    parts: dict[str, Part] = {}
    for owner, layer in wanted.layers.items():
        part = before.parts.get(owner, _NOTHING)
        if part.layer is layer and now < part.until:
            numbers.keep(part.numbers)
            parts[owner] = part
        else:
            rest = {name: p for name, p in before.parts.items() if name in wanted.layers} | parts
            others = [p for name, p in rest.items() if name != owner]
            parts[owner] = _part(owner, layer, part, numbers, now=now, others=others)
    return _plan(numbers.owners, wanted, parts, foremost({owner: p.entries for owner, p in parts.items()}))


def _plan(owners: U64, wanted: PrefixList, parts: Mapping[str, Part], entries: Numbered) -> ListPlan:
    return ListPlan(
        owners=owners,
        ipv4=entries[0],
        ipv6=entries[1].keys,
        ipv6_rules=entries[1].ids.astype(np.uint16),
        shared={number: owner for owner, part in parts.items() for number in part.shared},
        until=min((part.until for part in parts.values()), default=math.inf),
        wanted=wanted,
        parts=parts,
    )


def _expired(before: ListPlan, now: float) -> ListPlan:
    """The same plan without expired entries; entries that are not due are not looked at."""
    parts = {owner: part if now < part.until else _later(part, now) for owner, part in before.parts.items()}
    due = [part.layer.due(now) for part in before.parts.values() if part.until <= now]
    gone = {
        f: sorted_unique(np.concatenate(some)) for f in FAMILIES if (some := [d[f] for d in due if f in d])
    }
    # What other owners say of the same prefixes comes to the fore.
    left = foremost({owner: among(part.entries, gone) for owner, part in parts.items()})
    owners = np.zeros_like(before.owners)
    for part in parts.values():
        owners[part.numbers] = before.owners[part.numbers]
    parts = {owner: part for owner, part in parts.items() if len(part.layer)}
    wanted = PrefixList({owner: part.layer for owner, part in parts.items()})
    return _plan(owners, wanted, parts, together(without(before.entries, gone), left))


def _later(part: Part, now: float) -> Part:
    """A part without expired entries."""
    due = part.layer.due(now)
    ipv4, ipv6 = among(part.entries, due)
    freed = np.concatenate([ipv4.astype(np.uint16), ipv6.ids.astype(np.uint16)])
    freed = freed[~np.isin(freed, part.shared)]
    layer = part.layer.without_expired(now)
    deadline = layer.next_expiry(now)
    return Part(
        layer,
        math.inf if deadline is None else deadline,
        *without(part.entries, due),
        np.setdiff1d(part.numbers, freed),
        part.shared,
    )


def _part(
    owner: str, layer: Layer, before: Part, numbers: Numbers, *, now: float, others: Sequence[Part]
) -> Part:
    """Number one owner's entries, those that are not as before. others: what else there is, or was."""
    exact = not owner.startswith(FEED_PREFIX)
    columns = {family: layer.active(family, now) for family in FAMILIES}
    kept = _kept(before, layer, columns)
    used = _still_used(before, kept, numbers.numbering.size)
    numbers.keep(np.flatnonzero(used).astype(np.uint16))
    shared = {number for number in before.shared if used[number]}

    counting = np.array([a.action is Action.COUNT for a in layer.attributes], bool)
    middle = {f: c.part(kept[f][0], len(c) - kept[f][1]) for f, c in columns.items()}
    new = {
        action: {f: np.flatnonzero(counting[c.ids] == (action is Action.COUNT)) for f, c in middle.items()}
        for action in numbers.numbering.ranges
    }
    most = dict.fromkeys(new, 0)
    for action, (low, high) in numbers.numbering.ranges.items() if exact else ():
        sharing = sum(low <= n < high for n in shared)
        taken = sum(_own_between(part, low, high) for part in others)
        most[action] = max(0, numbers.numbering.own(action) - taken - int(used[low:high].sum()) + sharing)
        if sharing and most[action] > sum(map(len, new[action].values())):
            # Some of those that share can have their own.
            return _part(owner, layer, _NOTHING, numbers, now=now, others=others)
    rules = {f: np.zeros(len(c), np.uint32) for f, c in middle.items()}
    for action, some in new.items():
        if exact:
            keys = {f: c.keys[some[f]] for f, c in middle.items()}
            for f, (own, given) in _own_numbers(owner, keys, action, numbers, most[action]).items():
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


def _still_used(before: Part, kept: Mapping[int, tuple[int, int]], size: int) -> npt.NDArray[np.bool_]:
    """By number whether an entry that is kept has it."""
    used = np.zeros(size, bool)
    had: dict[int, Array] = {4: before.ipv4, 6: before.ipv6.ids}  # the last 16 bits are the number
    between = [some[kept[f][0] : len(some) - kept[f][1]].astype(np.uint16) for f, some in had.items()]
    left = np.concatenate(between)
    if np.isin(left, before.shared).any():  # whether others share it still, only a look at all of them tells
        for f, some in had.items():
            used[some[: kept[f][0]].astype(np.uint16)] = True
            used[some[len(some) - kept[f][1] :].astype(np.uint16)] = True
    else:
        used[before.numbers] = True
        used[left] = False
    return used


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


def _own_between(part: Part, low: int, high: int) -> int:
    """How many numbers of a range entries of this part have for themselves."""
    return int(((part.numbers >= low) & (part.numbers < high)).sum()) - sum(
        low <= n < high for n in part.shared
    )


def _own_numbers(
    owner: str, keys: Mapping[int, Keys], action: Action, numbers: Numbers, most: int
) -> dict[int, tuple[Positions, U16]]:
    """Which entries of each family get a number of their own, and which: those that had one, then the first."""
    identities = {family: entry_identities(family, some, action, owner) for family, some in keys.items()}
    had = {family: numbers.known(some) != 0 for family, some in identities.items()}
    room = most - sum(int(some.sum()) for some in had.values())
    given = {}
    for family, some in identities.items():
        new = np.flatnonzero(~had[family])[: max(room, 0)]
        own = np.concatenate([np.flatnonzero(had[family]), new])
        given[family] = own, numbers.give(some[own], action)
        room -= len(new)
    return given


def rules_of(plan: ListPlan | Part, family: int, keys: Sequence[int | bytes]) -> list[int]:
    """The rule number of each key, 0 where it has none."""
    return numbers_of(plan.entries, family, keys)

"""Merges numbered entries of several owners: whose number counts for a prefix that several hold. Pure.

IPv4 entries are packed and sorted (dataplane.deny4.pack), IPv6 entries a Column of keys and numbers.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lb.dataplane.layout import layout
from lb.dataplane.tables import U64
from lb.model.columns import KEY_TYPE, Column, Ids, Keys
from lb.model.entries import OPERATOR

_RULE = np.uint64(0xFFFF)
_BITS = np.uint64(16)
_FEW = 256
"""So many entries are put among a million faster one by one than by numpy.insert."""
_COUNTS = layout().constants["ENTRY_COUNT_ONLY"]
"""From this number on, entries only count."""

Numbered = tuple[U64, Column]
"""Entries of both families."""


def foremost(held: Mapping[str, Numbered]) -> Numbered:
    """All entries, by owner: the operator's word counts first, then what drops, then the first by name."""
    ipv4, ipv6 = np.empty(0, np.uint64), Column.empty(6)
    for owner in sorted(held.keys() - {OPERATOR}):
        ipv4, ipv6 = _joined4(ipv4, held[owner][0]), _joined6(ipv6, held[owner][1])
    if OPERATOR in held:
        ipv4 = _joined4(held[OPERATOR][0], ipv4, strictly=True)
        ipv6 = _joined6(held[OPERATOR][1], ipv6, strictly=True)
    return ipv4, ipv6


def among(entries: Numbered, keys: Mapping[int, Keys]) -> Numbered:
    """Those of some keys."""
    ipv4, ipv6 = entries
    if 4 in keys:
        at, known = _find4(ipv4, keys[4])
        ipv4 = ipv4[at[known]]
    if 6 in keys:
        at6, known = ipv6.locate(keys[6])
        ipv6 = ipv6.at(at6[known])
    return (ipv4 if 4 in keys else ipv4[:0]), (ipv6 if 6 in keys else Column.empty(6))


def without(entries: Numbered, keys: Mapping[int, Keys]) -> Numbered:
    """All but those of some keys."""
    ipv4, ipv6 = entries
    if 4 in keys:
        at, known = _find4(ipv4, keys[4])
        ipv4 = np.delete(ipv4, at[known])
    return ipv4, (ipv6.without(keys[6]) if 6 in keys else ipv6)


def together(first: Numbered, second: Numbered) -> Numbered:
    """Both in one: of a key that both hold the first one's number."""
    return _joined4(first[0], second[0], strictly=True), _joined6(first[1], second[1], strictly=True)


def numbers_of(entries: Numbered, family: int, keys: Sequence[int | bytes]) -> list[int]:
    """The number of each key, 0 where it has none."""
    ipv4, ipv6 = entries
    wanted = np.array(keys, KEY_TYPE[family])
    if family == 4:
        at, known = _find4(ipv4, wanted)
        numbers = (ipv4.take(at, mode="clip") & _RULE if len(ipv4) else at).astype(np.int64)
    else:
        at, known = ipv6.locate(wanted)
        numbers = (ipv6.ids.take(at, mode="clip") if len(ipv6) else at).astype(np.int64)
    return [int(number) for number in np.where(known, numbers, 0)]


def _find4(entries: U64, keys: Keys) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where each key is or would go, and whether it is there."""
    wanted = keys.astype(np.uint64) << _BITS
    at = np.searchsorted(entries, wanted)
    if not len(entries):
        return at, np.zeros(len(wanted), bool)
    return at, entries[np.minimum(at, len(entries) - 1)] >> _BITS == wanted >> _BITS


def _first_counts(first: Ids, second: Ids, *, strictly: bool) -> npt.NDArray[np.bool_]:
    """Of numbers for the same prefixes, where the first one is taken."""
    return np.ones(len(first), bool) if strictly else (first < _COUNTS) | (second >= _COUNTS)


def _joined4(first: U64, second: U64, *, strictly: bool = False) -> U64:
    few, many = (first, second) if len(first) < len(second) else (second, first)
    if not len(few):
        return many
    at = np.searchsorted(many, few & ~_RULE)
    known = many[np.minimum(at, len(many) - 1)] & ~_RULE == few & ~_RULE
    if known.any():
        ours, theirs = few[known], many[at[known]]
        if few is first:
            taken = _first_counts(ours & _RULE, theirs & _RULE, strictly=strictly)
        else:
            taken = ~_first_counts(theirs & _RULE, ours & _RULE, strictly=strictly)
        if taken.any():
            many = many.copy()
            many[at[known][taken]] = ours[taken]
    at, few = at[~known], few[~known]
    if len(few) > _FEW:
        return np.insert(many, at, few)
    cuts: Iterable[tuple[int, int]] = zip([0, *at.tolist()], [*at.tolist(), len(many)], strict=True)
    pieces = [many[start:stop] for start, stop in cuts]
    return np.concatenate([piece for n, p in enumerate(pieces) for piece in (p, few[n : n + 1])])


def _joined6(first: Column, second: Column, *, strictly: bool = False) -> Column:
    few, many = (first, second) if len(first) < len(second) else (second, first)
    at, known = many.locate(few.keys)
    ours, theirs = few.ids[known], many.ids[at[known]]
    if few is first:
        taken = _first_counts(ours, theirs, strictly=strictly)
    else:
        taken = ~_first_counts(theirs, ours, strictly=strictly)
    keep = ~known
    keep[known] = taken
    return many.merged(few.keys[keep], few.ids[keep]) if keep.any() else many

"""Packed entries (deny4.pack) to what each /24 and each address reads. Pure."""

import numpy as np

from lb.dataplane.tables import U16, U64, Ints
from lb.stretches import unequal

ALL = (0, 1 << 24)
RANGES_MAX = 128
CELLS_MAX = 32_768
"""With more changed prefixes than this, of up to 24 bits and of more, all /24s are looked at in one go."""


def changed_ranges(old: U64, new: U64) -> tuple[list[tuple[int, int]], Ints]:
    """The /24s that a change touches; all of them if they are many.

    As ranges (low, high exclusive) where prefixes of up to 24 bits differ, and one by one, in order, where only
    longer ones do.
    """
    none = np.empty(0, np.int64)
    if abs(len(old) - len(new)) > CELLS_MAX:
        return [ALL], none
    ours, theirs = unequal(old, new, lambda a, b: old[a] == new[b])
    both = np.concatenate([old[ours], new[theirs]])
    if not len(both):
        return [], none
    both.sort(kind="stable")  # two sorted runs, which are merged
    differs = both[1:] != both[:-1]
    changed = both[np.append(True, differs) & np.append(differs, True)]
    is_longer = (changed >> np.uint64(16) & np.uint64(0xFF)) > 24
    shorter, longer = changed[~is_longer], changed[is_longer]
    if len(shorter) > RANGES_MAX or len(longer) > CELLS_MAX:
        return [ALL], none
    ranges: list[tuple[int, int]] = []
    for entry in shorter.tolist():
        low, length = entry >> 32, entry >> 16 & 0xFF
        high = low + ((1 << 24) >> length)
        if ranges and low < ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(high, ranges[-1][1]))
        else:
            ranges.append((low, high))
    cells = np.unique((longer >> np.uint64(32)).astype(np.int64))
    for low, high in ranges:
        cells = cells[(cells < low) | (cells >= high)]
    return ranges, cells


def paint_cells(entries: U64, low: int, high: int) -> U16:
    """For each /24 of a prefix's range, low to high, the rule number of its longest prefix of at most 24 bits, or 0."""
    cells = np.zeros(high - low, np.uint16)
    for length in range(24):  # what covers the range and starts before it, the longest last
        network = low << 8 >> (32 - length) << (32 - length)
        if network >> 8 < low:
            at = int(np.searchsorted(entries, np.uint64(network << 24 | length << 16)))
            if at < len(entries) and int(entries[at]) >> 16 == network << 8 | length:
                cells[:] = int(entries[at]) & 0x7FFF
    first, last = np.searchsorted(entries, np.array([low << 32, high << 32], np.uint64))
    inside = entries[first:last]
    lengths = (inside >> np.uint64(16) & np.uint64(0xFF)).astype(np.int64)
    for length in np.unique(lengths[lengths <= 24]).tolist():
        some = inside[lengths == length]
        start = (some >> np.uint64(32)).astype(np.int64) - low
        rule = (some & np.uint64(0x7FFF)).astype(np.uint16)
        width = 1 << (24 - length)
        if width <= 256:
            for step in range(min(width, len(cells))):
                cells[start + step] = rule
        else:
            for at, number in zip(start.tolist(), rule.tolist(), strict=True):
                cells[at : at + width] = number
    return cells


def paint_addresses(longer: U64, cover: int) -> U16:
    """All 256 addresses of a /24: the rule number of the longest prefix of each."""
    block = np.full(256, cover, np.uint16)
    for entry in sorted(longer.tolist(), key=lambda e: e >> 16 & 0xFF):
        last, length = entry >> 24 & 0xFF, entry >> 16 & 0xFF
        block[last : last + (1 << (32 - length))] = entry & 0x7FFF
    return block

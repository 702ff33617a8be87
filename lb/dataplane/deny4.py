"""The IPv4 blocklist in map memory: DIR-24-8 with the longer prefixes of a /24 packed into one cache line.

After Gupta, Lin, McKeown, "Routing Lookups in Hardware at Memory Access Speeds" (INFOCOM 1998): one cell a /24. A /24 that
holds longer prefixes points, through its /16's run, to a line that lists up to fifteen of them, or to 256 cells of its own.

No packet sees half a change: what is new is written to lines, runs and blocks that nothing points to, and then switched
in by one aligned write (a run's start, a cell). What that frees is used again by a later change at the earliest.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from lb.dataplane.layout import layout
from lb.dataplane.room import Room
from lb.dataplane.tables import Arrays
from lb.errors import CapacityError

_LONGER = np.uint16(layout().constants["DENY_LONGER"])
_DENSE = layout().constants["DENY_DENSE"]
_LINE_ROOM = 15
_STEP = 4
"""A run grows by so many lines: a little room, so that not every new /24 moves its run."""

Ints = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


def pack(keys: U64, rules: npt.NDArray[Any]) -> U64:
    """Entries as one sortable word: network << 24 | length << 16 | rule number."""
    return keys << np.uint64(16) | rules.astype(np.uint64)


class Deny4:
    """Keeps map memory equal to a set of prefixes. One writer."""

    def __init__(self, arrays: Arrays) -> None:
        self._cells, self._runs = arrays.deny4_cells, arrays.deny4_runs
        self._lines, self._dense = arrays.deny4_lines, arrays.deny4_dense
        self._entries = np.empty(0, np.uint64)
        self._adopted = not self._cells.any()  # fresh memory holds what it should: nothing
        starts, room = self._runs & 0xFFFFFF, (self._runs >> 24) * _STEP
        used = np.flatnonzero(room)
        self._line_room = Room(
            len(self._lines), list(zip(starts[used].tolist(), room[used].tolist(), strict=True))
        )
        self._dense_room = Room(len(self._dense), [(n, 1) for n in sorted(self._dense_in_use())])

    def __len__(self) -> int:
        """How many prefixes."""
        return len(self._entries)

    def usage(self) -> dict[str, tuple[int, int]]:
        """Used and all places of the two bounded arrays."""
        return {
            "deny4_lines": (self._line_room.used(), len(self._lines)),
            "deny4_dense": (self._dense_room.used(), len(self._dense)),
        }

    def update(self, entries: U64) -> None:
        """Make memory hold exactly these entries (see `pack`), sorted, one a prefix.

        CapacityError: they do not fit; nothing was changed.
        """
        self._line_room.settle()
        self._dense_room.settle()
        if self._adopted:
            ranges = _changed_ranges(self._entries, entries)
        else:
            ranges = [(0, 1 << 24)]
        written: list[tuple[int, int]] = []
        try:
            for low, high in ranges:
                self._put(entries, low, high)
                written.append((low, high))
        except CapacityError:
            self._line_room.settle()
            self._dense_room.settle()
            for low, high in written:
                self._put(self._entries, low, high)
            raise
        self._entries, self._adopted = entries, True

    def _dense_in_use(self, cells: npt.NDArray[Any] | None = None) -> set[int]:
        lines = self._flagged_lines(np.flatnonzero(self._cells & _LONGER) if cells is None else cells)
        marks = self._lines[lines, 1]
        return set((marks[marks >> 24 == _DENSE] & 0xFFFFFF).tolist())

    def _flagged_lines(self, cells: npt.NDArray[Any]) -> Ints:
        """The line that each of these cells, all marked DENY_LONGER, points to."""
        return (self._runs[cells >> 8] & 0xFFFFFF).astype(np.int64) + (self._cells[cells] & ~_LONGER)

    def _put(self, entries: U64, low: int, high: int) -> None:
        """Make the /24s from low to high (exclusive) right. CapacityError: not enough room, nothing was written."""
        cover = _paint(entries, low, high)
        first, last = np.searchsorted(entries, np.array([low << 32, high << 32], np.uint64))
        inside = entries[first:last]
        longer = inside[(inside >> np.uint64(16) & np.uint64(0xFF)) > 24]
        group = (longer >> np.uint64(32)).astype(np.int64)
        cells, starts, counts = np.unique(group, return_index=True, return_counts=True)
        lines = np.zeros((len(cells), 16), np.uint32)
        lines[:, 0] = cover[cells - low]
        rank = np.arange(len(longer)) - np.repeat(starts, counts)
        small = np.repeat(counts <= _LINE_ROOM, counts)
        words = (
            (longer & np.uint64(0x7FFF)) << np.uint64(16)
            | (longer >> np.uint64(24) & np.uint64(0xFF)) << np.uint64(8)
            | (longer >> np.uint64(16) & np.uint64(0xFF)) - np.uint64(24)
        ).astype(np.uint32)
        lines[np.repeat(np.arange(len(cells)), counts)[small], 1 + rank[small]] = words[small]
        blocks = {int(i): _block(longer[starts[i] : starts[i] + counts[i]], int(lines[i, 0]))
                  for i in np.flatnonzero(counts > _LINE_ROOM)}  # fmt: skip

        now = self._cells[low:high]
        same = np.array([self._holds(int(c), lines[i], blocks.get(i)) for i, c in enumerate(cells)], bool) if len(
            cells) <= 64 else self._holds_many(cells, lines, blocks)  # fmt: skip
        wanted = cover.astype(np.uint16)
        wanted[cells[same] - low] = now[cells[same] - low]
        changed = ~same
        todo, rows = cells[changed], lines[changed]
        order = np.flatnonzero(changed)
        taken = self._dense_room.take(np.ones(sum(int(i) in blocks for i in order), np.int64))
        if taken is None:
            raise CapacityError(
                f"over {len(self._dense)} IPv4 /24s hold more than {_LINE_ROOM} longer prefixes each: "
                "raise --deny-dense, or block the /24s as a whole"
            )
        dense = [
            (int(at), blocks[int(i)])
            for at, i in zip(taken, (i for i in order if int(i) in blocks), strict=True)
        ]
        for (at, _), row in zip(dense, (n for n, i in enumerate(order) if int(i) in blocks), strict=True):
            rows[row, 1] = _DENSE << 24 | at
        runs, moved, ordinals, target = self._place(todo)
        wanted[todo - low] = _LONGER | ordinals.astype(np.uint16)
        if np.array_equal(wanted, now):
            return
        gone = np.flatnonzero((now & _LONGER != 0) & (now != wanted)) + low
        freed = self._dense_in_use(gone)
        self._dense_room.give(np.array(sorted(freed), np.int64), np.ones(len(freed), np.int64))
        for at, block in dense:
            self._dense[at] = block
        for source, to, count in zip(*(m.tolist() for m in moved), strict=True):
            self._lines[to : to + count] = self._lines[source : source + count]
        self._lines[target] = rows
        self._runs[runs[0]] = runs[1]
        differ = np.flatnonzero(now != wanted)
        now[differ] = wanted[differ]

    def _place(self, todo: Ints) -> tuple[Any, ...]:
        """Lines for these /24s: in their /16's run where there is room, else in a longer run.

        Returns the runs to switch (index, word), the lines to copy (from, to, number), each /24's ordinal and line.
        """
        if not len(todo):
            none = np.empty(0, np.int64)
            return (none, none), (none, none, none), none, none
        sixteen, row, need = np.unique(todo >> 8, return_inverse=True, return_counts=True)
        word = self._runs[sixteen]
        start, room = (word & 0xFFFFFF).astype(np.int64), (word >> 24).astype(np.int64) * _STEP
        cells = self._cells.reshape(-1, 256)[sixteen]
        flagged = (cells & _LONGER) != 0
        live = flagged.sum(axis=1)
        wanted_room = np.maximum(room, -(-(live + need) // _STEP) * _STEP)
        used = np.zeros((len(sixteen), int(wanted_room.max())), bool)
        at = np.nonzero(flagged)
        used[at[0], cells[at] & ~_LONGER] = True
        used |= np.arange(used.shape[1]) >= wanted_room[:, None]
        free = np.nonzero(~used)
        nth = np.arange(len(free[0])) - np.searchsorted(free[0], np.arange(len(sixteen)))[free[0]]
        chosen = nth < need[free[0]]
        ordinals = free[1][chosen]  # grouped by /16 in order, as todo is
        grown = np.flatnonzero(wanted_room > room)
        starts = self._line_room.take(wanted_room[grown])
        if starts is None:
            raise CapacityError(
                f"the IPv4 blocklist needs more than {len(self._lines)} /24s that hold longer prefixes: "
                "raise --deny-hosts, or block larger prefixes"
            )
        self._line_room.give(start[grown][room[grown] > 0], room[grown][room[grown] > 0])
        new_start = start.copy()
        new_start[grown] = starts
        runs = (sixteen[grown], (starts | wanted_room[grown] // _STEP << 24).astype(np.uint32))
        return runs, (start[grown], starts, room[grown]), ordinals, new_start[row] + ordinals

    def _holds(self, cell: int, line: Any, block: Any) -> bool:
        """Whether a /24 already reads so."""
        if not self._cells[cell] & _LONGER:
            return False
        have = self._lines[int(self._flagged_lines(np.array([cell]))[0])]
        if have[1] >> 24 == _DENSE:
            return (
                block is not None
                and have[0] == line[0]
                and bool((self._dense[have[1] & 0xFFFFFF] == block).all())
            )
        return block is None and have[0] == line[0] and set(have[1:].tolist()) == set(line[1:].tolist())

    def _holds_many(self, cells: Ints, lines: Any, blocks: Any) -> npt.NDArray[np.bool_]:
        """`_holds` for many, by whole arrays; the dense ones one by one."""
        flagged = (self._cells[cells] & _LONGER) != 0
        same = np.zeros(len(cells), bool)
        rows = np.flatnonzero(flagged)
        have = self._lines[self._flagged_lines(cells[rows])]
        equal = (np.sort(have[:, 1:], axis=1) == np.sort(lines[rows, 1:], axis=1)).all(axis=1)
        same[rows] = equal & (have[:, 0] == lines[rows, 0])
        for index, block in blocks.items():
            same[index] = self._holds(int(cells[index]), lines[index], block)
        return same


def _changed_ranges(old: U64, new: U64) -> list[tuple[int, int]]:
    """The /24s, as ranges (low, high exclusive), that a change touches; all of them if they are many."""
    size = min(len(old), len(new))
    differ = np.flatnonzero(old[:size] != new[:size])
    head = int(differ[0]) if len(differ) else size
    tail_differ = np.flatnonzero(old[::-1][: size - head] != new[::-1][: size - head])
    tail = int(tail_differ[0]) if len(tail_differ) else size - head
    changed = np.setxor1d(old[head : len(old) - tail], new[head : len(new) - tail])
    if len(changed) > 128:
        return [(0, 1 << 24)]
    ranges: list[tuple[int, int]] = []
    for entry in changed.tolist():
        network, length = entry >> 24, entry >> 16 & 0xFF
        low = network >> 8
        high = low + max(1, (1 << 24) >> length)
        if ranges and low <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(high, ranges[-1][1]))
        else:
            ranges.append((low, high))
    return ranges


def _paint(entries: U64, low: int, high: int) -> npt.NDArray[np.uint16]:
    """For each /24 from low to high the rule number of its longest prefix of at most 24 bits, or 0."""
    cells = np.zeros(high - low, np.uint16)
    for length in range(25):  # what covers the range and starts before it
        network = low << 8 >> (32 - length) << (32 - length) if length else 0
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
            for step in range(width):
                at = start + step
                cells[at[at < len(cells)]] = rule[at < len(cells)]
        else:
            for at, number in zip(start.tolist(), rule.tolist(), strict=True):
                cells[at : at + width] = number
    return cells


def _block(longer: U64, cover: int) -> npt.NDArray[np.uint16]:
    """All 256 addresses of a /24: the rule number of the longest prefix of each."""
    block = np.full(256, cover, np.uint16)
    for entry in sorted(longer.tolist(), key=lambda e: e >> 16 & 0xFF):
        last, length = entry >> 24 & 0xFF, entry >> 16 & 0xFF
        block[last : last + (1 << (32 - length))] = entry & 0x7FFF
    return block

"""The IPv4 blocklist in map memory: DIR-24-8 with the longer prefixes of a /24 packed into one cache line.

After Gupta, Lin, McKeown, "Routing Lookups in Hardware at Memory Access Speeds" (INFOCOM 1998): one cell a /24. A /24
that holds longer prefixes points, through its /16's run, to a line that lists up to fifteen of them, or to 256 cells
of its own.

No packet sees half a change: what is new is written to lines, runs and blocks that nothing points to, and then
switched in by one aligned write (a run's start, a cell). What that frees is used again by a later change at the
earliest.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lb.dataplane.deny4_ranges import ALL, changed_ranges, paint_addresses, paint_cells
from lb.dataplane.layout import layout
from lb.dataplane.room import Room
from lb.dataplane.tables import U16, U32, U64, Arrays, Ints
from lb.errors import CapacityError

_LONGER = np.uint16(layout().constants["DENY_LONGER"])
_DENSE = layout().constants["DENY_DENSE"]
_LINE_ROOM = 15
_STEP = 4
"""A run grows by so many lines: a little room, so that not every new /24 moves its run."""


def pack(keys: U64, rules: npt.NDArray[Any]) -> U64:
    """Entries as one sortable word: network << 24 | length << 16 | rule number."""
    return keys << np.uint64(16) | rules.astype(np.uint64)


@dataclass(frozen=True, slots=True)
class _Change:
    """/24s, a range or some of them in order, as they shall be.

    cells: what each reads, but for those in todo, which need a line; places: where todo's stand among them; rows:
    todo's lines; blocks: of those in todo (by position) that need one, all 256 addresses.
    """

    at: slice | Ints
    cells: U16
    todo: Ints
    places: Ints
    rows: U32
    blocks: dict[int, U16]


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where lines go. ordinals, lines: of each; runs, words: runs to switch; moved: lines to copy (from, to, count)."""

    ordinals: Ints
    lines: Ints
    runs: Ints
    words: U32
    moved: tuple[Ints, Ints, Ints]


@dataclass(frozen=True, slots=True)
class Writes:
    """All that `commit` writes, and what is free afterwards. dense: a place for each of blocks."""

    version: int
    entries: U64
    changes: list[_Change]
    placed: _Placed
    dense: Ints
    blocks: list[U16]
    line_room: Room
    dense_room: Room


class Deny4:
    """Keeps map memory equal to a set of prefixes. One writer."""

    def __init__(self, arrays: Arrays) -> None:
        self._cells, self._runs = arrays.deny4_cells, arrays.deny4_runs
        self._lines, self._dense = arrays.deny4_lines, arrays.deny4_dense
        self._entries = np.empty(0, np.uint64)
        self._version = 0
        flagged = np.flatnonzero(self._cells & _LONGER)
        self._adopted = (
            not len(flagged) and not self._cells.any()
        )  # fresh memory holds what it should: nothing
        starts, room = (self._runs & 0xFFFFFF).astype(np.int64), (self._runs >> 24).astype(np.int64) * _STEP
        used = np.unique(flagged >> 8)
        self._idle = np.setdiff1d(np.flatnonzero(self._runs), used)
        self._line_room = Room(
            len(self._lines), list(zip(starts[used].tolist(), room[used].tolist(), strict=True))
        )
        self._dense_room = Room(len(self._dense), [(n, 1) for n in self._dense_of(flagged).tolist()])

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
        """Make memory hold exactly these entries (see `pack`), sorted, one a prefix. Raises what `prepare` raises."""
        self.commit(self.prepare(entries))

    def prepare(self, entries: U64) -> "Writes":
        """What to write so that memory holds exactly these entries; nothing is changed.

        CapacityError: they do not fit.
        """
        line_room, dense_room = self._line_room.copy(), self._dense_room.copy()
        line_room.settle()
        dense_room.settle()
        ranges, some = changed_ranges(self._entries, entries) if self._adopted else ([ALL], None)
        changes = [self._compare(entries, low, high) for low, high in ranges]
        if some is not None and len(some):
            changes.append(self._compare_some(entries, some))
        blocks = [block for change in changes for block in change.blocks.values()]
        dense = dense_room.take(np.ones(len(blocks), np.int64))
        if dense is None:
            raise CapacityError(
                f"over {len(self._dense)} IPv4 /24s hold more than {_LINE_ROOM} longer prefixes each: "
                "raise --deny-dense, or block the /24s as a whole"
            )
        todo = np.concatenate([np.empty(0, np.int64), *(change.todo for change in changes)])
        placed = self._place(todo, line_room)
        return Writes(self._version, entries, changes, placed, dense, blocks, line_room, dense_room)

    def commit(self, writes: "Writes") -> None:
        """Write what was prepared. ValueError if something else was written since."""
        if writes.version != self._version:
            raise ValueError("the entries were prepared for memory that has changed since")
        self._version += 1
        self._line_room, self._dense_room = writes.line_room, writes.dense_room
        self._runs[self._idle] = 0
        # In the order in which no packet sees half: what nothing points to, then runs, then cells.
        changes, placed = writes.changes, writes.placed
        for at, block in zip(writes.dense.tolist(), writes.blocks, strict=True):
            self._dense[at] = block
        for source, to, count in zip(*(each.tolist() for each in placed.moved), strict=True):
            self._lines[to : to + count] = self._lines[source : source + count]
        first = used = 0
        for change in changes:
            rows = list(change.blocks)
            change.rows[rows, 1] = _DENSE << 24 | writes.dense[used : used + len(rows)]
            part = slice(first, first + len(change.todo))
            self._lines[placed.lines[part]] = change.rows
            change.cells[change.places] = _LONGER | placed.ordinals[part].astype(np.uint16)
            first, used = part.stop, used + len(rows)
        self._runs[placed.runs] = placed.words
        gone = np.concatenate([np.empty(0, np.int64), *(self._switch(change) for change in changes)])
        runs = np.unique(gone >> 8)
        # A packet may have read a cell before and the run only now: an empty run keeps its word until the next change.
        self._idle = runs[((self._cells.reshape(-1, 256)[runs] & _LONGER) == 0).all(axis=1)]
        words = self._runs[self._idle].astype(np.int64)
        self._line_room.give(words & 0xFFFFFF, (words >> 24) * _STEP)
        self._entries, self._adopted = writes.entries, True

    def _switch(self, change: _Change) -> Ints:
        """Write the cells that differ; those of them that pointed to a line. Gives back the blocks of these."""
        now, at = self._cells[change.at], change.at
        differ = np.flatnonzero(now != change.cells)
        numbers: Ints = differ + at.start if isinstance(at, slice) else at[differ]
        gone: Ints = numbers[(now[differ] & _LONGER) != 0]
        freed = self._dense_of(gone)
        self._dense_room.give(freed, np.ones_like(freed))
        self._cells[numbers] = change.cells[differ]
        return gone

    def _line_of(self, cells: Ints) -> Ints:
        """The line that each of these cells, all marked DENY_LONGER, points to."""
        first: Ints = (self._runs[cells >> 8] & 0xFFFFFF).astype(np.int64)
        return first + (self._cells[cells] & ~_LONGER)

    def _dense_of(self, cells: Ints) -> Ints:
        """The blocks that these cells, all marked DENY_LONGER, point to."""
        marks = self._lines[self._line_of(cells), 1]
        blocks: Ints = (marks[marks >> 24 == _DENSE] & 0xFFFFFF).astype(np.int64)
        return blocks

    def _compare(self, entries: U64, low: int, high: int) -> _Change:
        """What to write so that the /24s from low to high (exclusive) are right."""
        cover = paint_cells(entries, low, high)
        first, last = np.searchsorted(entries, np.array([low << 32, high << 32], np.uint64))
        return self._change(slice(low, high), cover, _longer(entries[first:last]))

    def _compare_some(self, entries: U64, cells: Ints) -> _Change:
        """What to write so that these /24s, in which only longer prefixes differ, are right."""
        cover = self._cells[cells]
        flagged = np.flatnonzero(cover & _LONGER)
        cover[flagged] = self._lines[self._line_of(cells[flagged]), 0]
        first, last = (np.searchsorted(entries, (c << 32).astype(np.uint64)) for c in (cells, cells + 1))
        counts = last - first
        shifts = np.repeat(first - np.append(0, np.cumsum(counts)[:-1]), counts)
        return self._change(cells, cover, _longer(entries[shifts + np.arange(len(shifts))]))

    def _change(self, at: slice | Ints, cover: U16, longer: U64) -> _Change:
        """cover: what each /24 reads where none of the longer prefixes (all there are in them) covers it."""
        cells, starts, counts = np.unique(
            (longer >> np.uint64(32)).astype(np.int64), return_index=True, return_counts=True
        )
        places = cells - at.start if isinstance(at, slice) else np.searchsorted(at, cells)
        lines = np.zeros((len(cells), 16), np.uint32)
        lines[:, 0] = cover[places]
        small = np.repeat(counts <= _LINE_ROOM, counts)
        column = 1 + np.arange(len(longer)) - np.repeat(starts, counts)
        words = (
            (longer & np.uint64(0x7FFF)) << np.uint64(16)
            | (longer >> np.uint64(24) & np.uint64(0xFF)) << np.uint64(8)
            | (longer >> np.uint64(16) & np.uint64(0xFF)) - np.uint64(24)
        ).astype(np.uint32)
        lines[np.repeat(np.arange(len(cells)), counts)[small], column[small]] = words[small]
        blocks = {
            at: paint_addresses(longer[starts[at] : starts[at] + counts[at]], int(lines[at, 0]))
            for at in np.flatnonzero(counts > _LINE_ROOM).tolist()
        }
        same = self._holds(cells, lines, blocks)
        cover[places[same]] = self._cells[cells[same]]
        rows = np.flatnonzero(~same)
        positions = {at: n for n, at in enumerate(rows.tolist())}
        needed = {positions[at]: block for at, block in blocks.items() if at in positions}
        return _Change(at, cover, cells[rows], places[rows], lines[rows], needed)

    def _holds(self, cells: Ints, lines: U32, blocks: dict[int, U16]) -> npt.NDArray[np.bool_]:
        """Which of these /24s read so already: a line, or for those in blocks (by position) a block."""
        same = np.zeros(len(cells), bool)
        at = np.flatnonzero(self._cells[cells] & _LONGER)
        have = self._lines[self._line_of(cells[at])]
        same[at] = (have == lines[at]).all(axis=1)
        for row, block in blocks.items():
            if self._cells[cells[row]] & _LONGER:
                cover, mark = self._lines[self._line_of(cells[row : row + 1])[0], :2].tolist()
                dense = mark >> 24 == _DENSE and cover == lines[row, 0]
                same[row] = dense and np.array_equal(self._dense[mark & 0xFFFFFF], block)
        return same

    def _place(self, todo: Ints, line_room: Room) -> _Placed:
        """Lines for these /24s, in any order: in their /16's run where there is room, else in a longer run.

        CapacityError: there are not enough lines.
        """
        none = np.empty(0, np.int64)
        if not len(todo):
            return _Placed(none, none, none, np.empty(0, np.uint32), (none, none, none))
        runs, row, need = np.unique(todo >> 8, return_inverse=True, return_counts=True)
        word = np.where(np.isin(runs, self._idle), 0, self._runs[runs]).astype(np.int64)
        start, room = word & 0xFFFFFF, (word >> 24) * _STEP
        cells = self._cells.reshape(-1, 256)[runs]
        flagged = (cells & _LONGER) != 0
        wanted = np.maximum(room, -(-(flagged.sum(axis=1) + need) // _STEP) * _STEP)
        busy = np.arange(int(wanted.max())) >= wanted[:, None]
        at = np.nonzero(flagged)
        busy[at[0], cells[at] & ~_LONGER] = True
        run, ordinal = np.nonzero(~busy)
        nth = np.arange(len(run)) - np.searchsorted(run, np.arange(len(runs)))[run]
        ordinals = np.empty_like(todo)
        ordinals[np.argsort(todo, kind="stable")] = ordinal[nth < need[run]]  # by /16
        grown = np.flatnonzero(wanted > room)
        starts = line_room.take(wanted[grown])
        if starts is None:
            raise CapacityError(
                f"the IPv4 blocklist needs more than {len(self._lines)} /24s that hold longer prefixes: "
                "raise --deny-hosts, or block larger prefixes"
            )
        old_start, old_room = start[grown], room[grown]
        line_room.give(old_start, old_room)
        start[grown] = starts
        words = (starts | wanted[grown] // _STEP << 24).astype(np.uint32)
        return _Placed(ordinals, start[row] + ordinals, runs[grown], words, (old_start, starts, old_room))


def _longer(entries: U64) -> U64:
    """Those of more than 24 bits."""
    return entries[(entries >> np.uint64(16) & np.uint64(0xFF)) > 24]

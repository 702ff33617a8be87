"""An allocator of stretches of a bounded array: nothing is reused in the change that freed it."""

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


class Room:
    """Free stretches of an array. What is given back waits until `settle`."""

    def __init__(self, size: int, used: list[tuple[int, int]]) -> None:
        self.size = size
        self.free: list[tuple[int, int]] = []
        self.returned: list[tuple[int, int]] = []
        at = 0
        for start, length in [*sorted(used), (size, 0)]:
            if start > at:
                self.free.append((at, start - at))
            at = max(at, start + length)

    def take(self, lengths: Places) -> Places | None:
        """Starts of stretches of these lengths, the longest first to the first that fits; None if not all fit."""
        order = np.argsort(-lengths, kind="stable")
        wanted = lengths[order]
        starts = np.empty(len(lengths), np.int64)
        free = list(self.free)
        while len(wanted):
            ends, done = np.cumsum(wanted), 0
            for index, (start, length) in enumerate(free):
                before = int(ends[done - 1]) if done else 0
                fit = int(np.searchsorted(ends, before + length, "right"))
                if fit > done:
                    starts[order[done:fit]] = start + ends[done:fit] - wanted[done:fit] - before
                    taken = int(ends[fit - 1]) - before
                    free[index] = (start + taken, length - taken)
                    done = fit
                    if done == len(wanted):
                        break
            if not done:
                return None
            order, wanted = order[done:], wanted[done:]  # shorter ones may fit what was passed over
        self.free = [stretch for stretch in free if stretch[1]]
        return starts

    def used(self) -> int:
        """How many places are neither free nor given back."""
        return self.size - sum(length for _, length in (*self.free, *self.returned))

    def copy(self) -> "Room":
        """One of its own, to plan with."""
        other = Room(self.size, [])
        other.free, other.returned = list(self.free), list(self.returned)
        return other

    def give(self, starts: Places, lengths: Places) -> None:
        """Give stretches back."""
        self.returned += zip(starts.tolist(), lengths.tolist(), strict=True)

    def settle(self) -> None:
        """Make what was given back free, joined with its neighbours."""
        if not self.returned:
            return
        merged: list[tuple[int, int]] = []
        for start, length in sorted(s for s in self.free + self.returned if s[1]):
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self.free, self.returned = merged, []

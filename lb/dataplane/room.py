"""Who holds which stretch of a bounded array: first fit, and nothing is used again in the change that freed it."""

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


class Room:
    """Free stretches of an array, first fit. What is given back waits until `settle`."""

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
        """Starts of stretches of these lengths, or None if they do not all fit."""
        total = int(lengths.sum())
        for index, (start, length) in enumerate(self.free):
            if length >= total:
                self.free[index] = (start + total, length - total)
                return start + np.cumsum(lengths) - lengths
        free, starts = list(self.free), np.empty(len(lengths), np.int64)
        for n, need in enumerate(lengths.tolist()):
            index = next((i for i, (_, length) in enumerate(free) if length >= need), -1)
            if index < 0:
                return None
            starts[n] = free[index][0]
            free[index] = (free[index][0] + need, free[index][1] - need)
        self.free = [f for f in free if f[1]]
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

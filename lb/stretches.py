"""Where two sorted arrays differ, found in one pass over both. A leaf: it imports nothing of Sluice."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

STEP = 256
"""What is the same is told by so many elements: one change is then looked for among a few hundred."""

Positions = npt.NDArray[np.intp]
Equal = Callable[[slice, slice], npt.NDArray[np.bool_]]


def unequal(old: npt.NDArray[Any], new: npt.NDArray[Any], equal: Equal) -> tuple[Positions, Positions]:
    """The positions in each of two sorted arrays beside which both hold the same, in order.

    equal: for a slice of each, of one length, which elements are the same; it may ask for more than the elements
    themselves.
    """
    cuts = np.arange(0, len(old), STEP)
    if not len(cuts):
        return np.arange(0), np.arange(len(new))
    there = np.searchsorted(new, old[cuts])
    there[0] = 0
    starts, others = np.append(cuts, len(old)), np.append(there, len(new))
    same = np.diff(starts) == np.diff(others)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    for first, last in edges.reshape(-1, 2).tolist():
        run = equal(slice(starts[first], starts[last]), slice(others[first], others[last]))
        if not run.all():
            same[first + np.unique(np.flatnonzero(~run) // STEP)] = False
    return _within(starts, ~same), _within(others, ~same)


def _within(starts: Positions, chosen: npt.NDArray[np.bool_]) -> Positions:
    """The positions in those stretches that are chosen."""
    return np.flatnonzero(np.repeat(chosen, np.diff(starts)))

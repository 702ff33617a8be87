"""Where two sorted arrays differ: nothing that differs is left out, and little else is named."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import QUICK

from lb.stretches import STEP, unequal


@given(
    st.integers(0, 4 * STEP), st.sets(st.integers(0, 8 * STEP), max_size=6), st.sets(st.integers(0, 8 * STEP))
)
@QUICK
def test_what_is_beside_the_positions_is_the_same(size: int, gone: set[int], added: set[int]) -> None:
    """Some elements gone and some added: the rest of both arrays is equal, element for element."""
    old = np.arange(0, 2 * size, 2)
    new = np.array(sorted((set(old.tolist()) - gone) | added), np.int64)

    ours, theirs = unequal(old, new, lambda a, b: old[a] == new[b])

    assert np.array_equal(np.delete(old, ours), np.delete(new, theirs))


def test_one_change_in_a_million_is_looked_for_among_few() -> None:
    """An element added, one gone and one changed, far apart: three stretches and no more."""
    old = np.arange(0, 2_000_000, 2)
    new = np.sort(np.append(np.delete(old, 900_000), 1001))
    same = np.ones(len(old), bool)
    same[500_000] = False

    ours, theirs = unequal(old, new, lambda a, b: (old[a] == new[b]) & same[a])

    assert len(ours) <= 3 * STEP
    assert len(theirs) <= 3 * STEP + 1
    assert {500_000, 900_000} <= set(ours.tolist())

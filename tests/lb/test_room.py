"""Room: stretches of a bounded array, given out and given back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.dataplane.room import Room


def lengths(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_what_is_used_is_not_given_out() -> None:
    """Stretches in use are left alone, and the room between them is found."""
    room = Room(20, [(12, 4), (0, 4)])

    assert room.used() == 8
    assert room.take(lengths(8, 4)).tolist() == [4, 16]
    assert room.take(lengths(1)) is None


def test_what_does_not_fit_takes_nothing() -> None:
    """When one of several stretches finds no room, none is taken."""
    room = Room(10, [])

    assert room.take(lengths(6, 6)) is None
    assert room.used() == 0
    assert room.take(lengths(6, 4)).tolist() == [0, 6]


def test_returned_room_waits_for_settle() -> None:
    """What was given back cannot be taken before settle, and is joined with its neighbours by it."""
    room = Room(8, [])
    first, second = room.take(lengths(4, 4)).tolist()
    room.give(lengths(first, second), lengths(4, 4))

    assert room.used() == 0
    assert room.take(lengths(1)) is None
    room.settle()
    assert room.take(lengths(8)).tolist() == [0]


def test_short_stretches_fill_holes_that_long_ones_passed_over() -> None:
    """A long stretch that only fits at the end does not keep short ones out of the holes before it."""
    room = Room(20, [(4, 1), (9, 1), (18, 2)])

    starts = room.take(lengths(4, 8, 4))

    assert sorted(starts.tolist()) == [0, 5, 10]


def test_a_copy_is_independent() -> None:
    """Planning with a copy leaves the original as it was."""
    room = Room(8, [])
    copy = room.copy()
    copy.take(lengths(8))
    copy.give(lengths(0), lengths(8))

    assert room.used() == 0
    assert room.take(lengths(8)).tolist() == [0]


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=12), st.randoms(use_true_random=False))
def test_no_place_is_held_twice(rounds: list[list[int]], random) -> None:
    """Whatever is taken and given back, stretches lie inside the array, never overlap, and used() is their sum."""
    room = Room(40, [])
    held: list[tuple[int, int]] = []
    for wanted in rounds:
        room.settle()
        starts = room.take(lengths(*wanted))
        if starts is not None:
            held += zip(starts.tolist(), wanted, strict=True)
        places = [at for start, length in held for at in range(start, start + length)]
        assert len(places) == len(set(places)) == room.used()
        assert all(0 <= at < 40 for at in places)
        random.shuffle(held)
        gone, held = held[: len(held) // 2], held[len(held) // 2 :]
        room.give(lengths(*(s for s, _ in gone)), lengths(*(n for _, n in gone)))
    room.give(lengths(*(s for s, _ in held)), lengths(*(n for _, n in held)))
    room.settle()
    assert room.free == [(0, 40)]


@pytest.mark.parametrize("count", [3000])
def test_many_holes_are_filled(count: int) -> None:
    """As many stretches as there are holes of their length find room."""
    room = Room(2 * count, [(2 * n + 1, 1) for n in range(count)])

    assert sorted(room.take(np.ones(count, np.int64)).tolist()) == list(range(0, 2 * count, 2))

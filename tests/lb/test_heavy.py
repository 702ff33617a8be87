"""Space-Saving: its bounds hold for any stream."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lb.model.heavy import SpaceSaving

STREAMS = st.lists(st.integers(0, 30), max_size=400)


def counted(stream: list[int], capacity: int) -> SpaceSaving[int]:
    sketch = SpaceSaving[int](capacity)
    for key in stream:
        sketch.add(key)
    return sketch


@given(STREAMS, st.integers(1, 12))
def test_the_bounds_hold(stream: list[int], capacity: int) -> None:
    """count - error <= truth <= count, no error is above N / capacity, and whoever has more than that is there."""
    sketch, truth = counted(stream, capacity), Counter(stream)
    found = {heavy.key: heavy for heavy in sketch.top()}

    assert sketch.total == len(stream)
    assert len(found) <= capacity
    for key, heavy in found.items():
        assert heavy.count - heavy.error <= truth[key] <= heavy.count
        assert heavy.error * capacity <= len(stream)
    assert {key for key, n in truth.items() if n * capacity > len(stream)} <= found.keys()
    assert sum(heavy.count for heavy in found.values()) == len(stream)


@given(STREAMS)
def test_with_room_for_all_it_is_exact(stream: list[int]) -> None:
    """While no counter is taken from another, counts are right and without error, the highest first."""
    found = counted(stream, 31).top()

    assert {heavy.key: heavy.count for heavy in found} == Counter(stream)
    assert all(heavy.error == 0 for heavy in found)
    assert [heavy.count for heavy in found] == sorted((heavy.count for heavy in found), reverse=True)


def test_a_heavy_key_is_found_among_many() -> None:
    """One key in ten of a stream of a hundred thousand others comes out first, in a hundred counters."""
    sketch = counted([n if n % 10 else -1 for n in range(100_000)], 100)

    (first,) = sketch.top(1)

    assert first.key == -1
    assert first.count - first.error <= 10_000 <= first.count

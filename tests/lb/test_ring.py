"""Maglev rings: even, faithful to weights, and quiet when the set changes."""

from hashlib import blake2b

import numpy as np
import pytest

from lb.model import Affinity
from lb.reconcile.ring import SLOTS, build_ring, quotas, ring_slot


def backends(count: int, weight: int = 1) -> list[tuple[bytes, int]]:
    """So many backends of one weight."""
    return [(bytes([10, 0, n >> 8, n & 255]), weight) for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 1000])
def test_equal_backends_have_equal_shares(count: int) -> None:
    """No backend has over 1 % more than the mean, and no slot is empty."""
    shares = np.bincount(build_ring(backends(count)), minlength=count)

    assert shares.sum() == SLOTS
    assert shares.max() - shares.min() <= 1
    assert shares.max() / shares.mean() <= 1.01


@pytest.mark.parametrize("gone", [0, 37, 99])
def test_removing_one_of_100_hardly_moves_the_others(gone: int) -> None:
    """At most 0.6 % of the slots of the backends that stay change hands."""
    whole = backends(100)
    before = build_ring(whole)
    kept = [n for n in range(100) if n != gone]
    after = np.array(kept)[build_ring([whole[n] for n in kept])]
    staying = before != gone

    assert (before != after)[staying].mean() <= 0.006


def test_weights_are_respected() -> None:
    """A share is within one slot of weight / sum of weights; whoever has a weight has a slot, whoever has none none."""
    weights = [0, 1, 2, 300, 5000, 65535, 65535]
    shares = np.bincount(build_ring([(bytes([n]), w) for n, w in enumerate(weights)]), minlength=len(weights))
    exact = np.array(weights) * SLOTS / sum(weights)

    assert (abs(shares - exact) <= np.maximum(1, exact / 100)).all()
    assert [bool(s) for s in shares] == [bool(w) for w in weights]


def test_the_smallest_weight_keeps_a_slot() -> None:
    """One backend of weight 65535 does not starve a thousand of weight 1."""
    assert quotas([65535] + [1] * 1000).tolist()[1:] == [1] * 1000
    assert (np.bincount(build_ring([(b"big", 65535), *backends(1000)])) >= 1).all()


def test_order_does_not_matter() -> None:
    """Two nodes that list the same backends in another order build the same ring."""
    some = [(identity, 1 + n % 3) for n, (identity, _) in enumerate(backends(30))]
    order = np.random.default_rng(7).permutation(30)

    first = build_ring(some)
    second = order[build_ring([some[n] for n in order])]

    assert (first == second).all()


def test_rings_are_the_same_for_ever() -> None:
    """A ring is part of what nodes of different versions agree on: its content is fixed."""
    ring = build_ring([(b"\x0a\x00\x00\x0b", 1), (b"\x0a\x00\x00\x0c", 2), (b"\x0a\x00\x00\x0d", 1)])

    assert blake2b(ring.tobytes(), digest_size=8).hexdigest() == "8bb2a27127b4fe27"


def test_slots_are_the_same_for_ever() -> None:
    """So is the slot of a flow, of either family and affinity."""
    four = (bytes([192, 0, 2, 1]), 40000, bytes([10, 200, 1, 1]), 80, 6)
    six = (bytes(15) + b"\1", 40000, bytes(15) + b"\2", 443, 17)

    slots = [ring_slot(*t, affinity=a) for t in (four, six) for a in Affinity]

    assert slots == [38473, 55207, 9992, 45936, 57340, 35523]


def test_nothing_to_choose_from() -> None:
    """A ring of no positive weight is refused."""
    with pytest.raises(ValueError, match="positive weight"):
        build_ring([(b"a", 0)])

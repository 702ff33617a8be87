"""Rings in memory: whole, each once, and quiet when the work is broken off."""

from dataclasses import replace

import numpy as np
import pytest
from service_samples import addresses, named, service

from lb.dataplane.twin import SMALL
from lb.reconcile.ring import SLOTS, build_ring
from lb.reconcile.rings import RingMemory
from lb.reconcile.services import ServicePlans, plan_services

SIZES = replace(SMALL, rings=16, backends=256)


def plans(count: int) -> ServicePlans:
    """So many services, no two of which have the same backends."""
    hosts = addresses(count + 3)
    some = [service(f"s{n}", *hosts[n : n + 3], port=80 + n) for n in range(count)]
    return plan_services(named(*some), ServicePlans(), SIZES)


def pool() -> np.ndarray:
    """Empty memory of that size."""
    return np.zeros((SIZES.rings, 66048), np.uint16)


@pytest.mark.parametrize("count", [1, 9])
def test_every_ring_of_a_plan_is_made(count: int) -> None:
    """One ring, or many side by side: each service's number leads to the ring of its backends, by their places."""
    memory = pool()
    wanted = plans(count)

    RingMemory(memory).make(wanted)

    for plan in wanted.by_name.values():
        assert plan.recipe is not None
        places = np.array([place for *_, place in plan.recipe.parts], np.uint16)
        right = places[build_ring([(address, weight) for address, weight, _ in plan.recipe.parts])]
        assert (memory[plan.ring, :SLOTS] == right).all()
        assert RingMemory(memory).holds(plan.ring, plan.recipe.name)


def test_a_ring_that_stands_is_left_alone() -> None:
    """Nothing is written where a ring's note says that it is the one; all else is."""
    memory = pool()
    first, second = plans(2).by_name.values()
    RingMemory(memory).make(plans(2))
    memory[first.ring, 0] = memory[second.ring, 0] = 99
    memory[second.ring, SLOTS:] = 0

    RingMemory(memory).make(plans(2))

    assert memory[first.ring, 0] == 99
    assert memory[second.ring, 0] != 99


def test_nothing_is_built_any_more_when_what_is_done_beside_fails() -> None:
    """The error comes through, and memory rests from then on: a later change may use the same numbers."""
    memory = pool()

    with pytest.raises(OSError, match="no compiler"), RingMemory(memory).making(plans(12)):
        raise OSError("no compiler")

    then = memory.copy()
    RingMemory(pool()).make(plans(12))  # as long as all of them take
    assert (memory == then).all()

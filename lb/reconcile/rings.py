"""Rings into memory: each is built in a slot that nothing points to, two at a time; an existing ring is reused."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from lb.dataplane.tables import U16
from lb.reconcile.ring import SLOTS, build_ring
from lb.reconcile.services import RingRecipe, ServicePlans

_NOTE = slice(SLOTS, SLOTS + 8)
"""Behind a ring's slots stands its recipe's name: the control plane's note of what it is."""
_AT_ONCE = 2
"""numpy works mostly outside the interpreter's lock: more than two threads would get in each other's way."""


class RingMemory:
    """The pool of rings. One writer."""

    def __init__(self, rings: U16) -> None:
        self._rings = rings

    def holds(self, number: int, name: bytes) -> bool:
        """Whether that ring is the one of the recipe of this name."""
        return self.name(number) == name

    def name(self, number: int) -> bytes:
        """Of the recipe that a ring says it is of: zeros while it is being built."""
        return self._rings[number, _NOTE].tobytes()

    def ring(self, recipe: RingRecipe, number: int) -> U16:
        """For each slot the place that it leads to; worked out, and not kept, where it does not stand yet."""
        return self._rings[number, :SLOTS] if self.holds(number, recipe.name) else ring_of(recipe)

    def make(self, plans: ServicePlans) -> None:
        """Build those of a plan that do not stand yet."""
        with self.making(plans):
            pass

    @contextmanager
    def making(self, plans: ServicePlans) -> Iterator[None]:
        """Build them in the background of the with block. However that ends, nothing is being built afterwards."""
        recipes = {recipe.name: recipe for plan in plans.by_name.values() if (recipe := plan.recipe)}
        new = [
            (recipes[name], number) for name, number in plans.rings.items() if not self.holds(number, name)
        ]
        if len(new) < _AT_ONCE:  # a thread would take longer to start
            for recipe, number in new:
                self._build(recipe, number)
            yield
            return
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="rings") as pool:
            try:
                built = [pool.submit(self._build, recipe, number) for recipe, number in new]
                yield
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for each in built:
            each.result()

    def _build(self, recipe: RingRecipe, number: int) -> None:
        ring = self._rings[number]
        ring[_NOTE] = 0
        ring[:SLOTS] = ring_of(recipe)
        ring[_NOTE] = np.frombuffer(recipe.name, np.uint16)


def ring_of(recipe: RingRecipe) -> U16:
    """For each slot the place that it leads to."""
    places = np.array([place for *_, place in recipe.parts], np.uint16)
    return places.take(build_ring([(address, weight) for address, weight, _ in recipe.parts]))

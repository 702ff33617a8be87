"""Memory that is written one element at a time, so that a test can look at it between any two writes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lb.dataplane.tables import Array, Arrays, Table

Look = Callable[[], None]


class Watched(np.ndarray):
    """An array that calls `look` after each write of so many elements."""

    look: Look | None = None
    memory: np.ndarray | None = None
    elements = 1

    def __array_finalize__(self, source: Any) -> None:
        self.look, self.memory = getattr(source, "look", None), getattr(source, "memory", None)
        self.elements = getattr(source, "elements", 1)

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.look is None or not np.may_share_memory(self, self.memory):  # a copy
            super().__setitem__(key, value)
            return
        places = np.arange(self.size).reshape(self.shape)[key]
        values = np.broadcast_to(np.asarray(value, self.dtype), places.shape).ravel()
        flat = self.view(np.ndarray).reshape(-1)
        for start in range(0, places.size, self.elements):
            some = slice(start, start + self.elements)
            flat[places.ravel()[some]] = values[some]
            self.look()


class WatchedTable:
    """A table that calls `look` after each entry."""

    def __init__(self, table: Table, look: Look) -> None:
        self._table, self._look, self.capacity = table, look, table.capacity

    def read(self) -> tuple[Array, Array]:
        return self._table.read()

    def write(self, keys: Array, values: Array) -> None:
        for at in range(len(keys)):
            self._table.write(keys[at : at + 1], values[at : at + 1])
            self._look()

    def delete(self, keys: Array) -> None:
        for at in range(len(keys)):
            self._table.delete(keys[at : at + 1])
            self._look()


def watch_arrays(arrays: Arrays, look: Look, *, elements: dict[str, int]) -> Arrays:
    """The same memory, with a look after each write to the arrays named, of so many elements at a time."""
    views = {}
    for name, count in elements.items():
        view = getattr(arrays, name).view(Watched)
        view.look, view.memory, view.elements = look, getattr(arrays, name), count
        views[name] = view
    return replace(arrays, **views)

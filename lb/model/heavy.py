"""The most frequent of a long stream in little memory: Space-Saving (Metwally, Agrawal, El Abbadi, ICDT 2005). Pure."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Heavy(Generic[K]):
    """How often a key came: not more than `count`, and not less than count - error."""

    key: K
    count: int
    error: int


class SpaceSaving(Generic[K]):
    """`capacity` counters. Of N keys added, one that came more than N / capacity times is among them.

    No count is less than it should be, nor more by over N / capacity.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counts: dict[K, int] = {}
        self._errors: dict[K, int] = {}
        self._having: dict[int, dict[K, None]] = {}
        self._least = 0
        self.total = 0
        """Keys added."""

    def add(self, key: K) -> None:
        """Count a key. A newcomer for whom no counter is free takes over one with the least count, and that count."""
        self.total += 1
        had = self._counts.get(key)
        if had is not None:
            self._move(key, had)
        elif len(self._counts) < self._capacity:
            self._counts[key], self._errors[key] = 1, 0
            self._having.setdefault(1, {})[key] = None
            self._least = 1
        else:
            victim = next(iter(self._having[self._least]))
            del self._having[self._least][victim], self._counts[victim], self._errors[victim]
            self._errors[key] = self._least
            self._having[self._least][key] = None
            self._move(key, self._least)

    def _move(self, key: K, had: int) -> None:
        """From one count to the next."""
        alike = self._having[had]
        del alike[key]
        self._counts[key] = had + 1
        self._having.setdefault(had + 1, {})[key] = None
        if not alike:
            del self._having[had]
            if had == self._least:
                self._least = had + 1

    def top(self, most: int | None = None) -> list[Heavy[K]]:
        """The keys with the highest counts, the highest first."""
        ordered = sorted(self._counts.items(), key=lambda pair: -pair[1])[:most]
        return [Heavy(key, count, self._errors[key]) for key, count in ordered]

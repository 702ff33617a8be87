"""Figures: from samples to what is reported of them. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """What is reported of one case, in its unit. p99 only where a single slow one matters."""

    minimum: float
    median: float
    rounds: int
    p99: float | None = None


def of_samples(samples: Sequence[float], *, tail: bool = False) -> Figure:
    """The figure of samples that are what was asked; tail: with the 99th percentile. ValueError without samples."""
    if not samples:
        raise ValueError("there is no figure without samples")
    return Figure(min(samples), median(samples), len(samples), percentile(samples, 99) if tail else None)


def net(gross: Sequence[float], floors: Sequence[Sequence[float]]) -> Figure:
    """The figure of samples that hold a cost of the harness, which is the mean of the floors' figures.

    All were taken in the same rounds. Minimum less minimum, median less median: a figure may be a little below 0
    where nothing is measured.
    """
    lowest = sum(min(floor) for floor in floors) / len(floors)
    middle = sum(median(floor) for floor in floors) / len(floors)
    return Figure(min(gross) - lowest, median(gross) - middle, len(gross))


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that so many percent do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]

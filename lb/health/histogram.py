"""How long checks took, in Prometheus buckets. No locks: one event loop counts, readers copy."""

from dataclasses import dataclass, field

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds, upper ends."""


@dataclass
class Histogram:
    """counts: by bucket, the last one for what is longer than all bounds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[sum(seconds > bound for bound in BOUNDS)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper ends as text and how many were no longer, "+Inf" last."""
        found, so_far = [], 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), list(self.counts), strict=True):
            so_far += count
            found.append((bound, float(so_far)))
        return found

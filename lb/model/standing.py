"""Which of a service's backends take flows at present, beside what is desired: pure values, from checks to the plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import gcd

STEPS = 8
"""Into so many shares a backend's weight is divided while it starts slowly: each step is a ring to build."""
WEIGHT_MOST = 65535
"""What the ring takes."""


class Health(StrEnum):
    """What checks have found. unknown: not enough yet, or nobody checks; it counts as healthy."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class Standing:
    """Of one service. steps: how much of its weight a backend has, 0 to STEPS, by packed address; not named: all.

    moving: whether flows of backends without any share leave them at once.
    """

    steps: Mapping[bytes, int] = field(default_factory=dict)
    moving: bool = False

    def is_out(self, address: bytes) -> bool:
        """Whether a backend takes no new flows for its health."""
        return self.steps.get(address) == 0

    def weights(self, weights: Mapping[bytes, int]) -> Mapping[bytes, int]:
        """What the ring should see, of weights without regard to health: relative, and within what it takes."""
        steps = {address: self.steps.get(address, STEPS) for address in weights}
        if all(step in (0, STEPS) for step in steps.values()):
            return {address: weight if steps[address] else 0 for address, weight in weights.items()}
        scaled = {address: weight * steps[address] for address, weight in weights.items()}
        common = gcd(*scaled.values()) or 1
        most = max(scaled.values()) // common
        if most <= WEIGHT_MOST:
            return {address: weight // common for address, weight in scaled.items()}
        return {a: max(1, w // common * WEIGHT_MOST // most) if w else 0 for a, w in scaled.items()}


FULL = Standing()
"""All backends have their whole share."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is seen of one backend's checks; times are seconds since the epoch.

    error: why the last check failed, also when the backend is still healthy; unable: why it could not be asked, which
    says nothing of it. held: it would be unhealthy, but for the mass failure guard.
    """

    health: Health = Health.UNKNOWN
    since: float | None = None
    error: str | None = None
    unable: str | None = None
    checked_at: float | None = None
    duration_seconds: float | None = None
    held: bool = False
    syn_retries: int | None = None
    unreachables: int | None = None

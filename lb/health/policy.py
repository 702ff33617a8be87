"""What follows from the health of all of a service's backends: who is in the ring, with how much of its weight. Pure.

Times are seconds of one clock that is never set.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lb.model import Service
from lb.model.health import AllDown, Established, HealthCheck
from lb.model.standing import FULL, STEPS, Health, Standing


@dataclass(frozen=True, slots=True)
class Seen:
    """One backend. failed_at: when it became unhealthy, None if it is not; returned_at: since when it starts slowly."""

    health: Health = Health.UNKNOWN
    failed_at: float | None = None
    returned_at: float | None = None


def at_once_seconds(check: HealthCheck) -> float:
    """Within how long backends that lost the same thing are found unhealthy, one after the other."""
    return check.fall * check.interval_seconds + check.timeout_seconds


def held(
    service: Service, seen: Mapping[bytes, Seen], before: frozenset[bytes], now: float
) -> frozenset[bytes]:
    """Whose verdict is not followed, by the mass failure guard: all that became unhealthy at once, if too many did.

    Too many of those that would take new flows: who drains is about to be switched off, and one after the other may be.
    seen: every backend that is checked; before: whom it held already. It lasts until no more are than may be.
    """
    check = service.health_check
    if check is None or check.mass_failure_guard is None:
        return frozenset()
    window = at_once_seconds(check)
    failing = frozenset(
        address
        for address, one in seen.items()
        if one.failed_at is not None and (address in before or now - one.failed_at <= window)
    )
    wanted = seen.keys() & _wanted(service)
    return failing if len(failing & wanted) > check.mass_failure_guard * len(wanted) else frozenset()


def share_of(returned_at: float | None, slow_start_seconds: float, now: float) -> int:
    """How many of STEPS shares a backend has: one when it returns, all when the time is over."""
    if returned_at is None or slow_start_seconds <= 0:
        return STEPS
    gone = (now - returned_at) / slow_start_seconds
    return max(1, min(STEPS, 1 + int(gone * (STEPS - 1))))


def next_share_at(returned_at: float, slow_start_seconds: float, now: float) -> float:
    """When it gets the next share."""
    share = share_of(returned_at, slow_start_seconds, now)
    return returned_at + share * slow_start_seconds / (STEPS - 1)


def all_down(service: Service, seen: Mapping[bytes, Seen], holding: frozenset[bytes]) -> bool:
    """Whether none of the backends that would take new flows is healthy; False where there is none."""
    wanted = _wanted(service)
    return bool(wanted) and all(_is_down(address, seen, holding) for address in wanted)


def standing(service: Service, seen: Mapping[bytes, Seen], holding: frozenset[bytes], now: float) -> Standing:
    """What of each backend's weight is in the ring, and whether flows leave those that have none."""
    check = service.health_check
    if check is None:
        return FULL
    open_to_all = check.when_all_down is AllDown.OPEN and all_down(service, seen, holding)
    steps = {}
    for backend in service.backends:
        address = backend.address.packed
        if _is_down(address, seen, holding):
            if not (open_to_all and backend.ring_weight):
                steps[address] = 0
        elif (one := seen.get(address)) is not None:
            share = share_of(one.returned_at, check.slow_start_seconds, now)
            if share < STEPS:
                steps[address] = share
    if not steps:
        return FULL
    return Standing(steps, moving=check.established is Established.MOVE)


def _wanted(service: Service) -> set[bytes]:
    """Who would take new flows."""
    return {backend.address.packed for backend in service.backends if backend.ring_weight}


def _is_down(address: bytes, seen: Mapping[bytes, Seen], holding: frozenset[bytes]) -> bool:
    one = seen.get(address)
    return one is not None and one.health is Health.UNHEALTHY and address not in holding

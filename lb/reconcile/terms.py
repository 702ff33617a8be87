"""The conditions of one change (bounds, force, confirmation), and what it moves."""

from dataclasses import dataclass
from functools import cached_property

from lb.model import Config
from lb.reconcile.disruption import Counts, ServiceMove, check_budget, disruption
from lb.reconcile.guard import Guard
from lb.reconcile.maps import Maps, Plans


@dataclass(frozen=True, slots=True)
class Terms:
    """For one change. The defaults are those of a plain change.

    max_moved_percent: the most of any service that may move; None: what the settings say. tell_moves: the caller wants
    to know what moves. confirm_within: seconds after which it is rolled back unless it is confirmed. is_rollback: it
    goes back to an earlier state, and replaces what waits to be confirmed.
    """

    max_moved_percent: float | None = None
    tell_moves: bool = False
    confirm_within: int | None = None
    is_rollback: bool = False

    @property
    def bear_on_pending(self) -> bool:
        """Whether the change begins or ends a wait for confirmation."""
        return self.is_rollback or self.confirm_within is not None


PLAIN = Terms()


class Account:
    """What going from the present state to a planned one moves; flows are counted when it is created."""

    def __init__(self, maps: Maps, before: Config, after: Config, plans: Plans) -> None:
        self._from, self._to, self._rings = maps.plans.services, plans.services, maps.ring
        self._flows = maps.live_flows(before.settings)
        same_times = _times(before) == _times(after)
        self._still = self._flows if same_times else maps.live_flows(after.settings)
        self._ending = maps.ending_flows(plans, before.settings)

    @cached_property
    def moves(self) -> tuple[ServiceMove, ...]:
        """By service. Of rings that are in memory, both the old and the new, nothing has to be worked out."""
        counts = Counts(self._flows, self._still, self._ending)
        return tuple(disruption(self._from, self._to, counts, self._rings))


def _times(config: Config) -> dict[str, object]:
    """The settings that say when a flow is over."""
    return {name: value for name, value in dict(config.settings).items() if name.endswith("_seconds")}


def account(
    maps: Maps, before: Config, after: Config, plans: Plans, *, guard: Guard, terms: Terms
) -> Account | None:
    """What a change moves, if that is wanted or bounded; BudgetError if it exceeds the bound."""
    percent = terms.max_moved_percent
    percent = before.settings.max_moved_percent if percent is None else percent
    bounded = percent is not None and not guard.force
    if not (terms.tell_moves or bounded) or not _moves_anything(before, after):
        return None
    found = Account(maps, before, after, plans)
    if bounded:
        check_budget(found.moves, percent)
    return found


def _moves_anything(before: Config, after: Config) -> bool:
    """Whether services differ, or when a flow is idle."""
    return (
        before.settings != after.settings
        or before.services.keys() != after.services.keys()
        or any(after.services[name] is not service for name, service in before.services.items())
    )

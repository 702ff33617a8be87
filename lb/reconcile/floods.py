"""Reports attacks on guarded services, when they begin and when they end."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from lb.dataplane.protocol import DataPlane
from lb.events import Events
from lb.reconcile.guards import GuardRow, guarded
from lb.reconcile.services import ServicePlan, ServicePlans

log = logging.getLogger("sluice.floods")

LOOK_SECONDS = 0.25
"""Between two looks at the rows of guarded services; while there are none, nobody looks."""


@dataclass(slots=True)
class _Attack:
    """One that goes on. most: new flows in its worst second, as far as was seen."""

    since: int
    most: int


class FloodWatch:
    """Publishes attack.began and attack.ended, in a thread of its own. plans: what is in the maps now."""

    def __init__(self, dataplane: DataPlane, plans: Callable[[], ServicePlans], events: Events) -> None:
        self._dataplane, self._plans, self._events = dataplane, plans, events
        self._attacks: dict[str, _Attack] = {}
        self._wake = threading.Condition()
        self._woken = self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look from now on."""
        self._thread = threading.Thread(target=self._follow, name="floods", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread:
            self._thread.join()

    def wake(self) -> None:
        """The plans may have changed."""
        with self._wake:
            self._woken = True
            self._wake.notify()

    def _follow(self) -> None:
        busy = True
        while True:
            with self._wake:
                if not (self._stopping or self._woken):
                    self._wake.wait(LOOK_SECONDS if busy else None)
                if self._stopping:
                    return
                self._woken = False
            try:
                busy = self.look()
            except Exception:  # whatever it was, the next attack must be told of
                log.exception("the guards of services cannot be read")

    def look(self) -> bool:
        """Publish what has begun or ended since the last look. Whether any service is guarded."""
        plans = {plan.service.name: plan for plan in guarded(self._plans().by_name.values())}
        rows, second = self._dataplane.tables.arrays.service_guards, self._dataplane.clock_seconds()
        for name in self._attacks.keys() - plans.keys():
            self._ended(name, self._attacks.pop(name), None, second)
        for name, plan in plans.items():
            row = GuardRow.of(rows[plan.number], second)
            attack = self._attacks.get(name)
            # Another may have followed the one that was seen, between two looks.
            if attack and (not row.until or row.since > attack.since):
                del self._attacks[name]
                self._ended(name, attack, plan, second)
                attack = None
            if row.until and not attack:
                attack = self._attacks[name] = _Attack(row.since, row.most)
                self._began(plan, row)
            if attack:
                attack.most = max(attack.most, row.most)
        return bool(plans)

    def _began(self, plan: ServicePlan, row: GuardRow) -> None:
        guard = plan.service.flood_protection
        assert guard
        budget = guard.new_flows_per_second
        self._events.publish(
            "attack.began",
            f'service "{plan.service.name}" is under attack: {row.most} new flows in a second so far, '
            f"its budget is {budget}",
            level="warning",
            service=plan.service.name,
            new_flows_per_second=row.most,
            budget=budget,
        )

    def _ended(self, name: str, attack: _Attack, plan: ServicePlan | None, second: int) -> None:
        guard = plan.service.flood_protection if plan else None
        seconds = second - attack.since
        why = "" if guard else ", and is no longer guarded"
        self._events.publish(
            "attack.ended",
            f'service "{name}" was under attack for {seconds} s, with up to {attack.most} new flows in a second{why}',
            service=name,
            new_flows_per_second=attack.most,
            budget=guard.new_flows_per_second if guard else None,
            seconds=seconds,
        )

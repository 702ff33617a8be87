"""Rows of service_guards and guard_counters: what protects services against floods of new flows.

A row in use has a budget. Its settings are the control plane's; the other members are the packet path's, and stay as
they are when settings change and when the daemon starts again. A row is complete before its service's flag is set, and
is cleared after the flag is gone.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.protocol import DataPlane
from lb.dataplane.tables import Array, Tables
from lb.model import FloodProtection
from lb.reconcile.observed import FloodStatus, GuardStats
from lb.reconcile.services import ServicePlan

_TEST = layout().constants["GUARD_TEST"]


class GuardMemory:
    """Keeps the rows as planned. One writer."""

    def __init__(self, tables: Tables) -> None:
        self._rows, self._counters = tables.arrays.service_guards, tables.guard_counters

    def put(self, plans: Iterable[ServicePlan]) -> None:
        """Write the rows of those that are guarded. One that begins to be finds neither attack nor counts."""
        guarded = [(plan.number, plan.service.flood_protection) for plan in plans]
        begun = [number for number, guard in guarded if guard and not self._rows["budget"][number]]
        if begun:
            self._rows[begun] = np.zeros(1, self._rows.dtype)
            self._counters.clear(begun)
        for number, guard in guarded:
            if guard:
                self._write(number, guard)

    def _write(self, number: int, guard: FloodProtection) -> None:
        settings = {
            "calm": guard.calm,
            "hold_s": guard.hold_seconds,
            "flags": _TEST if guard.test_unknown else 0,
            "budget": guard.new_flows_per_second,
        }
        for name, value in settings.items():
            if self._rows[name][number] != value:
                self._rows[name][number] = value

    def clear_all_but(self, numbers: Iterable[int]) -> None:
        """Take all others out of use."""
        used = np.flatnonzero(self._rows["budget"])
        gone = np.setdiff1d(used, [*numbers]) if len(used) else used
        if len(gone):
            self._rows[gone] = np.zeros(1, self._rows.dtype)


@dataclass(frozen=True, slots=True)
class GuardRow:
    """A row of service_guards as it stands at a second of the packet path's clock.

    until: that second ends the attack; 0 in peace. since: in which it began. before: new flows of the last whole
    second; now: of this one so far.
    """

    until: int
    since: int
    attacks: int
    before: int
    now: int

    @classmethod
    def of(cls, row: Array, second: int) -> "GuardRow":
        """row: one struct service_guard."""
        seen, until, opened = int(row["second"]), int(row["attack_until"]), int(row["opened"])
        # As the next packet will do: a second that was not calm puts the end off.
        if seen < second and seen < until and opened > int(row["calm"]):
            until = max(until, seen + 1 + int(row["hold_s"]))
        under = second < until
        return cls(
            until=until if under else 0,
            since=int(row["attack_since"]) if under else 0,
            attacks=int(row["attacks"]),
            before=int(row["before"]) if seen == second else opened if seen == second - 1 else 0,
            now=opened if seen == second else 0,
        )

    @property
    def most(self) -> int:
        """New flows in the worse of both seconds."""
        return max(self.before, self.now)


def guarded(plans: Iterable[ServicePlan]) -> list[ServicePlan]:
    """Those that have flood protection."""
    return [plan for plan in plans if plan.service.flood_protection]


def stats(dataplane: DataPlane, plans: Iterable[ServicePlan]) -> dict[str, GuardStats]:
    """What was counted for each that is guarded, by its name."""
    found = guarded(plans)
    tallies = dataplane.tables.guard_counters.read_some([plan.number for plan in found])
    return {plan.service.name: _stats(row) for plan, row in zip(found, tallies, strict=True)}


def statuses(dataplane: DataPlane, plans: Iterable[ServicePlan], now: float) -> dict[int, FloodStatus]:
    """How each that is guarded is, by its number; now: seconds since the epoch."""
    found = guarded(plans)
    counted, second = stats(dataplane, found), dataplane.clock_seconds()
    return {plan.number: _status(dataplane, plan, counted[plan.service.name], second, now) for plan in found}


def _status(
    dataplane: DataPlane, plan: ServicePlan, tally: GuardStats, second: int, now: float
) -> FloodStatus:
    row = GuardRow.of(dataplane.tables.arrays.service_guards[plan.number], second)
    return FloodStatus(
        under_attack=row.until > 0,
        attack_began_at=now - (second - row.since) if row.until else None,
        attack_ends_in_seconds=row.until - second if row.until else None,
        attacks=row.attacks,
        new_flows_last_second=row.before,
        **asdict(tally),
    )


def _stats(row: Array) -> GuardStats:
    return GuardStats(*(int(row[field.name]) for field in fields(GuardStats)))

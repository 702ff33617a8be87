"""Frees expired NAT entries once a second, and reports when ports run short."""

import logging
import threading
from collections.abc import Callable, Iterator

from lb.dataplane.layout import layout
from lb.dataplane.protocol import DataPlane
from lb.dataplane.tables import Array
from lb.events import Events
from lb.model import AdminState, Mode, Settings
from lb.model.service import NatSource
from lb.reconcile.nat_flows import is_used, sweep
from lb.reconcile.observed import NatRefusals, NatStats
from lb.reconcile.services import ServicePlan, ServicePlans

log = logging.getLogger("sluice.nat")

SWEEP_SECONDS = 1.0
KEEP_ROW = layout().constants["NAT_LIST_KEEP"]
KINDS = ("ipv4", "ipv6", "keep")
"""What the rows of nat_lists are for."""
_REMEDIES = {
    "ipv4": "no IPv4 port of nat_pools is free for them; add addresses",
    "ipv6": "no IPv6 port of nat_pools is free for them; add addresses",
    "keep": "no slot is free for flows that keep their source; start with more --nat-slots",
}


class NatSweeper:
    """In a thread of its own. services, settings: as they are now."""

    def __init__(
        self,
        dataplane: DataPlane,
        services: Callable[[], ServicePlans],
        settings: Callable[[], Settings],
        events: Events,
    ) -> None:
        self._dataplane, self._services, self._settings, self._events = dataplane, services, settings, events
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._short: set[str] = set()
        self._no_port = dict.fromkeys(KINDS, 0)
        self._ended = self._ended_early = 0

    def start(self) -> None:
        """Sweep from now on."""
        self._thread = threading.Thread(target=self._follow, name="nat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread:
            self._thread.join()

    def _follow(self) -> None:
        while not self._stopping.wait(SWEEP_SECONDS):
            try:
                self.sweep()
            except Exception:  # whatever it was, ports must become free
                log.exception("NAT's entries could not be looked at")

    def sweep(self) -> int:
        """Once; how many entries were freed."""
        arrays = self._dataplane.tables.arrays
        if not is_used(arrays):
            return 0
        settings, now_s, ended, early = self._settings(), self._dataplane.clock_seconds(), 0, 0
        plans = self._services().by_name.values()
        idle = {
            source: frozenset(
                plan.number << 16 | place for plan in plans for place in _idle_places(plan, source)
            )
            for source in NatSource
        }
        for row in range(len(arrays.nat_lists)):
            head = int(arrays.nat_lists["head"][row])
            count, first, last = head >> 32, head >> 16 & 0xFFFF, head & 0xFFFF
            source = NatSource.KEEP if row == KEEP_ROW else NatSource.POOL
            if count:
                blocks = arrays.nat_lists["block"][row, :count].tolist()
                usable = count * (last - first + 1)
                freed = sweep(arrays, blocks, usable, settings, now_s, disabled=idle[source])
                ended, early = ended + freed.all, early + freed.early
        self._ended, self._ended_early = self._ended + ended, self._ended_early + early
        self._tell()
        return ended

    def stats(self) -> NatStats:
        """What became of flows so far."""
        row = self._dataplane.tables.nat_counters.read()[0]
        return NatStats(
            opened=int(row["opened"]),
            reopened=int(row["reopened"]),
            no_port=NatRefusals(**self._refused(row)),
            taken_over=int(row["taken_over"]),
            raced=int(row["raced"]),
            ended=self._ended,
            ended_early=self._ended_early,
        )

    @staticmethod
    def _refused(row: Array) -> dict[str, int]:
        return dict(zip(KINDS, row["no_port"].tolist(), strict=True))

    def _tell(self) -> None:
        """An event when flows of a kind begin to be refused for lack of a port; the next after a sweep without any."""
        refused = self._refused(self._dataplane.tables.nat_counters.read()[0])
        for kind, count in refused.items():
            if count > self._no_port[kind] and kind not in self._short:
                self._short.add(kind)
                self._events.publish(
                    "nat.exhausted",
                    f"new flows are refused: {_REMEDIES[kind]}",
                    level="warning",
                    pool=kind,
                    refused=count,
                )
            elif count == self._no_port[kind]:
                self._short.discard(kind)
        self._no_port = refused


def _idle_places(plan: ServicePlan, source: NatSource) -> Iterator[int]:
    """The places of a service that take no packets of such entries: of backends that are disabled, or were removed.

    All of them if the service's mode or source is another now.
    """
    if plan.service.mode is not Mode.NAT or plan.service.nat_source is not source:
        yield from plan.at.values()
        return
    taking = {b.address.packed for b in plan.service.backends if b.admin_state is not AdminState.DISABLED}
    yield from (place for address, place in plan.at.items() if address not in taking)

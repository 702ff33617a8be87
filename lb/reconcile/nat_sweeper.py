"""Frees NAT's entries whose time is over, once a second, and tells of ports that run short."""

import logging
import threading
from collections.abc import Callable, Iterator

from lb.dataplane.layout import layout
from lb.dataplane.protocol import DataPlane
from lb.events import Events
from lb.model import AdminState, Settings
from lb.model.service import NatSource
from lb.reconcile.nat_flows import is_used, sweep
from lb.reconcile.services import ServicePlan, ServicePlans

log = logging.getLogger("sluice.nat")

SWEEP_SECONDS = 1.0
KEEP_ROW = layout().constants["NAT_LIST_KEEP"]
NAMES = ("IPv4", "IPv6", "nat_source keep")


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
        self._short: set[int] = set()
        self._no_port = 0
        self.freed = 0
        """Entries freed since the start."""

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
        settings, now_s, freed = self._settings(), self._dataplane.clock_seconds(), 0
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
                freed += sweep(arrays, blocks, usable, settings, now_s, disabled=idle[source])
        self.freed += freed
        self._tell()
        return freed

    def _tell(self) -> None:
        """An event when flows begin to be refused for want of a port; the next after a sweep in which none was."""
        refused = int(self._dataplane.tables.nat_counters.read()[0]["no_port"])
        if refused > self._no_port and not self._short:
            self._short.add(0)
            self._events.publish(
                "nat.exhausted",
                "new flows are refused: no port of nat_pools is free for them; add addresses",
                level="warning",
                refused=refused,
            )
        elif refused == self._no_port:
            self._short.clear()
        self._no_port = refused


def _idle_places(plan: ServicePlan, source: NatSource) -> Iterator[int]:
    """The places of a service that take no packets of such entries: of backends that are disabled, or were removed.

    All of them if the service's source is another now.
    """
    if plan.service.nat_source is not source:
        yield from plan.at.values()
        return
    taking = {b.address.packed for b in plan.service.backends if b.admin_state is not AdminState.DISABLED}
    yield from (place for address, place in plan.at.items() if address not in taking)

"""The reconciler: the one writer. Serialises changes, keeps the maps equal to the store, and reports what is seen."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address

from lb.dataplane.protocol import DataPlane, InterfaceState, ProgramWish
from lb.dataplane.trace import decode
from lb.errors import CapacityError, DataPlaneError, SluiceError
from lb.model import Config, Prefix
from lb.reconcile import explain, observe
from lb.reconcile.apply import ServiceMemory
from lb.reconcile.apply_lists import ListMemory
from lb.reconcile.desired import Desired, keeping
from lb.reconcile.explained import Explained
from lb.reconcile.hops import Hops
from lb.reconcile.lists import ListPlan, plan_list
from lb.reconcile.numbering import ALLOW, DENY
from lb.reconcile.observed import Counters, Hits, ServiceStatus, Status, VerdictInfo
from lb.reconcile.services import ServicePlans, plan_steps
from lb.reconcile.wish import program_wish
from lb.store import RevisionInfo, Store

log = logging.getLogger("sluice.reconcile")

TRIM_AFTER_SECONDS = 10.0
"""How long a feature must have been out of use before the program is built without it."""


@dataclass(frozen=True)
class Plans:
    """Everything that is in the maps, or is about to be. steps: on the way to services, plans to go through first."""

    deny: ListPlan
    allow: ListPlan
    services: ServicePlans
    steps: tuple[ServicePlans, ...] = field(default=(), repr=False)

    @property
    def until(self) -> float:
        """When the first entry's time is over, seconds since the epoch."""
        return min(self.deny.until, self.allow.until)


class Reconciler:
    """Safe to call from several threads. `start` adopts what the maps hold and makes it what the store says."""

    def __init__(self, store: Store, dataplane: DataPlane, *, clock: Callable[[], float] = time.time) -> None:
        self._store, self._dataplane, self._clock = store, dataplane, clock
        self._lock = threading.RLock()
        self._wake = threading.Condition()
        self._hops_changed = self._stopping = False
        self._hops = Hops(dataplane)
        self._services = ServiceMemory(dataplane.tables)
        self._served = {state.name for state in dataplane.interfaces()}
        revision, config = store.load()
        self._desired = Desired(revision, config)
        self._plans: Plans
        self._failure: str | None = "the data plane has not been filled yet"
        self._changed_at = time.monotonic()
        self._started_at = clock()
        self.apply_seconds = 0.0
        """How long the last change took from plan to maps."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Adopt what the maps hold, write what differs from the store, and keep it so. Raises what applying raises."""
        with self._lock:
            self._fill()
        self._dataplane.watch(self._on_hops_changed)
        self._thread = threading.Thread(target=self._follow, name="reconciler", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        """Whatever the maps hold at the start: adopt of it what is desired, and write the rest."""
        config, sizes = self._desired.config, self._dataplane.sizes
        self._take_over(self._services.adopt(config.services, sizes))
        self._hops.refresh(config)
        try:
            plans = self._plan(config)
        except CapacityError:  # there is no room beside what goes: it goes first
            self._take_over(self._services.clear(sizes))
            plans = self._plan(config)
        # Memory first: a program of another layout must not be in force over empty tables.
        self._apply(config, plans, all_rows=True, program_last=True)

    def _go_back(self) -> None:
        """Whatever part of a change the maps hold: back to what is desired."""
        self._failure = self._failure or "a change is being taken back"
        config = self._desired.config
        self._hops.refresh(config)
        self._take_over(self._services.go_back(self._hops.known))
        self._apply(config, self._plan(config), all_rows=True, program_last=True)

    def _take_over(self, services: ServicePlans) -> None:
        """These services, and whatever lists the maps hold, are what there is."""
        tables = self._dataplane.tables
        self._lists = ListMemory(tables)
        self._plans = Plans(
            ListPlan(owners=tables.arrays.deny_owners.copy()),
            ListPlan(owners=tables.arrays.allow_owners.copy()),
            services,
        )

    def stop(self) -> None:
        """End the background thread; the maps stay as they are."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread:
            self._thread.join()

    @property
    def desired(self) -> Desired:
        """The last acknowledged revision."""
        return self._desired

    def change(self, edit: Callable[[Config], Config], *, actor: str, summary: str) -> Desired:
        """Edit the desired state under the writer's lock; returns when the maps hold it.

        edit gets the present config and returns the wanted one; what it raises is passed on and nothing changes.
        A config equal to the present one makes no revision. CapacityError: it does not fit a map, nothing changed.
        """
        with self._lock:
            before = self._desired
            config = keeping(before.config, edit(before.config))
            if config is before.config:
                return before
            self._check_attached()
            began = time.perf_counter()
            plans = self._plan(config)
            revision = self._store.commit(
                config, before=before.config, actor=actor, summary=summary, now=self._clock()
            )
            try:
                late = self._hops.learn(config, before.config)
                self._apply(config, plans, all_rows=late)
            except Exception as error:
                self._undo(revision, error)
                raise
            self._desired = Desired(revision, config)
            self.apply_seconds = time.perf_counter() - began
            self._changed_at = time.monotonic()
        self._notify()
        return self._desired

    def _check_attached(self) -> None:
        """DataPlaneError if no interface is served: a change could not be put in force."""
        states = self._dataplane.interfaces()
        if not any(state.attached for state in states):
            names = ", ".join(state.name for state in states)
            raise DataPlaneError(
                f"the data plane is not attached to {names}, and nothing was changed: see /readyz"
            )

    def check(self, edit: Callable[[Config], Config]) -> tuple[Config, Config]:
        """A dry run: the present config and the one that edit would make, planned but not stored or applied."""
        with self._lock:
            config = keeping(self._desired.config, edit(self._desired.config))
            self._plan(config)
            return self._desired.config, config

    def revisions(self, limit: int = 100, before: int | None = None) -> list[RevisionInfo]:
        """The history, newest first."""
        with self._lock:
            return self._store.revisions(limit, before)

    def now(self) -> float:
        """The clock that entries' deadlines are kept by, seconds since the epoch."""
        return self._clock()

    def _plan(self, config: Config) -> Plans:
        """From what is in the maps to what the config says. CapacityError: it does not fit; nothing was changed."""
        now, before = self._clock(), self._plans
        deny = plan_list(config.blocklist, before.deny, DENY, now)
        allow = plan_list(config.allowlist, before.allow, ALLOW, now)
        self._lists.prepare(deny, allow)
        *steps, services = plan_steps(config.services, before.services, self._dataplane.sizes)
        return Plans(deny, allow, services, tuple(steps))

    def _apply(self, config: Config, plans: Plans, *, all_rows: bool, program_last: bool = False) -> None:
        """What was planned last, into the maps."""
        wish = self._wish(config, plans)
        try:
            if not program_last:
                self._dataplane.require(wish)
            self._lists.put()
            at = self._plans.services
            for step in (*plans.steps, plans.services):
                self._services.put(at, step, self._hops.known, all_rows=all_rows)
                at = step
            if program_last:
                self._dataplane.require(wish)
        except Exception as error:
            self._failure = str(error)
            if isinstance(error, OSError):
                self._failure = f"the kernel refused a map write: {error}"
                raise DataPlaneError(self._failure) from error
            raise
        self._plans, self._failure = replace(plans, steps=()), None

    def _undo(self, revision: int, error: Exception) -> None:
        """Whatever part of a change is in the maps, go back. If that fails too, `_follow` tries again."""
        log.error("revision %d could not be applied and is taken back: %s", revision, error)
        try:
            self._go_back()
        except Exception as again:
            log.error("the maps are not as they were: %s", again)
            self._notify()
        self._store.discard(revision)

    def _wish(self, config: Config, plans: Plans) -> ProgramWish:
        redirects = len(self._served) > 1 or not self._hops.interfaces <= self._served
        return program_wish(config, plans.deny, plans.allow, redirects=redirects)

    def _on_hops_changed(self) -> None:
        self._hops_changed = True
        self._notify()

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    def _follow(self) -> None:
        """The loop: next hops that change, entries whose time is over, features no longer used."""
        while True:
            with self._wake:
                if not (self._stopping or self._hops_changed):
                    self._wake.wait(self._pause())
                if self._stopping:
                    return
                hops_changed, self._hops_changed = self._hops_changed, False
            try:
                with self._lock:
                    self._follow_once(hops_changed)
                if time.monotonic() - self._changed_at >= TRIM_AFTER_SECONDS:
                    self._trim()
            except SluiceError as error:
                log.error("the maps could not be brought up to date: %s", error)
            except Exception:  # whatever it was, entries must expire and next hops be followed
                log.exception("the maps could not be brought up to date")

    def _follow_once(self, hops_changed: bool) -> None:
        config = self._desired.config
        if self._failure:
            self._go_back()
            return
        try:
            moved = hops_changed and self._hops.refresh(config)
        except Exception as error:
            self._failure = f"the next hops cannot be read: {error}"
            raise
        if moved or self._plans.until <= self._clock():
            self._apply(config, self._plan(config), all_rows=moved)

    def _trim(self) -> None:
        """Take what nothing uses out of the program. It is compiled before the lock is taken: changes go on."""
        wish = self._wish(self._desired.config, self._plans)
        self._dataplane.prepare(wish)
        with self._lock:
            if wish == self._wish(self._desired.config, self._plans):
                self._dataplane.require(wish, exactly=True)

    def _pause(self) -> float:
        """How long nothing can be due."""
        longest = 1.0 if self._failure else TRIM_AFTER_SECONDS
        return max(0.0, min(longest, self._plans.until - self._clock()))

    def status(self) -> Status:
        """All that is observed, but for counters of verdicts."""
        with self._lock:
            return observe.status(
                self._dataplane,
                self._plans.services,
                self._hops.known,
                self._lists.usage(),
                settings=self._desired.config.settings,
                revision=self._desired.revision,
                reasons=self.readiness(),
                started_at=self._started_at,
            )

    def service_status(self, name: str) -> ServiceStatus:
        """One service as it is; NotFoundError."""
        with self._lock:
            config = self._desired.config
            config.service(name)
            plan = self._plans.services.by_name.get(name)
            if plan is None:
                raise DataPlaneError(f'service "{name}" is not in the maps: {self._failure}')
            return observe.services(self._dataplane, [plan], self._hops.known, config.settings)[0]

    def readiness(self) -> list[str]:
        """Why the data plane is not in step with the desired state; empty when it is."""
        reasons = [self._failure] if self._failure else []
        for state in self._dataplane.interfaces():
            if not state.attached:
                reasons.append(f"interface {state.name} is {'not attached' if state.index else 'not there'}")
        return reasons

    def counters(self) -> Counters:
        """All packet counters."""
        with self._lock:
            return observe.counters(self._dataplane, self._plans.services, self._plans.deny)

    def hits(self, prefixes: list[Prefix], *, allow: bool = False) -> list[Hits]:
        """What each blocklist (or allowlist) entry has decided."""
        with self._lock:
            plan = self._plans.allow if allow else self._plans.deny
            tables = self._dataplane.tables
            counters = tables.allow_counters if allow else tables.deny_counters
            return observe.hits(plan, counters, prefixes, self._dataplane.clock_seconds(), self._clock())

    def live_flows(self, service: str, address: IPv4Address | IPv6Address) -> int:
        """Flows in the flow table that a backend of a service holds now."""
        with self._lock:
            plan = self._plans.services.by_name.get(service)
            place = plan.place(address.packed) if plan else None
            if plan is None or place is None:
                return 0
            return observe.live_flows(self._dataplane, self._desired.config.settings).get(
                (plan.number, place), 0
            )

    def interface(self, name: str | None) -> InterfaceState:
        """The interface of that name, or the only one; errors as in explain.interface_of."""
        return explain.interface_of(self._dataplane.interfaces(), name)

    def explain(self, frames: Sequence[bytes], interface: str | None = None) -> list[Explained]:
        """What becomes of each frame that comes in by an interface; nothing is changed, nothing counted.

        InvalidError, NotFoundError, DataPlaneError: as in explain.interface_of. ConflictError: a frame met what was
        removed while it ran.
        """
        state = self.interface(interface)
        self._dataplane.tracer(state.name)  # is compiled, if it has to be, while others may change things
        found: list[Explained] = []
        for start in range(0, len(frames), explain.BATCH):
            batch = frames[start : start + explain.BATCH]
            with self._lock:
                seen = self._dataplane.tracer(state.name).run(batch)
                traces = decode(seen.rows)
                plans = self._plans
                view = explain.look(
                    self._dataplane,
                    state,
                    traces,
                    config=self._desired.config,
                    services=plans.services,
                    lists=(plans.deny, plans.allow),
                    now=self._clock(),
                )
            found += explain.explained(batch, seen.frames_out, traces, view)
        return found

    def verdicts(self) -> list[VerdictInfo]:
        """The verdict list of the data plane, in order of number."""
        return [VerdictInfo(v.number, v.name, v.action, v.sentence) for v in self._dataplane.verdicts]

"""The reconciler: the one writer. Serialises changes, keeps the maps equal to the store, and reports what is seen."""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lb.dataplane.protocol import DataPlane, NextHop, ProgramWish
from lb.errors import CapacityError, DataPlaneError, SluiceError
from lb.model import Affinity, Config, Mode, Prefix, Settings
from lb.reconcile import observe
from lb.reconcile.apply import ListMemory, ServiceMemory, read_owners
from lb.reconcile.lists import ALLOW, DENY, ListPlan, plan_list
from lb.reconcile.observed import Counters, Hits, ServiceStatus, Status, VerdictInfo
from lb.reconcile.services import RingCache, ServicePlans, adopt_services, plan_services
from lb.store import RevisionInfo, Store

log = logging.getLogger("sluice.reconcile")

TRIM_AFTER_SECONDS = 10.0
"""How long a feature must have been out of use before the program is built without it."""


@dataclass(frozen=True, slots=True)
class Desired:
    """A revision and what it says. Immutable: readers take it once and see one state."""

    revision: int
    config: Config


@dataclass(frozen=True)
class Plans:
    """Everything that is in the maps, or is about to be."""

    services: ServicePlans
    deny: ListPlan
    allow: ListPlan
    until: float = math.inf
    """When the first of its entries' time is over, seconds since the epoch."""


class Reconciler:
    """Safe to call from several threads. `start` adopts what the maps hold and makes it what the store says."""

    def __init__(self, store: Store, dataplane: DataPlane, *, clock: Callable[[], float] = time.time) -> None:
        self._store, self._dataplane, self._clock = store, dataplane, clock
        self._lock = threading.RLock()
        self._wake = threading.Condition()
        self._hops_changed = self._stopping = False
        self._rings = RingCache()
        self._hops: dict[bytes, NextHop] = {}
        revision, config = store.load()
        self._desired = Desired(revision, config)
        self._plans = Plans(ServicePlans(), ListPlan(), ListPlan())
        self._failure: str | None = "the data plane has not been filled yet"
        self._changed_at = time.monotonic()
        self._started_at = clock()
        self.apply_seconds = 0.0
        """How long the last change took from plan to maps."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Adopt what the maps hold, write what differs from the store, and keep it so. Raises what applying raises."""
        with self._lock:
            tables, config = self._dataplane.tables, self._desired.config
            self._service_memory = ServiceMemory(tables, self._rings)
            self._list_memory = ListMemory(tables)
            before = Plans(
                adopt_services(
                    config.services,
                    self._service_memory.held,
                    tables.arrays,
                    self._rings,
                    self._dataplane.sizes,
                ),
                ListPlan(numbers=read_owners(tables.arrays.deny_owners)),
                ListPlan(numbers=read_owners(tables.arrays.allow_owners)),
            )
            self._refresh_hops(config)
            # Memory first: a program of another layout must not be in force over empty tables.
            self._apply(config, before, self._plan(config, before), all_rows=True, program_last=True)
        self._dataplane.watch(self._on_hops_changed)
        self._thread = threading.Thread(target=self._follow, name="reconciler", daemon=True)
        self._thread.start()

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
            config = edit(self._desired.config)
            if config is self._desired.config or config == self._desired.config:
                return self._desired
            self._check_attached()
            began = time.perf_counter()
            plans = self._plan(config, self._plans)
            before = self._desired
            revision = self._store.commit(
                config, before=before.config, actor=actor, summary=summary, now=self._clock()
            )
            try:
                self._learn_hops(config)
                self._apply(config, self._plans, plans, all_rows=False)
            except SluiceError as error:
                self._undo(revision, before, plans, error)
                raise
            self._desired = Desired(revision, config)
            self.apply_seconds = time.perf_counter() - began
            self._changed_at = time.monotonic()
        with self._wake:
            self._wake.notify()
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
            config = edit(self._desired.config)
            self._plan(config, self._plans)
            return self._desired.config, config

    def revisions(self, limit: int = 100, before: int | None = None) -> list[RevisionInfo]:
        """The history, newest first."""
        with self._lock:
            return self._store.revisions(limit, before)

    def now(self) -> float:
        """The clock that entries' deadlines are kept by, seconds since the epoch."""
        return self._clock()

    def _plan(self, config: Config, before: Plans) -> Plans:
        now, sizes = self._clock(), self._dataplane.sizes
        deadlines = (config.blocklist.next_expiry(now), config.allowlist.next_expiry(now))
        until = min((d for d in deadlines if d is not None), default=math.inf)
        deny = plan_list(config.blocklist, before.deny, DENY, now)
        allow = plan_list(config.allowlist, before.allow, ALLOW, now)
        for name, count, room, option in (
            ("IPv6 blocklist", len(deny.ipv6), sizes.deny_ipv6, "--deny-ipv6"),
            ("IPv4 allowlist", len(allow.ipv4), sizes.allow, "--allow"),
            ("IPv6 allowlist", len(allow.ipv6), sizes.allow, "--allow"),
        ):
            if count > room:
                raise CapacityError(
                    f"the {name} would hold {count} prefixes, room is for {room}: raise {option}"
                )
        return Plans(plan_services(config.services, before.services, sizes), deny, allow, until)

    def _apply(
        self, config: Config, before: Plans, after: Plans, *, all_rows: bool, program_last: bool = False
    ) -> None:
        wish = program_wish(config, after, self._hops.values(), self._interfaces())
        try:
            if not program_last:
                self._dataplane.require(wish)
            self._list_memory.put(after.deny, after.allow)
            self._service_memory.put(before.services, after.services, self._hops, all_rows=all_rows)
            if program_last:
                self._dataplane.require(wish)
        except SluiceError as error:
            self._failure = str(error)
            raise
        except OSError as error:
            self._failure = f"the kernel refused a map write: {error}"
            raise DataPlaneError(self._failure) from error
        self._plans, self._failure = after, None

    def _undo(self, revision: int, before: Desired, half: Plans, error: SluiceError) -> None:
        """Go back from plans of which any part may be in memory. If that fails too, `_follow` tries again."""
        log.error("revision %d could not be applied and is taken back: %s", revision, error)
        self._store.discard(revision)
        with contextlib.suppress(SluiceError):
            self._apply(before.config, half, self._plans, all_rows=True)

    def _interfaces(self) -> set[str]:
        return {state.name for state in self._dataplane.interfaces()}

    def _addresses(self, config: Config) -> set[bytes]:
        return {b.address.packed for service in config.services.values() for b in service.backends}

    def _learn_hops(self, config: Config) -> None:
        """Ask for the ways to addresses that are new; those known are kept up to date by `_follow`."""
        unknown = self._addresses(config) - self._hops.keys()
        if unknown:
            self._hops.update(self._dataplane.next_hops(unknown))

    def _refresh_hops(self, config: Config) -> bool:
        hops = dict(self._dataplane.next_hops(self._addresses(config)))
        changed = hops != self._hops
        self._hops = hops
        return changed

    def _on_hops_changed(self) -> None:
        with self._wake:
            self._hops_changed = True
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

    def _follow_once(self, hops_changed: bool) -> None:
        config = self._desired.config
        moved = hops_changed and self._refresh_hops(config)
        if moved or self._failure or self._plans.until <= self._clock():
            self._apply(config, self._plans, self._plan(config, self._plans), all_rows=True)

    def _trim(self) -> None:
        """Take what nothing uses out of the program. It is compiled before the lock is taken: changes go on."""
        wish = self._wish()
        self._dataplane.prepare(wish)
        with self._lock:
            if wish == self._wish():
                self._dataplane.require(wish, exactly=True)

    def _wish(self) -> ProgramWish:
        return program_wish(self._desired.config, self._plans, self._hops.values(), self._interfaces())

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
                self._hops,
                self._list_memory.usage(),
                revision=self._desired.revision,
                reasons=self.readiness(),
                started_at=self._started_at,
            )

    def service_status(self, name: str) -> ServiceStatus:
        """One service as it is; NotFoundError."""
        with self._lock:
            self._desired.config.service(name)
            plan = self._plans.services.by_name[name]
            return observe.services(self._dataplane, {name: plan}, self._hops)[0]

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

    def verdicts(self) -> list[VerdictInfo]:
        """The verdict list of the data plane, in order of number."""
        return [VerdictInfo(v.number, v.name, v.action, v.sentence) for v in self._dataplane.verdicts]


def program_wish(config: Config, plans: Plans, hops: Iterable[NextHop], interfaces: set[str]) -> ProgramWish:
    """The features that this state needs, and the constants it sets."""
    services = list(config.services.values())
    features = {
        "HAVE_DENY4": len(plans.deny.ipv4) > 0,
        "HAVE_DENY6": len(plans.deny.ipv6) > 0,
        "HAVE_ALLOW": len(plans.allow.ipv4) + len(plans.allow.ipv6) > 0,
        "HAVE_VIP4": any(s.vip.version == 4 for s in services),
        "HAVE_VIP6": any(s.vip.version == 6 for s in services),
        "HAVE_ANY_PORT": any(s.port.is_any for s in services),
        "HAVE_SOURCE_AFFINITY": any(s.affinity is Affinity.SOURCE for s in services),
        "HAVE_L2": any(s.mode is Mode.L2 for s in services),
        "HAVE_IPIP": any(s.mode is Mode.IPIP for s in services),
        "HAVE_REDIRECT": len(interfaces) > 1 or any(hop.interface not in interfaces for hop in hops),
    }
    return ProgramWish(
        frozenset(name for name, needed in features.items() if needed), _constants(config.settings)
    )


def _constants(settings: Settings) -> tuple[tuple[str, int], ...]:
    source4, source6 = settings.encap_source_ipv4, settings.encap_source_ipv6.network_address.packed
    words = [int.from_bytes(source6[at : at + 4], "little") for at in (0, 4, 8)]
    return (
        ("ENCAP_SOURCE4", int(source4.network_address)),
        ("ENCAP_SOURCE4_HOSTS", int(source4.hostmask) & 0xFFFF),
        *((f"ENCAP_SOURCE6_{n}", word) for n, word in enumerate(words)),
        ("UDP_IDLE_S", settings.udp_idle_seconds),
        ("TCP_IDLE_S", settings.tcp_idle_seconds),
    )

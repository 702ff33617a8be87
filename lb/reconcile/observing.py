"""The reconciler's read side: all observed state. Nothing here changes anything."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from ipaddress import IPv4Address, IPv6Address

from lb.dataplane.protocol import DataPlane, InterfaceState
from lb.dataplane.trace import decode
from lb.errors import DataPlaneError
from lb.model import Prefix
from lb.reconcile import explain, flow_list, inventory, observe
from lb.reconcile.confirm import Confirmation
from lb.reconcile.desired import Desired
from lb.reconcile.explained import Explained
from lb.reconcile.lists import ListPlan
from lb.reconcile.maps import Maps, Plans
from lb.reconcile.nat_sweeper import NatSweeper
from lb.reconcile.observed import Counters, Hits, RuleTally, ServiceStatus, Status, VerdictInfo
from lb.reconcile.probe_way import probe_way
from lb.reconcile.seen import Naming
from lb.store import Store


class Observing:
    """The part of the reconciler that only reads. Safe to call from several threads."""

    _lock: AbstractContextManager[bool]
    """The writer's: numbers and what they mean are read together."""
    _dataplane: DataPlane
    _maps: Maps
    _store: Store
    _desired: Desired
    _confirmation: Confirmation
    _nat: NatSweeper
    _clock: Callable[[], float]
    _started_at: float
    _reports_of: observe.ReportsOf
    _others: tuple[Callable[[], str | None], ...] = ()

    @property
    def _plans(self) -> Plans:
        """What is in the maps."""
        return self._maps.plans

    @property
    def desired(self) -> Desired:
        """The last acknowledged revision."""
        return self._desired

    def naming(self) -> Naming:
        """What the numbers in samples mean, now."""
        return Naming(
            self._desired.config,
            self._plans,
            self._dataplane.interfaces(),
            self._dataplane.verdicts,
        )

    def status(self) -> Status:
        """All observed state except counters of verdicts."""
        with self._lock:
            return observe.status(
                self._dataplane,
                self._plans.services,
                self._maps.hops.known,
                self._maps.usage(),
                settings=self._desired.config.settings,
                revision=self._desired.revision,
                reasons=self.readiness(),
                pending=self._confirmation.status(),
                started_at=self._started_at,
                now=self._clock(),
                reports_of=self._reports_of,
            )

    def probe_way(self, service: str, backend: bytes, family: int) -> tuple[int, str]:
        """See probe_way.py. Takes no lock."""
        plans, hops = self._plans.services, self._maps.hops.known
        return probe_way(self._dataplane, plans, hops, service=service, backend=backend, family=family)

    def passive_counts(self, service: str) -> Mapping[bytes, tuple[int, int]]:
        """SYNs sent again and ICMP unreachables of each backend, by packed address, ever since. Takes no lock."""
        plan = self._maps.plans.services.by_name.get(service)
        if plan is None:
            return {}
        places = [plan.start + place for place in plan.at.values()]
        rows = self._dataplane.tables.passive_counters.read_some(places)
        return dict(zip(plan.at, map(tuple, rows.tolist()), strict=True))

    def service_status(self, name: str) -> ServiceStatus:
        """One service as it is; NotFoundError."""
        with self._lock:
            config = self._desired.config
            config.service(name)
            plan = self._plans.services.by_name.get(name)
            if plan is None:
                raise DataPlaneError(f'service "{name}" is not in the maps: {self._maps.failure}')
            hops, now, reports = self._maps.hops.known, self._clock(), self._reports_of
            return observe.services(self._dataplane, [plan], hops, config.settings, now, reports_of=reports)[
                0
            ]

    def readiness(self) -> list[str]:
        """Why packets are not served as desired, or changes cannot be stored; empty when all is well."""
        others = (problem() for problem in (self._store.problem, *self._others))
        return self.serving() + [each for each in others if each]

    def serving(self) -> list[str]:
        """Why the data plane is not in step with the desired state; empty when it is."""
        problems = (each.problem for each in self._dataplane.interfaces())
        return [each for each in (self._maps.failure, *problems) if each]

    def add_readiness_checks(self, *problems: Callable[[], str | None]) -> None:
        """Add checks of other parts of the daemon: each gives None, or a sentence that says why it is not ready."""
        self._others = (*self._others, *problems)

    def counters(self) -> Counters:
        """All packet counters."""
        with self._lock:
            plans = self._plans
            nat, now = self._nat.stats(), self._clock()
            return observe.counters(
                self._dataplane, plans.services, plans.deny, plans.rules, nat=nat, now=now
            )

    def rule_tally(self, name: str) -> RuleTally:
        """What a rule has matched; NotFoundError."""
        with self._lock:
            self._desired.config.rule(name)
            found = observe.rules(self._dataplane, self._plans.rules, self._clock()).get(name)
            if found is None:
                raise DataPlaneError(f'rule "{name}" is not in the maps: {self._maps.failure}')
            return found

    def hits(self, prefixes: list[Prefix], *, allow: bool = False, owner: str | None = None) -> list[Hits]:
        """What each blocklist (or allowlist) entry has decided; for one owner's entries, if it is named."""

        def read() -> tuple[ListPlan, list[Hits]]:
            plan = self._list_plan(allow=allow)
            tables = self._dataplane.tables
            counters = tables.allow_counters if allow else tables.deny_counters
            numbered = plan if owner is None else plan.parts.get(owner)
            return plan, observe.hits(numbered, counters, prefixes, self._epoch)

        plan, found = read()
        # A number that is given up is another's by the next plan but one.
        if plan is self._list_plan(allow=allow) and not self._maps.failure:
            return found
        with self._lock:
            return read()[1]

    def _epoch(self) -> float:
        """When the data plane's clock began, in seconds since the epoch."""
        return self._clock() - self._dataplane.clock_seconds()

    def _list_plan(self, *, allow: bool) -> ListPlan:
        return self._plans.allow if allow else self._plans.deny

    def live_flows(self, service: str, address: IPv4Address | IPv6Address) -> int:
        """Flows in the flow table that a backend of a service holds now."""
        with self._lock:
            plan = self._plans.services.by_name.get(service)
            place = plan.place(address.packed) if plan else None
            if plan is None or place is None:
                return 0
            flows = observe.live_flows(self._dataplane, self._desired.config.settings)
            return flows.of_backend(plan.number, place)

    def flows(
        self, service: str | None, backend: bytes | None, after: int | None, limit: int
    ) -> flow_list.FlowsSeen:
        """A page of the flow table, as flow_list.seen; NotFoundError: there is no such service."""
        config, plans = self._desired.config, self._plans.services
        if service is not None:
            config.service(service)
        return flow_list.seen(
            self._dataplane,
            plans,
            config.settings,
            service=service,
            backend=backend,
            after=after,
            limit=limit,
        )

    def inventory(self) -> inventory.Inventory:
        """Programs, maps and pins, as the kernel has them."""
        return inventory.inventory(self._dataplane)

    def interface(self, name: str | None) -> InterfaceState:
        """The interface of that name, or the only one; errors as in explain.interface_of."""
        return explain.interface_of(self._dataplane.interfaces(), name)

    def explain(self, frames: Sequence[bytes], interface: str | None = None) -> list[Explained]:
        """What would become of each frame that comes in by an interface; nothing is changed or counted.

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
                config, plans, now = self._desired.config, self._plans, self._clock()
                view = explain.look(self._dataplane, state, traces, config=config, plans=plans, now=now)
            found += explain.explained(batch, seen.frames_out, traces, view)
        return found

    def verdicts(self) -> list[VerdictInfo]:
        """The verdict list of the data plane, in order of number."""
        return [VerdictInfo(v.number, v.name, v.action, v.sentence) for v in self._dataplane.verdicts]

"""The content of the maps, and how it is made to match a config. I/O only through the data plane's protocol."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lb.dataplane.protocol import DataPlane, ProgramWish
from lb.dataplane.tables import U16
from lb.errors import CapacityError, DataPlaneError
from lb.model import Config, Settings
from lb.reconcile.apply import ServiceMemory, macs_in
from lb.reconcile.apply_lists import ListMemory
from lb.reconcile.apply_rules import RuleMemory
from lb.reconcile.carry import Carry
from lb.reconcile.flows import FlowCounts, LiveFlows, forget_moved
from lb.reconcile.hops import Hops
from lb.reconcile.lists import ListPlan, plan_list
from lb.reconcile.nat import NatMemory, NatPlan, plan_nat
from lb.reconcile.nat_flows import live_nat_flows
from lb.reconcile.numbering import ALLOW, DENY
from lb.reconcile.rule_tables import RulePlan
from lb.reconcile.rules import RULE_FEATURES, plan_rules
from lb.reconcile.services import RingRecipe, ServicePlans, StandingOf, all_full, plan_steps
from lb.reconcile.wish import program_wish

COPIES_SECONDS = 10.0
"""How often it is looked whether flows that were taken over have turned out to be elsewhere."""


@dataclass(frozen=True)
class Plans:
    """Everything that is in the maps, or is about to be. steps: intermediate plans on the way to services."""

    deny: ListPlan
    allow: ListPlan
    services: ServicePlans
    rules: RulePlan
    nat: NatPlan = field(default_factory=NatPlan)
    steps: tuple[ServicePlans, ...] = field(default=(), repr=False)

    @property
    def until(self) -> float:
        """When the first entry expires, in seconds since the epoch."""
        return min(self.deny.until, self.allow.until)


class Maps:
    """For one writer. Call `fill` first, and `go_back` after an `apply` that raised; nothing here takes a lock."""

    def __init__(
        self, dataplane: DataPlane, clock: Callable[[], float], more: Callable[[], frozenset[str]] = frozenset
    ) -> None:
        """more: features wanted beside those of the desired state."""
        self._dataplane, self._clock, self._more = dataplane, clock, more
        self.hops = Hops(dataplane)
        self.standing_of: StandingOf = all_full
        """What checks have found of a service's backends."""
        self._services = ServiceMemory(dataplane.tables)
        self._nat = NatMemory(dataplane.tables.arrays)
        self._served = {state.name for state in dataplane.interfaces()}
        self._rule_features: frozenset[str] = frozenset()
        """Features of the rules that may be in force: the program must have them until the tables change."""
        self._carry: Carry | None = None
        """The content of tables still in force that ours do not have yet."""
        self._copies_at: float | None = 0.0
        """When to look for flows in slots that are not their own (monotonic clock); None: there are none."""
        self.plans: Plans
        self.failure: str | None = "the data plane has not been filled yet"
        """Why the maps are not as they should be; None when they are."""

    def fill(self, config: Config) -> None:
        """At the start: adopt what the maps hold of the desired state, and write the rest."""
        sizes = self._dataplane.sizes
        former = self._dataplane.former()
        if former is not None:
            self._carry = Carry(former, self._dataplane.tables, self._dataplane.flow_key)
            self._carry.numbers()
            if "backends" in former.reads:
                self._dataplane.remember(macs_in(former.reads["backends"]()))
        # The kernel forgets neighbours that only XDP uses: packets use these MACs until it has resolved them again.
        self._dataplane.remember(macs_in(self._dataplane.tables.arrays.backends))
        self._take_over(self._services.adopt(config.services, sizes))
        self.hops.refresh(config)
        try:
            plans = self.plan(config)
        except CapacityError:  # there is no room beside what is removed: remove it first
            self._take_over(self._services.clear(sizes))
            plans = self.plan(config)
        if not self._rules.is_empty and not self._rules.holds(plans.rules):
            self._rule_features = RULE_FEATURES  # it is not known which features those in force need
        # Memory first: a program of another layout must not be in force over empty tables.
        self.apply(config, plans, all_rows=True, program_last=True)

    def go_back(self, config: Config) -> None:
        """Undo whatever part of a change the maps hold."""
        self.failure = self.failure or "a change is being rolled back"
        self.hops.refresh(config)
        self._take_over(self._services.go_back(self.hops.known))
        self.apply(config, self.plan(config), all_rows=True, program_last=True)

    def _take_over(self, services: ServicePlans) -> None:
        """Start from these services, and from whatever lists the maps hold."""
        tables = self._dataplane.tables
        self._lists = ListMemory(tables)
        self._rules = RuleMemory(tables)
        self.plans = Plans(
            ListPlan(owners=tables.arrays.deny_owners.copy()),
            ListPlan(owners=tables.arrays.allow_owners.copy()),
            services,
            RulePlan(owners=tables.arrays.rule_owners.copy()),
            self._nat.adopt(),
        )

    def plan(self, config: Config, now: float | None = None) -> Plans:
        """Plan the way from the present maps to the config. CapacityError: it does not fit; nothing was changed."""
        now, before = self._clock() if now is None else now, self.plans
        deny = plan_list(config.blocklist, before.deny, DENY, now)
        allow = plan_list(config.allowlist, before.allow, ALLOW, now)
        self._lists.prepare(deny, allow)
        *steps, services = plan_steps(
            config.services, before.services, self._dataplane.sizes, self.standing_of
        )
        rules = plan_rules(config, before.rules)
        nat = plan_nat(config, before.nat, self._dataplane.sizes)
        return Plans(deny, allow, services, rules, nat, tuple(steps))

    def apply(self, config: Config, plans: Plans, *, all_rows: bool, program_last: bool = False) -> None:
        """Write the last plan into the maps."""
        wish = self._whole_wish(config, plans)
        try:
            at, steps = self.plans.services, (*plans.steps, plans.services)
            with self._services.rings.making(steps[0]):  # meanwhile the compiler runs
                if not program_last:
                    self._dataplane.require(wish)
                self._lists.put()
                if not program_last or self._rules.is_empty:
                    self._put_rules(plans.rules)
            if plans.nat.blocks or plans.nat != self.plans.nat:
                self._nat.put(plans.nat)
            for step in steps:
                self._services.put(at, step, self.hops.known, all_rows=all_rows)
                at = step
            if program_last:
                self._swap(wish, plans.services)
                self._put_rules(plans.rules)
        except Exception as error:
            self.failure = str(error)
            if isinstance(error, OSError):
                self.failure = f"the kernel refused a map write: {error}"
                raise DataPlaneError(self.failure) from error
            raise
        self.plans, self.failure = replace(plans, steps=()), None
        self._rule_features = plans.rules.features

    def _swap(self, wish: ProgramWish, services: ServicePlans) -> None:
        """Swap the program, and with it its tables if others were in force."""
        carry, plans = self._carry, services.by_name.values()
        if carry is None:
            self._dataplane.require(wish)
        else:
            self._dataplane.prepare(wish)
            carry.counts_of(plans)
            carry.flows_of(plans, in_force=False)
            self._dataplane.require(wish)
            carry.flows_of(plans, in_force=True)  # what came meanwhile
            self._carry = None
        self._dataplane.forget_former(carry.nat.lost if carry else 0)

    def forget_moved(self) -> None:
        """Let go of what stands for flows that have turned out to be elsewhere; for ever, once there is nothing."""
        now, at = time.monotonic(), self._copies_at
        if self._carry is None and at is not None and now >= at:
            are_left = forget_moved(self._dataplane.tables.arrays.flows)
            self._copies_at = now + COPIES_SECONDS if are_left else None

    def _put_rules(self, rules: RulePlan) -> None:
        """From here on they may be in force, even if this fails halfway."""
        self._rule_features |= rules.features
        self._rules.put(rules)

    def lacks(self, config: Config, plans: Plans) -> ProgramWish | None:
        """What the data plane must prepare first, so that `apply` does not wait for a compiler."""
        return self._dataplane.lacks(self._whole_wish(config, plans))

    def _whole_wish(self, config: Config, plans: Plans) -> ProgramWish:
        wish = self.wish(config, plans)
        return replace(wish, features=wish.features | self._rule_features)

    def wish(self, config: Config, plans: Plans) -> ProgramWish:
        """The features that the program needs for them."""
        redirects = len(self._served) > 1 or not self.hops.interfaces <= self._served
        wish = program_wish(config, plans.deny, plans.allow, redirects=redirects, rules=plans.rules.features)
        return replace(wish, features=wish.features | self._more())

    def live_flows(self, settings: Settings) -> FlowCounts:
        """The flows that are live now, by these idle times."""
        arrays, now_s = self._dataplane.tables.arrays, self._dataplane.clock_seconds()
        return LiveFlows.of(arrays.flows, now_s, settings).by_backend() | live_nat_flows(
            arrays, settings, now_s
        )

    def ending_flows(self, plans: Plans, settings: Settings) -> FlowCounts:
        """The live flows of mode nat whose pool address is removed by these plans."""
        arrays, now_s = self._dataplane.tables.arrays, self._dataplane.clock_seconds()
        return live_nat_flows(arrays, settings, now_s, self.plans.nat.leaving(plans.nat))

    def ring(self, recipe: RingRecipe, number: int) -> U16:
        """The ring of a recipe, which has, or would have, that number."""
        return self._services.rings.ring(recipe, number)

    def usage(self) -> dict[str, tuple[int, int]]:
        """Used and all places of each table of the lists and rules."""
        return {**self._lists.usage(), **self._rules.usage()}

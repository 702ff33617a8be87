"""Services into memory, make before break.

What is new is complete before anything points to it; what is old is removed once nothing does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.protocol import NextHop
from lb.dataplane.room import Room
from lb.dataplane.tables import Array, Arrays, Tables, where_used
from lb.model import Service
from lb.reconcile.guards import GuardMemory, guarded
from lb.reconcile.keys import KeyTables
from lb.reconcile.nat_flows import forget_nat
from lb.reconcile.quic_ids import QuicIds
from lb.reconcile.rings import RingMemory
from lb.reconcile.services import (
    ACTIVE,
    RESOLVED,
    RingRecipe,
    ServicePlan,
    ServicePlans,
    ServiceValue,
    backend_rows,
    service_identity,
)
from lb.reconcile.vips import service_keys
from lb.settings import TableSizes

_ROW = np.zeros(1, layout().structs["backend"])
_ROW["state"] = RESOLVED
_RESOLVED_WORD = _ROW.view("<u8")[0]
"""The bit RESOLVED, where it stands in the first word of a row."""


class ServiceMemory:
    """Keeps services, places and rings as planned. One writer; `adopt` comes first, and after an error `go_back`."""

    def __init__(self, tables: Tables) -> None:
        self._tables, self._arrays = tables, tables.arrays
        self.rings = RingMemory(tables.arrays.rings)
        self._keys, self._quic_ids = KeyTables(tables), QuicIds(tables.quic_ids)
        self._guards = GuardMemory(tables)
        self._underway = ServicePlans(), ServicePlans()
        """What the last `put` came from and went to."""
        self._moves: list[tuple[ServicePlan, ServicePlan, Array]] = []
        """Blocks that move: from, to, and the counts (one row) that were copied."""

    def adopt(self, services: Mapping[str, Service], sizes: TableSizes) -> ServicePlans:
        """What memory holds of these services, as a plan. What other keys point to stays until the next `put`."""
        held = self._keys.read()
        plans: dict[str, ServicePlan] = {}
        numbers: set[int] = set()
        # A VIP's keys may be those of the prefix around it: its service comes first.
        for name, service in sorted(services.items(), key=lambda item: item[1].vip_length):
            value = next((held[key] for key in service_keys(service) if key in held), None)
            # A service cut in two: only one half can go on with what it had.
            if value is not None and value[1] not in numbers:
                numbers.add(value[1])
                plans[name] = self._found(service, value)
        self._keys.make_room_for(services.values())
        left = self._keys.others(plans.values())
        blocks = [(plan.start, 1 << plan.room) for plan in plans.values()]
        blocks += [(start, 1 << bits) for _, start, bits in left]
        self._take_out_all_but(numbers | {number for number, *_ in left}, blocks)
        # Those that left keys use too: nothing is written over them while packets still come by these keys.
        in_use = [int(self._arrays.service_rings["ring"][number]) for number, *_ in left]
        rings = {self.rings.name(ring): ring for ring in in_use if ring}
        rings |= {
            plan.recipe.name: plan.ring
            for plan in plans.values()
            if plan.ring and plan.recipe and self.rings.holds(plan.ring, plan.recipe.name)
        }
        return ServicePlans(plans, rings, Room(sizes.backends, blocks), left)

    def clear(self, sizes: TableSizes) -> ServicePlans:
        """Remove everything."""
        self._keys.read()
        self._keys.clear()
        self._take_out_all_but(set(), [])
        return ServicePlans(places=Room(sizes.backends, []))

    def _found(self, service: Service, value: ServiceValue) -> ServicePlan:
        start, number, _, bits = value
        rows = self._arrays.backends[start : start + (1 << bits)]
        sizes = {0: 0, 4: 4, 6: 16}
        places = tuple(row["address"].tobytes()[: sizes[int(row["family"])]] or None for row in rows)
        ring = int(self._arrays.service_rings[number]["ring"])
        active = [places[at] for at in np.flatnonzero(rows["state"] & ACTIVE).tolist()]
        found = frozenset(address for address in active if address is not None)
        plan = ServicePlan(service, number, start, bits, places, None, ring, found=found)
        return replace(plan, recipe=RingRecipe.of(service, plan.at))

    def _take_out_all_but(self, numbers: set[int], blocks: list[tuple[int, int]]) -> None:
        others = np.ones(len(self._arrays.service_rings), bool)
        others[list(numbers)] = False
        self._quic_ids.read()
        self._quic_ids.remove((), numbers)
        self._guards.clear_all_but(numbers)
        self._arrays.service_rings["ring"][others] = 0
        self._arrays.service_owners[others] = np.zeros(1, self._arrays.service_owners.dtype)
        unused = np.ones(len(self._arrays.backends), bool)
        for start, length in blocks:
            unused[start : start + length] = False
        rows = _words(self._arrays.backends)
        rows[np.flatnonzero(unused & rows.any(axis=1))] = 0

    def put(
        self, before: ServicePlans, after: ServicePlans, hops: Mapping[bytes, NextHop], *, all_rows: bool
    ) -> None:
        """Go from one plan to the next. all_rows: next hops may have changed for services that did not."""
        self._underway = before, after
        changed = [plan for name, plan in after.by_name.items() if before.by_name.get(name) is not plan]
        new = [plan for plan in changed if plan.service.name not in before.by_name]
        known = [(old, plan) for plan in changed if (old := before.by_name.get(plan.service.name))]
        moved = [(old, plan) for old, plan in known if old.start != plan.start]
        self.rings.make(after)
        self._forget_others(changed, new)
        self._quic_ids.forget(changed)
        self._guards.put(changed)
        self._clear_counts(new, [plan for old, plan in known if old.start == plan.start and plan.reused])
        for was, plan in moved:
            self._copy_rows(was, plan)
        rows = {
            plan.start: backend_rows(plan, hops) for plan in (after.by_name.values() if all_rows else changed)
        }
        for start, block in rows.items():
            write_rows(self._arrays, start, block, active=True)
        for old, plan in moved:
            self._moves.append((old, plan, self._copy_counters(old, plan)))
        # A ring may hold places beyond the old block: where the block moves, the keys are switched first.
        moves = {plan.number for _, plan in moved} | {number for number, *_ in before.left}
        staying = [plan for plan in changed if plan.number not in moves]
        moving = [plan for plan in changed if plan.number in moves]
        self._note(changed)
        self._switch(staying)
        self._keys.put(before, after, changed)
        self._switch(moving)
        for start, block in rows.items():
            write_rows(self._arrays, start, block, active=False)
        self._quic_ids.remove(changed, {plan.number for plan in after.by_name.values()})
        self._clear_unused(before, after)
        self._count_rest(after)
        self._underway = after, after

    def go_back(self, hops: Mapping[bytes, NextHop]) -> ServicePlans:
        """After a `put` that failed: memory as it was before, whatever part of the change it holds."""
        before, half = self._underway
        self._keys.read()
        self._quic_ids.read()
        plans = before.by_name.values()
        # What the new plan has added may lie beyond the old block.
        self._quic_ids.remove(plans, {plan.number for plan in plans})
        self._guards.put(plans)
        # A service's keys may point to its old block or to its new one: the rows stand in both.
        both = [(plan, half.by_name.get(plan.service.name, plan)) for plan in plans]
        rows = {at.start: backend_rows(old, hops) for old, new in both for at in (old, new)}
        for start, block in rows.items():
            write_rows(self._arrays, start, block, active=True)
        self._note(plans)
        # The old ring is good in both blocks; what the new one has added since is not.
        self._switch(plans)
        forget_flows(
            self._arrays,
            [],
            [
                (old.number, at)
                for old, new in both
                for at, address in enumerate(new.places)
                if at >= len(old.places) or old.places[at] != address
            ],
        )
        self._keys.put(half, before, [])
        for start, block in rows.items():
            write_rows(self._arrays, start, block, active=False)
        self._clear_unused(half, before)
        self._count_rest(before)
        self._underway = before, before
        return before

    def _note(self, plans: Iterable[ServicePlan]) -> None:
        """Write the owners of these numbers, each with the block whose rows have every place, old and new."""
        owners = self._arrays.service_owners
        for plan in plans:
            owners[plan.number] = service_identity(plan.service.name), plan.start, plan.room

    def _switch(self, plans: Iterable[ServicePlan]) -> None:
        """Ids and ring of each service to these backends."""
        self._quic_ids.add(plans)
        for plan in plans:
            self._arrays.service_rings["ring"][plan.number] = plan.ring

    def _forget_others(self, changed: list[ServicePlan], new: list[ServicePlan]) -> None:
        """Flows of a number's or place's previous owner must not be taken for this service's."""
        pairs = [(plan.number, place) for plan in changed for place in plan.reused]
        if new or pairs:
            forget_flows(self._arrays, [plan.number for plan in new], pairs)

    def _clear_counts(self, new: list[ServicePlan], staying: list[ServicePlan]) -> None:
        """Nor its counters. The service keeps those of a place that is reused within a block that stays."""
        tables = self._tables
        places = [plan.start + at for plan in new for at in range(1 << plan.room)]
        gone = []
        for plan in staying:
            indexes = [plan.start + at for at in plan.reused]
            gone.append((plan.number, _sum(tables.backend_counters.read_some(indexes))))
            places += indexes
        if places:
            tables.backend_counters.clear(places)
        if new:
            tables.service_counters.clear([plan.number for plan in new])
        for number, tally in gone:
            self._count_for_service(number, tally)

    def _copy_rows(self, old: ServicePlan, plan: ServicePlan) -> None:
        """A block that moves has the old rows too, including those that end, until the old ring is out of use."""
        rows = _words(self._arrays.backends)
        rows[plan.start : plan.start + (1 << old.room)] = rows[old.start : old.start + (1 << old.room)]

    def _copy_counters(self, old: ServicePlan, plan: ServicePlan) -> Array:
        """A block that moves takes its counters along; returns their sum."""
        counters = self._tables.backend_counters
        counters.clear(list(range(plan.start, plan.start + (1 << plan.room))))
        tallies = counters.read_some(list(range(old.start, old.start + (1 << old.room))))
        for at, (packets, octets) in enumerate(tallies.tolist()):
            if packets:
                counters.add(plan.start + at, packets, octets)
        return _sum(tallies)

    def _count_rest(self, plans: ServicePlans) -> None:
        """What an abandoned block has counted beyond what was copied goes to its service."""
        while self._moves:
            old, new, copied = self._moves[-1]
            now = plans.by_name[old.service.name]
            left = new if now.start == old.start else old
            tally = self._tables.backend_counters.read_some(
                list(range(left.start, left.start + (1 << left.room)))
            )
            self._count_for_service(now.number, _sum(tally) - copied)
            self._moves.pop()

    def _count_for_service(self, number: int, tally: Array) -> None:
        """Beside what its backends have counted; tally: packets and bytes."""
        packets, octets = tally.tolist()
        if packets:
            self._tables.service_counters.add(number, packets, octets)

    def _clear_unused(self, before: ServicePlans, after: ServicePlans) -> None:
        """Free abandoned blocks, ring switches and NAT entries: nothing points there any more."""
        starts = {plan.start for plan in after.by_name.values()}
        numbers = {plan.number for plan in after.by_name.values()}
        self._guards.clear_all_but(plan.number for plan in guarded(after.by_name.values()))
        left = [(old.number, old.start, old.room) for old in before.by_name.values()]
        left += before.left
        for _, start, bits in left:
            if start not in starts:
                _words(self._arrays.backends[start : start + (1 << bits)])[:] = 0
        gone = {number for number, *_ in left} - numbers
        for number in gone:
            self._arrays.service_rings["ring"][number] = 0
            self._arrays.service_owners[number] = 0, 0, 0
        if gone:
            forget_nat(self._arrays, gone, [])


def _sum(tallies: Array) -> Array:
    """Packets and bytes of all rows."""
    return np.array([tallies["packets"].sum(), tallies["bytes"].sum()], np.int64)


def _words(rows: Array) -> Array:
    """Rows of `backends` as aligned words, each of which is written whole."""
    return rows.view("<u8").reshape(len(rows), -1)


def write_rows(arrays: Arrays, start: int, rows: Array, *, active: bool) -> None:
    """Write the rows that differ and are (or are not) active.

    The first word, with MAC and state, comes last; if a row takes packets and its address or interface changes or it
    ends, the first word comes first: no packet leaves by half of the old and half of the new row.
    """
    memory, words = _words(arrays.backends[start : start + len(rows)]), _words(rows)
    chosen = ((rows["state"] & ACTIVE) != 0) == active
    differ = np.flatnonzero((memory != words).any(axis=1) & chosen)
    if active:
        other_way = differ[(memory[differ, 2:] != words[differ, 2:]).any(axis=1)]
        memory[other_way, 0] &= ~_RESOLVED_WORD
        memory[differ, 1:] = words[differ, 1:]
        memory[differ, 0] = words[differ, 0]
    else:
        memory[differ, 0] = words[differ, 0]
        memory[differ, 1:] = words[differ, 1:]


def macs_in(rows: Array) -> dict[bytes, bytes]:
    """Of rows of `backends` that are resolved: the next hop's MAC by packed address."""
    some = rows[(rows["state"] & RESOLVED) != 0]
    return {row["address"].tobytes()[: 4 if row["family"] == 4 else 16]: row["mac"].tobytes() for row in some}


def forget_flows(arrays: Arrays, numbers: Iterable[int], places: Iterable[tuple[int, int]]) -> None:
    """Remove the flows of these services, and of these (service, place), from the flow table and from NAT's."""
    numbers, places = [*numbers], [*places]
    forget_nat(arrays, numbers, places)
    flows = arrays.flows.reshape(-1)
    used = where_used(flows["tag_backend"])
    if not len(used):
        return
    service = flows["state"][used] >> np.uint64(16) & np.uint64(0xFFFF)
    place = flows["tag_backend"][used] & np.uint64(0xFFFF)
    pairs = np.array([number << 16 | at for number, at in places], np.uint64)
    gone = np.isin(service, np.array([*numbers], np.uint64)) | np.isin(
        service << np.uint64(16) | place, pairs
    )
    flows["tag_backend"][used[gone]] = 0

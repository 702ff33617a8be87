"""Plans into memory, make before break.

What is new stands complete before anything points to it, and what is old is taken away when nothing does.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from lb.dataplane.deny4 import Deny4
from lb.dataplane.layout import layout
from lb.dataplane.protocol import NextHop
from lb.dataplane.tables import Array, Arrays, Counters, Table, Tables, dtype_of
from lb.errors import SluiceError
from lb.reconcile.lists import ListPlan
from lb.reconcile.ring import SLOTS
from lb.reconcile.services import ACTIVE, RingCache, ServicePlan, ServicePlans, backend_rows, service_keys

ServiceValue = tuple[int, int, int, int]
"""struct service: first place, number, flags, room."""
ServiceKey = tuple[bytes, int, int]
"""VIP, port (0: any), protocol (0 with port 0: the address is a VIP)."""

_WORDS = layout().structs["backend"].itemsize // 8


class ServiceMemory:
    """Keeps services, places and rings as planned. One writer."""

    def __init__(self, tables: Tables, rings: RingCache) -> None:
        self._tables, self._arrays, self._rings = tables, tables.arrays, rings
        self._held = read_services(tables)

    @property
    def held(self) -> Mapping[ServiceKey, ServiceValue]:
        """What the service tables hold."""
        return self._held

    def put(
        self, before: ServicePlans, after: ServicePlans, hops: Mapping[bytes, NextHop], *, all_rows: bool
    ) -> None:
        """Go from one plan to the next. all_rows: next hops may have changed for services that did not."""
        for key, number in after.rings.items():
            if before.rings.get(key) != number:
                self._arrays.rings[number, :SLOTS] = self._rings.get(key)
        changed = [plan for name, plan in after.by_name.items() if before.by_name.get(name) is not plan]
        for plan in changed:
            self._clear_leftovers(plan, before.by_name.get(plan.service.name))
        rows = {
            plan.start: backend_rows(plan, hops) for plan in (after.by_name.values() if all_rows else changed)
        }
        for start, block in rows.items():
            write_rows(self._arrays, start, block, active=True)
        known = [(old, plan) for plan in changed if (old := before.by_name.get(plan.service.name))]
        moved = [(old, plan) for old, plan in known if old.start != plan.start]
        copied = [self._copy_counters(old, plan) for old, plan in moved]
        for plan in changed:
            self._arrays.service_rings["ring"][plan.number] = plan.ring
        self._put_keys(after)
        for (old, plan), sums in zip(moved, copied, strict=True):
            self._count_rest(old, plan, sums)
        for start, block in rows.items():
            write_rows(self._arrays, start, block, active=False)
        in_use = {plan.start for plan in after.by_name.values()}
        numbers = {plan.number for plan in after.by_name.values()}
        for old in before.by_name.values():
            if old.start not in in_use:
                block = self._arrays.backends[old.start : old.start + (1 << old.room)]
                block[:] = np.zeros((), block.dtype)
            if old.number not in numbers:
                self._arrays.service_rings["ring"][old.number] = 0

    def _clear_leftovers(self, plan: ServicePlan, old: ServicePlan | None) -> None:
        """Flows and counts of whoever had a number or a place before must not be taken for this service's."""
        tables = self._tables
        if old is None:
            forget_flows(self._arrays, plan.number, None)
            tables.service_counters.clear([plan.number])
            tables.backend_counters.clear(list(range(plan.start, plan.start + (1 << plan.room))))
        elif plan.reused:
            forget_flows(self._arrays, plan.number, plan.reused)
            if old.start == plan.start:
                indexes = [plan.start + at for at in plan.reused]
                for tally in tables.backend_counters.read_some(indexes):
                    tables.service_counters.add(plan.number, int(tally["packets"]), int(tally["bytes"]))
                tables.backend_counters.clear(indexes)

    def _copy_counters(self, old: ServicePlan, plan: ServicePlan) -> Array:
        """A block that moves takes its counts along."""
        counters = self._tables.backend_counters
        counters.clear(list(range(plan.start, plan.start + (1 << plan.room))))
        sums = counters.read_some(list(range(old.start, old.start + (1 << old.room))))
        for at, tally in enumerate(sums):
            if tally["packets"]:
                counters.add(plan.start + at, int(tally["packets"]), int(tally["bytes"]))
        return sums

    def _count_rest(self, old: ServicePlan, plan: ServicePlan, copied: Array) -> None:
        """What was counted at the old place while it was left goes to the service."""
        rest = self._tables.backend_counters.read_some(list(range(old.start, old.start + (1 << old.room))))
        packets = int(rest["packets"].sum()) - int(copied["packets"].sum())
        octets = int(rest["bytes"].sum()) - int(copied["bytes"].sum())
        if packets:
            self._tables.service_counters.add(plan.number, packets, octets)

    def _put_keys(self, after: ServicePlans) -> None:
        wanted: dict[ServiceKey, ServiceValue] = {}
        for plan in after.by_name.values():
            wanted[(plan.service.vip_packed, 0, 0)] = (0, 0, 0, 0)
            for key in service_keys(plan):
                wanted[key] = plan.value
        put = {key: value for key, value in wanted.items() if self._held.get(key) != value}
        gone = [key for key in self._held if key not in wanted]
        try:
            self._write_keys(put, gone)
        except (OSError, SluiceError):
            self._held = read_services(self._tables)
            raise
        self._held = wanted

    def _write_keys(self, put: Mapping[ServiceKey, ServiceValue], gone: list[ServiceKey]) -> None:
        for family, table in ((4, self._tables.services4), (16, self._tables.services6)):
            some = {key: value for key, value in put.items() if len(key[0]) == family}
            if some:
                values = np.array(list(some.values()), layout().structs["service"])
                table.write(_key_array(list(some)), values)
            away = [key for key in gone if len(key[0]) == family]
            if away:
                table.delete(_key_array(away))


def _key_array(keys: list[ServiceKey]) -> Array:
    struct = "service4_key" if len(keys[0][0]) == 4 else "service6_key"
    array = np.zeros(len(keys), layout().structs[struct])
    field = array["vip"]
    field[:] = np.frombuffer(b"".join(vip for vip, _, _ in keys), field.dtype).reshape(field.shape)
    array["port"] = [port for _, port, _ in keys]
    array["protocol"] = [protocol for *_, protocol in keys]
    return array


def read_services(tables: Tables) -> dict[ServiceKey, ServiceValue]:
    """What the service tables hold."""
    held: dict[ServiceKey, ServiceValue] = {}
    for table in (tables.services4, tables.services6):
        keys, values = table.read()
        size, vips = keys.dtype["vip"].itemsize, np.ascontiguousarray(keys["vip"]).tobytes()
        for at, (key, value) in enumerate(zip(keys, values, strict=True)):
            name = (vips[at * size : at * size + size], int(key["port"]), int(key["protocol"]))
            held[name] = (
                int(value["backends"]),
                int(value["number"]),
                int(value["flags"]),
                int(value["room"]),
            )
    return held


def write_rows(arrays: Arrays, start: int, rows: Array, *, active: bool) -> None:
    """Write the rows that differ and are (or are not) active; the word with MAC and state last, or first to disarm."""
    memory = arrays.backends[start : start + len(rows)].view("<u8").reshape(-1, _WORDS)
    words = rows.view("<u8").reshape(-1, _WORDS)
    differ = (memory != words).any(axis=1) & (((rows["state"] & ACTIVE) != 0) == active)
    for at in np.flatnonzero(differ).tolist():
        if (memory[at, 2:4] != words[at, 2:4]).any():
            memory[at, 0] = 0
        memory[at, 1:] = words[at, 1:]
        memory[at, 0] = words[at, 0]


def forget_flows(arrays: Arrays, number: int, places: tuple[int, ...] | None) -> int:
    """Take the flows of a service (of some of its places) out of the flow table; how many there were."""
    flows = arrays.flows
    mine = (flows["tag_backend"] != 0) & ((flows["state"] >> np.uint64(16) & np.uint64(0xFFFF)) == number)
    if places is not None:
        mine &= np.isin(flows["tag_backend"] & np.uint64(0xFFFF), np.array(places, np.uint64))
    at = np.nonzero(mine)
    flows["tag_backend"][at] = 0
    return len(at[0])


class ListMemory:
    """Keeps blocklist and allowlist as planned. One writer."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.deny4 = Deny4(tables.arrays)
        self._deny6 = _read_prefixes(tables.deny6)
        self._allow4 = _read_prefixes(tables.allow4)
        self._allow6 = _read_prefixes(tables.allow6)

    def put(self, deny: ListPlan, allow: ListPlan) -> None:
        """Make memory hold both lists. CapacityError: the blocklist does not fit, the old one is still in force."""
        tables = self._tables
        _note_owners(tables.arrays.deny_owners, tables.deny_counters, deny.numbers)
        _note_owners(tables.arrays.allow_owners, tables.allow_counters, allow.numbers)
        allow4, allow6 = _entries4(allow), _entries6(allow)
        # The wider of old and new: nobody who is allowed before and after is dropped in between.
        _put_prefixes(tables.allow4, self._allow4, {**self._allow4, **allow4})
        _put_prefixes(tables.allow6, self._allow6, {**self._allow6, **allow6})
        self.deny4.update(deny.ipv4)
        deny6 = _entries6(deny)
        _put_prefixes(tables.deny6, self._deny6, deny6)
        _put_prefixes(tables.allow4, {**self._allow4, **allow4}, allow4)
        _put_prefixes(tables.allow6, {**self._allow6, **allow6}, allow6)
        self._deny6, self._allow4, self._allow6 = deny6, allow4, allow6

    def usage(self) -> dict[str, tuple[int, int]]:
        """Used and all places of each table."""
        return {
            **self.deny4.usage(),
            "deny6": (len(self._deny6), self._tables.deny6.capacity),
            "allow4": (len(self._allow4), self._tables.allow4.capacity),
            "allow6": (len(self._allow6), self._tables.allow6.capacity),
        }


def _note_owners(owners: npt.NDArray[np.uint64], counters: Counters, numbers: Mapping[int, int]) -> None:
    """Numbers that get a new owner start counting at zero; numbers given back are nobody's."""
    wanted = np.zeros_like(owners)
    if numbers:
        wanted[np.fromiter(numbers.values(), np.int64, len(numbers))] = np.fromiter(
            numbers, np.uint64, len(numbers)
        )
    changed = np.flatnonzero(owners != wanted)
    fresh = changed[wanted[changed] != 0]
    if len(fresh):
        counters.clear(fresh.tolist())
    owners[changed] = wanted[changed]


def read_owners(owners: npt.NDArray[np.uint64]) -> dict[int, int]:
    """Numbers by identity, as the maps remember them."""
    used = np.flatnonzero(owners)
    return dict(zip(owners[used].tolist(), used.tolist(), strict=True))


def _entries4(plan: ListPlan) -> dict[bytes, int]:
    """LPM keys (struct prefix4_key) and rule numbers."""
    keys = np.zeros(len(plan.ipv4), dtype_of("prefix4_key"))
    keys["length"] = plan.ipv4 >> np.uint64(16) & np.uint64(0xFF)
    keys["address"] = plan.ipv4 >> np.uint64(24)
    return _by_key(keys, plan.ipv4 & np.uint64(0x7FFF))


def _entries6(plan: ListPlan) -> dict[bytes, int]:
    raw = np.frombuffer(plan.ipv6.tobytes(), np.uint8).reshape(len(plan.ipv6), 17)
    keys = np.zeros(len(raw), dtype_of("prefix6_key"))
    keys["length"] = raw[:, 16]
    keys["address"] = np.ascontiguousarray(raw[:, :16]).view("<u4")
    return _by_key(keys, plan.ipv6_rules)


def _by_key(keys: Array, rules: Array) -> dict[bytes, int]:
    data, size = keys.tobytes(), keys.dtype.itemsize
    return {data[n * size : n * size + size]: rule for n, rule in enumerate(rules.tolist())}


def _read_prefixes(table: Table) -> dict[bytes, int]:
    keys, values = table.read()
    return _by_key(keys, values)


def _put_prefixes(table: Table, have: Mapping[bytes, int], want: Mapping[bytes, int]) -> None:
    put = [key for key, rule in want.items() if have.get(key) != rule]
    gone = [key for key in have if key not in want]
    dtype = dtype_of("prefix4_key" if table.capacity and _key_size(put or gone) == 8 else "prefix6_key")
    if put:
        table.write(np.frombuffer(b"".join(put), dtype), np.array([want[key] for key in put], "<u4"))
    if gone:
        table.delete(np.frombuffer(b"".join(gone), dtype))


def _key_size(keys: list[bytes]) -> int:
    return len(keys[0]) if keys else 0

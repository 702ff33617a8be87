"""The tables that say which packets are for which service."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import Array, Tables
from lb.model import Service
from lb.reconcile.services import (
    ServiceKey,
    ServicePlan,
    ServicePlans,
    ServiceValue,
    service_keys,
    vip_keys,
)


class KeyTables:
    """The two tables, and what they hold. `read` comes first."""

    def __init__(self, tables: Tables) -> None:
        self._tables = {4: tables.services4, 16: tables.services6}
        self._held: dict[ServiceKey, ServiceValue] = {}
        self._all_known = False
        """Whether every key is one that the plan before accounts for."""

    def read(self) -> Mapping[ServiceKey, ServiceValue]:
        """What they hold, whoever wrote it."""
        self._held, self._all_known = {}, False
        for table in self._tables.values():
            keys, values = table.read()
            size, vips = keys.dtype["vip"].itemsize, np.ascontiguousarray(keys["vip"]).tobytes()
            ports, protocols = keys["port"].tolist(), keys["protocol"].tolist()
            for at, (start, number, flags, room) in enumerate(values.tolist()):
                key = vips[at * size : at * size + size], ports[at], protocols[at]
                self._held[key] = start, number, flags, room
        return self._held

    def clear(self) -> None:
        """Take all out."""
        self._delete(list(self._held))

    def make_room_for(self, services: Iterable[Service]) -> None:
        """Take out what these services do not want, if it cannot stand beside what they want."""
        wanted = _wanted(list(services))
        for family, table in self._tables.items():
            held = [key for key in self._held if len(key[0]) == family]
            if len({*held, *(key for key in wanted if len(key[0]) == family)}) > table.capacity:
                self._delete([key for key in held if key not in wanted])

    def others(self, plans: Iterable[ServicePlan]) -> tuple[tuple[int, int, int], ...]:
        """What keys point to beside these plans: (number, first place, room)."""
        known = {(plan.number, plan.start, plan.room) for plan in plans}
        held = {(number, start, bits) for key, (start, number, _, bits) in self._held.items() if key[2]}
        return tuple(sorted(held - known))

    def put(self, before: ServicePlans, after: ServicePlans, changed: list[ServicePlan]) -> None:
        """Make them hold what a plan says. What is new comes first, and then what is gone goes."""
        vips = vip_keys(plan.service for plan in after.by_name.values())
        plans = changed if self._all_known else after.by_name.values()
        wanted: dict[ServiceKey, ServiceValue] = dict.fromkeys(vips, (0, 0, 0, 0))
        wanted.update((key, plan.value) for plan in plans for key in service_keys(plan.service))
        put = {key: value for key, value in wanted.items() if self._held.get(key) != value}
        left = [old.service for name, old in before.by_name.items() if after.by_name.get(name) is not old]
        known = _wanted(left)
        gone = [
            key
            for key in (known if self._all_known else self._held)
            if key in self._held and key not in wanted
        ]
        for family, table in self._tables.items():
            some = {key: value for key, value in put.items() if len(key[0]) == family}
            if some:
                table.write(
                    _key_array(list(some)), np.array(list(some.values()), layout().structs["service"])
                )
        self._held.update(put)
        self._delete(gone)
        self._all_known = True

    def _delete(self, keys: Sequence[ServiceKey]) -> None:
        for family, table in self._tables.items():
            some = [key for key in keys if len(key[0]) == family]
            if some:
                table.delete(_key_array(some))
        for key in keys:
            del self._held[key]


def _wanted(services: list[Service]) -> set[ServiceKey]:
    return vip_keys(services) | {key for service in services for key in service_keys(service)}


def _key_array(keys: Sequence[ServiceKey]) -> Array:
    struct = "service4_key" if len(keys[0][0]) == 4 else "service6_key"
    array = np.zeros(len(keys), layout().structs[struct])
    field = array["vip"]
    field[:] = np.frombuffer(b"".join(vip for vip, _, _ in keys), field.dtype).reshape(field.shape)
    array["port"] = [port for _, port, _ in keys]
    array["protocol"] = [protocol for *_, protocol in keys]
    return array

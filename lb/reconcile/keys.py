"""The tables that map packets to services."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import Array, Tables
from lb.model import Service
from lb.reconcile.services import ServicePlan, ServicePlans, ServiceValue
from lb.reconcile.vips import (
    ServiceKey,
    VipPrefix,
    inherited_keys,
    service_keys,
    vip_keys,
    vip_prefixes,
)


class KeyTables:
    """The tables of services, and of the prefixes that are VIPs, and what they hold. `read` comes first."""

    def __init__(self, tables: Tables) -> None:
        self._tables = {4: tables.services4, 16: tables.services6}
        self._prefix_table = tables.vip_prefixes6
        self._held: dict[ServiceKey, ServiceValue] = {}
        self._prefixes: set[VipPrefix] = set()
        self._inherited: Mapping[ServiceKey, str] = {}
        """Those of the plan before that are in the tables for the sake of the prefix around their VIP."""
        self._all_known = False
        """Whether every key is one that the plan before accounts for."""

    def read(self) -> Mapping[ServiceKey, ServiceValue]:
        """What they hold, whoever wrote it."""
        self._held, self._all_known = {}, False
        for table in self._tables.values():
            keys, values = table.read()
            size, vips = keys.dtype["vip"].itemsize, np.ascontiguousarray(keys["vip"]).tobytes()
            ports, protocols = keys["port"].tolist(), keys["protocol"].tolist()
            lengths = keys["prefix"].tolist() if size == 16 else [0] * len(keys)
            for at, (start, number, flags, room) in enumerate(values.tolist()):
                key = vips[at * size : at * size + size], ports[at], protocols[at], lengths[at]
                self._held[key] = start, number, flags, room
        self._prefixes = {
            (key["address"].tobytes(), int(key["length"])) for key in self._prefix_table.read()[0]
        }
        return self._held

    def clear(self) -> None:
        """Take all out."""
        self._delete_prefixes(self._prefixes)
        self._delete(list(self._held))

    def make_room_for(self, services: Iterable[Service]) -> None:
        """Take out what these services do not want, if it cannot stand beside what they want."""
        services = list(services)
        wanted = _wanted(services) | {key for key, _ in inherited_keys(services)}
        prefixes = vip_prefixes(services)
        if len(self._prefixes | prefixes) > self._prefix_table.capacity:
            self._delete_prefixes(self._prefixes - prefixes)
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
        services = [plan.service for plan in after.by_name.values()]
        vips, prefixes = vip_keys(services), vip_prefixes(services)
        inherited = dict(inherited_keys(services))
        plans = changed if self._all_known else after.by_name.values()
        wanted: dict[ServiceKey, ServiceValue] = dict.fromkeys(vips, (0, 0, 0, 0))
        wanted.update((key, plan.value) for plan in plans for key in service_keys(plan.service))
        wanted.update((key, after.by_name[name].value) for key, name in inherited.items())
        put = {key: value for key, value in wanted.items() if self._held.get(key) != value}
        left = [old.service for name, old in before.by_name.items() if after.by_name.get(name) is not old]
        known = _wanted(left) | self._inherited.keys()
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
        # A prefix is asked as soon as it is there, so its keys stand before it comes and until it is gone.
        self._add_prefixes(prefixes - self._prefixes)
        self._delete_prefixes(self._prefixes - prefixes)
        self._delete(gone)
        self._inherited, self._all_known = inherited, True

    def _delete(self, keys: Sequence[ServiceKey]) -> None:
        for family, table in self._tables.items():
            some = [key for key in keys if len(key[0]) == family]
            if some:
                table.delete(_key_array(some))
        for key in keys:
            del self._held[key]

    def _add_prefixes(self, prefixes: set[VipPrefix]) -> None:
        if not prefixes:
            return
        keys = _prefix_array(prefixes)
        values = np.zeros(len(keys), layout().structs["vip_prefix"])
        values["network"], values["length"] = keys["address"], keys["length"]
        self._prefix_table.write(keys, values)
        self._prefixes |= prefixes

    def _delete_prefixes(self, prefixes: set[VipPrefix]) -> None:
        if prefixes:
            self._prefix_table.delete(_prefix_array(prefixes))
            self._prefixes = self._prefixes - prefixes


def _wanted(services: list[Service]) -> set[ServiceKey]:
    return vip_keys(services) | {key for service in services for key in service_keys(service)}


def _key_array(keys: Sequence[ServiceKey]) -> Array:
    struct = "service4_key" if len(keys[0][0]) == 4 else "service6_key"
    array = np.zeros(len(keys), layout().structs[struct])
    field = array["vip"]
    field[:] = np.frombuffer(b"".join(vip for vip, *_ in keys), field.dtype).reshape(field.shape)
    array["port"] = [port for _, port, _, _ in keys]
    array["protocol"] = [protocol for _, _, protocol, _ in keys]
    if struct == "service6_key":
        array["prefix"] = [length for *_, length in keys]
    return array


def _prefix_array(prefixes: Iterable[VipPrefix]) -> Array:
    """Struct prefix6_key."""
    listed = sorted(prefixes)
    array = np.zeros(len(listed), layout().structs["prefix6_key"])
    array["address"] = np.frombuffer(b"".join(network for network, _ in listed), "<u4").reshape(-1, 4)
    array["length"] = [length for _, length in listed]
    return array

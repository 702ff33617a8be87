"""Services to map contents: numbers, places, rings. Pure; what was given out before stays as it was.

A service has a number (its ring switch and its counters), a block of places in `backends` (a power of two), and,
while a backend takes new flows, a ring. A backend keeps its place within the block as long as the block remembers
its address, so that flows, which remember the place, stay where they are.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np
import numpy.typing as npt

from lb.dataplane.layout import layout
from lb.dataplane.protocol import NextHop
from lb.dataplane.room import Room
from lb.dataplane.tables import U16, Array, Arrays
from lb.errors import CapacityError
from lb.model import AdminState, Affinity, Backend, Mode, Protocol, Service
from lb.reconcile.ring import SLOTS, build_ring
from lb.settings import TableSizes

_C = layout().constants
ACTIVE, RESOLVED = _C["BACKEND_ACTIVE"], _C["BACKEND_RESOLVED"]
IP_PROTOCOL = {Protocol.TCP: 6, Protocol.UDP: 17}
SMALLEST_ROOM = 3
"""A block has at least 2**3 places."""

RingKey = tuple[tuple[bytes, int, int], ...]
"""What a ring is made of, sorted: (address, weight, place)."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What one service has in the maps.

    places: for each place of the block the packed address it is for, or None.
    ring_key: None while nothing takes new flows.
    """

    service: Service
    number: int
    start: int
    room: int
    places: tuple[bytes | None, ...]
    ring_key: RingKey | None
    ring: int
    reused: tuple[int, ...] = ()
    """Places that another address had before: their flows and counters are not this one's."""

    def place(self, address: bytes) -> int | None:
        """The place of a backend within the block."""
        return self.places.index(address) if address in self.places else None

    @property
    def value(self) -> tuple[int, int, int, int]:
        """Struct service."""
        flags = _C["SERVICE_L2"] if self.service.mode is Mode.L2 else 0
        flags |= _C["SERVICE_SOURCE_AFFINITY"] if self.service.affinity is Affinity.SOURCE else 0
        return self.start, self.number, flags, self.room


@dataclass(frozen=True)
class ServicePlans:
    """All services, and what is given out to them. rings: a ring's number by what it is made of."""

    by_name: Mapping[str, ServicePlan] = field(default_factory=dict)
    rings: Mapping[RingKey, int] = field(default_factory=dict)
    places: Room = field(default_factory=lambda: Room(0, []))


def ring_key(service: Service, places: tuple[bytes | None, ...]) -> RingKey | None:
    """What the ring of a service is made of, None if no backend takes new flows."""
    parts = [
        (b.address.packed, b.ring_weight, places.index(b.address.packed))
        for b in service.backends
        if b.ring_weight
    ]
    return tuple(sorted(parts)) or None


class RingCache:
    """The rings built lately: a ring costs milliseconds, and services share them."""

    def __init__(self, size: int = 256) -> None:
        self._rings: OrderedDict[RingKey, U16] = OrderedDict()
        self._size = size

    def get(self, key: RingKey) -> U16:
        """The SLOTS places of a ring."""
        ring = self._rings.get(key)
        if ring is None:
            positions = build_ring([(address, weight) for address, weight, _ in key])
            ring = np.array([place for *_, place in key], np.uint16)[positions]
            self._rings[key] = ring
            if len(self._rings) > self._size:
                self._rings.popitem(last=False)
        self._rings.move_to_end(key)
        return ring


def plan_services(services: Mapping[str, Service], before: ServicePlans, sizes: TableSizes) -> ServicePlans:
    """Give every service its number, places and ring. CapacityError names the setting; nothing was changed."""
    if len(services) > sizes.services:
        raise CapacityError(f"{len(services)} services do not fit {sizes.services}: raise --services")
    ports = {4: 0, 6: 0}
    for service in services.values():
        ports[service.vip.version] += _ports(service) + 1
    if max(ports.values()) > sizes.service_ports:
        raise CapacityError(
            f"the services take {max(ports.values())} ports of their VIPs, room is for {sizes.service_ports}: "
            'raise --service-ports, or use port "any"'
        )
    room = before.places.copy() if before.places.size else Room(sizes.backends, [])
    room.settle()
    numbers = {plan.number for plan in before.by_name.values()}
    plans: dict[str, ServicePlan] = {}
    for name, service in services.items():
        old = before.by_name.get(name)
        if old is not None and old.service is service:
            plans[name] = replace(old, reused=()) if old.reused else old
            continue
        number = old.number if old else next(n for n in range(sizes.services + 1) if n not in numbers)
        if number >= sizes.services:
            raise CapacityError(f"over {sizes.services} services at once while changing: raise --services")
        numbers.add(number)
        plans[name] = _place(service, number, old, room)
    for name, old in before.by_name.items():
        if name not in plans or plans[name].start != old.start:
            room.give(np.array([old.start]), np.array([1 << old.room]))
    return _give_rings(plans, before, room, sizes)


def _ports(service: Service) -> int:
    return 1 if service.port.is_any else service.port.high - service.port.low + 1


def _place(service: Service, number: int, old: ServicePlan | None, room: Room) -> ServicePlan:
    """Places for the backends: the one each had, else one never used, else one left by a backend that is gone."""
    wanted = [b.address.packed for b in service.backends]
    places: list[bytes | None] = list(old.places) if old else []
    start, bits = (old.start, old.room) if old else (-1, 0)
    known, present = set(places), set(wanted)
    missing = [address for address in wanted if address not in known]
    spare = [n for n, address in enumerate(places) if address is None]
    left = [n for n, address in enumerate(places) if address is not None and address not in present]
    if len(missing) > len(spare) + len(left) or old is None:
        bits = max(
            SMALLEST_ROOM, (2 * len(wanted) - 1).bit_length() if old else (len(wanted) or 1).bit_length()
        )
        taken = room.take(np.array([1 << bits]))
        if taken is None:
            raise CapacityError(
                f'service "{service.name}" needs {1 << bits} backend places, and so many are not free: raise --backends'
            )
        start = int(taken[0])
        spare += range(len(places), 1 << bits)
        places += [None] * ((1 << bits) - len(places))
    reused = []
    for address in missing:
        if spare:
            at = spare.pop(0)
        else:
            at = left.pop(0)
            reused.append(at)
        places[at] = address
    return ServicePlan(
        service, number, start, bits, tuple(places), ring_key(service, tuple(places)), 0, tuple(reused)
    )


def _give_rings(
    plans: dict[str, ServicePlan], before: ServicePlans, places: Room, sizes: TableSizes
) -> ServicePlans:
    """A ring number for each key in use: the one it has, else one that is not in use before or after."""
    keys = {plan.ring_key for plan in plans.values() if plan.ring_key}
    rings = {key: number for key, number in before.rings.items() if key in keys}
    busy = set(before.rings.values())
    free = iter([n for n in range(1, sizes.rings) if n not in busy])
    for key in sorted(keys - rings.keys()):
        number = next(free, None)
        if number is None:
            raise CapacityError(
                f"the services need over {sizes.rings - 1} different rings, with those being replaced: raise --rings"
            )
        rings[key] = number
    by_name = {
        name: plan
        if plan.ring == (want := rings[plan.ring_key] if plan.ring_key else 0)
        else replace(plan, ring=want)
        for name, plan in plans.items()
    }
    return ServicePlans(by_name, rings, places)


def service_keys(plan: ServicePlan) -> list[tuple[bytes, int, int]]:
    """The (VIP, port, protocol) under which a service is found, port 0 standing for any."""
    vip, protocol, port = plan.service.vip_packed, IP_PROTOCOL[plan.service.protocol], plan.service.port
    if port.is_any:
        return [(vip, 0, protocol)]
    return [(vip, number, protocol) for number in range(port.low, port.high + 1)]


def backend_rows(plan: ServicePlan, hops: Mapping[bytes, NextHop]) -> Array:
    """The block's places as struct backend, one row a place."""
    rows: npt.NDArray[Any] = np.zeros(1 << plan.room, layout().structs["backend"])
    backends: dict[bytes, Backend] = {b.address.packed: b for b in plan.service.backends}
    l2 = plan.service.mode is Mode.L2
    for row, address in zip(rows, plan.places, strict=True):
        if address is None:
            continue
        row["family"] = 4 if len(address) == 4 else 6
        row["address"] = np.frombuffer(address.ljust(16, b"\0"), "<u4")
        backend = backends.get(address)
        if backend is None or backend.admin_state is AdminState.DISABLED:
            continue
        row["state"] = ACTIVE
        hop = hops.get(address)
        # By a router's MAC an l2 packet, which keeps the VIP as its destination, would come straight back.
        if hop is None or hop.mac is None or (l2 and hop.gateway):
            continue
        row["state"] = ACTIVE | RESOLVED
        row["mac"] = np.frombuffer(hop.mac, np.uint8)
        row["source_mac"] = np.frombuffer(hop.source_mac, np.uint8)
        row["mtu"] = min(hop.mtu, 65535)
        row["ifindex"] = hop.ifindex
    return rows


def adopt_services(
    services: Mapping[str, Service],
    found: Mapping[tuple[bytes, int, int], tuple[int, int, int, int]],
    arrays: Arrays,
    cache: RingCache,
    sizes: TableSizes,
) -> ServicePlans:
    """What the maps already hold of these services. found: struct service by (VIP, port, protocol)."""
    plans: dict[str, ServicePlan] = {}
    in_use: dict[RingKey, int] = {}
    used: list[tuple[int, int]] = []
    for name, service in services.items():
        probe = ServicePlan(service, 0, 0, 0, (), None, 0)
        value = found.get(service_keys(probe)[0])
        if value is None:
            continue
        start, number, _, bits = value
        block = arrays.backends[start : start + (1 << bits)]
        places = tuple(
            None if not row["family"] else row["address"].tobytes()[: 4 if row["family"] == 4 else 16]
            for row in block
        )
        used.append((start, 1 << bits))
        # The service is left out of the plan's identity, so that planning looks at it afresh.
        key = _held_key(service, places)
        ring = int(arrays.service_rings[number]["ring"])
        if key is not None and ring and np.array_equal(arrays.rings[ring][:SLOTS], cache.get(key)):
            in_use[key] = ring
        plans[name] = ServicePlan(service.model_copy(), number, start, bits, places, key, ring)
    return ServicePlans(plans, in_use, Room(sizes.backends, used))


def _held_key(service: Service, places: tuple[bytes | None, ...]) -> RingKey | None:
    return ring_key(service, places) if all(b.address.packed in places for b in service.backends) else None


def address_text(packed: bytes) -> str:
    """An address as people write it."""
    return str(IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed))

"""Services to map contents: numbers, places, rings. Pure; what was assigned before stays as it was.

A service has a number (its ring switch and its counters), a block of places in `backends` (a power of two), and, while
a backend takes new flows, a ring. A backend keeps its place within the block as long as the block remembers its
address, so that flows, which remember the place, stay where they are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from itertools import islice

import numpy as np
import numpy.typing as npt

from lb.dataplane.layout import layout
from lb.dataplane.protocol import NextHop
from lb.dataplane.room import Room
from lb.dataplane.tables import Array
from lb.errors import CapacityError
from lb.model import AdminState, Affinity, Mode, NatSource, Service
from lb.model.standing import FULL, Standing
from lb.reconcile.vips import inherited_keys
from lb.settings import TableSizes

_C = layout().constants
ACTIVE, RESOLVED = _C["BACKEND_ACTIVE"], _C["BACKEND_RESOLVED"]
IN_RING = _C["BACKEND_IN_RING"]
_MODE_FLAGS = {
    Mode.L2: _C["SERVICE_L2"],
    Mode.IPIP: 0,
    Mode.GUE: _C["SERVICE_GUE"],
    Mode.NAT: _C["SERVICE_NAT"],
}
_AFFINITY_FLAGS = {
    Affinity.FLOW: 0,
    Affinity.SOURCE: _C["SERVICE_SOURCE_AFFINITY"],
    Affinity.DESTINATION_PORT: _C["SERVICE_PORT_AFFINITY"],
}
SMALLEST_ROOM = 3
"""A block has at least 2**3 places."""

ServiceValue = tuple[int, int, int, int]
"""The fields of struct service: first place, number, flags, room."""


@dataclass(frozen=True, slots=True)
class RingRecipe:
    """What a ring is made of. parts: (address, weight, place), sorted; name: 16 bytes that stand for them."""

    parts: tuple[tuple[bytes, int, int], ...]
    name: bytes

    @classmethod
    def of(cls, service: Service, at: Mapping[bytes, int], standing: Standing = FULL) -> "RingRecipe | None":
        """For the backends that take new flows, at these places; None if there are none."""
        weights = {b.address.packed: b.ring_weight for b in service.backends if b.ring_weight}
        parts = sorted(
            (address, weight, at[address])
            for address, weight in standing.weights(weights).items()
            if weight and address in at
        )
        words = b"".join(b"%b%d,%d;" % (address, weight, place) for address, weight, place in parts)
        return cls(tuple(parts), blake2b(words, digest_size=16, person=b"ring 1").digest()) if parts else None


@dataclass(frozen=True)
class ServicePlan:
    """What one service has in the maps.

    places: for each place of the block the packed address it is for, or None; recipe: None while nothing takes new
    flows; ring: its number, 0 none.
    """

    service: Service
    number: int
    start: int
    room: int
    places: tuple[bytes | None, ...]
    recipe: RingRecipe | None
    ring: int = 0
    reused: tuple[int, ...] = ()
    """Places that another address had before: their flows and counters are not this one's. A block that moves has
    room enough to use none again."""
    found: frozenset[bytes] | None = None
    """For a plan read from the maps, not yet compared with the desired state: which places take packets."""
    standing: Standing = FULL
    """Its backends' weights after health is taken into account."""

    @cached_property
    def at(self) -> Mapping[bytes, int]:
        """The place of each address within the block."""
        return {address: n for n, address in enumerate(self.places) if address is not None}

    def place(self, address: bytes) -> int | None:
        """The place of a backend within the block, None if it has none."""
        return self.at.get(address)

    @property
    def active(self) -> frozenset[bytes]:
        """Which places take packets: as found, or as desired."""
        if self.found is not None:
            return self.found
        return frozenset(backend.address.packed for backend in self.service.backends)

    @property
    def value(self) -> ServiceValue:
        """What its keys hold."""
        service = self.service
        flags = _MODE_FLAGS[service.mode] | _AFFINITY_FLAGS[service.affinity]
        flags |= _C["SERVICE_UDP_MIGRATION"] if service.udp_migration else 0
        flags |= _C["SERVICE_QUIC"] if service.quic else 0
        flags |= _C["SERVICE_GUARD"] if service.flood_protection else 0
        return self.start, self.number, flags, self.room


@dataclass(frozen=True)
class ServicePlans:
    """All services, and what is assigned to them.

    rings: a ring's number by its recipe's name; left: (number, first place, room) of what keys in memory still point
    to though no plan has it, as a crash leaves it: it is free once they point elsewhere.
    """

    by_name: Mapping[str, ServicePlan] = field(default_factory=dict)
    rings: Mapping[bytes, int] = field(default_factory=dict)
    places: Room = field(default_factory=lambda: Room(0, []))
    left: tuple[tuple[int, int, int], ...] = ()


def service_identity(name: str) -> int:
    """What stands for a service's name beside its number in memory; never 0."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8, person=b"service").digest(), "little") or 1


StandingOf = Callable[[Service], Standing]
"""What is known of the health of a service's backends."""


def all_full(_: Service) -> Standing:
    """The standing when nothing is known of health."""
    return FULL


def plan_services(
    services: Mapping[str, Service],
    before: ServicePlans,
    sizes: TableSizes,
    standing_of: StandingOf = all_full,
) -> ServicePlans:
    """Give every service its number, places and ring. CapacityError names the setting; nothing was changed."""
    _check_ports(services, before, sizes)
    room = before.places.copy() if before.places.size else Room(sizes.backends, [])
    room.settle()
    busy = {plan.number for plan in before.by_name.values()} | {number for number, *_ in before.left}
    numbers = iter([n for n in range(sizes.services) if n not in busy])
    plans: dict[str, ServicePlan] = {}
    for name, service in services.items():
        old, standing = before.by_name.get(name), standing_of(service)
        if old is not None and old.service is service and old.found is None and old.standing == standing:
            plans[name] = replace(old, reused=()) if old.reused else old
            continue
        number = old.number if old else next(numbers, None)
        if number is None:
            raise CapacityError(
                f"the services need more than {sizes.services} numbers (with those being removed): raise --services"
            )
        plans[name] = _place(service, number, old, room, standing)
    gone = [
        (old.start, 1 << old.room)
        for name, old in before.by_name.items()
        if name not in plans or plans[name].start != old.start
    ]
    gone += [(start, 1 << bits) for _, start, bits in before.left]
    for start, length in gone:
        room.give(np.array([start]), np.array([length]))
    return _give_rings(plans, before, room, sizes)


def plan_steps(
    services: Mapping[str, Service],
    before: ServicePlans,
    sizes: TableSizes,
    standing_of: StandingOf = all_full,
) -> list[ServicePlans]:
    """The plans to go through, one after the other; nearly always one.

    Old and new exist side by side while they are switched. If there is no room for that, a part of the services is
    switched first, and the rest uses what that has freed. CapacityError: it does not fit in parts either.
    """
    try:
        return [plan_services(services, before, sizes, standing_of)]
    except CapacityError:
        part = _half_way(services, before)
        if part is None:
            raise
    first = plan_steps(part, before, sizes, standing_of)
    return first + plan_steps(services, first[-1], sizes, standing_of)


def _half_way(services: Mapping[str, Service], before: ServicePlans) -> dict[str, Service] | None:
    """An intermediate step: first without removed services, then with half of those that differ. None: no such step."""
    had = {name: plan.service for name, plan in before.by_name.items()}
    stay = {name: service for name, service in had.items() if name in services}
    differ = [name for name, service in services.items() if had.get(name) is not service]
    moved = [name for name in differ if name not in had or _packets(had[name]) != _packets(services[name])]
    left = {(had[name].vip, had[name].protocol) for name in had if name not in services or name in moved}
    if any((services[name].vip, services[name].protocol) in left for name in moved):
        return None  # packets that pass from one service to another must do so at once
    if len(stay) < len(had):
        return stay if differ else None
    return (
        {**stay, **{name: services[name] for name in differ[: len(differ) // 2]}} if len(differ) > 1 else None
    )


def _check_ports(services: Mapping[str, Service], before: ServicePlans, sizes: TableSizes) -> None:
    """What changes exists beside the old until it is switched, so both must fit."""
    ports = {4: 0, 6: 0}
    for service in services.values():
        ports[service.vip.version] += _ports(service)
    for name, old in before.by_name.items():
        now = services.get(name)
        if now is None or (now is not old.service and _packets(now) != _packets(old.service)):
            ports[old.service.vip.version] += _ports(old.service)
    if ports[6] <= sizes.service_ports:
        # A VIP has keys of the prefix around it too. No more of them are looked at than could fit.
        both = [*services.values()], [old.service for old in before.by_name.values()]
        more = [islice(inherited_keys(some), sizes.service_ports + 1) for some in both]
        ports[6] += len({key for some in more for key, _ in some})
    if max(ports.values()) > sizes.service_ports:
        raise CapacityError(
            f"the services take {max(ports.values())} ports of their VIPs (with those being removed), and there is "
            f'room for {sizes.service_ports}: raise --service-ports, or use port "any"'
        )


def _packets(service: Service) -> tuple[object, ...]:
    """The fields that select its packets."""
    return service.vip, service.port, service.protocol


def _ports(service: Service) -> int:
    """Keys that it takes: its ports, and one for the VIP."""
    return 2 if service.port.is_any else service.port.high - service.port.low + 2


def _place(
    service: Service, number: int, old: ServicePlan | None, room: Room, standing: Standing
) -> ServicePlan:
    """Places for the backends: the one each had, else one never used, else one that was left earlier.

    Places that this change frees still get packets until the ring is switched: they are the last resort.
    """
    wanted = [backend.address.packed for backend in service.backends]
    places: list[bytes | None] = list(old.places) if old else []
    start, bits = (old.start, old.room) if old else (-1, 0)
    known, present = old.at if old else {}, set(wanted)
    missing = [address for address in wanted if address not in known]
    spare = [n for n, address in enumerate(places) if address is None]
    leaving = old.active if old else frozenset()
    gone = [place for address, place in known.items() if address not in present]
    left = sorted(gone, key=lambda place: places[place] in leaving)
    short = len(missing) - len(spare) - sum(places[place] not in leaving for place in gone)
    if old is None or short > 0:
        bits = max(SMALLEST_ROOM, len(wanted).bit_length())
        if old:
            bits = max((2 * len(wanted) - 1).bit_length(), (len(places) + short - 1).bit_length())
        taken = room.take(np.array([1 << bits]))
        if taken is not None:
            start = int(taken[0])
            spare += range(len(places), 1 << bits)
            places += [None] * ((1 << bits) - len(places))
        elif old is None or len(missing) > len(spare) + len(left):
            raise CapacityError(
                f'service "{service.name}" needs {1 << bits} backend places, but not enough are free: raise --backends'
            )
        else:
            bits = old.room
    reused = left[: max(0, len(missing) - len(spare))]
    for place, address in zip([*spare, *left], missing, strict=False):
        places[place] = address
    plan = ServicePlan(service, number, start, bits, tuple(places), None, 0, tuple(reused), standing=standing)
    return replace(plan, recipe=RingRecipe.of(service, plan.at, standing))


def _give_rings(
    plans: dict[str, ServicePlan], before: ServicePlans, places: Room, sizes: TableSizes
) -> ServicePlans:
    """A ring number for each recipe: the one it has, else one that is not in use before or after."""
    recipes = {plan.recipe.name for plan in plans.values() if plan.recipe}
    rings = {recipe: number for recipe, number in before.rings.items() if recipe in recipes}
    busy = {*before.rings.values(), *(plan.ring for plan in before.by_name.values())}
    free = iter([n for n in range(1, sizes.rings) if n not in busy])
    for recipe in sorted(recipes - rings.keys()):
        number = next(free, None)
        if number is None:
            raise CapacityError(
                f"the services need more than {sizes.rings - 1} different rings (with those being replaced): "
                "raise --rings"
            )
        rings[recipe] = number
    for name, plan in plans.items():
        ring = rings[plan.recipe.name] if plan.recipe else 0
        if plan.ring != ring:
            plans[name] = replace(plan, ring=ring)
    return ServicePlans(plans, rings, places)


def takers(plan: ServicePlan) -> dict[int, bool]:
    """The places that take packets, and whether of new flows too."""
    takes: dict[int, bool] = {}
    for backend in plan.service.backends:
        address = backend.address.packed
        out = plan.standing.is_out(address)
        if backend.admin_state is not AdminState.DISABLED and not (out and plan.standing.moving):
            takes[plan.at[address]] = bool(backend.ring_weight) and not out
    return takes


def backend_rows(plan: ServicePlan, hops: Mapping[bytes, NextHop]) -> Array:
    """The block's places as struct backend, one row a place."""
    rows = np.zeros(1 << plan.room, layout().structs["backend"])
    known = list(plan.at.values())
    rows["family"][known] = [4 if len(address) == 4 else 6 for address in plan.at]
    rows["address"][known] = _columns((address.ljust(16, b"\0") for address in plan.at), "<u4")
    l2 = plan.service.mode is Mode.L2
    rows["nat_keep"][known] = plan.service.nat_source is NatSource.KEEP
    takes, resolved = takers(plan), dict[int, NextHop]()
    for backend in plan.service.backends:
        if backend.admin_state is AdminState.DISABLED:
            continue
        address = backend.address.packed
        place, hop = plan.at[address], hops.get(address)
        rows["port"][place] = backend.port or 0
        # By a router's MAC an l2 packet, which keeps the VIP as its destination, would come straight back.
        if hop is not None and hop.mac is not None and not (l2 and hop.gateway):
            resolved[place] = hop
    rows["state"][list(takes)] = ACTIVE
    at, ways = list(resolved), resolved.values()
    rows["state"][at] |= RESOLVED  # also of one whose flows have left it: its checks go there
    rows["state"][[place for place, takes_new in takes.items() if takes_new]] |= IN_RING
    rows["mac"][at] = _columns((hop.mac or b"" for hop in ways), "u1", 6)
    rows["source_mac"][at] = _columns((hop.source_mac for hop in ways), "u1", 6)
    rows["mtu"][at] = [min(hop.mtu, 65535) for hop in ways]
    rows["ifindex"][at] = [hop.ifindex for hop in ways]
    return rows


def _columns(values: Iterable[bytes], dtype: str, width: int = 4) -> npt.NDArray[np.generic]:
    return np.frombuffer(b"".join(values), dtype).reshape(-1, width)

"""Live flows one by one and by kind: whose they are, of what class, and for how long they have been silent. Pure.

A slot has the tag of its flow, a keyed hash, and not its addresses: whose a flow is can be asked (explain), not listed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

import numpy as np
import numpy.typing as npt

from lb.dataplane.layout import layout
from lb.dataplane.protocol import DataPlane
from lb.dataplane.tables import Array, Ints
from lb.model import Settings
from lb.reconcile.flows import LiveFlows
from lb.reconcile.services import ServicePlan, ServicePlans

_C = layout().constants
_UDP, _ESTABLISHED = _C["FLOW_UDP"], _C["FLOW_ESTABLISHED"]
_OPENED, _CLOSED = _C["FLOW_OPENED"], _C["FLOW_CLOSED"]
_CLASS_BITS = 16


@dataclass(frozen=True, slots=True)
class Alive:
    """The flows that are not idle, a column each. slots: where they are in the table; classes: bits of types.h."""

    slots: Ints
    tags: Array
    services: Ints
    places: Ints
    classes: Ints
    ages: Ints

    def where(self, chosen: npt.NDArray[np.bool_] | slice | Ints) -> "Alive":
        """Some of them."""
        return Alive(
            self.slots[chosen],
            self.tags[chosen],
            self.services[chosen],
            self.places[chosen],
            self.classes[chosen],
            self.ages[chosen],
        )


@dataclass(frozen=True, slots=True)
class FlowSeen:
    """One flow. backend: null if its place has no address any more. opened: its SYN was seen here."""

    slot: int
    tag: str
    service: str
    backend: str | None
    protocol: str
    state: str
    opened: bool
    idle_seconds: int


@dataclass(frozen=True, slots=True)
class FlowGroup:
    """The flows of one backend that are of one class, and for how long they have been silent."""

    service: str
    backend: str | None
    protocol: str
    state: str
    flows: int
    idle_seconds_least: int
    idle_seconds_median: int
    idle_seconds_most: int


@dataclass(frozen=True, slots=True)
class FlowsSeen:
    """A page of flows, of `total`; following: the slot to go on after. groups: of all that fit, not of the page."""

    flows: list[FlowSeen]
    total: int
    following: int | None
    groups: list[FlowGroup] = field(default_factory=list)


def _alive(dataplane: DataPlane, settings: Settings) -> Alive:
    """What the packet path would still find."""
    now_s = dataplane.clock_seconds()
    live = LiveFlows.of(dataplane.tables.arrays.flows, now_s, settings)
    slots = np.flatnonzero(live.is_live)
    words, states = (live.slots[name][slots] for name in ("tag_backend", "state"))
    low = np.uint64(0xFFFF)
    return Alive(
        slots=slots,
        tags=words >> np.uint64(16),
        services=(states >> np.uint64(16) & low).astype(np.int64),
        places=(words & low).astype(np.int64),
        classes=(states & low).astype(np.int64),
        ages=(now_s - (states >> np.uint64(32)).astype(np.int64)).clip(0),
    )


def seen(
    dataplane: DataPlane,
    plans: ServicePlans,
    settings: Settings,
    *,
    service: str | None = None,
    backend: bytes | None = None,
    after: int | None = None,
    limit: int = 1000,
) -> FlowsSeen:
    """Flows of the services there are, in order of slot; only those of one service, or of one backend (packed).

    Groups come with the first page alone.
    """
    names = {plan.number: plan for plan in plans.by_name.values() if service in (None, plan.service.name)}
    found = _alive(dataplane, settings)
    found = found.where(np.isin(found.services, list(names)))
    if backend is not None:
        pairs = [n << 16 | plan.at[backend] for n, plan in names.items() if backend in plan.at]
        found = found.where(np.isin(found.services << 16 | found.places, pairs))
    total = len(found.slots)
    rest = found if after is None else found.where(found.slots > after)
    page = rest.where(slice(0, limit))
    return FlowsSeen(
        flows=list(_flows(page, names)),
        total=total,
        following=int(page.slots[-1]) if 0 < len(page.slots) < len(rest.slots) else None,
        groups=list(_groups(found, names)) if after is None else [],
    )


def _flows(page: Alive, names: dict[int, ServicePlan]) -> Iterator[FlowSeen]:
    columns = (page.slots, page.tags, page.services, page.places, page.classes, page.ages)
    backend = _backends(names)
    for slot, tag, number, place, flow_class, age in zip(*(c.tolist() for c in columns), strict=True):
        yield FlowSeen(
            slot=slot,
            tag=f"{tag:012x}",
            service=names[number].service.name,
            backend=backend(number, place),
            protocol=_protocol(flow_class),
            state=_state(flow_class),
            opened=bool(flow_class & _OPENED),
            idle_seconds=age,
        )


def _groups(found: Alive, names: dict[int, ServicePlan]) -> Iterator[FlowGroup]:
    """By service, backend and class; ages are sorted within each, so that its ends and its middle are there."""
    kinds = found.classes & (_UDP | _ESTABLISHED | _CLOSED)
    keys = found.services << 32 | found.places << _CLASS_BITS | kinds
    order = np.lexsort((found.ages, keys))
    ages = found.ages[order]
    unique, starts, counts = np.unique(keys[order], return_index=True, return_counts=True)
    backend = _backends(names)
    for key, start, count in zip(unique.tolist(), starts.tolist(), counts.tolist(), strict=True):
        number, place, kind = key >> 32, key >> _CLASS_BITS & 0xFFFF, key & 0xFFFF
        yield FlowGroup(
            service=names[number].service.name,
            backend=backend(number, place),
            protocol=_protocol(kind),
            state=_state(kind),
            flows=count,
            idle_seconds_least=int(ages[start]),
            idle_seconds_median=int(ages[start + count // 2]),
            idle_seconds_most=int(ages[start + count - 1]),
        )


def _backends(names: dict[int, ServicePlan]) -> Callable[[int, int], str | None]:
    def backend(number: int, place: int) -> str | None:
        places = names[number].places
        address = places[place] if place < len(places) else None
        return None if address is None else str(ip_address(address))

    return backend


def _protocol(flow_class: int) -> str:
    return "udp" if flow_class & _UDP else "tcp"


def _state(flow_class: int) -> str:
    if flow_class & _CLOSED:
        return "closed"
    return "established" if flow_class & _ESTABLISHED else "new"

"""Live flows one by one and by kind: service, backend, class, and time of silence. Pure.

A slot has the tag of its flow, a keyed hash, and not its addresses: whose a flow is can be asked (explain), not listed.
Entries of mode nat, which come after the flow table's, do have them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

import numpy as np
import numpy.typing as npt

from lb.dataplane.layout import layout
from lb.dataplane.protocol import DataPlane
from lb.dataplane.tables import Array, Arrays, Ints
from lb.model import Settings
from lb.reconcile.flows import LiveFlows
from lb.reconcile.nat_flows import NatTuples, blocks_in_use, entries, tuples_of
from lb.reconcile.services import ServicePlan, ServicePlans

_C = layout().constants
_UDP, _ESTABLISHED = _C["FLOW_UDP"], _C["FLOW_ESTABLISHED"]
_OPENED, _CLOSED = _C["FLOW_OPENED"], _C["FLOW_CLOSED"]
_CLASS_BITS = 16
_TCP, _UDP_NUMBER = 6, 17
_STATES = ("new", "established", "closed", "opening", "open", "closing")
_NEW, _KNOWN, _OVER, _OPENING, _OPEN, _CLOSING = range(len(_STATES))
_NAMES = {_TCP: "tcp", _UDP_NUMBER: "udp"}
NAT_FROM = 1 << 32
"""Where the slots of NAT's entries begin, in the order of all."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The flows that are not idle, a column each.

    slots: where they are in the table, NAT's from NAT_FROM on; kinds: protocol << 8 | place in _STATES.
    """

    slots: Ints
    tags: Array
    services: Ints
    places: Ints
    kinds: Ints
    opened: Array
    ages: Ints

    @property
    def columns(self) -> tuple[Array, ...]:
        """All of them, in order."""
        return self.slots, self.tags, self.services, self.places, self.kinds, self.opened, self.ages

    def where(self, chosen: npt.NDArray[np.bool_] | slice | Ints) -> "Alive":
        """Some of them."""
        return Alive(*(column[chosen] for column in self.columns))


@dataclass(frozen=True, slots=True)
class FlowSeen:
    """One flow. backend: null if its place has no address any more. opened: its SYN was seen here.

    nat: its addresses on both sides, if its service is of mode nat; slot and tag are then of NAT's own tables.
    """

    slot: int
    tag: str
    service: str
    backend: str | None
    protocol: str
    state: str
    opened: bool
    idle_seconds: int
    nat: NatTuples | None = None


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
    """A page of flows, of `total`; following: where to go on after. groups: of all that fit, not of the page."""

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
    classes = states & low
    protocol = np.where(classes & np.uint64(_UDP), _UDP_NUMBER, _TCP)
    known = np.where(classes & np.uint64(_ESTABLISHED), _KNOWN, _NEW)
    state = np.where(classes & np.uint64(_CLOSED), _OVER, known)
    of_table = Alive(
        slots=slots,
        tags=words >> np.uint64(16),
        services=(states >> np.uint64(16) & low).astype(np.int64),
        places=(words & low).astype(np.int64),
        kinds=protocol << 8 | state,
        opened=classes & np.uint64(_OPENED) != 0,
        ages=(now_s - (states >> np.uint64(32)).astype(np.int64)).clip(0),
    )
    both = zip(of_table.columns, _of_nat(dataplane.tables.arrays, settings, now_s).columns, strict=True)
    return Alive(*(np.concatenate(columns) for columns in both))


def _of_nat(arrays: Arrays, settings: Settings, now_s: int) -> Alive:
    some = entries(arrays, blocks_in_use(arrays))
    chosen = np.flatnonzero((some.age(now_s) <= some.life(settings)) & (some.forward != 0))
    state = np.where(some.closing, _CLOSING, np.where(some.is_open, _OPEN, _OPENING))
    slots = some.slots[chosen]
    return Alive(
        slots=slots + NAT_FROM,
        tags=arrays.nat_forward["word"][slots] >> np.uint64(_C["NAT_SLOT_BITS"]),
        services=some.service[chosen].astype(np.int64),
        places=some.place[chosen].astype(np.int64),
        kinds=some.protocol[chosen].astype(np.int64) << 8 | state[chosen],
        opened=some.forward[chosen] & np.uint64(_C["NAT_SYN"]) != 0,
        ages=some.age(now_s)[chosen].clip(0),
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
        flows=list(_flows(page, names, dataplane.tables.arrays)),
        total=total,
        following=int(page.slots[-1]) if 0 < len(page.slots) < len(rest.slots) else None,
        groups=list(_groups(found, names)) if after is None else [],
    )


def _flows(page: Alive, names: dict[int, ServicePlan], arrays: Arrays) -> Iterator[FlowSeen]:
    backend = _backends(names)
    rows = zip(*(column.tolist() for column in page.columns), strict=True)
    for slot, tag, number, place, kind, opened, age in rows:
        is_nat = slot >= NAT_FROM
        yield FlowSeen(
            slot=slot - NAT_FROM if is_nat else slot,
            tag=f"{tag:012x}",
            service=names[number].service.name,
            backend=backend(number, place),
            protocol=_protocol(kind),
            state=_STATES[kind & 0xFF],
            opened=opened,
            idle_seconds=age,
            nat=tuples_of(arrays, slot - NAT_FROM) if is_nat else None,
        )


def _groups(found: Alive, names: dict[int, ServicePlan]) -> Iterator[FlowGroup]:
    """By service, backend and kind; ages are sorted within each, so that its ends and its middle are there."""
    keys = found.services << 32 | found.places << _CLASS_BITS | found.kinds
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
            state=_STATES[kind & 0xFF],
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


def _protocol(kind: int) -> str:
    return _NAMES.get(kind >> 8, "icmp")

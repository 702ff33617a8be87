"""What a change moves: for each service, the ring's slots and the live flows that leave their backend. Pure.

Counted are flows that would stay where they are without the change. A flow stays as long as its backend takes
packets, whatever becomes of the ring (xdp/select.h), and the ring of what is new moves nothing. What a flow's entry
does not tell (its port, its connection id, its slot) is taken for the worst, and said to be. A service that is renamed
ends: its flows' entries are of no other service, so their next packets ask the ring of whoever then takes them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv6Network

import numpy as np
import numpy.typing as npt

from lb.dataplane.tables import U16
from lb.errors import BudgetError
from lb.model import Mode, Service
from lb.model.address import AnyVip
from lb.reconcile.flows import FlowCounts
from lb.reconcile.ring import SLOTS
from lb.reconcile.services import RingRecipe, ServicePlan, ServicePlans, takers

Rings = Callable[[RingRecipe, int], U16]
"""The ring of a recipe that has a number: for each slot a place."""
_PERCENT = 100
_NAMED = 3
"""Services that a sentence names."""
_BY_ID = "the flow table does not tell where their connection IDs lead"


@dataclass(frozen=True, slots=True)
class ServiceMove:
    """What a change does to a service that was there.

    ring_slots_moved: of the 65,537 those that had a backend and have another, or none: so many of its clients' next
    connections go elsewhere, ring_share_moved of them. flows: live flows that have a backend; flows_moved: of them
    those that lose it. exact: false where flows_moved is the most that can be; note: then why.
    """

    service: str
    ring_slots_moved: int
    ring_share_moved: float
    flows: int
    flows_moved: int
    exact: bool = True
    note: str | None = None

    @property
    def percent(self) -> float:
        """The greater share of the two."""
        return _PERCENT * max(self.ring_share_moved, self.flows_moved / self.flows if self.flows else 0.0)


@dataclass(frozen=True, slots=True)
class Counts:
    """Flows that are live; still: by the new idle times (flows itself: they are as before).

    ending: of mode nat, that end whatever becomes of their service, as their address in the pool goes.
    """

    flows: FlowCounts
    still: FlowCounts
    ending: FlowCounts = field(default_factory=dict)


def disruption(before: ServicePlans, after: ServicePlans, counts: Counts, rings: Rings) -> list[ServiceMove]:
    """Of each service that was there and is not left as it is."""
    flows, ends = counts.flows, {number for number, _ in counts.ending}
    every = _ByVip(plan.service for plan in after.by_name.values())
    fresh = _ByVip(plan.service for plan in after.by_name.values() if _is_fresh(plan, before))
    compare = _Comparison(rings)
    moves = []
    for name, old in before.by_name.items():
        new = after.by_name.get(name)
        if new is None or not _overlap(old.service, new.service):
            near = (after.by_name[s.name] for s in every.near(old.service) if _overlap(s, old.service))
            heirs = [plan for plan in near if not _had_them(plan, old, before)]
            moves.append(_ended(old, heirs, flows, compare))
            continue
        takers = [s for s in fresh.near(old.service) if s.name != name and _takes(s, old.service)]
        if new is not old or takers or flows is not counts.still or old.number in ends:
            moves.append(_moved(old, new, takers, counts, compare))
    return moves


def check_budget(moves: Iterable[ServiceMove], percent: float | None) -> None:
    """BudgetError if of any service a greater share would move. percent: None, whatever may."""
    over = [move for move in moves if percent is not None and move.percent > percent]
    if not over:
        return
    named = "; ".join(f'for service "{move.service}", {words(move)}' for move in over[:_NAMED])
    more = f" (and {len(over) - _NAMED} more services)" if len(over) > _NAMED else ""
    raise BudgetError(
        f"{named}{more}, but the bound is {percent:g} %: use smaller steps, or --force (?force=true)", over
    )


def words(move: ServiceMove) -> str:
    """A move in words."""
    most = "" if move.exact else "at most "
    ring = (
        f"{_PERCENT * move.ring_share_moved:.1f} % of the ring ({move.ring_slots_moved:,} of {SLOTS:,} slots)"
    )
    return f"{ring} and {most}{move.flows_moved:,} of {move.flows:,} live flows would move"


class _ByVip:
    """Services by VIP: thousands of one state are asked about thousands of another, with the writer's lock held."""

    def __init__(self, services: Iterable[Service]) -> None:
        self._at: dict[AnyVip, list[Service]] = {}
        self._prefixes: list[Service] = []
        self._ipv6: list[Service] = []
        for service in services:
            self._at.setdefault(service.vip, []).append(service)
            if service.vip.version == 6:
                self._ipv6.append(service)
            if isinstance(service.vip, IPv6Network):
                self._prefixes.append(service)

    def near(self, service: Service) -> Iterable[Service]:
        """All whose VIP may have to do with that of a service."""
        if isinstance(service.vip, IPv6Network):
            return self._ipv6
        at = self._at.get(service.vip, [])
        return [*at, *self._prefixes] if service.vip.version == 6 else at


class _Comparison:
    """How many slots of two rings lead to different backends; of equal pairs of recipes once."""

    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        self._known: dict[tuple[bytes, bytes], int] = {}

    def moved(self, old: ServicePlan, new: ServicePlan) -> int:
        """Slots of a ring that was, and do not lead where they led."""
        if old.recipe is None:
            return 0
        if new.recipe is None or old.service.affinity is not new.service.affinity:
            return SLOTS
        if old.recipe == new.recipe:
            return 0
        pair = old.recipe.name, new.recipe.name
        if pair not in self._known:
            number = _numbered()
            was, will_be = (self._addresses(plan, number) for plan in (old, new))
            self._known[pair] = int(np.count_nonzero(was != will_be))
        return self._known[pair]

    def _addresses(self, plan: ServicePlan, number: Callable[[bytes], int]) -> npt.NDArray[np.int64]:
        """For each slot the address that it leads to, as a number."""
        assert plan.recipe is not None
        by_place = np.zeros(1 << plan.room, np.int64)
        for address, _, place in plan.recipe.parts:
            by_place[place] = number(address)
        return by_place.take(self._rings(plan.recipe, plan.ring))


def _numbered() -> Callable[[bytes], int]:
    """Gives each address a number."""
    numbers: dict[bytes, int] = {}

    @cache
    def number(address: bytes) -> int:
        return numbers.setdefault(address, len(numbers))

    return number


def _ended(
    old: ServicePlan, heirs: list[ServicePlan], flows: FlowCounts, compare: _Comparison
) -> ServiceMove:
    """Of a service that takes none of its packets any more; heirs: those that take some."""
    counts = {place: flows.get((old.number, place), 0) for place in _holding(old)}
    heir = _sole(old, heirs)
    slots = compare.moved(old, heir) if heir else SLOTS if old.recipe else 0
    led = set[bytes]() if old.service.mode is Mode.NAT else set[bytes]().union(*map(_led_to, heirs))
    may_stay = any(count and old.places[place] in led for place, count in counts.items())
    note = _taken_over([plan.service for plan in heirs]) if may_stay else None
    return _made(old, slots, sum(counts.values()), sum(counts.values()), note)


def _sole(old: ServicePlan, heirs: list[ServicePlan]) -> ServicePlan | None:
    """The one that takes all packets of another, before all that take some; None if there is none."""
    for heir in heirs:
        others = (other for other in heirs if other is not heir)
        if _is_within(heir.service, old.service) and all(_takes(heir.service, o.service) for o in others):
            return heir
    return None


def _led_to(plan: ServicePlan) -> set[bytes]:
    """The backends that packets without an entry may be led to, and then be of the flow they were: not in mode nat."""
    if plan.service.mode is Mode.NAT:
        return set()
    led = {address for address, _, _ in plan.recipe.parts} if plan.recipe else set[bytes]()
    if plan.service.quic:
        led |= {address for place in takers(plan) if (address := plan.places[place])}
    return led


def _moved(
    old: ServicePlan,
    new: ServicePlan,
    takers: list[Service],
    counts: Counts,
    compare: _Comparison,
) -> ServiceMove:
    """Of a service that goes on."""
    flows, still, ending = (
        {p: some.get((old.number, p), 0) for p in _holding(old)}
        for some in (counts.flows, counts.still, counts.ending)
    )
    stay = _holding(new) if old.number == new.number and _same_table(old.service, new.service) else {}
    gone = {place for place in flows if stay.get(place) != old.places[place]} | _misdirected(old, new)
    doubtful, note = _doubts(old, new, takers)
    sure = sum(count if place in gone else min(count, ending[place]) for place, count in flows.items())
    moved = sum(
        count if place in gone | doubtful else min(count, ending[place] + max(0, count - still[place]))
        for place, count in flows.items()
    )
    if note is None and moved > sure:
        note = "it is not known which of those idle by the new times the ring keeps in place"
    return _made(old, compare.moved(old, new), sum(flows.values()), moved, note)


def _made(old: ServicePlan, slots: int, flows: int, moved: int, note: str | None) -> ServiceMove:
    """note: None where it is certain, as it is where nothing can move."""
    note = note if moved else None
    return ServiceMove(old.service.name, slots, slots / SLOTS, flows, moved, note is None, note)


def _holding(plan: ServicePlan) -> Mapping[int, bytes | None]:
    """The places whose flows stay where they are, and whose each is; as xdp/select.h has it."""
    every = not plan.service.udp_migration or plan.service.quic
    return {place: plan.places[place] for place, takes_new in takers(plan).items() if takes_new or every}


def _same_table(one: Service, other: Service) -> bool:
    """Whether flows of both are kept in one table: those of mode nat have one of their own, for each nat_source."""
    if (one.mode is Mode.NAT) != (other.mode is Mode.NAT):
        return False
    return one.mode is not Mode.NAT or one.nat_source is other.nat_source


def _misdirected(old: ServicePlan, new: ServicePlan) -> set[int]:
    """The places whose flows of mode nat end, as their backend listens on another port."""
    came = old.service.port.low if old.service.port.low == old.service.port.high else None
    ports = {backend.address.packed: backend.port or came for backend in new.service.backends}
    was = {backend.address.packed: backend.port or came for backend in old.service.backends}
    return {old.at[address] for address, port in was.items() if ports.get(address, port) != port}


def _doubts(old: ServicePlan, new: ServicePlan, takers: list[Service]) -> tuple[set[int], str | None]:
    """The places whose flows may stay and may not, and why it cannot be told which."""
    every = set(old.at.values())
    if not _is_within(new.service, old.service):
        return every, "the flow table does not tell which of them are for the remaining ports"
    if takers:
        return every, _taken_over(takers)
    if not new.service.quic:
        return set(), None
    ids_before, ids = _quic_ids(old.service), _quic_ids(new.service)
    if any(ids_before.get(number) != address for number, address in ids.items()):
        return every, _BY_ID
    return _led_by_id_alone(new) - _led_by_id_alone(old), _BY_ID


def _led_by_id_alone(plan: ServicePlan) -> set[int]:
    """The places whose flows stay only if their packets name them."""
    if not (plan.service.quic and plan.service.udp_migration):
        return set()
    return {place for place, takes_new in takers(plan).items() if not takes_new}


def _quic_ids(service: Service) -> dict[int, bytes]:
    """The backend that each connection id leads to."""
    return {b.quic_id: b.address.packed for b in service.backends if b.quic_id} if service.quic else {}


def _taken_over(services: list[Service]) -> str:
    names = ", ".join(f'"{service.name}"' for service in services[:_NAMED])
    return f"which of them go where they are by service {names}, which takes their packets, cannot be told"


def _is_fresh(plan: ServicePlan, before: ServicePlans) -> bool:
    """Whether a service takes packets that it did not take before."""
    old = before.by_name.get(plan.service.name)
    return old is None or not _is_within(old.service, plan.service)


def _had_them(plan: ServicePlan, other: ServicePlan, before: ServicePlans) -> bool:
    """Whether what a service takes of another's packets was its own before."""
    return not _is_fresh(plan, before) and _takes(before.by_name[plan.service.name].service, other.service)


def _takes(service: Service, other: Service) -> bool:
    """Whether a service comes before another for packets of both: by a narrower VIP, or ports of its own."""
    if not _overlap(service, other) or not _vip_is_within(service.vip, other.vip):
        return False
    return service.vip != other.vip or other.port.is_any


def _overlap(one: Service, other: Service) -> bool:
    """Whether there are packets that are for either."""
    if one.protocol is not other.protocol:
        return False
    if one.port.high < other.port.low or other.port.high < one.port.low:
        return False
    return _vip_is_within(one.vip, other.vip) or _vip_is_within(other.vip, one.vip)


def _is_within(outer: Service, inner: Service) -> bool:
    """Whether all packets for one are for the other too."""
    return (
        outer.protocol is inner.protocol
        and _vip_is_within(inner.vip, outer.vip)
        and outer.port.low <= inner.port.low
        and inner.port.high <= outer.port.high
    )


def _vip_is_within(inner: AnyVip, outer: AnyVip) -> bool:
    if inner == outer:
        return True
    if not isinstance(outer, IPv6Network) or inner.version == 4:
        return False
    return inner.subnet_of(outer) if isinstance(inner, IPv6Network) else inner in outer

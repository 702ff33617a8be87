"""What tables of another layout or size take over from those in force: flows, counters, and the owners of numbers.

Everything else is built of the desired state. What is learned within seconds (what limits have counted, who is known
under attack) begins anew.
"""

from collections.abc import Iterable

import numpy as np

from lb.dataplane.former import Former
from lb.dataplane.layout import layout
from lb.dataplane.nat_hash import FlowKey
from lb.dataplane.tables import Array, Ints, Tables, where_used
from lb.reconcile.carry_nat import NatCarry
from lb.reconcile.flows import have_moved
from lb.reconcile.services import ServicePlan, service_identity

_C = layout().constants
_TAG_BITS = np.uint64(16)
_PLACE = np.uint64(0xFFFF)
_SURE_FROM = 17
"""Bits of a flow's hash from here on are in its tag; the bit below is the one that the tag gives up."""
_NUMBERED = {
    "deny_owners": "deny_counters",
    "allow_owners": "allow_counters",
    "rule_owners": "rule_counters",
}
_WHOLE = ("verdict_counters", "flow_counters", "quic_counters", "nat_counters")


class Carry:
    """Takes over from former tables what is in them; every step may be done again."""

    def __init__(self, former: Former, tables: Tables, key: FlowKey) -> None:
        """key: the packet path's, of the tables that take over."""
        self._former, self._tables = former, tables
        self.nat = NatCarry(former, tables.arrays, key)
        self.flows = 0
        """Flows that the last `flows_of` wrote."""

    def numbers(self) -> None:
        """Before anything is planned: entries and rules keep their numbers, and with them their counts."""
        self.nat.pools()
        for owners, counters in _NUMBERED.items():
            if owners in self._former.reads:
                old, new = self._former.reads[owners]()["identity"], getattr(self._tables.arrays, owners)
                count = min(len(old), len(new))
                new[:count] = old[:count]
                self._copy(counters, np.flatnonzero(old[:count]))
        for counters in _WHOLE:
            self._copy(counters, None)

    def _copy(self, counters: str, chosen: Ints | None) -> None:
        """Counts at the same places."""
        if counters not in self._former.reads:
            return
        table, rows = getattr(self._tables, counters), self._former.reads[counters]()
        at = np.arange(min(len(rows), len(table.read()))) if chosen is None else chosen
        at = at[at < len(rows)]
        if len(at):
            table.put(at.tolist(), rows[at])

    def counts_of(self, plans: Iterable[ServicePlan]) -> None:
        """Counts of services and of their backends, where they are now; before packets come."""
        reads = self._former.reads
        if not {"service_owners", "backends", "backend_counters", "service_counters"} <= reads.keys():
            return
        rows, totals = reads["backend_counters"](), reads["service_counters"]()
        for plan, number, places in self._pairs(plans):
            of_service = totals[number].copy()
            at = [plan.start + new for _, new in places]
            if at:
                self._tables.backend_counters.put(at, rows[[old for old, _ in places]])
            start, room = self._block(number)
            stay = {old for old, _ in places}
            gone = [place for place in range(start, start + room) if place not in stay]
            for name in of_service.dtype.names:  # a backend that is no more has counted for its service
                of_service[name] += rows[gone][name].sum()
            self._tables.service_counters.put([plan.number], of_service.reshape(1))

    def _block(self, number: int) -> tuple[int, int]:
        owner = self._former.reads["service_owners"]()[number]
        return int(owner["backends"]), 1 << int(owner["room"])

    def _pairs(self, plans: Iterable[ServicePlan]) -> list[tuple[ServicePlan, int, list[tuple[int, int]]]]:
        """Each service that was known, its number then, and of its backends the index then and the place now."""
        owners, rows = self._former.reads["service_owners"](), self._former.reads["backends"]()
        numbers = {int(owners["identity"][at]): int(at) for at in np.flatnonzero(owners["identity"])}
        found = []
        for plan in plans:
            number = numbers.get(service_identity(plan.service.name))
            if number is None:
                continue
            start, room = int(owners["backends"][number]), 1 << int(owners["room"][number])
            places = []
            for index, row in enumerate(rows[start : start + room], start):
                size = {4: 4, 6: 16}.get(int(row["family"]), 0)
                place = plan.place(row["address"].tobytes()[:size]) if size else None
                if place is not None:
                    places.append((index, place))
            found.append((plan, number, places))
        return found

    def _moves(self, plans: Iterable[ServicePlan]) -> dict[int, int]:
        """Service number << 16 | place: what they were, and what they are."""
        owners = self._former.reads["service_owners"]()
        return {
            number << 16 | index - int(owners["backends"][number]): plan.number << 16 | place
            for plan, number, places in self._pairs(plans)
            for index, place in places
        }

    def flows_of(self, plans: Iterable[ServicePlan], *, in_force: bool) -> None:
        """Flows find their backends where these are now.

        in_force: packets come by the new tables already, so what these say of a flow is newer.
        """
        reads = self._former.reads
        moves = self._moves(plans) if {"service_owners", "backends"} <= reads.keys() else {}
        self.nat.connections(moves)
        if "flows" not in reads or not moves:
            return
        old = reads["flows"]()
        buckets, ways = divmod(where_used(old["tag_backend"].reshape(-1)), old.shape[1])
        flows = old[buckets, ways]
        where_it_is = ~have_moved(flows)  # of those that were taken over once before
        flows, buckets = flows[where_it_is], buckets[where_it_is]
        keys, values = (np.array([*some], np.uint64) for some in (moves, moves.values()))
        known, now = _looked_up(flows, keys, values)
        flows, now, buckets = flows[known], now[known], buckets[known]
        tags = flows["tag_backend"] >> _TAG_BITS
        moved = np.zeros(len(flows), flows.dtype)
        moved["tag_backend"] = tags << _TAG_BITS | now & _PLACE
        moved["state"] = flows["state"] & ~np.uint64(0xFFFF0000) | now >> _TAG_BITS << _TAG_BITS
        at, where = _buckets(tags, buckets, len(old), len(self._tables.arrays.flows))
        moved = moved[at]
        copies = np.bincount(at, minlength=len(flows))[at] > 1
        moved["state"][copies] |= np.uint64(_C["FLOW_COPY"])
        self.flows = _insert(self._tables.arrays.flows, moved, where, replace=not in_force)


def _looked_up(flows: Array, keys: Array, values: Array) -> tuple[Array, Array]:
    """Of each flow whether its service and backend are known, and the number and place they have now."""
    wanted = flows["state"] & np.uint64(0xFFFF0000) | flows["tag_backend"] & _PLACE
    order = np.argsort(keys)
    keys, values = keys[order], values[order]
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return keys[at] == wanted, values[at]


def _buckets(tags: Array, buckets: Ints, before: int, after: int) -> tuple[Ints, Ints]:
    """Where flows may be looked for in a table of `after` buckets: positions of flows, and a bucket of each.

    A bucket's index is the low bits of the hash. A tag has those from the 17th on, and the index before tells its own;
    of a small table some between are not known: then every bucket that it may be is one.
    """
    told = before.bit_length() - 1
    sure = np.uint64(~((1 << _SURE_FROM) - 1) & (2**64 - 1))
    low = (tags << _TAG_BITS & sure | buckets.astype(np.uint64)) & np.uint64(after - 1)
    unknown = range(told, min(_SURE_FROM, after.bit_length() - 1))
    at, where = np.arange(len(tags)), low
    for bit in unknown:
        at = np.concatenate([at, at])
        where = np.concatenate([where, where | np.uint64(1 << bit)])
    return at, where.astype(np.int64)


def _insert(table: Array, flows: Array, where: Ints, *, replace: bool) -> int:
    """Put flows into buckets, those that matter most first; what finds no room asks the ring. How many were put."""
    bucket_tags = table["tag_backend"][where] >> _TAG_BITS
    same = bucket_tags == (flows["tag_backend"] >> _TAG_BITS)[:, None]
    known = same.any(axis=1)
    if replace and known.any():
        rows, ways = where[known], same[known].argmax(axis=1)
        table["state"][rows, ways] = flows["state"][known]
        table["tag_backend"][rows, ways] = flows["tag_backend"][known]
    flows, where = flows[~known], where[~known]
    established = (flows["state"] & np.uint64(_C["FLOW_ESTABLISHED"])) != 0
    seen = flows["state"] >> np.uint64(32)
    order = np.lexsort((-seen.astype(np.int64), ~established, where))
    flows, where = flows[order], where[order]
    first = np.searchsorted(where, where)  # of the same bucket
    turn = np.arange(len(where)) - first
    free = table["tag_backend"][where] == 0
    fits = turn < free.sum(axis=1)
    # The free way whose turn it is: the first at which so many free ones have been counted.
    ways = (np.cumsum(free, axis=1) > turn[:, None]).argmax(axis=1)
    rows, ways, flows = where[fits], ways[fits], flows[fits]
    table["state"][rows, ways] = flows["state"]
    table["tag_backend"][rows, ways] = flows["tag_backend"]
    return len(flows) + int(known.sum())

"""The table of QUIC ids: which place of its service each of them names."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import Table
from lb.reconcile.services import ServicePlan

Pair = tuple[int, int]
"""Service number and id."""


class QuicIds:
    """Keeps the table as planned. `read` comes first, and after an error again."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._held: dict[int, dict[int, int]] = {}
        """Place by id, by service number."""

    def read(self) -> None:
        """Learn what the table holds, whoever wrote it."""
        self._held = {}
        keys, places = self._table.read()
        for number, name, place in zip(
            keys["service"].tolist(), keys["id"].tolist(), places.tolist(), strict=True
        ):
            self._held.setdefault(number, {})[name] = place

    def forget(self, plans: Iterable[ServicePlan]) -> None:
        """Take out what would lead to another backend once these plans' rows stand, or out of their block."""
        gone = []
        for plan in plans:
            wanted = ids_of(plan)
            gone += [
                (plan.number, name)
                for name, place in self._held.get(plan.number, {}).items()
                if wanted.get(name) != place and (place in plan.reused or place >= 1 << plan.room)
            ]
        self._delete(gone)

    def add(self, plans: Iterable[ServicePlan]) -> None:
        """Put in what these plans want: the places' rows must stand, in the block that the keys point to."""
        new = [
            (plan.number, name, place)
            for plan in plans
            if plan.service.quic
            for name, place in ids_of(plan).items()
            if self._held.get(plan.number, {}).get(name) != place
        ]
        if not new:
            return
        keys = _key_array([(number, name) for number, name, _ in new])
        self._table.write(keys, np.array([place for *_, place in new], "<u4"))
        for number, name, place in new:
            self._held.setdefault(number, {})[name] = place

    def remove(self, plans: Iterable[ServicePlan], numbers: Collection[int]) -> None:
        """Take out what these plans do not want, and all of services whose number is not among those in use."""
        gone = [(number, name) for number in self._held.keys() - numbers for name in self._held[number]]
        for plan in plans:
            wanted = ids_of(plan)
            gone += [(plan.number, name) for name in self._held.get(plan.number, {}) if name not in wanted]
        self._delete(gone)

    def _delete(self, gone: list[Pair]) -> None:
        if not gone:
            return
        self._table.delete(_key_array(gone))
        for number, name in gone:
            del self._held[number][name]
            if not self._held[number]:
                del self._held[number]


def ids_of(plan: ServicePlan) -> Mapping[int, int]:
    """The place of each id that a service has given; those of disabled backends too, whose rows take no packets."""
    if not plan.service.quic:
        return {}
    return {b.quic_id: plan.at[b.address.packed] for b in plan.service.backends if b.quic_id is not None}


def _key_array(pairs: list[Pair]) -> np.ndarray:
    array = np.zeros(len(pairs), layout().structs["quic_key"])
    array["service"] = [number for number, _ in pairs]
    array["id"] = [name for _, name in pairs]
    return array

"""The flow table as one array: which flows are live, and with which backend. Milliseconds for a million slots. Pure."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lb.dataplane.layout import layout
from lb.dataplane.tables import Array, Ints, where_used
from lb.model import Settings

_C = layout().constants
_UDP, _CLOSED, _CLOSED_S = _C["FLOW_UDP"], _C["FLOW_CLOSED"], _C["FLOW_CLOSED_S"]
_COPY = _C["FLOW_COPY"]
_CLASSES = 1 << 16
_PLACE, _CLASS, _SERVICE = 0, 4, 5
"""Where in a slot, by 16 bits, these stand; the second it was last seen in is the last 32 of it."""

_PAIRS_MOST = 1 << 21
_TAG_BITS = np.uint64(16)
"""Above these lies the tag, in the word that holds the place too."""

FlowCounts = dict[tuple[int, int], int]
"""Live flows by (service number, place)."""


@dataclass(frozen=True, slots=True)
class LiveFlows:
    """The slots of the flow table (struct flow) that hold a live flow, at one moment.

    A flow is live until it has been silent for its protocol's idle time; one that its client has closed, for a few
    seconds, in which the backend may still answer.
    """

    slots: Array
    is_live: npt.NDArray[np.bool_]
    of_nat: FlowCounts = field(default_factory=dict)
    """Those that are in the tables of NAT instead."""

    @classmethod
    def of(cls, flows: Array, now_s: int, settings: Settings) -> "LiveFlows":
        """now_s: by the clock that flows are stamped with."""
        slots = flows.reshape(-1)
        seen = slots.view("<u4").reshape(-1, 4)[:, 3]
        kinds = _halves(slots)[:, _CLASS]
        live = (slots["tag_backend"] != 0) & (seen >= _oldest(now_s, settings).take(kinds))
        copies = np.flatnonzero(kinds & _COPY)
        if len(copies):
            live[_spare(slots["tag_backend"] >> _TAG_BITS, live, copies)] = False
        return cls(slots, live)

    def by_backend(self) -> FlowCounts:
        """All of them, counted."""
        return self._in_table() | self.of_nat

    def _in_table(self) -> FlowCounts:
        halves = _halves(self.slots)
        places, services = (halves[:, at][self.is_live] for at in (_PLACE, _SERVICE))
        if not len(places):
            return {}
        width = int(places.max()) + 1
        # Counting takes a tenth of what sorting does; the counts of all pairs that there can be are 16 MB at most.
        if (int(services.max()) + 1) * width <= _PAIRS_MOST:
            counts = np.bincount(services.astype(np.uint32) * np.uint32(width) + places)
            keys = np.flatnonzero(counts)
            found = counts[keys]
        else:
            keys, found = np.unique(services.astype(np.int64) * width + places, return_counts=True)
        return {divmod(key, width): count for key, count in zip(keys.tolist(), found.tolist(), strict=True)}

    def of_backend(self, service: int, place: int) -> int:
        """How many one backend has."""
        halves = _halves(self.slots)
        is_its = (halves[:, _SERVICE] == service) & (halves[:, _PLACE] == place)
        return int(np.count_nonzero(is_its & self.is_live)) + self.of_nat.get((service, place), 0)


def forget_moved(flows: Array) -> bool:
    """Empty the slots into which flows were taken over that have turned out to be elsewhere; whether others are left.

    Else they would be taken for live ones once their flow has ended and its own slot is another's. A new flow that
    comes to such a slot at that very moment is asked of the ring.
    """
    slots = flows.reshape(-1)
    used = where_used(slots["tag_backend"])
    seen = slots[used]
    copies = int(np.count_nonzero(seen["state"] & np.uint64(_COPY)))
    if not copies:
        return False
    moved = have_moved(seen)
    gone, held = used[moved], seen["tag_backend"][moved]
    slots["tag_backend"][gone[slots["tag_backend"][gone] == held]] = 0
    return len(gone) < copies


def have_moved(used: Array) -> npt.NDArray[np.bool_]:
    """Of slots that are used, which are copies of flows that have turned out to be elsewhere."""
    tags = used["tag_backend"] >> _TAG_BITS
    copies = np.flatnonzero(used["state"] & np.uint64(_COPY))
    moved = np.zeros(len(used), np.bool_)
    if len(copies):
        moved[copies] = np.isin(tags[copies], _own(tags, copies))
    return moved


def _spare(tags: npt.NDArray[np.uint64], live: npt.NDArray[np.bool_], copies: Ints) -> Ints:
    """Of slots that were taken over into every bucket that may be the flow's, those beyond one for each flow."""
    own = _own(tags, copies)
    copies = copies[live[copies]]
    _, first = np.unique(tags[copies], return_index=True)
    return np.delete(copies, first[~np.isin(tags[copies[first]], own)])


def _own(tags: npt.NDArray[np.uint64], copies: Ints) -> npt.NDArray[np.uint64]:
    """The tags of flows that are in their own slots: they have had a packet since, and may have ended."""
    own: npt.NDArray[np.uint64] = np.delete(tags, copies)
    return own.compress(own != 0)


def _halves(slots: Array) -> npt.NDArray[np.uint16]:
    return slots.view("<u2").reshape(-1, 8)


def _oldest(now_s: int, settings: Settings) -> npt.NDArray[np.uint32]:
    """For each class of flows the earliest second in which a live one was seen."""
    kinds = np.arange(_CLASSES)
    idle = np.where(kinds & _UDP, settings.udp_idle_seconds, settings.tcp_idle_seconds)
    idle = np.where(kinds & _CLOSED, np.minimum(idle, _CLOSED_S), idle)
    oldest: npt.NDArray[np.uint32] = np.maximum(0, now_s - idle).astype(np.uint32)
    return oldest

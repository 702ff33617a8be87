"""Connections of NAT, taken over by tables of as many slots: the slot, a connection's port outside, stays."""

from collections.abc import Mapping

import numpy as np

from lb.dataplane.former import Former
from lb.dataplane.tables import Array, Arrays

_NEEDED = {"nat_pools", "nat_lists", "nat_addresses", "nat_forward", "nat_reply", "nat_index"}


class NatCarry:
    """Of use only where both have the same slots; every step may be done again."""

    def __init__(self, former: Former, arrays: Arrays) -> None:
        self._reads, self._arrays = former.reads, arrays
        self._is_of_use = (
            reads_nat(former) and former.reads["nat_forward"]().shape == arrays.nat_forward.shape
        )

    def pools(self) -> None:
        """Before anything is planned: addresses keep their blocks of slots."""
        if self._is_of_use:
            for name in ("nat_pools", "nat_lists"):
                getattr(self._arrays, name)[:] = self._reads[name]()
            self._arrays.nat_addresses[:] = self._reads["nat_addresses"]()["word"]

    def connections(self, moves: Mapping[int, int]) -> None:
        """Those that ours have not yet. moves: service << 16 | place, then and now."""
        if not self._is_of_use:
            return
        forward, reply, arrays = self._reads["nat_forward"](), self._reads["nat_reply"](), self._arrays
        then = forward["service"].astype(np.int64) << 16 | forward["place"]
        known = np.isin(then, np.array([*moves], np.int64))
        slots = np.flatnonzero((forward["word"] != 0) & known & (arrays.nat_forward["word"] == 0))
        if not len(slots):
            return
        rows, now = forward[slots], np.array([moves[key] for key in then[slots].tolist()], np.int64)
        rows["service"], rows["place"] = now >> 16, now & 0xFFFF
        arrays.nat_reply[slots] = reply[slots]
        arrays.nat_forward[slots] = rows
        self._enter(slots)

    def _enter(self, slots: Array) -> None:
        """The index's words that lead to these slots, where they were: last, for packets come by them."""
        old, new = self._reads["nat_index"]()["word"].reshape(-1), self._arrays.nat_index.reshape(-1)
        wanted = np.zeros(len(self._arrays.nat_forward), bool)
        wanted[slots] = True
        at = (old & np.uint64(0xFFFFFF)).astype(np.int64)
        places = np.flatnonzero((old != 0) & wanted[np.minimum(at, len(wanted) - 1)] & (new == 0))
        new[places] = old[places]


def reads_nat(former: Former) -> bool:
    """Whether there are connections that can be read."""
    if not former.reads.keys() >= _NEEDED:
        return False
    return bool(former.reads["nat_pools"]()["family"].any() or former.reads["nat_lists"]()["head"].any())

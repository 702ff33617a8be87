"""Connections of NAT, taken over by tables of another layout or size: each keeps its outside port.

Addresses of the pool keep their blocks of slots, or get others; a slot's place in its block is the port, and stays.
Flows that keep their source have slots that mean nothing, and take any. The index is made anew.
"""

from collections.abc import Mapping

import numpy as np

from lb.dataplane.former import Former
from lb.dataplane.layout import layout
from lb.dataplane.nat_hash import FlowKey, index_places, kept_reply_hashes, request_hashes
from lb.dataplane.tables import Array, Arrays, Ints
from lb.reconcile.nat_flows import blocks_in_use
from lb.settings import NAT_BLOCK

_C = layout().constants
_KEEP, _SLOT_BITS = _C["NAT_LIST_KEEP"], np.uint64(_C["NAT_SLOT_BITS"])
_LOW24 = np.uint64(_C["NAT_SLOT_MASK"])
_NEEDED = {"nat_pools", "nat_lists", "nat_cursors", "nat_forward", "nat_reply"}
_AHEAD = 4096
"""Newcomers begin so many ports further on: those between are left to flows that open until the swap."""


class NatCarry:
    """Every step may be done again."""

    def __init__(self, former: Former, arrays: Arrays, key: FlowKey) -> None:
        self._reads, self._arrays, self._key = former.reads, arrays, key
        self._is_of_use = former.reads.keys() >= _NEEDED
        self._blocks: dict[int, int] = {}
        """Where blocks are now."""
        self._kept: set[int] = set()
        """Blocks, as they were, of flows that keep their source."""
        self._others: dict[int, int] = {}
        """Where slots are now that could not stay in their block."""
        self.lost = 0
        """Connections for which there is no room."""

    def pools(self) -> None:
        """Before anything is planned: addresses keep their blocks, as far as there are so many."""
        if not self._is_of_use:
            return
        pools, lists = self._reads["nat_pools"](), self._reads["nat_lists"]()
        room = len(self._arrays.nat_forward) // NAT_BLOCK
        used = np.count_nonzero(self._reads["nat_forward"]()["word"].reshape(-1, NAT_BLOCK), axis=1)
        of_lists = [row["block"][: int(row["head"]) >> 32].tolist() for row in lists]
        of_pool = np.flatnonzero(pools["family"]).tolist()
        self._kept = set(of_lists[_KEEP])
        wanted = sorted(of_pool, key=lambda b: -used[b]) + sorted(self._kept, key=lambda b: -used[b])
        wanted = wanted[:room]
        free = iter(sorted(set(range(room)) - set(wanted)))
        self._blocks = {block: block if block < room else next(free) for block in wanted}
        for block in of_pool:
            if block in self._blocks:
                self._arrays.nat_pools[self._blocks[block]] = pools[block]
        for row, blocks in enumerate(of_lists):
            now = [self._blocks[block] for block in blocks if block in self._blocks]
            head = int(lists["head"][row]) & 0xFFFFFFFF
            self._arrays.nat_lists["block"][row, : len(now)] = now
            self._arrays.nat_lists["head"][row] = len(now) << 32 | head if now else 0
        self._arrays.nat_cursors["asked"] = self._reads["nat_cursors"]()["asked"] + np.uint64(_AHEAD)

    def connections(self, moves: Mapping[int, int]) -> None:
        """Those that ours have not yet, and what ours do not know of the others.

        moves: service << 16 | place, then and now.
        """
        if not self._is_of_use:
            return
        self.lost = 0
        forward, reply, arrays = self._reads["nat_forward"](), self._reads["nat_reply"](), self._arrays
        then = forward["service"].astype(np.int64) << 16 | forward["place"]
        known = np.isin(then, np.array([*moves], np.int64))
        old = np.flatnonzero((forward["word"] != 0) & (forward["state"] != 0) & (reply["live"] != 0) & known)
        new = self._placed(old, forward["state"])
        old, new = old[new >= 0], new[new >= 0]
        rows, back = forward[old], reply[old]
        self._see_again(rows, back, new)
        fresh = arrays.nat_forward["word"][new] == 0
        rows, back, new = rows[fresh], back[fresh], new[fresh]
        if not len(new):
            return
        now = np.array([moves[key] for key in then[old][fresh].tolist()], np.int64)
        rows["service"], rows["place"] = now >> 16, now & 0xFFFF
        self._write(rows, back, new, keeps=np.isin(old[fresh] // NAT_BLOCK, [*self._kept]))

    def _placed(self, slots: Ints, states: Array) -> Ints:
        """Where each is now; -1: nowhere, as its address is gone, or as there is no room."""
        in_use = {*blocks_in_use(self._arrays)}
        blocks = {then: now for then, now in self._blocks.items() if now in in_use}
        at = np.full(int(slots.max(initial=0)) // NAT_BLOCK + 1, -1, np.int64)
        for then, now in blocks.items():
            if then < len(at):
                at[then] = now
        block = at[slots // NAT_BLOCK]
        placed = np.where(block < 0, -1, block * NAT_BLOCK + slots % NAT_BLOCK)
        stranded = np.flatnonzero((placed < 0) & np.isin(slots // NAT_BLOCK, [*self._kept]))
        if len(stranded):
            # Those seen last first.
            stranded = stranded[np.argsort(states[slots[stranded]], kind="stable")[::-1]]
            self._find_room(slots[stranded].tolist(), {*placed.tolist()})
            placed[stranded] = [self._others.get(slot, -1) for slot in slots[stranded].tolist()]
            self.lost += int(np.count_nonzero(placed[stranded] < 0))
        return placed

    def _find_room(self, slots: list[int], taken: set[int]) -> None:
        """A place for each, as far as there is any, in the blocks of flows that keep their source."""
        row = self._arrays.nat_lists[_KEEP]
        taken |= {*self._others.values()}
        free = (
            slot
            for block in row["block"][: int(row["head"]) >> 32].tolist()
            for slot in range(block * NAT_BLOCK + 1, (block + 1) * NAT_BLOCK)
            if slot not in taken and not self._arrays.nat_forward["word"][slot]
        )
        for slot in slots:
            if slot not in self._others:
                found = next(free, None)
                if found is None:
                    return
                self._others[slot] = found

    def _see_again(self, rows: Array, back: Array, new: Ints) -> None:
        """What packets have shown of flows that were taken over already: their states are put together."""
        arrays = self._arrays
        ours = arrays.nat_forward[new]
        same = (ours["word"] != 0) & (ours["ports"] == rows["ports"])
        same &= (ours["client"] == rows["client"]).all(axis=1) & (ours["vip"] == rows["vip"]).all(axis=1)
        for table, was in ((arrays.nat_forward, rows["state"]), (arrays.nat_reply, back["state"])):
            now = table["state"][new]
            flags = (now | was) & np.uint64(0xFFFFFFFF)
            both = np.maximum(now, was) >> np.uint64(32) << np.uint64(32) | flags
            changed = same & (both != now)
            table["state"][new[changed]] = both[changed]

    def _write(self, rows: Array, back: Array, new: Ints, *, keeps: Array) -> None:
        """New entries; the index last, for packets come by it."""
        arrays, slots = self._arrays, new.astype(np.uint64)
        hashes = request_hashes(rows, self._key)
        kept = kept_reply_hashes(rows[keeps], back[keeps], self._key)
        rows["word"] = hashes >> _SLOT_BITS << _SLOT_BITS | slots
        tags = hashes.copy()
        tags[keeps] = kept
        back["live"] = tags >> _SLOT_BITS << _SLOT_BITS | back["live"] & _LOW24
        words = np.concatenate([rows["word"], kept >> _SLOT_BITS << _SLOT_BITS | slots[keeps]])
        owners = np.concatenate([np.arange(len(new)), np.flatnonzero(keeps)])
        buckets, ways = index_places(arrays.nat_index, words, np.concatenate([hashes, kept]))
        found = np.ones(len(new), bool)
        found[owners[buckets < 0]] = False
        self.lost += int(np.count_nonzero(~found))
        arrays.nat_reply[new[found]] = back[found]
        arrays.nat_forward[new[found]] = rows[found]
        entered = found[owners]
        arrays.nat_index[buckets[entered], ways[entered]] = words[entered]

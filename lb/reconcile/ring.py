"""Weighted Maglev rings, in numpy, and the public hash that picks a slot.

The ring is that of Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016),
3.4: each backend has a permutation of the slots, offset + turn * skip mod M, and backends take their preferred
slots turn by turn. Two things differ, so that it can be done with whole arrays and so that weights are exact: a
backend's number of slots is fixed first (largest remainder), and slots are taken in rounds of many turns, the
earlier turn (scaled by weight) winning a slot that several want. A ring depends on the set of (identity, weight)
alone: every node builds the same.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from lb.model import Affinity

Ints = npt.NDArray[np.int64]

SLOTS = 65537
"""M of the paper: a prime, so that every skip gives a full permutation. Equal to RING_SLOTS in xdp/config.h."""

_PACE_BITS, _WHO_BITS = 12, 17
"""A moment is turn * pace (17 + 16 + 12 bits), and below it the backend's place in order (17 bits)."""

_NEVER = np.iinfo(np.int64).max
_PROPOSALS = 1 << 15
"""Turns proposed in a round, about: as many as fit the processor's cache."""

_U64 = (1 << 64) - 1
_MIX0, _MIX1, _KEY = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 0x736C756963652E31


def quotas(weights: Sequence[int] | Ints) -> Ints:
    """How many slots each weight gets: shares of SLOTS by largest remainder, at least one for a positive weight.

    ValueError if there are more positive weights than slots.
    """
    weight = np.asarray(weights, np.int64)
    positive = weight > 0
    if int(positive.sum()) > SLOTS:
        raise ValueError(f"{int(positive.sum())} backends do not fit a ring of {SLOTS} slots")
    total = int(weight.sum())
    if total == 0:
        return np.zeros(len(weight), np.int64)
    share = weight * SLOTS // total
    short = SLOTS - int(share.sum())
    share[np.argsort(-(weight * SLOTS % total), kind="stable")[:short]] += 1
    for starved in np.flatnonzero(positive & (share == 0)):
        share[int(np.argmax(share))] -= 1
        share[starved] = 1
    return share


def build_ring(backends: Sequence[tuple[bytes, int]]) -> npt.NDArray[np.uint16]:
    """A ring over (identity, weight): for each of SLOTS slots the position of its backend in the sequence.

    The result does not depend on the order of the sequence but for those positions. Weights are 0 to 65535; with
    none positive, ValueError.
    """
    digests = [blake2b(name, digest_size=16, person=b"sluice ring").digest() for name, _ in backends]
    order = sorted(range(len(backends)), key=digests.__getitem__)
    weights = np.array([backends[at][1] for at in order], np.int64)
    if not weights.any():
        raise ValueError("a ring needs a backend with a positive weight")
    seeds = np.frombuffer(b"".join(digests[at] for at in order), "<u8").reshape(-1, 2)
    return np.array(order, np.uint16)[_Race(weights, seeds).run()]


class _Race:
    """Backends taking slots by turns. Arrays are by backend but for owner, free and earliest, which are by slot."""

    def __init__(self, weights: Ints, seeds: npt.NDArray[np.uint64]) -> None:
        self._next = (seeds[:, 0] % SLOTS).astype(np.int64)  # the slot of each one's next turn
        self._skip = (seeds[:, 1] % (SLOTS - 1) + 1).astype(np.int64)
        self._pace = (weights.max() << _PACE_BITS) // np.maximum(weights, 1)  # the time that a turn takes
        self._turn = np.zeros(len(weights), np.int64)
        self._left = quotas(weights)
        self._owner = np.empty(SLOTS, np.uint16)
        self._free = np.ones(SLOTS, bool)
        self._earliest = np.full(SLOTS, _NEVER)

    def run(self) -> npt.NDArray[np.uint16]:
        """The owner of every slot."""
        # When no more pairs of backend and slot are left than two rounds look at, look at all of them.
        while self._left.sum() * np.count_nonzero(self._left) > 2 * _PROPOSALS:
            self._take_turns()
        self._hand_out()
        return self._owner

    def _take_turns(self) -> None:
        """One round: each backend proposes some turns; of those that want a free slot the earliest gets it."""
        active = np.flatnonzero(self._left)
        skip, turn, left = self._skip[active], self._turn[active], self._left[active]
        count = np.minimum(left * _PROPOSALS // left.sum() + 1, SLOTS - turn)
        ends = np.cumsum(count)
        starts = ends - count
        slot = np.repeat(skip, count)
        slot *= np.arange(len(slot))
        slot += np.repeat((self._next[active] - starts * skip) % SLOTS, count)
        slot %= SLOTS
        self._turn[active] += count
        self._next[active] = (self._next[active] + count * skip) % SLOTS

        wanted = np.flatnonzero(self._free.take(slot))
        slot, who = slot.take(wanted), np.repeat(np.arange(len(active)), count).take(wanted)
        moment = wanted + (turn - starts + 1).take(who)
        moment *= self._pace[active].take(who)
        moment <<= _WHO_BITS
        moment |= who
        np.minimum.at(self._earliest, slot, moment)
        won = np.flatnonzero(self._earliest.take(slot) == moment)
        self._earliest[slot] = _NEVER
        slot, who = slot.take(won), who.take(won)
        if (np.bincount(who, minlength=len(active)) > left).any():
            # They stand grouped by backend in order of turn: the first `left` of each are kept.
            kept = np.flatnonzero(_place_in_group(who) < left[who])
            slot, who = slot.take(kept), who.take(kept)
        self._give(slot, active.take(who))

    def _hand_out(self) -> None:
        """The last slots: when a backend would come to a slot is known, so the earliest of all gets it."""
        slots, active = np.flatnonzero(self._free), np.flatnonzero(self._left)
        inverse = np.array([pow(skip, -1, SLOTS) for skip in self._skip[active].tolist()], np.int64)
        moment = slots - self._next[active, None]
        moment *= inverse[:, None]
        moment %= SLOTS
        moment += self._turn[active, None] + 1
        moment *= self._pace[active, None]
        while len(slots):
            first = moment.argmin(axis=0)
            order = np.lexsort((moment[first, np.arange(len(slots))], first))
            who = active[first[order]]
            kept = np.flatnonzero(_place_in_group(who) < self._left[who])
            self._give(slots[order[kept]], who[kept])
            slots, moment = np.delete(slots, order[kept]), np.delete(moment, order[kept], axis=1)
            moment[self._left[active] == 0] = _NEVER

    def _give(self, slots: Ints, who: Ints) -> None:
        self._owner[slots] = who
        self._free[slots] = False
        self._left -= np.bincount(who, minlength=len(self._left))


def _place_in_group(group: Ints) -> Ints:
    """Of each member of a sorted array its place, from 0, among those equal to it."""
    sizes = np.bincount(group)
    return np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _mix(h: int) -> int:
    h ^= h >> 33
    h = h * _MIX0 & _U64
    h ^= h >> 33
    h = h * _MIX1 & _U64
    return h ^ h >> 33


def _fold(h: int, word: int) -> int:
    h = ((h ^ word) * _MIX0) & _U64
    return h ^ h >> 32


def ring_slot(
    source: bytes,
    source_port: int,
    vip: bytes,
    port: int,
    protocol: int,
    *,
    affinity: Affinity = Affinity.FLOW,
) -> int:
    """Name the slot of a flow, as the C function of this name does. Addresses packed, ports in host order."""

    def words(address: bytes) -> list[int]:
        return [int.from_bytes(address[at : at + 8], "little") for at in range(0, len(address), 8)]

    def swapped(number: int) -> int:
        return int.from_bytes(number.to_bytes(2, "big"), "little")

    if affinity is Affinity.DESTINATION_PORT:
        return (_mix(swapped(port) ^ _KEY) >> 32) * SLOTS >> 32
    if affinity is Affinity.SOURCE:
        h = words(source)[0] ^ _KEY if len(source) == 4 else _fold(_KEY, words(source)[0]) ^ words(source)[1]
        return (_mix(h) >> 32) * SLOTS >> 32
    ports = swapped(source_port) | swapped(port) << 16 | protocol << 32
    if len(source) == 4:
        h = _fold(_KEY, words(source)[0] | words(vip)[0] << 32)
    else:
        h = _KEY
        for word in words(source) + words(vip):
            h = _fold(h, word)
    return (_mix(h ^ ports) >> 32) * SLOTS >> 32


def ring_shares(ring: npt.NDArray[np.uint16], count: int) -> npt.NDArray[Any]:
    """The share of slots, 0 to 1, of each of `count` backends."""
    return np.bincount(ring, minlength=count)[:count] / SLOTS

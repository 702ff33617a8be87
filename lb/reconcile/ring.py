"""Weighted Maglev rings, in numpy, and the public hash that picks a slot.

The ring is that of Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016),
3.4: each backend has a permutation of the slots, offset + turn * skip mod M, and backends take their preferred
slots turn by turn. Two things differ, so that it can be done with whole arrays and so that weights are exact: a
backend's number of slots is fixed first (largest remainder), and slots are taken in rounds of many turns, the
earlier turn (scaled by weight) winning a slot that several want. A ring depends on the set of (identity, weight)
alone: every node builds the same.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from lb.model import Affinity

Ints = npt.NDArray[np.int64]
Unsigned = npt.NDArray[np.unsignedinteger[Any]]

SLOTS = 65537
"""M of the paper: a prime, so that every skip gives a full permutation. Equal to RING_SLOTS in xdp/config.h."""

_PACE_BITS, _MOMENT_BITS, _WHO_BITS = 12, 45, 17
"""A moment is turn * pace (17 + 16 + 12 bits), and below or above it the backend's place in order (17 bits)."""

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
    digests = [_digest(name) for name, _ in backends]
    order = sorted(range(len(backends)), key=digests.__getitem__)
    weights = np.array([backends[at][1] for at in order], np.int64)
    if not weights.any():
        raise ValueError("a ring needs a backend with a positive weight")
    seeds = np.frombuffer(b"".join(digests[at] for at in order), "<u8").reshape(-1, 2)
    return np.array(order, np.uint16).take(_Race(weights, seeds).run())


@lru_cache(maxsize=1 << 15)
def _digest(identity: bytes) -> bytes:
    """What a backend's permutation is drawn from; kept, for rings are built again when one of many changes."""
    return blake2b(identity, digest_size=16, person=b"sluice ring").digest()


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
        # 32 bits take half the time of 64, and hold a product of place and skip: both are at most 2**16.
        slot = np.arange(ends[-1], dtype=np.uint32)
        slot *= np.repeat(skip.astype(np.uint32), count)
        slot += np.repeat(((self._next[active] - starts * skip) % SLOTS).astype(np.uint32), count)
        slot = _reduced(slot)
        self._turn[active] += count
        self._next[active] = (self._next[active] + count * skip) % SLOTS

        # All stand grouped by backend, in order of turn; so how many of each there are says whose each is.
        wanted = np.flatnonzero(self._free.take(slot))
        slot = slot.take(wanted).astype(np.int64)
        ends = np.searchsorted(wanted, ends)
        count = np.diff(ends, prepend=0)
        moment = wanted + np.repeat(turn - starts + 1, count)
        moment *= np.repeat(self._pace[active] << _WHO_BITS, count)
        moment |= np.repeat(np.arange(len(active)), count)
        np.minimum.at(self._earliest, slot, moment)
        won = np.flatnonzero(self._earliest.take(slot) == moment)
        slot = slot.take(won)
        takes = np.diff(np.searchsorted(won, ends), prepend=0)
        if (takes > left).any():  # the first `left` of each are kept
            is_kept = _places_in(takes) < np.repeat(left, takes)
            self._earliest[slot[~is_kept]] = _NEVER
            slot, takes = slot[is_kept], np.minimum(takes, left)
        self._give(slot, active, takes)

    def _hand_out(self) -> None:
        """The last slots: when a backend would come to a slot is known, so the earliest of all gets it."""
        slots, active = np.flatnonzero(self._free), np.flatnonzero(self._left)
        inverse, pace = _inverses().take(self._skip[active]), self._pace[active]
        turns = slots[:, None] * inverse
        turns += -self._next[active] * inverse % SLOTS
        moment = _reduced(turns.view(np.uint64)).view(np.int64)  # a row a slot
        moment += self._turn[active] + 1
        moment *= pace
        while len(slots):
            first = moment.argmin(axis=1)
            wants, left = np.bincount(first, minlength=len(active)), self._left[active]
            gets = np.ones(len(slots), bool)
            many = wants > left  # of these the earliest slots are found; the others get all that they want
            if many.any():
                rows = np.flatnonzero(many[first])
                of = first[rows]
                order = np.argsort(of << _MOMENT_BITS | moment[rows, of])
                gets[rows[order[_places_in(wants[many]) >= np.repeat(left[many], wants[many])]]] = False
            taken = np.flatnonzero(gets)
            self._owner[slots[taken]] = active[first[taken]]
            self._left[active] -= np.minimum(wants, left)
            rest = np.flatnonzero(~gets)
            slots, moment = slots.take(rest), moment.take(rest, axis=0)
            moment[:, self._left[active] == 0] = _NEVER

    def _give(self, slots: Ints, active: Ints, takes: Ints) -> None:
        """Slots, grouped by backend, to the active backends: so many to each."""
        self._owner[slots] = np.repeat(active.astype(np.uint16), takes)
        self._free[slots] = False
        self._left[active] -= takes


def _reduced(numbers: Unsigned) -> Unsigned:
    """Numbers of up to 2**32 + 2**16, which are lost, modulo SLOTS; several times as fast as by division.

    SLOTS is 2**16 + 1, so 2**16 counts as -1.
    """
    rest = numbers & 0xFFFF
    numbers >>= 16
    rest -= numbers
    np.add(rest, SLOTS, out=numbers)
    least: Unsigned = np.minimum(rest, numbers, out=rest)  # what is below zero is huge, until SLOTS is added
    return least


@cache
def _inverses() -> Ints:
    """For each number from 1 below SLOTS what it is to be multiplied by for 1, modulo SLOTS."""
    powers = np.ones(1, np.uint64)
    while len(powers) < SLOTS - 1:  # of 3, a primitive root of every Fermat prime from 5 on
        powers = np.concatenate([powers, _reduced(powers * pow(3, len(powers), SLOTS))])
    inverses = np.zeros(SLOTS, np.int64)
    inverses[powers] = np.roll(powers[::-1], 1)
    return inverses


def _places_in(sizes: Ints) -> Ints:
    """For groups of these sizes, one after the other: of each member its place in its group, from 0."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


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

"""Weighted Maglev rings, in numpy, and the public hash that picks a slot.

The ring is that of Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), 3.4: each
backend has a permutation of the slots, offset + turn * skip mod M, and backends take their preferred slots turn by turn.
Two things differ, so that it can be done with whole arrays and so that weights are exact: a backend's number of slots is
fixed first (largest remainder), and slots are taken in rounds of many turns, the earlier turn (scaled by weight) winning
a slot that several want. A ring depends on the set of (identity, weight) alone: every node builds the same.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

SLOTS = 65537
"""M of the paper: a prime, so that every skip gives a full permutation. Equal to RING_SLOTS in xdp/config.h."""

_TAIL = 100
"""So few free slots are handed out by exact preference instead of by further rounds."""

_U64 = (1 << 64) - 1
_MIX0, _MIX1, _KEY = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 0x736C756963652E31


def quotas(weights: Sequence[int]) -> npt.NDArray[np.int64]:
    """How many slots each weight gets: shares of SLOTS by largest remainder, at least one for a positive weight.

    ValueError if there are more positive weights than slots.
    """
    weight = np.asarray(weights, np.int64)
    positive = weight > 0
    if int(positive.sum()) > SLOTS:
        raise ValueError(f"{int(positive.sum())} backends do not fit a ring of {SLOTS} slots")
    share = np.zeros(len(weight), np.int64)
    total = int(weight.sum())
    if total == 0:
        return share
    share = weight * SLOTS // total
    short = SLOTS - int(share.sum())
    by_remainder = np.argsort(-(weight * SLOTS % total), kind="stable")
    share[by_remainder[:short]] += 1
    starved = np.flatnonzero(positive & (share == 0))
    for index in starved:
        share[int(np.argmax(share))] -= 1
        share[index] = 1
    return share


def _seeds(identities: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """Three words a backend: offset, skip, and the rank that settles ties."""
    digests = b"".join(blake2b(identity, digest_size=24, person=b"sluice ring").digest() for identity in identities)
    return np.frombuffer(digests, "<u8").reshape(-1, 3)


def build_ring(backends: Sequence[tuple[bytes, int]]) -> npt.NDArray[np.uint16]:
    """A ring over (identity, weight): for each of SLOTS slots the position of its backend in the sequence.

    The result does not depend on the order of the sequence but for those positions. Weights are 0 to 65535; with none
    positive, ValueError.
    """
    quota = quotas([weight for _, weight in backends])
    if not quota.any():
        raise ValueError("a ring needs a backend with a positive weight")
    seeds = _seeds([identity for identity, _ in backends])
    offset = (seeds[:, 0] % SLOTS).astype(np.int64)
    skip = (seeds[:, 1] % (SLOTS - 1) + 1).astype(np.int64)
    rank = (seeds[:, 2] >> np.uint64(32)).astype(np.int64)
    pace = np.array([1 / weight if weight else 0 for _, weight in backends])
    pace /= pace[pace > 0].min()  # turns of the heaviest are the unit of time

    owner = np.full(SLOTS, -1, np.int64)
    turn = np.zeros(len(quota), np.int64)
    left = quota.copy()
    free = SLOTS
    while free > _TAIL:
        active = np.flatnonzero(left)
        # As many turns as should fill the quota, were all proposals to find slots as free as they are now.
        count = np.minimum(left[active] * SLOTS // free + 1, SLOTS - turn[active])
        if not count.any():
            break
        _take_turns(owner, left, turn, active, count, offset, skip, pace, rank)
        free = int(left.sum())
    if free:
        _hand_out(owner, left, offset, skip, pace, rank)
    return owner.astype(np.uint16)


def _take_turns(
    owner: npt.NDArray[np.int64],
    left: npt.NDArray[np.int64],
    turn: npt.NDArray[np.int64],
    active: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
    offset: npt.NDArray[np.int64],
    skip: npt.NDArray[np.int64],
    pace: npt.NDArray[np.float64],
    rank: npt.NDArray[np.int64],
) -> None:
    """One round: each active backend proposes `count` turns; of those that want a free slot the earliest gets it."""
    who = np.repeat(active, count)
    starts = np.cumsum(count) - count
    step = np.arange(len(who)) - np.repeat(starts - turn[active], count)
    slot = (offset[who] + step * skip[who]) % SLOTS
    turn[active] += count
    wanted = owner[slot] < 0
    who, step, slot = who[wanted], step[wanted], slot[wanted]
    # Time in the high bits, the backend's rank below: unique but for a collision of 32-bit ranks in one turn.
    when = (((step + 1) * pace[who] * 16).astype(np.int64) << 32) | rank[who]
    earliest = np.full(SLOTS, np.iinfo(np.int64).max)
    np.minimum.at(earliest, slot, when)
    won = np.flatnonzero(when == earliest[slot])
    who, slot = who[won], slot[won]
    # Proposals stand grouped by backend in order of turn: the first `left` of each are kept.
    first = np.searchsorted(who, active)
    nth = np.arange(len(who)) - np.repeat(first, np.diff(np.append(first, len(who))))
    kept = nth < left[who]
    owner[slot[kept]] = who[kept]
    left -= np.bincount(who[kept], minlength=len(left))


def _hand_out(
    owner: npt.NDArray[np.int64],
    left: npt.NDArray[np.int64],
    offset: npt.NDArray[np.int64],
    skip: npt.NDArray[np.int64],
    pace: npt.NDArray[np.float64],
    rank: npt.NDArray[np.int64],
) -> None:
    """The last slots: the turn at which a backend would come to a slot is known, so take the pairs in order of time."""
    slots = np.flatnonzero(owner < 0)
    free = len(slots)
    active = np.flatnonzero(left)
    inverse = np.array([pow(int(s), -1, SLOTS) for s in skip[active]])
    step = (slots[None, :] - offset[active, None]) * inverse[:, None] % SLOTS
    when = (step + 1) * pace[active, None]
    order = np.lexsort((np.repeat(rank[active], len(slots)), when.ravel()))
    for pair in order.tolist():
        backend, slot = active[pair // len(slots)], slots[pair % len(slots)]
        if owner[slot] < 0 and left[backend]:
            owner[slot] = backend
            left[backend] -= 1
            free -= 1
            if not free:
                break


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
    source: bytes, source_port: int, vip: bytes, port: int, protocol: int, *, source_affinity: bool = False
) -> int:
    """The slot of a flow, as ring_slot() of xdp/hash.h computes it. Addresses packed, ports in host order."""

    def words(address: bytes) -> list[int]:
        return [int.from_bytes(address[at : at + 8], "little") for at in range(0, len(address), 8)]

    if source_affinity:
        h = words(source)[0] ^ _KEY if len(source) == 4 else _fold(_KEY, words(source)[0]) ^ words(source)[1]
        return (_mix(h) >> 32) * SLOTS >> 32

    def swapped(number: int) -> int:
        return int.from_bytes(number.to_bytes(2, "big"), "little")

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

"""The index hash of xdp/nat_index.h in numpy: places of many NAT flows at once, from their entries."""

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import U64, Array

_C = layout().constants
_MIX0, _MIX1 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_FAMILY_BITS, _PROTOCOL_BITS, _PORT_BITS = np.uint64(40), np.uint64(32), np.uint64(16)
_LOW16, _LOW24 = np.uint64(0xFFFF), np.uint64(0xFFFFFF)

FlowKey = tuple[int, int]


def request_hashes(forward: Array, key: FlowKey) -> U64:
    """Of rows of struct nat_forward: what their clients send."""
    return _hashes(forward["client"], forward["vip"], forward["ports"], key)


def kept_reply_hashes(forward: Array, reply: Array, key: FlowKey) -> U64:
    """Of rows of both structs, of flows that keep their source: what their backends send."""
    live = reply["live"] & _LOW24
    upper = forward["ports"] >> _PROTOCOL_BITS << _PROTOCOL_BITS
    ports = live & _LOW16 | (forward["ports"] & _LOW16) << _PORT_BITS | upper
    return _hashes(reply["backend"], reply["client"], ports, key)


def _hashes(source: Array, destination: Array, ports: U64, key: FlowKey) -> U64:
    first, second = np.uint64(key[0]), np.uint64(key[1])
    words = [_word(source, 0), _word(source, 2), _word(destination, 0), _word(destination, 2)]
    wide = np.full(len(ports), first)
    for word in words:
        wide = _fold(wide, word)
    narrow = _fold(
        first, source[:, 0].astype(np.uint64) | destination[:, 0].astype(np.uint64) << np.uint64(32)
    )
    return _mix(np.where(ports >> _FAMILY_BITS == 4, narrow, wide) ^ ports ^ second)


def _word(address: Array, at: int) -> U64:
    return address[:, at].astype(np.uint64) | address[:, at + 1].astype(np.uint64) << np.uint64(32)


def _fold(h: U64 | np.uint64, word: U64) -> U64:
    folded = (h ^ word) * _MIX0
    return folded ^ folded >> np.uint64(32)


def _mix(h: U64) -> U64:
    shift = np.uint64(33)
    h = (h ^ h >> shift) * _MIX0
    h = (h ^ h >> shift) * _MIX1
    return h ^ h >> shift


def index_places(index: U64, words: U64, hashes: U64) -> tuple[Array, Array]:
    """A free bucket and way of the index for each word, no two alike: its own bucket's, or else the other's.

    Bucket -1: neither has room.
    """
    mask = np.uint64(len(index) - 1)
    own = (hashes & mask).astype(np.int64)
    other = ((hashes ^ (words >> np.uint64(_C["NAT_SLOT_BITS"]) | np.uint64(1))) & mask).astype(np.int64)
    taken = index != 0
    buckets, ways = np.full(len(words), -1, np.int64), np.zeros(len(words), np.int64)
    for wanted in (own, other):
        left = np.flatnonzero(buckets < 0)
        left = left[np.argsort(wanted[left], kind="stable")]
        rows = wanted[left]
        turn = np.arange(len(rows)) - np.searchsorted(rows, rows)
        free = ~taken[rows]
        fits = turn < free.sum(axis=1)
        # The free way whose turn it is: the first at which so many free ones have been counted.
        at = (np.cumsum(free, axis=1) > turn[:, None]).argmax(axis=1)
        buckets[left[fits]], ways[left[fits]] = rows[fits], at[fits]
        taken[rows[fits], at[fits]] = True
    return buckets, ways

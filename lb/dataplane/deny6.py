"""The IPv6 blocklist in three maps: a hash of /128s and /64s, a trie of the rest, and the filter in front of both.

The filter lets a prefix through before it is there and until it is gone, so no packet misses it in between.
"""

import numpy as np
import numpy.typing as npt

from lb.dataplane.layout import layout
from lb.dataplane.tables import U8, U32, Array, Table
from lb.errors import CapacityError

_C = layout().constants
_MIX = np.uint32(_C["DENY6_MIX"])
_HOST, _NET64, _OTHER, _SHORT = range(4)
"""Kinds of prefixes. The first three have a bit each in the filter; the last is what no cell has room for."""
_BITS = np.array([[_C["DENY6_HOST"]], [_C["DENY6_NET64"]], [_C["DENY6_OTHER"]]], np.uint8)
_CELL_BITS = 32
"""Shorter prefixes lie in many cells: while there is one, every cell says that there may be."""
_LENGTH_SHIFT = np.uint32(_C["DENY6_LENGTH_SHIFT"])
_RULE = np.uint32((1 << _C["DENY6_LENGTH_SHIFT"]) - 1)

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Deny6:
    """A Table: struct prefix6_key to rule number. cells: the filter, shape (65536,). One writer."""

    def __init__(self, cells: U8, hosts: Table, trie: Table, capacity: int) -> None:
        self._cells, self._hosts, self._trie, self.capacity = cells, hosts, trie, capacity
        self._held: set[bytes] | None = None
        """The keys that are there; None until they are read for the first time."""
        self._counts = np.zeros((_SHORT, len(cells)), np.int32)
        """How many prefixes of each kind each cell has."""
        self._short = 0

    def read(self) -> tuple[Array, Array]:
        """All entries. The filter is made anew of them."""
        (host_keys, host_rules), (keys, values) = self._hosts.read(), self._trie.read()
        keys = np.concatenate([host_keys, keys])
        self._held = set(_names(keys))
        self._counts[:] = 0
        self._short = 0
        self._count(keys, 1)
        self._cells[:] = self._filter(slice(None))
        return keys, np.concatenate([host_rules, values & _RULE])

    def _known(self) -> set[bytes]:
        if self._held is None:
            self.read()
        assert self._held is not None
        return self._held

    def write(self, keys: Array, values: Array) -> None:
        """Put entries in, each key once; CapacityError if they do not fit, and nothing is changed."""
        held, names = self._known(), _names(keys)
        new = np.array([name not in held for name in names], bool)
        if len(held) + int(new.sum()) > self.capacity:
            raise CapacityError(f"the IPv6 blocklist is full: it holds {self.capacity} prefixes")
        held.update(names)
        self._let_through(keys[new], 1)
        exact = _is_exact(keys)
        lengths = keys["length"].astype(np.uint32) << _LENGTH_SHIFT
        if exact.any():
            self._hosts.write(keys[exact], values[exact])
        if not exact.all():
            self._trie.write(keys[~exact], (values | lengths)[~exact])

    def delete(self, keys: Array) -> None:
        """Take keys out, each once; those that are not there are passed over."""
        held, names = self._known(), _names(keys)
        keys = keys[np.array([name in held for name in names], bool)]
        exact = _is_exact(keys)
        self._hosts.delete(keys[exact])
        self._trie.delete(keys[~exact])
        held.difference_update(names)
        self._let_through(keys, -1)

    def _let_through(self, keys: Array, each: int) -> None:
        """Count prefixes that come or go, and write the filter where that changes it."""
        had_short = self._short > 0
        cells = self._count(keys, each)
        if had_short != (self._short > 0):
            self._cells[:] = self._filter(slice(None))
        else:
            self._cells[cells] = self._filter(cells)

    def _count(self, keys: Array, each: int) -> Ints:
        """Count prefixes that come or go; the cells whose counts changed."""
        lengths = keys["length"]
        kinds = np.select(
            [lengths == 128, lengths == 64, lengths >= _CELL_BITS], [_HOST, _NET64, _OTHER], _SHORT
        )
        self._short += each * int((kinds == _SHORT).sum())
        first: U32 = np.ascontiguousarray(keys["address"][:, 0])
        cells: Ints = (first * _MIX >> np.uint32(16)).astype(np.int64)
        kinds, cells = kinds[kinds != _SHORT], cells[kinds != _SHORT]
        np.add.at(self._counts, (kinds, cells), each)
        return cells

    def _filter(self, cells: Ints | slice) -> U8:
        """What the filter says for these cells."""
        bits: U8 = ((self._counts[:, cells] > 0) * _BITS).sum(axis=0, dtype=np.uint8)
        return bits | _BITS[_OTHER, 0] if self._short else bits


def _is_exact(keys: Array) -> Mask:
    """Which keys are in the hash."""
    found: Mask = (keys["length"] == 128) | (keys["length"] == 64)
    return found


def _names(keys: Array) -> list[bytes]:
    """The bytes of each key."""
    found: list[bytes] = np.ascontiguousarray(keys).view(np.dtype(("V", keys.dtype.itemsize))).tolist()
    return found

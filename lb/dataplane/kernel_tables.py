"""Pinned maps as tables and numpy arrays."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from lb.dataplane import libbpf
from lb.dataplane.joined import join_tables
from lb.dataplane.maps import make_missing
from lb.dataplane.tables import (
    ARRAY_NAMES,
    COUNTER_STRUCTS,
    TABLE_STRUCTS,
    Array,
    Ints,
    Tables,
    array_bytes,
    arrays_over,
    capacities,
    dtype_of,
)
from lb.errors import CapacityError
from lb.settings import TableSizes

_BATCH_TOKEN = 64
"""Room for the kernel's note of where a batch stopped: a key at most."""


class KernelTable:
    """A hash or trie map."""

    def __init__(self, name: str, fd: int, capacity: int) -> None:
        self.name, self.capacity, self._fd = name, capacity, fd
        key, value = TABLE_STRUCTS[name]
        self._key, self._value = dtype_of(key), dtype_of(value)

    def read(self) -> tuple[Array, Array]:
        """All entries."""
        keys, values = np.zeros(self.capacity, self._key), np.zeros(self.capacity, self._value)
        count = libbpf.map_lookup_batch(self._fd, keys.ctypes, values.ctypes, self.capacity, _BATCH_TOKEN)
        return keys[:count].copy(), values[:count].copy()

    def write(self, keys: Array, values: Array) -> None:
        """Put entries in."""
        keys, values = np.ascontiguousarray(keys), np.ascontiguousarray(values)
        try:
            libbpf.map_update_batch(self._fd, keys.ctypes, values.ctypes, len(keys))
        except OSError as error:
            if error.errno in (7, 28):  # E2BIG, ENOSPC
                raise CapacityError(f"table {self.name} is full: it holds {self.capacity} entries") from error
            raise

    def delete(self, keys: Array) -> None:
        """Take keys out."""
        keys = np.ascontiguousarray(keys)
        at = 0
        while at < len(keys):
            at += 1 + libbpf.map_delete_batch(self._fd, keys[at:].ctypes, len(keys) - at)


class KernelCounters:
    """A per-CPU array map."""

    def __init__(self, name: str, fd: int, capacity: int, dtype: np.dtype[Any] | None = None) -> None:
        """dtype: of an entry, where that is not this version's."""
        self._fd, self._capacity, self._cpus = fd, capacity, libbpf.possible_cpus()
        self._dtype = dtype or dtype_of(COUNTER_STRUCTS[name])

    def read(self) -> Array:
        """Sums over CPUs of all entries."""
        return self._summed(self._read())

    def by_cpu(self) -> Ints:
        """See Counters."""
        packets: Ints = self._read()["packets"].astype(np.int64).sum(axis=0)
        return packets

    def _read(self) -> Array:
        """All entries, each with a column for each CPU."""
        keys = np.zeros(self._capacity, np.uint32)
        values = np.zeros((self._capacity, self._cpus), self._dtype)
        libbpf.map_lookup_batch(self._fd, keys.ctypes, values.ctypes, self._capacity, _BATCH_TOKEN)
        return values

    def read_some(self, indexes: list[int]) -> Array:
        """Sums over CPUs of some entries."""
        values = np.zeros((len(indexes), self._cpus), self._dtype)
        for at, index in enumerate(indexes):
            libbpf.map_lookup(self._fd, np.array([index], np.uint32).ctypes, values[at].ctypes)
        return self._summed(values)

    def clear(self, indexes: list[int]) -> None:
        """Zero on every CPU."""
        self.put(indexes, np.zeros(len(indexes), self._dtype))

    def put(self, indexes: list[int], rows: Array) -> None:
        """The rows on the first CPU, zero on all others."""
        keys = np.array(indexes, np.uint32)
        values = np.zeros((len(indexes), self._cpus), self._dtype)
        values[:, 0] = rows
        libbpf.map_update_batch(self._fd, keys.ctypes, values.ctypes, len(keys))

    def add(self, index: int, packets: int, octets: int) -> None:
        """Add on the first CPU."""
        key, values = np.array([index], np.uint32), np.zeros(self._cpus, self._dtype)
        libbpf.map_lookup(self._fd, key.ctypes, values.ctypes)
        values[0]["packets"] += packets
        values[0]["bytes"] += octets
        libbpf.map_update(self._fd, key.ctypes, values.ctypes)

    def _summed(self, values: Array) -> Array:
        total = np.zeros(len(values), self._dtype)
        for name in self._dtype.names or ():
            total[name] = values[name].max(axis=1) if name == "last_s" else values[name].sum(axis=1)
        return total


def open_tables(pins: Path, sizes: TableSizes) -> Tables:
    """All maps, pinned in a directory; those that are missing are made. OSError if the kernel refuses one."""
    make_missing(pins, sizes)
    entries = capacities(sizes)
    fds = {name: libbpf.obj_get(pins / name) for name in entries}
    buffers: dict[str, Any] = {name: _mapped(fds[name], array_bytes(name, sizes)) for name in ARRAY_NAMES}
    maps: dict[str, Any] = {name: KernelTable(name, fds[name], entries[name]) for name in TABLE_STRUCTS}
    maps |= {name: KernelCounters(name, fds[name], entries[name]) for name in COUNTER_STRUCTS}
    return join_tables(arrays_over(buffers, sizes), maps, sizes)


def _mapped(fd: int, size: int) -> mmap.mmap:
    page = mmap.PAGESIZE
    return mmap.mmap(fd, -(-size // page) * page)

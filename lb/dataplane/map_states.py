"""The pinned maps as the kernel reports them: kind, size, entries in use, and memory."""

import os
from pathlib import Path

import numpy as np

from lb.dataplane import libbpf
from lb.dataplane.libbpf import MapInfo
from lb.dataplane.maps import KINDS
from lb.dataplane.protocol import MapState

_COUNTED = frozenset({"hash", "lpm_trie"})
"""Kinds whose entries are put in and taken out."""


def map_states(pins: Path) -> list[MapState]:
    """Every map that is pinned in a directory, by name."""
    return [_state(path) for path in sorted(pins.iterdir())]


def _state(path: Path) -> MapState:
    fd = libbpf.obj_get(path)
    try:
        info = libbpf.map_info(fd)
        kind = KINDS.get(info.type, str(info.type))
        return MapState(
            name=path.name,
            kind=kind,
            id=info.id,
            key_bytes=info.key_size,
            value_bytes=info.value_size,
            capacity=info.entries,
            entries=_entries(fd, info) if kind in _COUNTED else None,
            memory_bytes=_memory(fd),
            pin=str(path),
        )
    finally:
        os.close(fd)


def _entries(fd: int, info: MapInfo) -> int:
    keys = np.empty(info.entries * info.key_size, np.uint8)
    values = np.empty(info.entries * info.value_size, np.uint8)
    return libbpf.map_lookup_batch(fd, keys.ctypes, values.ctypes, info.entries, max(info.key_size, 64))


def _memory(fd: int) -> int:
    """What the map is charged with."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("memlock:")), 0)

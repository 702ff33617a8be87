"""Second programs, which first ones call by a slot of the map `stages` (xdp/nat_enter.h).

A build's slot is one of a few in a row, from one on that its digest says: the first that no other build has.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Collection, Iterator
from ctypes import byref, c_uint32
from pathlib import Path

from lb.dataplane import libbpf
from lb.dataplane.layout import layout

MAPS = ("stages", "stages_frags")
"""Programs for frames in several buffers are called by themselves: the kernel does not mix them in one map."""
_WAYS = 16
_choosing = threading.Lock()
_chosen: dict[tuple[int, int], str] = {}
"""What this process has put, or will put, at a slot of a map (by its id)."""


def slots(name: str) -> list[int]:
    """Where the second program of a build may stand. name: the build's, which ends in digits of its digest."""
    first, room = int(name[-8:], 16), layout().constants["STAGES_MAX"]
    return [(first + way) % room for way in range(_WAYS)]


def choose(stages: int, name: str) -> int:
    """A build's slot from now on. stages: the map. OSError: all that it may have are others'.

    One of the same build that an earlier run has left is replaced.
    """
    number = libbpf.map_info(stages).id
    with _choosing:
        for wanted in (name, None):
            for slot in slots(name):
                if _chosen.get((number, slot), _name_at(stages, slot)) == wanted:
                    _chosen[number, slot] = name
                    return slot
    raise OSError(errno.ENOSPC, f"all {_WAYS} slots of {name} are others'")


def put(stages: int, slot: int, name: str, code: bytes, flags: int) -> None:
    """Load a build's second program, and put it where the first will call it. OSError: the kernel refuses it."""
    fd = libbpf.prog_load(name, code, flags=flags)
    try:
        libbpf.map_update(stages, slot.to_bytes(4, "little"), fd.to_bytes(4, "little"))
    finally:
        os.close(fd)


def remove(pins: Path, name: str) -> None:
    """Let go of a build's second program, if it has one."""
    for stages in _opened(pins):
        number = libbpf.map_info(stages).id
        with _choosing:
            for slot in slots(name):
                if name in (_chosen.get((number, slot)), _name_at(stages, slot)):
                    libbpf.map_delete(stages, slot.to_bytes(4, "little"))
                    _chosen.pop((number, slot), None)


def stands(pins: Path, name: str) -> bool:
    """Whether a build's second program is where its first calls it."""
    return any(_name_at(stages, slot) == name for stages in _opened(pins) for slot in slots(name))


def keep_only(pins: Path, names: Collection[str]) -> None:
    """Let go of those that an earlier run has left, but for these builds'."""
    for stages in _opened(pins):
        number = libbpf.map_info(stages).id
        for slot in range(layout().constants["STAGES_MAX"]):
            with _choosing:
                there = None if (number, slot) in _chosen else _name_at(stages, slot)
                if there is not None and there not in names:
                    libbpf.map_delete(stages, slot.to_bytes(4, "little"))


def _opened(pins: Path) -> Iterator[int]:
    """Those of the maps that there are."""
    for name in MAPS:
        with contextlib.suppress(FileNotFoundError):
            fd = libbpf.obj_get(pins / name)
            try:
                yield fd
            finally:
                os.close(fd)


def _name_at(stages: int, slot: int) -> str | None:
    """Of the program that stands there."""
    number = c_uint32()
    if not libbpf.map_lookup(stages, byref(c_uint32(slot)), byref(number)):
        return None
    fd = libbpf.prog_by_id(number.value)
    try:
        return libbpf.prog_info(fd).name
    finally:
        os.close(fd)

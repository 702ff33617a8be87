"""Second programs, which first programs tail-call by a slot of a map (xdp/nat_enter.h): one slot per build.

`stage_builds` says which, for a program cannot be asked for its name by who is not root.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Collection, Iterator
from ctypes import byref, c_uint32
from pathlib import Path

import numpy as np

from lb.dataplane import libbpf
from lb.dataplane.layout import layout
from lb.dataplane.tables import STAGE_MAPS

*CALLED, _BUILDS = STAGE_MAPS
"""Programs for frames in several buffers are called by themselves: the kernel does not mix them in one map."""
_choosing = threading.Lock()
_made = set[tuple[Path, int]]()
"""Builds that this process has given a slot."""


def choose(pins: Path, name: str) -> int:
    """A build's slot from now on. name: the build's, which ends in digits of its digest. OSError: all are others'."""
    build, room = _build(name), layout().constants["STAGES_MAX"]
    with _choosing, _opened(pins, _BUILDS) as builds:
        slots = _slots(builds)
        if build not in slots:
            used = {*slots.values()}
            slot = next((s for way in range(room) if (s := (build + way) % room) not in used), None)
            if slot is None:
                raise OSError(errno.ENOSPC, f"all {room} slots for second programs are used")
            libbpf.map_update(builds, byref(c_uint32(build)), byref(c_uint32(slot)))
            slots[build] = slot
        _made.add((pins, build))
        return slots[build]


def put(stages: int, slot: int, name: str, code: bytes, flags: int) -> None:
    """Load a build's second program, and put it where the first will call it. OSError: the kernel refuses it."""
    fd = libbpf.prog_load(name, code, flags=flags)
    try:
        libbpf.map_update(stages, byref(c_uint32(slot)), byref(c_uint32(fd)))
    finally:
        os.close(fd)


def stands(pins: Path, name: str) -> bool:
    """Whether a build's second program is where its first calls it. OSError."""
    with _opened(pins, _BUILDS) as builds:
        slot = _slots(builds).get(_build(name))
    return slot is not None and any(_is_used(pins, called, slot) for called in CALLED)


def remove(pins: Path, name: str) -> None:
    """Let go of a build's second program, if it has one. OSError."""
    with _choosing, _opened(pins, _BUILDS) as builds:
        slot = _slots(builds).get(_build(name))
        if slot is not None:
            _let_go(pins, builds, _build(name), slot)


def keep_only(pins: Path, names: Collection[str]) -> None:
    """Let go of those that an earlier run has left, but for these builds'. OSError."""
    kept = {_build(name) for name in names}
    with _choosing, _opened(pins, _BUILDS) as builds:
        for build, slot in _slots(builds).items():
            if build not in kept and (pins, build) not in _made:
                _let_go(pins, builds, build, slot)


def _let_go(pins: Path, builds: int, build: int, slot: int) -> None:
    for called in CALLED:
        with _opened(pins, called) as stages:
            libbpf.map_delete(stages, slot.to_bytes(4, "little"))
    libbpf.map_delete(builds, build.to_bytes(4, "little"))
    _made.discard((pins, build))


def _build(name: str) -> int:
    return int(name[-8:], 16)


def _slots(builds: int) -> dict[int, int]:
    """By build."""
    room = layout().constants["STAGES_MAX"]
    found = np.zeros((2, room), np.uint32)
    count = libbpf.map_lookup_batch(builds, found[0].ctypes, found[1].ctypes, room, 4)
    return dict(zip(found[0, :count].tolist(), found[1, :count].tolist(), strict=True))


def _is_used(pins: Path, called: str, slot: int) -> bool:
    with _opened(pins, called) as stages:
        return libbpf.map_lookup(stages, byref(c_uint32(slot)), byref(c_uint32()))


@contextlib.contextmanager
def _opened(pins: Path, name: str) -> Iterator[int]:
    fd = libbpf.obj_get(pins / name)
    try:
        yield fd
    finally:
        os.close(fd)

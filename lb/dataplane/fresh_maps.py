"""Compiling without CAP_SYS_ADMIN, over maps that are pinned already.

bcc opens such a map by its id, which takes that capability. So it is given an empty directory to pin in, and makes maps
of its own; the bytecode is then turned to those that are pinned. Where there are none yet, bcc's become these.

Whoever compiles holds a lock on that directory, which ends with the process: by it the next start tells what a killed
one has left.
"""

import contextlib
import fcntl
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lb.dataplane import libbpf, rights
from lb.dataplane.scratch import map_loads

_PREFIX = "compile-"
"""Of the directories' names, among those of interfaces."""


def remove_abandoned(pin_root: Path) -> None:
    """Take away what compilations of killed processes have left pinned."""
    for left in pin_root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody is at it
            lock = _lock(left, fcntl.LOCK_NB)
            shutil.rmtree(left)
            os.close(lock)


def _lock(directory: Path, flags: int = 0) -> int:
    """Hold a directory for oneself; the descriptor that does. OSError: it is gone, or held, and we do not wait."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _make(pin_root: Path) -> tuple[Path, int]:
    """A directory of one's own, and the descriptor that holds it."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=pin_root))
        with contextlib.suppress(
            FileNotFoundError
        ):  # another's start took it for abandoned before it was held
            lock = _lock(made)
            if made.exists():
                return made, lock
            os.close(lock)


def are_needed() -> bool:
    """Whether this process may not open maps by their ids."""
    return not rights.held() >> rights.SYS_ADMIN & 1


class Turned:
    """Maps of one compilation: what bcc has made, by descriptor, and what stands for it."""

    def __init__(self, pins: Path) -> None:
        self._pins = pins
        self._own: Path | None = None
        self._instead: dict[int, int] = {}

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """Where bcc pins meanwhile; it is gone at the end, and the descriptors are closed."""
        self._own, lock = _make(self._pins.parents[1])
        try:
            yield self._own
        finally:
            shutil.rmtree(self._own, ignore_errors=True)
            for fd in (*self._instead.values(), lock):
                os.close(fd)

    def take(self, compiled: Any) -> None:
        """Find what each of bcc's maps stands for; those of which none is pinned yet are pinned."""
        if self._own is None:
            return
        from bcc.libbcc import lib

        for pin in sorted(self._own.iterdir()):
            made = lib.bpf_table_fd(
                compiled.module, pin.name.encode()
            )  # by name alone: a ring buffer has no key
            try:
                self._instead[made] = libbpf.obj_get(self._pins / pin.name)
            except OSError:
                pin.rename(self._pins / pin.name)

    def code(self, code: bytes) -> bytes:
        """The same bytecode over the maps that are pinned."""
        turned = bytearray(code)
        for at in map_loads(code):
            (fd,) = struct.unpack_from("<i", turned, at)
            struct.pack_into("<i", turned, at, self._instead.get(fd, fd))
        return bytes(turned)

    def fd(self, made: int) -> int:
        """What stands for one of bcc's maps."""
        return self._instead.get(made, made)

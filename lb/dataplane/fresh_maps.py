"""Compiling without CAP_SYS_ADMIN, over maps that are pinned already.

bcc opens such a map by its id, which takes that capability. So it is given an empty directory to pin in, and makes maps
of its own; the bytecode is then turned to those that are pinned. Where there are none yet, bcc's become these.
"""

import contextlib
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lb.dataplane import libbpf, rights
from lb.dataplane.scratch import map_loads


def are_needed() -> bool:
    """Whether this process may not open maps by their ids."""
    return not rights.held() >> rights.SYS_ADMIN & 1


class Turned:
    """Maps of one compilation: what bcc has made, by descriptor, and what stands for it."""

    def __init__(self, pins: Path) -> None:
        self._pins = pins
        self._own = pins.parents[1] / f"compile-{os.getpid()}-{threading.get_ident()}"
        self._instead: dict[int, int] = {}

    @contextlib.contextmanager
    def directory(self) -> Iterator[Path]:
        """Where bcc pins meanwhile; it is gone at the end, and the descriptors are closed."""
        shutil.rmtree(self._own, ignore_errors=True)
        self._own.mkdir(mode=0o700)
        try:
            yield self._own
        finally:
            shutil.rmtree(self._own, ignore_errors=True)
            for fd in self._instead.values():
                os.close(fd)

    def take(self, compiled: Any) -> None:
        """Find what each of bcc's maps stands for; those of which none is pinned yet are pinned."""
        if not self._own.is_dir():
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

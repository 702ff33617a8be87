"""Frames run through the traced build of the program in force: over the live maps, changing nothing.

It is the same source with TRACE (xdp/trace.h), the same features and constants, and it is never attached.
"""

import mmap
import os
import threading
import weakref
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from lb.dataplane import libbpf
from lb.dataplane.build import Build, Program, compile_program
from lb.dataplane.layout import layout
from lb.dataplane.protocol import Traces
from lb.dataplane.trace import NONE
from lb.errors import DataPlaneError

SHORTEST = 14
"""Bytes of a frame that the kernel runs a program on: an Ethernet header."""


class TracedProgram:
    """A traced build, loaded. Safe to call from several threads: they take turns."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._lock = threading.Lock()
        self._memory = mmap.mmap(program.trace_fd, mmap.PAGESIZE, prot=mmap.PROT_READ)
        self._size = layout().structs["trace"].itemsize
        self._truncated = _row_of("DROP_TRUNCATED")
        os.close(program.trace_fd)
        weakref.finalize(self, os.close, program.fd)

    @property
    def verdict_address(self) -> int:
        """Where in memory the number of the last verdict stands, for who runs the program itself."""
        trace = np.frombuffer(self._memory, layout().structs["trace"], 1)
        return int(trace["verdict"].ctypes.data)

    def run(self, frames: Sequence[bytes]) -> Traces:
        """Run each frame once. DataPlaneError if the kernel refuses one, by its size.

        A frame shorter than an Ethernet header reaches no program; its row is what parse() says of such.
        """
        rows, outs = bytearray(), []
        with self._lock:
            for frame in frames:
                if len(frame) < SHORTEST:
                    rows += self._truncated
                    outs.append(frame)
                    continue
                try:
                    _, out = libbpf.test_run(self.program.fd, frame)
                except OSError as error:
                    raise DataPlaneError(
                        f"the kernel does not run the program on a frame of {len(frame)} bytes ({error.strerror}): "
                        "send a shorter one"
                    ) from error
                rows += self._memory[: self._size]
                outs.append(out)
        return Traces(np.frombuffer(bytes(rows), layout().structs["trace"]), outs)


def _row_of(verdict: str) -> bytes:
    """The trace of a frame that ended in parse()."""
    row = np.zeros(1, layout().structs["trace"])
    number = next(v.number for v in layout().verdicts if v.name == verdict)
    row["verdict"], row["stage"] = number, layout().constants["STAGE_PARSE"]
    row["service"] = row["place"] = row["rule"] = NONE
    return row.tobytes()


class Tracers:
    """The traced builds, one an interface: compiled when first asked for, dropped with the program they are of."""

    def __init__(self) -> None:
        self._compiling = threading.Lock()
        self._held: dict[str, TracedProgram] = {}

    def get(self, interface: str, build: Build) -> TracedProgram:
        """The traced build of the program that an interface has in force; compiling it takes a second."""
        wanted = replace(build, traced=True)
        with self._compiling:
            held = self._held.get(interface)
            if held is None or held.program.build != wanted:
                held = self._held[interface] = TracedProgram(compile_program(wanted))
            return held

    def keep(self, builds: Collection[Build]) -> None:
        """Drop those of other builds than these. It does not wait for one that is being compiled."""
        wanted = [replace(build, traced=True) for build in builds]
        for interface, held in list(self._held.items()):
            if held.program.build not in wanted:
                self._held.pop(interface, None)

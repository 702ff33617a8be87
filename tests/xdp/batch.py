"""Thousands of frames through a program in one call: batch.c, compiled and driven."""

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lb.errors import SetupError

Numbers = npt.NDArray[np.uint32]

_SOURCE = Path(__file__).with_suffix(".c")
_GROWTH = 256
_OUTCOME = np.dtype([("action", "u4"), ("length", "u4")])


class _Program(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("out", ctypes.c_void_p), ("outcomes", ctypes.c_void_p)]


@dataclass(frozen=True)
class Outcomes:
    """What one program did: the XDP action and the length of each frame as it left, and all that left, joined."""

    actions: Numbers
    lengths: Numbers
    out: bytes

    def frame(self, number: int) -> bytes:
        """One frame as it left."""
        end = int(self.lengths[: number + 1].sum())
        return self.out[end - int(self.lengths[number]) : end]


@dataclass(frozen=True)
class Dry:
    """A program that changes nothing but a word of memory, where it says what it found (its address)."""

    fd: int
    trace: int


class _Room:
    """What a program's outcomes are written to."""

    def __init__(self, fd: int, count: int, octets: int) -> None:
        self.outcomes = np.zeros(count, _OUTCOME)
        self.out = np.empty(octets + count * _GROWTH, np.uint8)
        self.program = _Program(fd, self.out.ctypes.data, self.outcomes.ctypes.data)

    def taken(self) -> Outcomes:
        lengths = self.outcomes["length"]
        return Outcomes(self.outcomes["action"], lengths, self.out[: lengths.sum()].tobytes())


def run(program: int, frames: Sequence[bytes]) -> Outcomes:
    """Run frames in order through the program of this descriptor. OSError: the kernel refused one."""
    return _run(program, frames, None)[0]


def run_both(program: int, dry: Dry, frames: Sequence[bytes]) -> tuple[Outcomes, Outcomes, Numbers]:
    """Run each frame through a dry program and then the live one: what the live did, the dry, and its traces."""
    return _run(program, frames, dry)


def _run(program: int, frames: Sequence[bytes], dry: Dry | None) -> tuple[Outcomes, Outcomes, Numbers]:
    joined = b"".join(frames)
    lengths = np.fromiter(map(len, frames), np.uint32, len(frames))
    traced = np.zeros(len(frames), np.uint32)
    live = _Room(program, len(frames), len(joined))
    shadow = _Room(dry.fd, len(frames), len(joined)) if dry else _Room(-1, 0, 0)
    result = _harness()(
        live.program,
        shadow.program,
        ctypes.c_void_p(dry.trace if dry else None),
        ctypes.c_void_p(traced.ctypes.data),
        joined,
        ctypes.c_void_p(lengths.ctypes.data),
        ctypes.c_long(len(frames)),
    )
    if result < 0:
        raise OSError(-result, f"test run: {os.strerror(-result)}")
    return live.taken(), shadow.taken(), traced


@cache
def _harness() -> Any:
    """The C function, compiled for this process."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "batch.so")
        command = ("cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(_SOURCE))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SetupError(f"{_SOURCE.name} does not compile: {done.stderr.strip()}")
        function = ctypes.CDLL(str(library)).run_frames
    function.restype = ctypes.c_int
    return function

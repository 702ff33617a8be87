"""The packet path's clock, read by the same instructions that the packet path reads it with."""

import struct
import time
from functools import cache

from lb.dataplane import libbpf

_MONOTONIC_COARSE = 6
_JIFFIES64 = 118
_CALL, _MULTIPLY, _SHIFT_RIGHT, _EXIT = 0x85, 0x27, 0x77, 0x95


@cache
def jiffy_share() -> int:
    """How much of a second one jiffy is, in 2**-32: the resolution of the coarse clocks, which tick with it."""
    return int(time.clock_getres(_MONOTONIC_COARSE) * 2**32)


@cache
def _program() -> int:
    """A program that returns coarse_seconds() of xdp/hash.h."""
    steps = ((_CALL, _JIFFIES64), (_MULTIPLY, jiffy_share()), (_SHIFT_RIGHT, 32), (_EXIT, 0))
    return libbpf.prog_load(
        "sluice_clock", b"".join(struct.pack("<BBhi", code, 0, 0, n) for code, n in steps)
    )


def seconds() -> int:
    """Now, by the clock of the flow table and the counters. OSError if the kernel refuses."""
    return libbpf.test_run(_program(), bytes(14))[0]

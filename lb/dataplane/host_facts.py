"""What this process can see of the machine: kernel, bcc, headers, bpffs, capabilities, clock. See lb/doctor/host.py."""

import ctypes
import os
import struct
import sys
import time
from pathlib import Path

from lb.dataplane import bcc_probe, headers, kernel_probe, rights
from lb.doctor.facts import HostFacts

_UNSYNCHRONISED = 0x40  # STA_UNSYNC of linux/timex.h
_TIMEX_BYTES, _TIMEX_STATUS = 208, 40


def gather(bpffs: Path, *, compiling: bool, clock_began: float | None = None) -> HostFacts:
    """All of it. clock_began: `clock_offset()` when the daemon started."""
    held = rights.held()
    tree = headers.find()
    return HostFacts(
        release=os.uname().release,
        kernel_lacks={name: os.strerror(error) for name, error in kernel_probe.lacking().items()},
        bcc_fault=bcc_probe.fault(compiling=compiling and tree is not None and headers.is_usable(tree)),
        headers=None if tree is None else str(tree),
        headers_complete=tree is not None and headers.is_usable(tree),
        headers_chosen=tree is not None and str(tree) == os.environ.get("BCC_KERNEL_SOURCE"),
        bpffs=str(bpffs),
        bpffs_mounted=is_bpffs(bpffs),
        can_mount=bool(held & 1 << rights.SYS_ADMIN),
        lacks_capabilities=rights.lacking(held),
        clock_synchronised=_is_synchronised(),
        clock_stepped_seconds=None if clock_began is None else clock_offset() - clock_began,
        python=sys.executable,
    )


def is_bpffs(path: Path) -> bool:
    """Whether a bpf file system is mounted there."""
    with open("/proc/self/mounts") as mounts:
        return any(line.split()[1:3] == [str(path), "bpf"] for line in mounts)


def clock_offset() -> float:
    """How far the wall clock is from the one that nobody sets."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _is_synchronised() -> bool | None:
    """What adjtimex says; None where its layout is another."""
    if struct.calcsize("l") != 8:
        return None
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
        return None
    status: int = struct.unpack_from("i", timex, _TIMEX_STATUS)[0]
    return not status & _UNSYNCHRONISED

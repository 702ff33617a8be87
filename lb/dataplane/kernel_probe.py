"""Probes the kernel for the BPF features that Sluice needs, by trying them.

Standard library only: deploy/setup.sh asks with it before there is a venv.
"""

import ctypes
import os
import struct

BPF_MAP_CREATE, BPF_PROG_LOAD = 0, 5
BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_RINGBUF, BPF_PROG_TYPE_XDP = 2, 27, 6
BPF_F_MMAPABLE = 1 << 10
SYSTEM_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}


def lacking() -> dict[str, int]:
    """The features that this kernel refuses, by name, with the error number."""
    if os.uname().machine not in SYSTEM_CALL:
        return {}  # an architecture nobody tried: let bcc be the judge
    page = os.sysconf("SC_PAGE_SIZE")
    tried = {
        "BPF array maps": _create_map(BPF_MAP_TYPE_ARRAY, 4, 8, 1),
        "memory-mapped BPF arrays": _create_map(BPF_MAP_TYPE_ARRAY, 4, 8, 1, BPF_F_MMAPABLE),
        "BPF ring buffers": _create_map(BPF_MAP_TYPE_RINGBUF, 0, 0, page),
        "BPF compare-and-swap": _load_compare_and_swap(),
    }
    return {name: error for name, error in tried.items() if error}


def _bpf(command: int, attributes: bytes) -> int:
    """Make one BPF system call and close what it creates; return 0 or the error number."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    descriptor = libc.syscall(SYSTEM_CALL[os.uname().machine], command, buffer, 128)
    if descriptor < 0:
        return ctypes.get_errno()
    os.close(descriptor)
    return 0


def _create_map(kind: int, key_size: int, value_size: int, entries: int, flags: int = 0) -> int:
    return _bpf(BPF_MAP_CREATE, struct.pack("=5I", kind, key_size, value_size, entries, flags))


def _load_compare_and_swap() -> int:
    """Try an XDP program with a fetching atomic: r0 = 2; [r10-8] = r1 = 0; cmpxchg; r0 = 2; exit."""
    code = b"".join(
        struct.pack("=BBhi", opcode, registers, offset, value)
        for opcode, registers, offset, value in [
            (0xB7, 0x00, 0, 2),
            (0xB7, 0x01, 0, 0),
            (0x7B, 0x1A, -8, 0),
            (0xDB, 0x1A, -8, 0xF1),
            (0xB7, 0x00, 0, 2),
            (0x95, 0x00, 0, 0),
        ]
    )
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    addresses = (ctypes.addressof(instructions), ctypes.addressof(licence))
    return _bpf(BPF_PROG_LOAD, struct.pack("=IIQQ", BPF_PROG_TYPE_XDP, len(code) // 8, *addresses))

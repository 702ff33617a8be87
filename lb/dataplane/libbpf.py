"""The few calls of libbpf that bcc does not offer: links, pins, batches, loading with flags, test runs, rings.

libbcc links libbpf.so.1, so it is there wherever bcc is. Every function raises OSError with the kernel's errno.
"""

import ctypes
import os
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p, create_string_buffer
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

BPF_PROG_TYPE_SCHED_CLS = 3
BPF_PROG_TYPE_XDP = 6
BPF_XDP = 37
"""The attach type of an XDP program."""
XDP_HAS_FRAGS = 1 << 5
"""Load flag: the program takes frames in several buffers."""
XDP_FLAGS_SKB_MODE = 1 << 1
XDP_FLAGS_DRV_MODE = 1 << 2
BPF_ANY = 0
RING_CALLBACK = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)
"""Of a ring buffer's record: (context, address, bytes); what is negative ends the reading."""
_LOG_STATISTICS = 4


class _LinkCreateOpts(ctypes.Structure):
    _fields_ = [("sz", c_size_t), ("flags", c_uint32), ("pad", c_uint32)]


class _BatchOpts(ctypes.Structure):
    _fields_ = [("sz", c_size_t), ("elem_flags", c_uint64), ("flags", c_uint64)]


class _ProgLoadOpts(ctypes.Structure):
    _fields_ = [
        ("sz", c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_int),
        ("prog_btf_fd", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_ifindex", c_uint32),
        ("kern_version", c_uint32),
        ("attach_btf_id", c_uint32),
        ("attach_prog_fd", c_uint32),
        ("attach_btf_obj_fd", c_uint32),
        ("fd_array", c_void_p),
        ("func_info", c_void_p),
        ("func_info_cnt", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("line_info", c_void_p),
        ("line_info_cnt", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_char_p),
    ]


class _TestRunOpts(ctypes.Structure):
    _fields_ = [
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    ]


class _ProgInfo(ctypes.Structure):
    """The head of struct bpf_prog_info; the kernel fills as much as is asked for."""

    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", c_uint64),
        ("xlated_prog_insns", c_uint64),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", c_uint32),
        ("gpl_compatible", c_uint32),
        ("between", c_uint64 * 13),  # where it lives, its BTF and lines
        ("run_time_ns", c_uint64),
        ("run_cnt", c_uint64),
        ("recursion_misses", c_uint64),
        ("verified_insns", c_uint32),
        ("attach_btf_obj_id", c_uint32),
    ]


class _MapInfo(ctypes.Structure):
    """The head of struct bpf_map_info."""

    _fields_ = [
        *((n, c_uint32) for n in ("type", "id", "key_size", "value_size", "max_entries", "map_flags")),
        ("name", ctypes.c_char * 16),
    ]


class _MapCreateOpts(ctypes.Structure):
    _fields_ = [
        ("sz", c_size_t),
        ("btf", c_uint32 * 4),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
        ("map_extra", c_uint64),
    ]


class _LinkInfo(ctypes.Structure):
    # What follows is a union of eight-byte alignment, of which XDP uses the first word.
    _fields_ = [(n, c_uint32) for n in ("type", "id", "prog_id", "pad", "ifindex")] + [
        ("more", c_uint32 * 11)
    ]


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel says of a loaded program.

    instructions: after the verifier's rewriting; jited_bytes: machine code; verified: instructions that the verifier
    went through, every path by itself. tag: the digest of its instructions, in hex.
    """

    id: int
    name: str
    tag: str
    instructions: int
    jited_bytes: int
    verified: int


@dataclass(frozen=True, slots=True)
class MapInfo:
    """The kind of a map. Sizes in bytes; name: at most 15 characters; id: the kernel's number of one that is there."""

    type: int
    key_size: int
    value_size: int
    entries: int
    flags: int
    name: str
    id: int = 0


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """program_id and ifindex of an XDP link; ifindex 0: the interface is gone."""

    program_id: int
    ifindex: int


@cache
def _lib() -> ctypes.CDLL:
    lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    lib.libbpf_set_print(None)
    return lib


def _check(result: int, what: str) -> int:
    if result < 0:
        # libbpf 1.x returns -errno.
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


def prog_load(
    name: str, code: bytes, *, kind: int = BPF_PROG_TYPE_XDP, flags: int = 0, statistics: Any = None
) -> int:
    """Load bytecode, of XDP if no other kind is named; the file descriptor.

    OSError holds the verifier's last words in `strerror`.

    statistics: a string buffer of some kilobytes, which the verifier fills with lines such as "stack depth 264".
    """
    log = create_string_buffer(1 << 20)
    opts = _ProgLoadOpts(sz=ctypes.sizeof(_ProgLoadOpts), prog_flags=flags)
    if kind == BPF_PROG_TYPE_XDP:
        opts.expected_attach_type = BPF_XDP
    if statistics is not None:
        opts.log_level, opts.log_size = _LOG_STATISTICS, len(statistics)
        opts.log_buf = ctypes.cast(statistics, c_char_p)
    args = (kind, name.encode(), b"GPL", code, c_size_t(len(code) // 8))
    fd = _lib().bpf_prog_load(*args, byref(opts))
    if fd < 0:
        # Once more, to have the log: asking for it always would slow every load.
        opts.log_level, opts.log_size, opts.log_buf = 1, len(log), ctypes.cast(log, c_char_p)
        fd = _lib().bpf_prog_load(*args, byref(opts))
    if fd < 0:
        raise OSError(-fd, f"{os.strerror(-fd)}\n{log.value.decode(errors='replace')}")
    return int(fd)


def link_create(prog_fd: int, ifindex: int, flags: int) -> int:
    """Attach a program to an interface's XDP hook; the link's file descriptor."""
    opts = _LinkCreateOpts(sz=ctypes.sizeof(_LinkCreateOpts), flags=flags)
    return _check(_lib().bpf_link_create(prog_fd, ifindex, BPF_XDP, byref(opts)), "attach")


def link_update(link_fd: int, prog_fd: int) -> None:
    """Swap the program behind a link atomically."""
    _check(_lib().bpf_link_update(link_fd, prog_fd, None), "swap")


def obj_pin(fd: int, path: Path) -> None:
    """Pin an object in bpffs."""
    _check(_lib().bpf_obj_pin(fd, os.fsencode(path)), f"pin {path}")


def obj_get(path: Path) -> int:
    """Open a pinned object; its file descriptor."""
    return _check(_lib().bpf_obj_get(os.fsencode(path)), f"open {path}")


def prog_info(fd: int) -> ProgramInfo:
    """Ask the kernel about a program."""
    info = _ProgInfo()
    size = c_uint32(ctypes.sizeof(info))
    _check(_lib().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "program info")
    return ProgramInfo(
        info.id,
        info.name.decode(errors="replace"),
        bytes(info.tag).hex(),
        info.xlated_prog_len // 8,
        info.jited_prog_len,
        info.verified_insns,
    )


def link_info(fd: int) -> LinkInfo:
    """Ask the kernel about a link."""
    info = _LinkInfo()
    size = c_uint32(ctypes.sizeof(info))
    _check(_lib().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "link info")
    return LinkInfo(info.prog_id, info.ifindex)


def prog_by_id(program_id: int) -> int:
    """Open a program by id; its file descriptor."""
    return _check(_lib().bpf_prog_get_fd_by_id(c_uint32(program_id)), f"program {program_id}")


def prog_map_ids(fd: int) -> set[int]:
    """The maps that a program works on."""
    info = _ProgInfo()
    size = c_uint32(ctypes.sizeof(info))
    _check(_lib().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "program info")
    ids = (c_uint32 * info.nr_map_ids)()
    info = _ProgInfo(nr_map_ids=len(ids), map_ids=ctypes.addressof(ids))
    _check(_lib().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "program's maps")
    return set(ids)


def map_info(fd: int) -> MapInfo:
    """Ask the kernel about a map."""
    info = _MapInfo()
    size = c_uint32(ctypes.sizeof(info))
    _check(_lib().bpf_obj_get_info_by_fd(fd, byref(info), byref(size)), "map info")
    name = info.name.decode(errors="replace")
    return MapInfo(info.type, info.key_size, info.value_size, info.max_entries, info.map_flags, name, info.id)


def map_create(kind: MapInfo) -> int:
    """Make a map; its file descriptor."""
    opts = _MapCreateOpts(sz=ctypes.sizeof(_MapCreateOpts), map_flags=kind.flags)
    sizes = (c_uint32(size) for size in (kind.key_size, kind.value_size, kind.entries))
    return _check(_lib().bpf_map_create(kind.type, kind.name.encode(), *sizes, byref(opts)), "make map")


def map_lookup_batch(fd: int, keys: Any, values: Any, room: int, token_size: int) -> int:
    """Read up to `room` entries from the first on into two buffers; how many there were."""
    opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
    token = create_string_buffer(token_size)
    count = c_uint32(room)
    result = _lib().bpf_map_lookup_batch(fd, None, token, keys, values, byref(count), byref(opts))
    if result < 0 and result != -2:  # ENOENT: the end was reached
        _check(result, "read map")
    return int(count.value)


def map_update_batch(fd: int, keys: Any, values: Any, count: int) -> None:
    """Write `count` entries. OSError E2BIG or ENOSPC: the map is full."""
    opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
    done = c_uint32(count)
    _check(_lib().bpf_map_update_batch(fd, keys, values, byref(done), byref(opts)), "write map")


def map_delete(fd: int, key: bytes) -> None:
    """Delete one entry; nothing if there is none."""
    result = _lib().bpf_map_delete_elem(fd, key)
    if result != -2:
        _check(result, "delete from map")


def map_delete_batch(fd: int, keys: Any, count: int) -> int:
    """Delete `count` entries, or those before the first that is not there; how many there were."""
    opts = _BatchOpts(sz=ctypes.sizeof(_BatchOpts))
    done = c_uint32(count)
    result = _lib().bpf_map_delete_batch(fd, keys, byref(done), byref(opts))
    if result != -2:
        _check(result, "delete from map")
    return int(done.value)


def map_lookup(fd: int, key: Any, value: Any) -> bool:
    """Read one entry into a buffer; False if there is none."""
    result = _lib().bpf_map_lookup_elem(fd, key, value)
    if result == -2:
        return False
    _check(result, "read map")
    return True


def map_update(fd: int, key: Any, value: Any) -> None:
    """Write one entry."""
    _check(_lib().bpf_map_update_elem(fd, key, value, c_uint64(BPF_ANY)), "write map")


def test_run(prog_fd: int, frame: bytes, repeat: int = 1) -> tuple[int, bytes]:
    """Run a program on a frame (BPF_PROG_TEST_RUN): the XDP action, and the frame as it left."""
    data = create_string_buffer(frame, len(frame))
    out = create_string_buffer(len(frame) + 512)
    opts = _TestRunOpts(
        sz=ctypes.sizeof(_TestRunOpts),
        data_in=ctypes.cast(data, c_void_p),
        data_size_in=len(frame),
        data_out=ctypes.cast(out, c_void_p),
        data_size_out=len(out),
        repeat=repeat,
    )
    _check(_lib().bpf_prog_test_run_opts(prog_fd, byref(opts)), "test run")
    return int(opts.retval), out.raw[: opts.data_size_out]


def possible_cpus() -> int:
    """How many copies a per-CPU map holds."""
    return _check(_lib().libbpf_num_possible_cpus(), "possible cpus")


def ring_open(map_fd: int, callback: Any) -> c_void_p:
    """Map a ring buffer; callback is a RING_CALLBACK, which the caller keeps alive as long as the ring."""
    lib = _lib()
    lib.ring_buffer__new.restype = c_void_p
    ring = lib.ring_buffer__new(map_fd, callback, None, None)
    if not ring:
        raise OSError(ctypes.get_errno(), f"ring buffer: {os.strerror(ctypes.get_errno())}")
    return c_void_p(ring)


def ring_read(ring: c_void_p, seconds: float) -> None:
    """Call back for each record that is there; wait for so long at most if there is none."""
    if _lib().ring_buffer__consume(ring) == 0:
        _lib().ring_buffer__poll(ring, c_int(int(seconds * 1000)))


def ring_close(ring: c_void_p) -> None:
    """Unmap it; what has not been read stays."""
    _lib().ring_buffer__free(ring)

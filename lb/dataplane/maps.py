"""The maps of maps.h: opened if they are pinned, otherwise created and pinned."""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from lb.dataplane import libbpf
from lb.dataplane.bytecode import Bytecode
from lb.dataplane.layout import NAME_MOST, layout
from lb.dataplane.samples import PIN, QUEUE_BYTES
from lb.dataplane.tables import STAGE_MAPS, capacities, dtype_of
from lb.settings import TableSizes

KINDS = {
    1: "hash",
    2: "array",
    3: "prog",
    5: "percpu_hash",
    6: "percpu_array",
    9: "lru_hash",
    11: "lpm_trie",
    27: "ringbuf",
}
"""Names of enum bpf_map_type, as bpftool writes them."""
_NUMBERS = {name: number for number, name in KINDS.items()}
_FLAGS = {"0": 0, "MEMORY": 1 << 10, "SPARSE": 1}  # BPF_F_MMAPABLE, BPF_F_NO_PREALLOC


def make_missing(pins: Path, sizes: TableSizes) -> None:
    """Make and pin, by its name, every map that a directory lacks. OSError if the kernel refuses one."""
    for name in (*layout().maps, PIN):
        if not (pins / name).exists():
            fd = libbpf.map_create(described(name, sizes))
            try:
                libbpf.obj_pin(fd, pins / name)
            except OSError as error:
                if error.errno != errno.EEXIST:  # somebody else was faster
                    raise
            finally:
                os.close(fd)


def described(name: str, sizes: TableSizes) -> libbpf.MapInfo:
    """What the kernel is asked for."""
    if name == PIN:
        return libbpf.MapInfo(_NUMBERS["ringbuf"], 0, 0, QUEUE_BYTES, 0, name)
    made = layout().maps[name]
    key, value = dtype_of(made.key).itemsize, dtype_of(made.value).itemsize
    entries = layout().constants["STAGES_MAX"] if name in STAGE_MAPS else capacities(sizes)[name]
    return libbpf.MapInfo(_NUMBERS[made.kind], key, value, entries, _FLAGS[made.flag], name[:NAME_MOST])


@contextlib.contextmanager
def opened(bytecode: Bytecode, pins: Path) -> Iterator[Mapping[str, int]]:
    """The descriptors of a program's maps, those that are pinned and new ones of its own. OSError."""
    fds: dict[str, int] = {}
    try:
        for name in bytecode.maps:
            own = bytecode.own.get(name)
            fds[name] = libbpf.obj_get(pins / name) if own is None else libbpf.map_create(own)
        yield fds
    finally:
        for fd in fds.values():
            os.close(fd)

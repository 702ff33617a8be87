"""Maps of another layout, or of other sizes, that are still in force: read so that their content can be taken over.

Every directory of maps says about itself what its structs look like, in a pinned map of its own (`about`), so that a
later version can read them.
"""

import contextlib
import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lb.dataplane import libbpf
from lb.dataplane.hook import pinned_program
from lb.dataplane.kernel_tables import KernelCounters
from lb.dataplane.layout import layout
from lb.dataplane.tables import COUNTER_STRUCTS, Array, Tables, dtype_of

ABOUT = "about"
"""The pin of what a directory of maps says about itself."""
_NAT = ("nat_pools", "nat_lists", "nat_cursors", "nat_forward", "nat_reply")
ARRAY_STRUCTS = {
    "flows": "flow",
    "backends": "backend",
    "service_owners": "service_owner",
    "deny_owners": "entry_owner",
    "allow_owners": "entry_owner",
    "rule_owners": "entry_owner",
    "nat_pools": "nat_pool",
    "nat_lists": "nat_list",
    "nat_cursors": "nat_cursor",
    "nat_forward": "nat_forward",
    "nat_reply": "nat_reply",
}
"""Arrays that are taken over, or say what others mean."""
_FORMATS = {"flows": "FLOW_FORMAT", **dict.fromkeys(_NAT, "NAT_FORMAT")}
"""Arrays whose words mean something only where that constant is the same."""
_SECRET = {"flows"}
"""Where a flow stands depends on the key, and on what a hash means; its entry does not say what was hashed."""
_ARRAY_TYPE = 2  # BPF_MAP_TYPE_ARRAY


@dataclass(frozen=True)
class Former:
    """What to read, by map: a copy of what it holds now, in the structs of this version.

    Of `flows` one row a bucket. What cannot be read, or would mean something else, is missing.
    """

    reads: Mapping[str, Callable[[], Array]]
    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        """Let go of the maps: their memory is free once no program works on them."""
        for fd in self.descriptors:
            os.close(fd)

    @classmethod
    def of(cls, tables: Tables) -> "Former":
        """Tables of this layout."""
        arrays = {name: partial(_as, getattr(tables.arrays, name), s) for name, s in ARRAY_STRUCTS.items()}
        return cls({**arrays, **{name: getattr(tables, name).read for name in COUNTER_STRUCTS}})


def _as(rows: Array, struct: str) -> Array:
    """A copy in our own struct: members of the same name, zero where there was none."""
    dtype = dtype_of(struct)
    if rows.dtype.names is None:  # the array shows the only member of its struct
        return rows.copy().view(dtype).reshape(rows.shape[0])
    found = np.zeros(rows.shape, dtype)
    for name in set(rows.dtype.names) & set(dtype.names or ()):
        found[name] = rows[name]
    return found


def tell_about(pins: Path, flow_key: bytes) -> None:
    """Let maps say how they are to be read. OSError."""
    if (pins / ABOUT).exists():
        return
    names = {*ARRAY_STRUCTS.values(), *COUNTER_STRUCTS.values()}
    constants = {name: layout().constants[name] for name in ("FLOW_WAYS", *_FORMATS.values())}
    text = json.dumps(
        {
            "structs": {name: layout().structs[name].descr for name in sorted(names)},
            "constants": constants,
            "flow_key": _fingerprint(flow_key),
        }
    ).encode()
    value = np.frombuffer(text.ljust(-(-len(text) // 8) * 8), np.uint8).copy()
    kind = libbpf.MapInfo(_ARRAY_TYPE, 4, len(value), 1, 0, ABOUT)
    fd = libbpf.map_create(kind)
    try:
        libbpf.map_update(fd, np.zeros(1, np.uint32).ctypes, value.ctypes)
        libbpf.obj_pin(fd, pins / ABOUT)
    finally:
        os.close(fd)


def _fingerprint(flow_key: bytes) -> str:
    return hashlib.blake2b(flow_key, digest_size=8, person=b"flow key").hexdigest()


def find_former(interfaces: Iterable[Path], ours: Path) -> Path | None:
    """The maps that programs in force work on, if they are others than ours. interfaces: where their pins are.

    Looked for beside every interface: those of several are with one of them, which may be served no more.
    """
    used = set[int]().union(*(_maps_in_use(path) for path in interfaces if path.is_dir()))
    for directory in sorted(ours.parent.parent.iterdir()):
        with contextlib.suppress(PermissionError, NotADirectoryError):  # another user's
            for pins in sorted(directory.iterdir()):
                if pins.is_dir() and pins != ours and _map_id(pins / "flows") in used:
                    return pins
    return None


def _maps_in_use(directory: Path) -> set[int]:
    """The maps of the program that an interface has, or had when it went away."""
    try:
        program = pinned_program(directory)
    except OSError:
        return set()
    try:
        return libbpf.prog_map_ids(program)
    finally:
        os.close(program)


def _map_id(pin: Path) -> int | None:
    try:
        fd = libbpf.obj_get(pin)
    except OSError:
        return None
    try:
        return libbpf.map_info(fd).id
    finally:
        os.close(fd)


def open_former(pins: Path, flow_key: bytes) -> Former:
    """Maps as they say of themselves that they are to be read. OSError, KeyError or ValueError if they do not."""
    about = _about(pins)
    structs = {name: np.dtype(_tuples(descr)) for name, descr in about["structs"].items()}
    reads: dict[str, Callable[[], Array]] = {}
    fds = []
    for name, struct in ARRAY_STRUCTS.items():
        if (meaning := _FORMATS.get(name)) and about["constants"].get(meaning) != layout().constants[meaning]:
            continue
        rows = _rows(pins / name, structs[struct])
        if name == "flows":
            rows = rows.reshape(-1, about["constants"]["FLOW_WAYS"])
        reads[name] = partial(_as, rows, struct)
    for name, struct in COUNTER_STRUCTS.items():
        if (pins / name).exists() and struct in structs:
            fds.append(libbpf.obj_get(pins / name))
            counters = KernelCounters(name, fds[-1], libbpf.map_info(fds[-1]).entries, structs[struct])
            reads[name] = partial(_counted, counters, struct)
    if about["flow_key"] != _fingerprint(flow_key):
        for name in _SECRET & reads.keys():
            del reads[name]
    return Former(reads, tuple(fds))


def _counted(counters: KernelCounters, struct: str) -> Array:
    return _as(counters.read(), struct)


def _about(pins: Path) -> Any:
    fd = libbpf.obj_get(pins / ABOUT)
    try:
        value = np.zeros(libbpf.map_info(fd).value_size, np.uint8)
        libbpf.map_lookup(fd, np.zeros(1, np.uint32).ctypes, value.ctypes)
    finally:
        os.close(fd)
    return json.loads(value.tobytes())


def _rows(pin: Path, dtype: np.dtype[Any]) -> Array:
    """All of an array map's memory, as rows of a struct."""
    fd = libbpf.obj_get(pin)
    try:
        kind = libbpf.map_info(fd)
        size = kind.value_size * kind.entries
        memory = mmap.mmap(fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE, prot=mmap.PROT_READ)
    finally:
        os.close(fd)
    return np.frombuffer(memory, np.uint8)[:size].view(dtype)


def _tuples(descr: Any) -> Any:
    """A dtype's description, out of JSON, where tuples have become lists."""
    members = []
    for name, kind, *shape in descr:
        inner = kind if isinstance(kind, str) else _tuples(kind)
        members.append((name, inner, *(tuple(each) for each in shape)))
    return members

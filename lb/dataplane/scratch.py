"""A compiled program over maps of its own: the same bytecode, with other map file descriptors in its instructions."""

import contextlib
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType

import numpy as np

from lb.dataplane import libbpf
from lb.dataplane.bytecode import map_loads
from lb.dataplane.deny6 import Deny6
from lb.dataplane.kernel_tables import KernelCounters, KernelTable
from lb.dataplane.layout import map_name
from lb.dataplane.service_table import ServiceTable
from lb.dataplane.tables import ARRAY_NAMES, capacities, dtype_of
from lb.settings import TableSizes

_WHOLE = frozenset(
    {
        *("flows", "services4", "services6", "vip_bits", "deny6_filter", "verdict_counters"),
        *("rule_bank", "rule_cells", "rule_sets", "rule_actions", "rule_counters"),
        *("nat_index", "nat_addresses", "nat_lists", "nat_pools"),
        *("limit_totals", "limit_buckets", "limit_sketch", "known_sources", "syn_tests", "watching"),
    }
)
"""Maps that keep their size: the number of buckets is compiled in, and verdicts have numbers of their own."""
_SERVICES = {"services4": 4, "services6": 6}
_COUNTERS = 256
"""Entries of counters: places, services and rules beyond are not counted."""


class Scratch:
    """The maps and the program, as a context that frees both. room: entries of each map that is filled.

    OSError: the kernel refuses a map or the program.
    """

    def __init__(
        self, code: bytes, flags: int, room: Mapping[str, int], second: bytes = b"", stage_slot: int = 0
    ) -> None:
        self._stack = contextlib.ExitStack()
        self._memory: dict[str, mmap.mmap] = {}
        self._fds: dict[str, int] = {}
        self._twins: dict[int, int] = {}
        try:
            if second:
                second_fd = self._load(second, flags, room)
            self.program_fd = self._load(code, flags, room)
            if second:
                stages = next(fd for name, fd in self._fds.items() if name.startswith("stages"))
                libbpf.map_update(stages, stage_slot.to_bytes(4, "little"), second_fd.to_bytes(4, "little"))
            entries = libbpf.map_info(self._fds["verdict_counters"]).entries
            self.verdicts = KernelCounters("verdict_counters", self._fds["verdict_counters"], entries)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> "Scratch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _load(self, code: bytes, flags: int, room: Mapping[str, int]) -> int:
        patched, twins = bytearray(code), self._twins
        for at in map_loads(code):
            fd = struct.unpack_from("<i", code, at)[0]
            if fd not in twins:
                twins[fd] = self._make(libbpf.map_info(fd), room)
            struct.pack_into("<i", patched, at, twins[fd])
        program_fd = libbpf.prog_load("sluice_known", bytes(patched), flags=flags)
        self._stack.callback(os.close, program_fd)
        return program_fd

    def _make(self, kind: libbpf.MapInfo, room: Mapping[str, int]) -> int:
        """A map of the same kind, no larger than is needed."""
        name = map_name(kind.name)
        if name in capacities(TableSizes()) and name not in _WHOLE:
            # What is filled may need more room than a daemon with small tables has.
            kind = replace(kind, entries=max(min(kind.entries, _COUNTERS), room.get(name, 0)))
        fd = libbpf.map_create(kind)
        self._stack.callback(os.close, fd)
        self._fds[name] = fd
        if name in ARRAY_NAMES:
            memory = mmap.mmap(fd, -(-kind.value_size * kind.entries // mmap.PAGESIZE) * mmap.PAGESIZE)
            self._stack.callback(memory.close)
            self._memory[name] = memory
        return fd

    def write_memory(self, name: str, runs: Mapping[int, bytes]) -> None:
        """Bytes by offset into an array; nothing if the program does not have it."""
        if name in self._memory:
            for offset, data in runs.items():
                self._memory[name][offset : offset + len(data)] = data

    def write_entries(self, name: str, entries: Mapping[bytes, bytes]) -> None:
        """Values by key into a table, likewise."""
        if name in _SERVICES and name in self._fds:
            self._write_services(name, _SERVICES[name], entries)
        elif name == "deny6" and "deny6_filter" in self._fds:
            self._write_deny6(entries)
        elif name in self._fds:
            for key, value in entries.items():
                libbpf.map_update(self._fds[name], key, value)

    def _write_services(self, name: str, family: int, entries: Mapping[bytes, bytes]) -> None:
        # The memory is viewed for this call alone: what is viewed cannot be closed.
        slots = np.frombuffer(self._memory[name], dtype_of(f"service{family}_slot"))
        slots = slots.reshape(-1, 64 // slots.dtype.itemsize)
        bits = np.zeros((2, 128), np.uint64)
        if "vip_bits" in self._memory:
            bits = np.frombuffer(self._memory["vip_bits"], np.uint64)[: bits.size].reshape(bits.shape)
        room = libbpf.map_info(self._fds[f"{name}_more"]).entries
        more = KernelTable(f"{name}_more", self._fds[f"{name}_more"], room)
        table = ServiceTable(slots, bits[family // 6], more, room, family=family)
        keys = np.frombuffer(b"".join(entries), dtype_of(f"service{family}_key"))
        table.write(keys, np.frombuffer(b"".join(entries.values()), dtype_of("service")))

    def _write_deny6(self, entries: Mapping[bytes, bytes]) -> None:
        hosts, trie = (
            KernelTable(name, self._fds[name], libbpf.map_info(self._fds[name]).entries)
            for name in ("deny6_hosts", "deny6_trie")
        )
        table = Deny6(np.frombuffer(self._memory["deny6_filter"], np.uint8), hosts, trie, hosts.capacity)
        keys = np.frombuffer(b"".join(entries), dtype_of("prefix6_key"))
        table.write(keys, np.frombuffer(b"".join(entries.values()), "<u4"))

    def fill(self, name: str, number: int) -> None:
        """One u16 all over an array, likewise."""
        if name in self._memory:
            memory = np.frombuffer(self._memory[name], np.uint16)
            memory[:] = number

    def run(self, frame: bytes) -> tuple[int, bytes]:
        """The XDP action for a frame, and the frame as it leaves."""
        return libbpf.test_run(self.program_fd, frame)

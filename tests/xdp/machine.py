"""A small eBPF machine (RFC 9669): runs the program's bytecode on one frame and counts what the way of it takes.

It stands beside the kernel, not for it: what a frame becomes is proven by BPF_PROG_TEST_RUN. Counts do not wander.
"""

import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from lb.dataplane.build import Build
from lb.dataplane.tables import ARRAY_NAMES, COUNTER_STRUCTS, TABLE_STRUCTS, Tables, capacities, dtype_of
from lb.settings import TableSizes

_U64, _U32 = (1 << 64) - 1, (1 << 32) - 1
_PACKET, _STACK, _CONTEXT, _MAPS = 0x10000, 0x20000000, 0x30000000, 1 << 40
_HEADROOM = 256
_LOOKUP, _JIFFIES64, _ADJUST_HEAD, _ADJUST_TAIL, _CSUM_DIFF = 1, 118, 44, 65, 28
_SIZES = {0x00: "<I", 0x08: "<H", 0x10: "<B", 0x18: "<Q"}

Memory = bytearray | memoryview


@dataclass(slots=True)
class Way:
    """What one frame took: instructions executed, lookups by map, calls of other helpers by number, the XDP action."""

    instructions: int = 0
    lookups: Counter[str] = field(default_factory=Counter)
    calls: Counter[int] = field(default_factory=Counter)
    result: int = -1


class Machine:
    """The program of one build over a copy of these tables. Hashes and tries are found by exact key alone."""

    def __init__(self, build: Build, tables: Tables, sizes: TableSizes, *, seconds: int) -> None:
        compiled = build.bytecode()
        self._names = dict(enumerate(compiled.maps))
        code = compiled.linked("sluice", {name: fd for fd, name in self._names.items()}, build.late(0))
        self.code = [struct.unpack_from("<BBhi", code, at) for at in range(0, len(code), 8)]
        self._jiffies = (seconds << 32) // int(_constant(build, "JIFFY_SHARE")) + 1
        self._memory: dict[int, Memory] = {}
        self._arrays: dict[str, tuple[int, int, int]] = {}
        self._hashes: dict[str, dict[bytes, int]] = {}
        for base, (name, entries) in zip(count(_MAPS, 1 << 36), capacities(sizes).items(), strict=False):
            self._copy(base, name, entries, tables)

    def _copy(self, base: int, name: str, entries: int, tables: Tables) -> None:
        """A map's contents, from an address on that no other has."""
        if name in ARRAY_NAMES:
            data = bytearray(np.array(getattr(tables.arrays, name)).tobytes())
            self._memory[base], self._arrays[name] = data, (base, len(data) // entries, entries)
        elif name in COUNTER_STRUCTS:
            size = max(32, dtype_of(COUNTER_STRUCTS[name]).itemsize)
            self._memory[base] = bytearray(size * entries)
            self._arrays[name] = base, size, entries
        elif hasattr(tables, name) or name == "deny6_hosts":
            keys, values = getattr(tables, name.removesuffix("_hosts")).read()
            self._memory[base] = bytearray(values.tobytes())
            size = values.dtype.itemsize
            self._hashes[name] = {key.tobytes(): base + at * size for at, key in enumerate(keys)}
        else:
            self._hashes[name] = {}

    def run(self, frame: bytes) -> Way:
        """One frame's way, through memory as earlier frames left it."""
        self._packet = bytearray(_HEADROOM) + bytearray(frame) + bytearray(512)
        self._start, self._end = _HEADROOM, _HEADROOM + len(frame)
        self._stack = bytearray(512)
        way, registers = Way(), [0] * 11
        registers[1], registers[10] = _CONTEXT, _STACK + 512
        at = 0
        while True:
            op, both, offset, immediate = self.code[at]
            dst, src = both & 15, both >> 4
            way.instructions += 1
            at += 1
            kind = op & 7
            if op == 0x18:
                if src == 1:
                    registers[dst] = immediate  # a map: only ever an argument of a lookup
                else:
                    registers[dst] = (self.code[at][3] & _U32) << 32 | immediate & _U32
                at += 1
            elif kind in (4, 7):
                value = registers[src] if op & 8 else immediate & (_U64 if kind == 7 else _U32)
                registers[dst] = _compute(op, registers[dst], value, immediate)
            elif kind == 1:
                registers[dst] = self._load(registers[src] + offset, _SIZES[op & 0x18])
            elif kind in (2, 3):
                value = registers[src] if kind == 3 else immediate & _U64
                if op & 0xE0 == 0xC0:
                    value += self._load(registers[dst] + offset, _SIZES[op & 0x18])
                self._store(registers[dst] + offset, _SIZES[op & 0x18], value)
            elif op == 0x95:
                way.result = registers[0] & _U32
                return way
            elif op == 0x85:
                registers[0] = self._call(immediate, registers, way)
            elif _holds(op, registers[dst], registers[src] if op & 8 else immediate & _U64):
                at += offset

    def _call(self, helper: int, registers: list[int], way: Way) -> int:
        if helper == _LOOKUP:
            name = self._names[registers[1]]
            way.lookups[name] += 1
            if name in self._arrays:
                base, size, entries = self._arrays[name]
                index = self._load(registers[2], "<I")
                return base + index * size if index < entries else 0
            size = dtype_of(TABLE_STRUCTS[name][0]).itemsize
            key = bytes(self._load(registers[2] + at, "<B") for at in range(size))
            return self._hashes[name].get(key, 0)
        way.calls[helper] += 1
        if helper == _JIFFIES64:
            return self._jiffies
        if helper == _ADJUST_HEAD:
            self._start += registers[2] - (registers[2] >> 63 << 64)
        elif helper == _ADJUST_TAIL:
            self._end += registers[2] - (registers[2] >> 63 << 64)
        return 0

    def _find(self, address: int) -> tuple[Memory, int]:
        if address >= _MAPS:
            base = address >> 36 << 36
            return self._memory[base], address - base
        if address >= _STACK:
            return self._stack, address - _STACK
        return self._packet, address - _PACKET

    def _load(self, address: int, form: str) -> int:
        if address >= _CONTEXT and address < _MAPS:
            return _PACKET + (self._start, self._end)[(address - _CONTEXT) // 4]
        memory, at = self._find(address)
        return int(struct.unpack_from(form, memory, at)[0])

    def _store(self, address: int, form: str, value: int) -> None:
        memory, at = self._find(address)
        struct.pack_into(form, memory, at, value & (1 << 8 * struct.calcsize(form)) - 1)


def _signed(value: int, bits: int) -> int:
    return value - (value >> (bits - 1) << bits)


_OPERATIONS: Mapping[int, Callable[[int, int, int], int]] = {
    0x00: lambda a, b, _: a + b,
    0x10: lambda a, b, _: a - b,
    0x20: lambda a, b, _: a * b,
    0x30: lambda a, b, _: a // b if b else 0,
    0x40: lambda a, b, _: a | b,
    0x50: lambda a, b, _: a & b,
    0x60: lambda a, b, bits: a << (b & bits - 1),
    0x70: lambda a, b, bits: a >> (b & bits - 1),
    0x80: lambda a, b, _: -a,
    0x90: lambda a, b, _: a % b if b else a,
    0xA0: lambda a, b, _: a ^ b,
    0xB0: lambda a, b, _: b,
    0xC0: lambda a, b, bits: _signed(a, bits) >> (b & bits - 1),
}


def _compute(op: int, a: int, b: int, immediate: int) -> int:
    if op & 0xF0 == 0xD0:  # byte order: to big endian turns, to little only cuts
        size = immediate // 8
        data = (a & (1 << immediate) - 1).to_bytes(size, "little")
        return int.from_bytes(data, "big" if op & 8 else "little")
    bits = 64 if op & 7 == 7 else 32
    mask = (1 << bits) - 1
    return _OPERATIONS[op & 0xF0](a & mask, b & mask, bits) & mask


def _holds(op: int, a: int, b: int) -> bool:
    bits = 64 if op & 7 == 5 else 32
    a, b = a & (1 << bits) - 1, b & (1 << bits) - 1
    x, y = _signed(a, bits), _signed(b, bits)
    return {
        0x00: True,
        0x10: a == b,
        0x20: a > b,
        0x30: a >= b,
        0x40: bool(a & b),
        0x50: a != b,
        0x60: x > y,
        0x70: x >= y,
        0xA0: a < b,
        0xB0: a <= b,
        0xC0: x < y,
        0xD0: x <= y,
    }[op & 0xF0]


def _constant(build: Build, name: str) -> str:
    return next(f.partition("=")[2] for f in build.flags() if f.startswith(f"-D{name}=")).rstrip("UL")

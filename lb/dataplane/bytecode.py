"""Compiled programs as data: bytecode that names its maps and leaves open what only the loader knows.

The compiler knows neither which maps will be there nor the interface: in the bytecode a map is its place in a list,
and a late number of config.h (`LATE`) is a mark. `linked` puts in what they are. So one compilation serves every
interface, setting and start, and can be kept (kept.py).
"""

import base64
import hashlib
import json
import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache

from lb.dataplane.libbpf import MapInfo
from lb.dataplane.source import XDP_DIR

_LOAD_IMMEDIATE_64 = 0x18
_NUMBER, _MAP_FD = 0, 1
"""What a load of 64 bits loads, by its source register."""
_LATE = re.compile(r"^#define (\w+) LATE\((\d\d), (\w+)\)", re.MULTILINE)
_LATE_MARK = re.compile(r"^#define LATE_MARK (0x[0-9a-f]{8})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bytecode:
    """functions: instructions by name, in which a map's descriptor is its place in `maps`, their names.

    own: maps that no other program shares, and that are made for each as the compiler made them.
    """

    functions: Mapping[str, bytes]
    maps: tuple[str, ...]
    own: Mapping[str, MapInfo]

    def linked(self, function: str, maps: Mapping[str, int], late: Mapping[str, int]) -> bytes:
        """A function over these open maps, with the late numbers. KeyError: one is not given."""
        code = bytearray(self.functions[function])
        marks = late_marks()
        for at, source in _wide_loads(code):
            low, high = struct.unpack_from("<I", code, at + 4)[0], struct.unpack_from("<I", code, at + 12)[0]
            if source == _MAP_FD:
                struct.pack_into("<i", code, at + 4, maps[self.maps[low]])
            elif source == _NUMBER and (name := marks.get(high << 32 | low)):
                struct.pack_into("<I", code, at + 4, late[name] & 0xFFFFFFFF)
                struct.pack_into("<I", code, at + 12, late[name] >> 32)
        return bytes(code)

    def to_bytes(self) -> bytes:
        """For a file: a line with the digest of the rest, and the rest, JSON."""
        functions = {name: base64.b64encode(code).decode() for name, code in self.functions.items()}
        own = {name: asdict(kind) for name, kind in self.own.items()}
        body = json.dumps({"functions": functions, "maps": self.maps, "own": own}).encode()
        return hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, data: bytes) -> "Bytecode":
        """What `to_bytes` gave. ValueError if it is not that, whole."""
        digest, _, body = data.partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError("it is cut off or was changed")
        read = json.loads(body)
        functions = {name: base64.b64decode(code) for name, code in read["functions"].items()}
        own = {name: MapInfo(**kind) for name, kind in read["own"].items()}
        return cls(functions, tuple(read["maps"]), own)


def of_functions(
    functions: Mapping[str, bytes], described: Callable[[int], MapInfo], shared: Collection[str]
) -> Bytecode:
    """Functions as a compiler gives them, over open maps that it has made; described: what one is, by its name."""
    places: dict[int, int] = {}
    maps: list[MapInfo] = []
    named = {}
    for name, code in functions.items():
        turned = bytearray(code)
        for at in map_loads(code):
            (fd,) = struct.unpack_from("<i", turned, at)
            if fd not in places:
                places[fd] = len(maps)
                maps.append(described(fd))
            struct.pack_into("<i", turned, at, places[fd])
        named[name] = bytes(turned)
    own = {kind.name: replace(kind, id=0) for kind in maps if kind.name not in shared}
    return Bytecode(named, tuple(kind.name for kind in maps), own)


def map_loads(code: bytes) -> list[int]:
    """Where in the bytecode the file descriptors of maps are: offsets of 32-bit words."""
    return [at + 4 for at, source in _wide_loads(code) if source == _MAP_FD]


def _wide_loads(code: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Where 64 bits are loaded, which takes two instructions' room, and the source register of each."""
    at = 0
    while at < len(code):
        if code[at] == _LOAD_IMMEDIATE_64:
            yield at, code[at + 1] >> 4
            at += 8
        at += 8


@cache
def late_marks() -> Mapping[int, str]:
    """The marks of config.h, and which number belongs there."""
    text = (XDP_DIR / "config.h").read_text()
    found = _LATE_MARK.search(text)
    assert found is not None
    return {int(found[1], 16) << 32 | int(number, 16): name for name, number, _ in _LATE.findall(text)}


@cache
def late_numbers() -> Mapping[str, int]:
    """Constants that are not compiled in, and what they are where nothing else is said."""
    text = (XDP_DIR / "config.h").read_text()
    return {name: int(usual, 0) for name, _, usual in _LATE.findall(text)}

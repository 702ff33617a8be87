"""Parses the C headers: struct layouts, constants, features and verdicts. C is the one definition.

types.h keeps to fixed-width members without hidden padding, so that this short reader is exact; tests/xdp compares
every layout with what bcc makes of the same struct.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from lb.dataplane.source import XDP_DIR

NAME_MOST = 15
"""Characters of a map's name that the kernel keeps."""
_STRUCT_HEADERS = ("types.h", "rule_types.h", "nat_types.h", "trace.h", "sample.h")
_LAYOUT_HEADERS = ("types.h", "rule_types.h", "nat_types.h", "maps.h")
_HEADERS = ("config.h", "verdicts.h", "maps.h", *_STRUCT_HEADERS)
_SCALARS = {
    "__u8": "u1",
    "__u16": "<u2",
    "__u32": "<u4",
    "__u64": "<u8",
    "__be16": ">u2",
    "__be32": ">u4",
}
_STRUCT = re.compile(r"struct (\w+) \{(.*?)\n\}[^;]*;", re.DOTALL)
_MEMBER = re.compile(r"(?:struct )?(\w+) (\w+)(?:\[(\w+)\])?;")
_DEFINE = re.compile(r"^#define (\w+) (0x[0-9a-fA-F]+|\d+)[UL]*\b", re.MULTILINE)
_FEATURE = re.compile(r"^#ifndef (HAVE_\w+) /\* (.*?) \*/", re.MULTILINE)
_VERDICT = re.compile(r'VERDICT\((\d+), (\w+), XDP_(\w+), "([^"]+)"\)')
_MAP = re.compile(r'^MAP\("(\w+)", ([\w ]+), ([\w ]+), (\w+), (\w+)\);', re.MULTILINE)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of verdicts.h. action is pass, tx, redirect or drop."""

    number: int
    name: str
    action: str
    sentence: str


@dataclass(frozen=True, slots=True)
class MapKind:
    """One line of maps.h. kind: as bcc and bpftool name it; key, value: struct names, or __u32; flag: its macro."""

    kind: str
    key: str
    value: str
    flag: str


@dataclass(frozen=True, slots=True)
class Layout:
    """What the headers say. structs: numpy dtypes by C name; features: HAVE_* by what it is for; maps: by name."""

    structs: Mapping[str, np.dtype[np.void]]
    constants: Mapping[str, int]
    features: Mapping[str, str]
    verdicts: tuple[Verdict, ...]
    maps: Mapping[str, MapKind]
    digest: str
    """Names the memory layout: maps pinned by a program with another digest cannot be adopted."""


def map_name(cut: str) -> str:
    """A map's whole name, of which the kernel keeps NAME_MOST characters; itself, if it is none of maps.h."""
    return next((name for name in layout().maps if name[:NAME_MOST] == cut), cut)


def read_layout(directory: Path = XDP_DIR) -> Layout:
    """Read the headers that hold data. ValueError if a struct has hidden padding."""
    text = {name: (directory / name).read_text() for name in _HEADERS}
    code = {name: _COMMENT.sub("", body) for name, body in text.items()}
    constants: dict[str, int] = {}
    for body in code.values():
        for name, value in _DEFINE.findall(body):
            constants.setdefault(name, int(value, 0))
    structs: dict[str, np.dtype[np.void]] = {}
    for name, members in _STRUCT.findall("".join(code[n] for n in _STRUCT_HEADERS)):
        structs[name] = _dtype(name, members, structs, constants)
    verdicts = tuple(
        Verdict(int(number), name, action.lower(), sentence)
        for number, name, action, sentence in _VERDICT.findall(text["verdicts.h"])
    )
    maps = {
        name: MapKind(kind, _struct_name(key), _struct_name(value), flag)
        for kind, key, value, name, flag in _MAP.findall(code["maps.h"])
    }
    digest = hashlib.sha256("\0".join(" ".join(code[n].split()) for n in _LAYOUT_HEADERS).encode())
    features = dict(_FEATURE.findall(text["config.h"]))
    return Layout(structs, constants, features, verdicts, maps, digest.hexdigest()[:12])


def _struct_name(c_type: str) -> str:
    return "__u32" if c_type == "u32" else c_type.removeprefix("struct ")


def _dtype(
    name: str, members: str, structs: Mapping[str, np.dtype[np.void]], constants: Mapping[str, int]
) -> np.dtype[np.void]:
    fields = []
    for kind, member, count in _MEMBER.findall(members):
        base = np.dtype(_SCALARS[kind]) if kind in _SCALARS else structs[kind]
        length = (constants[count] if count in constants else int(count),) if count else ()
        fields.append((member, base, length))
    packed = np.dtype(fields)
    if np.dtype(fields, align=True).itemsize != packed.itemsize:
        raise ValueError(f"struct {name} in types.h has hidden padding: write the pad member out")
    return packed


@cache
def layout() -> Layout:
    """The headers of this installation, read once."""
    return read_layout()

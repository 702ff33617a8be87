"""The known state and its frames (known_answers.json), with a build's constants filled in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lb.dataplane.bytecode import late_numbers
from lb.dataplane.layout import layout
from lb.dataplane.tables import Array

_FILE = Path(__file__).with_name("known_answers.json")
_MEMORY_BUCKETS = 1024
"""A flow table of fewer buckets may not remember the few known flows."""
_TAGS = (b"\x81\x00", b"\x88\xa8")


@dataclass(frozen=True, slots=True)
class Case:
    """A frame, the name of the verdict it must have, and the whole frame as it must leave."""

    name: str
    frame: bytes
    verdict: str
    out: bytes


@dataclass(frozen=True, slots=True)
class Stage:
    """A state, as what to write over the one before, and the cases in it.

    memory: for each array map bytes by offset; tables: for each other map values by key.
    """

    memory: Mapping[str, Mapping[int, bytes]]
    tables: Mapping[str, Mapping[bytes, bytes]]
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Interface:
    """What a build takes from where it runs: our MAC and index, and its other constants by name."""

    mac: bytes
    index: int
    constants: Mapping[str, int]


@cache
def document() -> dict[str, Any]:
    """The file as it lies."""
    found: dict[str, Any] = json.loads(_FILE.read_bytes())
    return found


def stages(features: frozenset[str], constants: Mapping[str, int]) -> list[Stage]:
    """The state and the cases that a program with these features has an answer to, for its constants."""
    of_build = {**layout().constants, **late_numbers(), **constants}
    mac = b"".join(
        of_build[name].to_bytes(size, "little")
        for name, size in (("OUR_MAC_FIRST4", 4), ("OUR_MAC_LAST2", 2))
    )
    here = Interface(mac, of_build["OUR_IFINDEX"], of_build)
    backends = np.zeros(0, np.uint8)
    found = []
    for stage in document()["stages"]:
        memory = {name: _runs(runs) for name, runs in stage["memory"].items()}
        backends = _written(backends, memory.get("backends", {}))
        memory["backends"] = {0: _placed(backends, here)}
        memory["rings"] = _ring_slots(stage["rings"])
        tables = {
            name: {bytes.fromhex(key): bytes.fromhex(value) for key, value in entries.items()}
            for name, entries in stage["tables"].items()
        }
        cases = tuple(_case(case, here) for case in stage["cases"] if _is_for(case, features, of_build))
        found.append(Stage(memory, tables, cases))
    return found


def _is_for(case: Mapping[str, Any], features: frozenset[str], constants: Mapping[str, int]) -> bool:
    has = features.issuperset(case.get("needs", ())) and features.isdisjoint(case.get("lacks", ()))
    return has and (constants["FLOW_BUCKETS"] >= _MEMORY_BUCKETS or not case.get("remembers"))


def _runs(runs: Mapping[str, str]) -> dict[int, bytes]:
    return {int(offset): bytes.fromhex(data) for offset, data in runs.items()}


def _ring_slots(rings: Mapping[str, Mapping[str, int]]) -> dict[int, bytes]:
    constant = layout().constants
    ring_bytes = constant["RING_CELLS"] * 2 << constant["CELLS_SHIFT"]
    return {
        int(ring) * ring_bytes + 2 * int(slot): place.to_bytes(2, "little")
        for ring, slots in rings.items()
        for slot, place in slots.items()
    }


def _written(memory: Array, runs: Mapping[int, bytes]) -> Array:
    """A copy with runs of bytes written into it, as long as they need."""
    size = max([len(memory), *(offset + len(data) for offset, data in runs.items())])
    row = layout().structs["backend"].itemsize
    wider = np.zeros(-(-size // row) * row, np.uint8)
    wider[: len(memory)] = memory
    for offset, data in runs.items():
        wider[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
    return wider


def _placed(memory: Array, here: Interface) -> bytes:
    """Places of backends with our MAC and interface: in the file our interface is 0, another 1."""
    rows = memory.view(layout().structs["backend"]).copy()
    rows["source_mac"][rows["ifindex"] == 0] = np.frombuffer(here.mac, np.uint8)
    rows["ifindex"] += here.index
    return rows.tobytes()


def _case(case: Mapping[str, Any], here: Interface) -> Case:
    frame, verdict = _bytes(case["frame"]), case["verdict"]
    frame = bytes(a ^ b for a, b in zip(frame[:6], here.mac, strict=True)) + frame[6:]
    if case["out"] is None:
        return Case(case["name"], frame, verdict, frame)
    out = bytearray(_bytes(case["out"]))
    if verdict.startswith("TX_"):
        out[6:12] = here.mac
    if verdict.endswith(("_IPIP", "_GUE")):
        _put_outer(out, here.constants, gue=verdict.endswith("_GUE"))
    return Case(case["name"], frame, verdict, bytes(out))


def _bytes(text: str) -> bytes:
    """Hex, and after a + the number of zeros that follow."""
    head, _, zeros = text.partition("+")
    return bytes.fromhex(head) + bytes(int(zeros or 0))


def _put_outer(out: bytearray, constants: Mapping[str, int], *, gue: bool) -> None:
    """The outer source and port of the build's settings: in the file, the source's low 16 bits are `spread`."""
    at = 12
    while bytes(out[at : at + 2]) in _TAGS:
        at += 4
    at += 2
    if out[at] >> 4 == 4:
        spread = int.from_bytes(out[at + 14 : at + 16], "big")
        source = constants["ENCAP_SOURCE4"] | spread & constants["ENCAP_SOURCE4_HOSTS"]
        out[at + 12 : at + 16] = source.to_bytes(4, "big")
        out[at + 10 : at + 12] = bytes(2)
        out[at + 10 : at + 12] = ipv4_checksum(bytes(out[at : at + 20]))
        size = 20
    else:
        for word in range(3):
            start = at + 8 + 4 * word
            out[start : start + 4] = constants[f"ENCAP_SOURCE6_{word}"].to_bytes(4, "little")
        size = 40
    if gue:
        out[at + size + 2 : at + size + 4] = constants["GUE_PORT"].to_bytes(2, "big")


def ipv4_checksum(header: bytes) -> bytes:
    """RFC 1071, of a header whose checksum field is zero."""
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, len(header), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")

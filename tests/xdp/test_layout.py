"""The headers as Python reads them are the headers as the compiler reads them; and C's lists agree with Python's."""

import ctypes
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rig import EVERYTHING, Programs

from lb.dataplane import source
from lb.dataplane.build import Build
from lb.dataplane.compiler import import_bcc
from lb.dataplane.layout import layout
from lb.dataplane.libbpf import map_info, obj_get
from lb.dataplane.maps import described
from lb.dataplane.source import XDP_DIR, join_source
from lb.dataplane.tables import (
    ARRAY_NAMES,
    STAGE_MAPS,
    array_bytes,
    capacities,
    dtype_of,
    size_flags,
)
from lb.dataplane.twin import SMALL
from lb.settings import TableSizes

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_CODE = {path.name: _COMMENT.sub("", path.read_text()) for path in XDP_DIR.glob("*.[ch]")}

root = pytest.mark.root


def ours(dtype: np.dtype[Any]) -> Any:
    """Offset, size and inner members of each member, of the dtype that Python uses."""
    if dtype.subdtype is not None:
        return ours(dtype.subdtype[0])
    if dtype.fields is None:
        return None
    return {name: (field[1], field[0].itemsize, ours(field[0])) for name, field in dtype.fields.items()}


def theirs(kind: Any) -> Any:
    """The same of the ctypes that bcc makes of the compiled struct."""
    if hasattr(kind, "_length_"):
        return theirs(kind._type_)
    if not hasattr(kind, "_fields_"):
        return None
    # bcc pads where the struct is aligned.
    members = [(name, inner) for name, inner, *_ in kind._fields_ if not name.startswith("__pad")]
    return {
        name: (getattr(kind, name).offset, getattr(kind, name).size, theirs(inner)) for name, inner in members
    }


@pytest.fixture(scope="module")
def compiled(programs: Programs) -> Iterator[Any]:
    """The program with everything in it, as bcc's own object."""
    constants = {**size_flags(programs.sizes), "OUR_IFINDEX": 1}
    build = Build(EVERYTHING, constants, programs.pins)
    program = import_bcc()(text=join_source("sluice.c").encode(), cflags=build.flags())
    yield program
    program.cleanup()


@root
@pytest.mark.parametrize("name", layout().maps)
def test_structs_lie_in_memory_as_bcc_says(compiled: Any, name: str) -> None:
    """Key and value of each map: every member has the offset and size that the compiled program has."""
    table, made = compiled[name.encode()], layout().maps[name]
    for struct, compiled_kind in ((made.key, table.Key), (made.value, table.Leaf)):
        if struct == "__u32":
            assert ctypes.sizeof(compiled_kind) == 4
        else:
            assert ours(dtype_of(struct)) == theirs(compiled_kind)


@root
@pytest.mark.parametrize("name", layout().maps)
def test_maps_are_made_as_bcc_would(compiled: Any, name: str) -> None:
    """The kind, the sizes and the flags with which the control plane makes a map are those of the compiled program."""
    theirs = map_info(compiled[name.encode()].map_fd)

    assert described(name, SMALL) == replace(theirs, entries=described(name, SMALL).entries, id=0)


@root
def test_maps_are_as_large_as_python_takes_them_for(programs: Programs) -> None:
    """Entries, key and value sizes of every map, and so the bytes of those that are mapped, are what the kernel has."""
    assert len(programs.tables.arrays.flows) > 0
    for name, entries in capacities(programs.sizes).items():
        descriptor = obj_get(programs.pins / name)
        said = dict(
            line.split(":\t") for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
        )
        os.close(descriptor)
        sizes = [dtype_of(struct).itemsize for struct in (layout().maps[name].key, layout().maps[name].value)]
        assert [int(said[k]) for k in ("max_entries", "key_size", "value_size")] == [entries, *sizes], name
    assert array_bytes("flows", programs.sizes) == programs.sizes.flow_slots * dtype_of("flow").itemsize


def test_every_map_is_known_to_python_and_back() -> None:
    """Every line of maps.h is read, arrays are named in lb.dataplane.tables, and each map has its number of entries."""
    arrays = {name for name, made in layout().maps.items() if made.kind == "array"}

    assert len(layout().maps) == _CODE["maps.h"].count("\nMAP(")
    assert arrays == set(ARRAY_NAMES)
    assert set(layout().maps) - {*STAGE_MAPS} == set(capacities(TableSizes()))


def test_every_struct_is_held_by_a_map() -> None:
    """So the comparison above leaves out none; flows and other slots lie within buckets, only the traced build
    has a map of traces (test_explain.py), and samples go by a queue."""
    held = {struct for made in layout().maps.values() for struct in (made.key, made.value)}

    assert held - {"__u32"} | {"flow", "service4_slot", "service6_slot", "limit_slot"} == set(
        layout().structs
    ) - {
        "sample",
        "trace",
        "trace_flow",
    }


def test_mapped_maps_are_those_that_python_maps() -> None:
    """Every array is mmapable and nothing else is."""
    for name, made in layout().maps.items():
        assert (made.flag == "MEMORY") == (made.kind == "array"), name


def test_verdicts_have_numbers_of_their_own() -> None:
    """No number and no name twice, all within the counters, 0 left for CONTINUE; each sentence is one."""
    verdicts = layout().verdicts
    declared = re.findall(r"^\s+VERDICT\(", _CODE["verdicts.h"], re.MULTILINE)

    assert len(verdicts) == len(declared) > 20
    assert len({v.number for v in verdicts}) == len({v.name for v in verdicts}) == len(verdicts)
    assert all(0 < v.number < layout().constants["VERDICTS_MAX"] for v in verdicts)
    assert all(v.sentence.endswith(".") and v.sentence[0].isupper() for v in verdicts)


def test_a_verdicts_name_says_its_action() -> None:
    """PASS_ passes, TX_ goes back out, REDIRECT_ out of another interface, DROP_ drops."""
    assert {v.name: v.action for v in layout().verdicts} == {
        v.name: v.name.split("_")[0].lower() for v in layout().verdicts
    }


def test_every_verdict_is_used_and_every_used_one_declared() -> None:
    """The code ends packets by exactly the verdicts of the list."""
    stages = "".join(text for name, text in _CODE.items() if name not in ("verdicts.h", "decap.c"))
    used = set(re.findall(r"\b((?:PASS|TX|REDIRECT|DROP)_[A-Z0-9_]+)\b", stages))

    assert used == {v.name for v in layout().verdicts}


def test_every_feature_is_asked_for_somewhere() -> None:
    """Each HAVE_ of config.h is asked by a stage, and none is asked that is not there."""
    stages = "".join(text for name, text in _CODE.items() if name != "config.h")

    assert set(re.findall(r"\bHAVE_\w+", stages)) == set(layout().features)


def test_only_finish_returns_an_action() -> None:
    """Nothing leaves uncounted: no other stage names an XDP action."""
    others = {name: text for name, text in _CODE.items() if name not in ("finish.h", "verdicts.h", "decap.c")}

    assert {
        name: re.findall(r"\bXDP_(?:PASS|DROP|TX|REDIRECT|ABORTED)\b", text) for name, text in others.items()
    } == {name: [] for name in others}


def test_every_header_says_what_it_is_for() -> None:
    """A charter comment opens each file, and files stay short."""
    for path in XDP_DIR.glob("*.[ch]"):
        text = path.read_text()
        assert text.startswith("/* "), path.name
        assert len(text.splitlines()) <= 250, path.name
        assert max(len(line.expandtabs(4)) for line in text.splitlines()) <= 132, path.name


def test_program_has_every_header_once() -> None:
    """sluice.c takes in every header of its folder."""
    joined = join_source("sluice.c")

    headers = {path.name for path in Path(XDP_DIR).glob("*.h")}
    assert headers == set(re.findall(r'^#line 1 "(\w+\.h)"', joined, re.MULTILINE))


def test_an_upgrade_does_not_reach_a_daemon_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written in their place, programs are compiled of the files that were there at first."""
    copy = shutil.copytree(XDP_DIR, tmp_path / "xdp")
    monkeypatch.setattr(source, "XDP_DIR", copy)
    monkeypatch.setattr(source, "_own_texts", cache(source._own_texts.__wrapped__))
    before = join_source("sluice.c", copy)
    for path in copy.glob("*.[ch]"):
        path.write_text("/* of another version */")

    assert join_source("sluice.c", copy) == before
    assert "of another version" not in join_source("decap.c", copy)


@root
@pytest.mark.parametrize("name", ["allow4", "quic_ids"], ids=["trie", "hash"])
def test_deletion_passes_over_keys_that_are_not_there(programs: Programs, name: str) -> None:
    """Some of many keys are missing, first, last and between: all others are gone, whatever the map's kind."""
    table = getattr(programs.tables, name)
    keys = np.zeros(9, dtype_of(layout().maps[name].key))
    keys["length" if name == "allow4" else "service"] = np.arange(9)
    table.write(keys[[1, 2, 4, 7]], np.ones(4, "<u4"))

    table.delete(keys)

    assert len(table.read()[0]) == 0

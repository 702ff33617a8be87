"""Compiled programs: kept in a directory, the same for every interface, and compiled anew where they are not whole."""

import os
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from plane import OUR_MAC, Programs
from rig import Rig

from lb.dataplane import compiler, kept, libbpf
from lb.dataplane.build import Build, Program, compile_program
from lb.dataplane.bytecode import Bytecode, late_marks, late_numbers, map_loads
from lb.dataplane.tables import size_flags
from lb.errors import CompileError

pytestmark = pytest.mark.root

Load = Callable[..., Program]
NOT_OURS = bytes.fromhex("02000000aa99") + bytes(52)


@pytest.fixture
def load(programs: Programs, tmp_path: Path) -> Load:
    """Loads the smallest program, with constants of one's own; what is compiled is kept in tmp_path/kept."""

    def load(**constants: int) -> Program:
        mac = bytes.fromhex(OUR_MAC.replace(":", ""))
        given = {
            **size_flags(programs.sizes),
            "OUR_IFINDEX": 7,
            "OUR_MAC_FIRST4": int.from_bytes(mac[:4], "little"),
            "OUR_MAC_LAST2": int.from_bytes(mac[4:], "little"),
            **constants,
        }
        return compile_program(Build(frozenset(), given, programs.pins, kept=tmp_path / "kept"))

    return load


def no_compiler(*_: object) -> Bytecode:
    """Stands for a compiler that nobody is to ask."""
    raise CompileError("the compiler was asked")


def verdicts(rig: Rig, program: Program, frame: bytes) -> dict[str, int]:
    """What a frame that a program is run on is counted as."""
    names = {v.number: v.name for v in rig.plane.verdicts}
    before = rig.plane.tables.verdict_counters.read()["packets"].copy()
    libbpf.test_run(program.fd, frame)
    rose = rig.plane.tables.verdict_counters.read()["packets"] - before
    return {names[n]: int(rose[n]) for n in rose.nonzero()[0]}


def test_the_compiler_is_asked_once(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time the kept program is loaded: instruction by instruction the same."""
    first = load()
    monkeypatch.setattr(compiler, "compile_text", no_compiler)

    assert load().info.tag == first.info.tag


def test_who_comes_meanwhile_waits_for_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that need the same program at once have one compiled, and no lock is left behind."""
    code = kept.kept_or_compiled("decap.c", ["decap"], ["-DONE=1"], tmp_path / "one")
    asked: list[int] = []
    second = threading.Event()

    def compile_text(*_: object) -> Bytecode:
        asked.append(len(asked))
        second.set() if len(asked) == 2 else second.wait(0.3)
        return code

    monkeypatch.setattr(compiler, "compile_text", compile_text)
    with ThreadPoolExecutor(2) as threads:
        both = [
            threads.submit(kept.kept_or_compiled, "decap.c", ["decap"], ["-DTWO=1"], tmp_path / "two")
            for _ in range(2)
        ]

    assert [one.result() for one in both] == [code, code]
    assert asked == [0]
    assert [path.suffix for path in (tmp_path / "two").iterdir()] == [".bytecode"]


def test_another_interface_needs_no_compiler(rig: Rig, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAC, index and keys are put in when it is loaded: each program knows its own interface's frames."""
    ours = load()
    monkeypatch.setattr(compiler, "compile_text", no_compiler)
    other = load(
        OUR_MAC_FIRST4=int.from_bytes(NOT_OURS[:4], "little"),
        OUR_MAC_LAST2=int.from_bytes(NOT_OURS[4:6], "little"),
        OUR_IFINDEX=0xFFFFFFF,
        FLOW_KEY0=(1 << 64) - 1,
    )

    assert verdicts(rig, ours, NOT_OURS) == {"PASS_NOT_OUR_MAC": 1}
    assert "PASS_NOT_OUR_MAC" not in verdicts(rig, other, NOT_OURS)


@pytest.mark.parametrize("harm", ["cut", "changed", "empty", "no JSON"])
def test_what_is_not_whole_is_compiled_anew(load: Load, tmp_path: Path, harm: str) -> None:
    """The file is replaced by a whole one, and the program is the same as ever."""
    first = load()
    [file] = (tmp_path / "kept").iterdir()
    whole = file.read_bytes()
    file.write_bytes(
        {
            "cut": whole[:-1],
            "changed": whole[:500] + bytes([whole[500] ^ 1]) + whole[501:],
            "empty": b"",
            "no JSON": b"{}\n[]",
        }[harm]
    )

    assert load().info.tag == first.info.tag
    assert file.read_bytes() == whole


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_where_others_may_write_nothing_is_kept_or_read(load: Load, tmp_path: Path, mode: int) -> None:
    """What is read there runs in the kernel; so such a directory is left alone."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(mode)

    load()

    assert not list((tmp_path / "kept").iterdir())


def test_those_used_the_longest_ago_go(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more are kept than so many; reading one counts as use. What a killed process has left is no use to anybody."""
    monkeypatch.setattr(kept, "MOST", 2)
    load(OUR_MTU=1)
    [first] = (tmp_path / "kept").iterdir()
    load(OUR_MTU=2)
    second = next(path for path in (tmp_path / "kept").iterdir() if path != first)
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    unfinished = tmp_path / "kept" / ".new-abandoned"
    unfinished.touch()
    os.utime(unfinished, (2, 2))
    load(OUR_MTU=1)

    load(OUR_MTU=3)

    left = set((tmp_path / "kept").iterdir())
    assert len(left) == 2
    assert first in left
    assert second not in left


def test_every_mark_and_map_is_replaced(programs: Programs) -> None:
    """Bytecode is linked over any descriptors, and no mark is left, also not in what was read from a file."""
    build = Build(frozenset(), size_flags(programs.sizes), programs.pins)
    read = Bytecode.from_bytes(build.bytecode().to_bytes())
    fds = {name: 1000 + number for number, name in enumerate(read.maps)}

    code = read.linked("sluice", fds, dict.fromkeys(late_numbers(), 171 << 56 | 7))

    assert {struct.unpack_from("<i", code, at)[0] for at in map_loads(code)} == set(fds.values())
    for mark in late_marks():
        assert mark.to_bytes(8, "little")[4:] not in code

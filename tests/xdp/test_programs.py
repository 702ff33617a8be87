"""The programs that a daemon holds: who needs the same one at once gets the same one."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lb.dataplane import libbpf, programs
from lb.dataplane.build import Build, Program
from lb.dataplane.programs import Programs
from lb.dataplane.protocol import ProgramWish
from lb.dataplane.rtnetlink import Link
from lb.settings import ServeSettings

pytestmark = pytest.mark.root

LINK = Link(7, "sl-none", bytes.fromhex("02000000aa01"), 1500, True, None, "")


def test_two_threads_make_one_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that needs what is being kept ready waits for it: made twice, the first program would call the
    second of the other, which has not what was handed over."""
    made: list[Program] = []
    second = threading.Event()

    def compile_program(build: Build) -> Program:
        fd = os.open(os.devnull, os.O_RDONLY)
        made.append(Program(fd, build, libbpf.ProgramInfo(1, build.name, "", 1, 1, 1), 0.0))
        second.set() if len(made) == 2 else second.wait(0.3)
        return made[-1]

    monkeypatch.setattr(programs, "compile_program", compile_program)
    held = Programs(ServeSettings(("sl-none",), state_dir=tmp_path, pin_root=tmp_path), tmp_path, (1, 2))
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(held.get, LINK, ProgramWish(frozenset({"HAVE_NAT"}))) for _ in range(2)]

    assert [one.result() for one in asked] == [made[0]] * 2
    assert len(made) == 1
    held.forget_all_but([], [])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made[0].fd)

"""From a program's requirements to a loaded program: bcc compiles, the kernel verifies; nothing is attached here."""

import contextlib
import ctypes
import hashlib
import os
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lb.dataplane import gate, libbpf, second
from lb.dataplane.bytecode import Bytecode, late_numbers
from lb.dataplane.clock import jiffy_share
from lb.dataplane.kept import kept_or_compiled
from lb.dataplane.layout import layout
from lb.dataplane.maps import opened
from lb.dataplane.source import join_source
from lb.errors import CompileError

NAME_PREFIX = "sluice_"
"""A loaded program's name is this and eight digits of its digest, so that a restart knows its own."""


@dataclass(frozen=True)
class Build:
    """The specification of a program: features by name of config.h, and every other constant it is compiled with."""

    features: frozenset[str]
    constants: Mapping[str, int]
    pins: Path
    """Where its maps are pinned."""
    traced: bool = False
    """Built for explain (xdp/trace.h)."""
    kept: Path | None = field(default=None, compare=False)
    """Where compiled programs are kept."""

    def flags(self) -> list[str]:
        """Arguments for the compiler."""
        named = {name: int(name in self.features) for name in layout().features}
        values = [
            f"-D{name}={value}ULL" if value >> 32 else f"-D{name}={value}U"
            for name, value in self.constants.items()
            if name not in late_numbers()
        ]
        return [
            f"-DJIFFY_SHARE={jiffy_share()}",
            *(f"-D{n}={v}" for n, v in named.items()),
            *values,
            *(["-DTRACE=1"] if self.traced else []),
            "-Wno-macro-redefined",
        ]

    @property
    def has_second(self) -> bool:
        """Whether there is a second program, for NAT, that the first calls."""
        return "HAVE_NAT" in self.features

    @property
    def stages(self) -> str:
        """The name of that map."""
        return "stages_frags" if "HAVE_FRAGS" in self.features else "stages"

    def late(self, stage_slot: int) -> dict[str, int]:
        """The numbers that are put in when the program is loaded. stage_slot: where its second program stands."""
        return self._numbers | {"STAGE_SLOT": stage_slot}

    @property
    def _numbers(self) -> dict[str, int]:
        """Those that do not follow from what the program is."""
        return {name: self.constants.get(name, usual) for name, usual in late_numbers().items()}

    def bytecode(self) -> Bytecode:
        """Its bytecode, compiled or from the cache. CompileError; SetupError."""
        functions = ["sluice", "sluice_nat"] if self.has_second else ["sluice"]
        return kept_or_compiled("sluice.c", functions, self.flags(), self.kept)

    @cached_property
    def digest(self) -> str:
        """Names the program: the same digest, the same program over the same maps. It reads all of xdp/."""
        numbers = str(sorted(self._numbers.items()))
        text = "\0".join([join_source("sluice.c"), *self.flags(), numbers, str(self.pins)])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """The loaded program's name, 15 characters."""
        return NAME_PREFIX + self.digest[:8]


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds to compile, to load (verifier and machine code), and to wait for the check beside it; bytes of stack."""

    compile_seconds: float = 0.0
    load_seconds: float = 0.0
    check_seconds: float = 0.0
    stack_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded program, and what it took; of one that an earlier run left, that is not known.

    trace_fd: the map of a traced one, else -1.
    """

    fd: int
    build: Build
    info: libbpf.ProgramInfo
    compiled_at: float
    cost: Cost = Cost()
    trace_fd: int = -1


def compile_program(build: Build) -> Program:
    """Compile if it is not at hand, load, and pass through the known-answer gate; maps that are missing are made.

    CompileError holds the compiler's or the verifier's words; KnownAnswerError the known frame that went wrong.
    """
    began = time.perf_counter()
    bytecode = build.bytecode()
    flags = libbpf.XDP_HAS_FRAGS if "HAVE_FRAGS" in build.features else 0
    statistics = ctypes.create_string_buffer(4096)
    compiled_at = time.perf_counter()
    try:
        with opened(bytecode, build.pins) as maps:
            slot = second.choose(build.pins, build.name) if build.has_second else 0
            late = build.late(slot)
            code = bytecode.linked("sluice", maps, late)
            second_code = bytecode.linked("sluice_nat", maps, late) if build.has_second else b""
            # Side by side: the verifier takes most of the time of both.
            with ThreadPoolExecutor(1, "gate") as beside:
                # A traced build is never attached, and counts nothing that could be checked.
                check = (lambda *_, **__: None) if build.traced else gate.check
                checked = beside.submit(
                    check,
                    code,
                    flags,
                    build.features,
                    build.constants,
                    second=second_code,
                    stage_slot=slot,
                )
                if second_code:
                    second.put(maps[build.stages], slot, build.name, second_code, flags)
                fd = libbpf.prog_load(build.name, code, flags=flags, statistics=statistics)
                loaded_at = time.perf_counter()
                try:
                    checked.result()
                except BaseException:
                    os.close(fd)
                    raise
            trace_fd = os.dup(maps["traces"]) if build.traced else -1
    except OSError as error:
        log = error.strerror or ""
        last = next((line for line in reversed(log.splitlines()) if line and "processed" not in line), "")
        raise CompileError(f"the kernel refuses the XDP program: {last}", log) from error
    stack = re.search(rb"stack depth (\d+)", statistics.value)
    cost = Cost(
        compile_seconds=compiled_at - began,
        load_seconds=loaded_at - compiled_at,
        check_seconds=time.perf_counter() - loaded_at,
        stack_bytes=int(stack[1]) if stack else None,
    )
    return Program(fd, build, libbpf.prog_info(fd), time.time(), cost, trace_fd)


def retire(program: Program) -> None:
    """Let go of a program that is not in force, and of its second: no other of the same build is left."""
    os.close(program.fd)
    if program.build.has_second:
        with contextlib.suppress(OSError):
            second.remove(program.build.pins, program.info.name)

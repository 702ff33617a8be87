"""From the C text to a loaded program: bcc compiles, the kernel verifies; nothing is attached here."""

import contextlib
import ctypes
import hashlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lb.dataplane import gate, headers, libbpf
from lb.dataplane.clock import jiffy_share
from lb.dataplane.fresh_maps import Turned, are_needed
from lb.dataplane.layout import layout
from lb.dataplane.source import join_source
from lb.errors import CompileError, SetupError

NAME_PREFIX = "sluice_"
"""A loaded program's name is this and eight digits of its digest, so that a restart knows its own."""


_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Build:
    """One program to be: features by name of config.h, and every other constant it is compiled with."""

    features: frozenset[str]
    constants: Mapping[str, int]
    pins: Path
    """Where its maps are pinned."""
    traced: bool = False
    """Built for explain (xdp/trace.h)."""

    def flags(self) -> list[str]:
        """Arguments for the compiler."""
        named = {name: int(name in self.features) for name in layout().features}
        values = [
            f"-D{name}={value}ULL" if value >> 32 else f"-D{name}={value}U"
            for name, value in self.constants.items()
        ]
        return [
            f'-DPIN_DIR="{self.pins}"',
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
    def stage_slot(self) -> int:
        """Where in the map `stages` the second program stands: builds that live side by side have their own."""
        return int(self.digest()[:8], 16) % layout().constants["STAGES_MAX"]

    @property
    def stages(self) -> str:
        """The name of that map."""
        return "stages_frags" if "HAVE_FRAGS" in self.features else "stages"

    def digest(self) -> str:
        """Names the program: the same digest, the same bytecode."""
        text = join_source("sluice.c") + "\0".join(self.flags())
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """The loaded program's name, 15 characters."""
        return NAME_PREFIX + self.digest()[:8]


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


def import_bcc() -> Any:
    """Bcc's BPF class; SetupError says what to install."""
    try:
        import bcc
    except ImportError as error:
        raise SetupError(
            f"bcc cannot be imported ({error}): run make setup, or install python3-bpfcc"
        ) from error
    if not hasattr(bcc, "BPF"):
        raise SetupError(
            "the module bcc is another project's, of the same name on PyPI: uninstall it and install python3-bpfcc"
        )
    if headers.use() is None:
        raise SetupError(
            "no kernel headers to compile with: run make setup, or install linux-headers-$(uname -r)"
        )
    return bcc.BPF


def compile_text(source: str, flags: list[str]) -> Any:
    """Compile one of xdp/'s programs: bcc's object, whose `cleanup` is the caller's. CompileError; SetupError."""
    bpf_class = import_bcc()
    with _one_at_a_time, _stderr_kept() as words:
        try:
            return bpf_class(text=join_source(source).encode(), cflags=flags)
        except Exception as error:  # bcc raises a bare Exception
            raise CompileError(f"{source} does not compile: {_first_error(words())}", words()) from error


class Compiled:
    """What bcc has made of a text, over the maps that are pinned."""

    def __init__(self, bpf: Any, turned: Turned) -> None:
        self._bpf, self._turned = bpf, turned

    def code(self, function: str) -> bytes:
        """The bytecode of one of its programs."""
        return self._turned.code(self._bpf.dump_func(function.encode()))

    def fd(self, name: str) -> int:
        """One of its maps, by name; it is not the caller's to close."""
        return self._turned.fd(self._bpf[name.encode()].map_fd)


@contextlib.contextmanager
def compiled_over(build: Build, source: str, *more: str) -> Iterator[Compiled]:
    """One of xdp/'s programs over the maps of a build, which are made and pinned where there are none yet.

    more: arguments for the compiler. CompileError. The bytecode can be loaded until the context ends.
    """
    turned, flags = Turned(build.pins), [*build.flags(), *more]
    with contextlib.ExitStack() as stack:
        if are_needed():
            flags.append(f'-DPIN_DIR="{stack.enter_context(turned.directory())}"')
        bpf = compile_text(source, flags)
        stack.callback(bpf.cleanup)
        turned.take(bpf)
        yield Compiled(bpf, turned)


def compile_program(build: Build) -> Program:
    """Compile, load, and pass through the known-answer gate; the maps are made and pinned on first use.

    CompileError holds the compiler's or the verifier's words; KnownAnswerError the known frame that went wrong.
    """
    began = time.perf_counter()
    with compiled_over(build, "sluice.c", f"-DSTAGE_SLOT={build.stage_slot}") as compiled:
        return _loaded(build, compiled, began)


def _loaded(build: Build, compiled: Compiled, began: float) -> Program:
    code = compiled.code("sluice")
    second = compiled.code("sluice_nat") if build.has_second else b""
    flags = libbpf.XDP_HAS_FRAGS if "HAVE_FRAGS" in build.features else 0
    statistics = ctypes.create_string_buffer(4096)
    compiled_at = time.perf_counter()
    try:
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
                second=second,
                stage_slot=build.stage_slot,
            )
            if second:
                _put_second(build, second, flags, compiled.fd(build.stages))
            fd = libbpf.prog_load(build.name, code, flags=flags, statistics=statistics)
            loaded_at = time.perf_counter()
            try:
                checked.result()
            except BaseException:
                os.close(fd)
                raise
        trace_fd = os.dup(compiled.fd("traces")) if build.traced else -1
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


def _put_second(build: Build, code: bytes, flags: int, stages: int) -> None:
    """Load the second program and put it where the first will call it. OSError."""
    fd = libbpf.prog_load(build.name, code, flags=flags)
    try:
        libbpf.map_update(stages, build.stage_slot.to_bytes(4, "little"), fd.to_bytes(4, "little"))
    finally:
        os.close(fd)


def retire(program: Program) -> None:
    """Let go of a program that is not in force, and of its second: no other of the same build is left."""
    os.close(program.fd)
    if program.build.has_second:
        with contextlib.suppress(OSError):
            stages = libbpf.obj_get(program.build.pins / program.build.stages)
            try:
                libbpf.map_delete(stages, program.build.stage_slot.to_bytes(4, "little"))
            finally:
                os.close(stages)


def _first_error(text: str) -> str:
    return next((line for line in text.splitlines() if "error" in line), "see the log")


@contextlib.contextmanager
def _stderr_kept() -> Iterator[Any]:
    """Bcc's compiler writes to file descriptor 2, whatever Python's sys.stderr is."""
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)

        def words() -> str:
            ctypes.CDLL(None).fflush(None)
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield words
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            with contextlib.suppress(OSError):
                # Other threads may have logged meanwhile.
                os.write(2, words().encode())

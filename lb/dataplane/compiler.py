"""bcc: from the C text to bytecode."""

import contextlib
import ctypes
import os
import platform
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from lb.dataplane import headers, libbpf
from lb.dataplane.bytecode import Bytecode, of_functions
from lb.dataplane.layout import layout, map_name
from lb.dataplane.samples import PIN
from lb.dataplane.source import join_source
from lb.errors import CompileError, SetupError

_one_at_a_time = threading.Lock()


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


def compile_text(source: str, functions: Sequence[str], flags: Sequence[str]) -> Bytecode:
    """Compile one of xdp/'s programs, and take these functions. CompileError; SetupError.

    bcc makes maps as it compiles, of one entry each: they are let go of again.
    """
    bpf_class = import_bcc()
    with _one_at_a_time, _stderr_kept() as words:
        try:
            compiled = bpf_class(text=join_source(source).encode(), cflags=list(flags))
        except Exception as error:  # bcc raises a bare Exception
            raise CompileError(f"{source} does not compile: {_first_error(words())}", words()) from error
    try:
        code = {name: compiled.dump_func(name.encode()) for name in functions}
        return of_functions(code, _described, {*layout().maps, PIN})
    finally:
        compiled.cleanup()


def identity() -> str:
    """Names the compiler and the headers: the same, the same bytecode from the same text and flags."""
    import bcc

    return f"{bcc.__version__} {platform.machine()} {headers.use()}"


def _described(fd: int) -> libbpf.MapInfo:
    """A map that bcc has made, by its whole name."""
    made = libbpf.map_info(fd)
    return replace(made, name=map_name(made.name))


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

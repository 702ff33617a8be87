"""Compile a small XDP program with bcc, load it and attach it to an interface.

Programs are attached by netlink: they live as long as the interface does, and nothing is pinned.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lb.dataplane import headers, libbpf
from lb.errors import CompileError, DataPlaneError, InterfaceError, SetupError


def compile_source(source: Path, flags: Sequence[str] = ()) -> Any:
    """Compile a C file: bcc's BPF object, which owns the maps. CompileError; SetupError without headers."""
    if headers.use() is None:
        raise SetupError(
            "bcc finds no kernel headers: run `make setup`, or install linux-headers for a recent kernel"
        )
    import bcc

    try:
        return bcc.BPF(src_file=str(source).encode(), cflags=list(flags))
    except Exception as error:  # bcc raises nothing more precise; the compiler's words went to stderr
        raise CompileError(f"{source.name} does not compile: clang's words are above") from error


def load_program(program: Any, function: str) -> int:
    """Load one function, with support for frames of several buffers; its file descriptor. CompileError.

    bcc's own load_func cannot ask for that support, and veth refuses a program without it on a large MTU.
    """
    try:
        return libbpf.prog_load(function, program.dump_func(function.encode()), flags=libbpf.XDP_HAS_FRAGS)
    except OSError as error:
        raise CompileError(f"the kernel refuses the program {function}", error.strerror or "") from error


def attach(interface: str, descriptor: int) -> None:
    """Attach a loaded program in place of any attached so; -1 takes it off. InterfaceError; DataPlaneError.

    The interface is one of the thread's own network namespace.
    """
    with IPRoute() as route:
        found = route.link_lookup(ifname=interface)
        if not found:
            raise InterfaceError(f"there is no interface {interface}: `ip link` shows those there are")
        try:
            route.link("set", index=found[0], xdp_fd=descriptor)
        except NetlinkError as error:
            raise DataPlaneError(f"{interface} takes no XDP program: {error}") from error

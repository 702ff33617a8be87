"""Compiled programs kept in a directory, so that a start after a reboot does not wait for the compiler.

A file is named by all that the bytecode depends on: the text, the flags, the compiler and its headers. One that is
not whole is compiled anew.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lb.dataplane import compiler
from lb.dataplane.bytecode import Bytecode
from lb.dataplane.source import join_source

MOST = 256
"""Limit of files; the least recently used are removed first."""
ABANDONED_SECONDS = 3600.0
"""After this long, a temporary file is abandoned."""
_FRESH, _SUFFIX = ".new-", ".bytecode"
_log = logging.getLogger(__name__)


def kept_or_compiled(
    source: str, functions: Sequence[str], flags: Sequence[str], directory: Path | None
) -> Bytecode:
    """The bytecode of one of xdp/'s programs, which is kept if there is a directory. CompileError; SetupError."""
    compiler.import_bcc()
    text = "\0".join([join_source(source), *functions, *flags, compiler.identity()])
    name = hashlib.sha256(text.encode()).hexdigest() + _SUFFIX
    if directory is None or not _is_ours(directory):
        return compiler.compile_text(source, functions, flags)
    if (kept := _read(directory / name)) is not None:
        return kept
    with _first(directory, name):
        if (kept := _read(directory / name)) is not None:
            return kept
        fresh = compiler.compile_text(source, functions, flags)
        with contextlib.suppress(OSError):  # a full disk keeps nothing, and hinders nobody
            _write(directory, name, fresh.to_bytes())
    return fresh


@contextlib.contextmanager
def _first(directory: Path, name: str) -> Iterator[None]:
    """Of processes that need the same program at once, one compiles; this only saves time."""
    path = directory / f"{_FRESH}{name[:16]}"
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            file = held.enter_context(path.open("w"))
            held.callback(path.unlink, missing_ok=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_ours(directory: Path) -> bool:
    """Whether nobody else can put files there: what they hold runs in the kernel."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = directory.stat()
    except OSError as error:
        _log.warning("compiled programs are not kept: %s", error)
        return False
    ours = state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not ours:
        _log.warning(
            "compiled programs are not kept: %s must be this user's, and nobody else may write to it: chmod 700",
            directory,
        )
    return ours


def _read(path: Path) -> Bytecode | None:
    try:
        found = Bytecode.from_bytes(path.read_bytes())
        os.utime(path)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def _write(directory: Path, name: str, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=directory, prefix=_FRESH, delete=False) as file:
        try:
            file.write(data)
            file.close()
            Path(file.name).rename(directory / name)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    _forget_oldest(directory)


def _forget_oldest(directory: Path) -> None:
    for left in directory.glob(f"{_FRESH}*"):  # of processes that were killed
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink()
    by_age = sorted(directory.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_age[MOST:]:
        path.unlink(missing_ok=True)

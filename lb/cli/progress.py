"""A progress bar while a file is sent, for a terminal."""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import click


class _Told:
    """A file, each of whose readings moves a bar on."""

    def __init__(self, file: BinaryIO, bar: Any) -> None:
        self._file, self._bar = file, bar

    def read(self, size: int = -1) -> bytes:
        """As the file does."""
        some = self._file.read(size)
        self._bar.update(len(some))
        return some

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def told(file: BinaryIO, label: str) -> Iterator[BinaryIO]:
    """The file, with a bar on standard error while it is read; as it is where nobody looks, or its end is not known."""
    size = _size(file)
    if size is None or not sys.stderr.isatty():
        yield file
        return
    with click.progressbar(length=size, label=label, file=sys.stderr, width=0) as bar:
        yield cast(BinaryIO, _Told(file, bar))


def _size(file: BinaryIO) -> int | None:
    try:
        status = os.fstat(file.fileno())
        return status.st_size - file.tell() if stat.S_ISREG(status.st_mode) else None
    except (OSError, ValueError):
        return None

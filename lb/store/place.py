"""Where the state file lies: whether it is still the one that is open, and whether there is room to write it."""

import os
from pathlib import Path

from lb.errors import StoreError

ROOM_BYTES = 1 << 20
"""With less the next changes may fail."""

_REMEDY = "put it back, or keep what is in force by sluice export, and apply that after a restart"


class Place:
    """The path of an open file. None instead of a path: memory. remedy: what to do where the file is gone."""

    def __init__(self, path: Path | None, remedy: str = _REMEDY) -> None:
        self._path, self._remedy = path, remedy
        self._identity = _identity(path) if path else None

    def check(self) -> None:
        """StoreError if the path leads elsewhere by now, or to what nobody may write: it would not outlive this run."""
        if (says := self._gone() or self._read_only()) is not None:
            raise StoreError(says)

    def _gone(self) -> str | None:
        if self._path is None or _identity(self._path) == self._identity:
            return None
        there = "is another file now" if self._path.exists() else "is gone"
        return f"{self._path} {there}: {self._remedy}"

    def _read_only(self) -> str | None:
        if self._path is None or not os.statvfs(self._path.parent).f_flag & os.ST_RDONLY:
            return None
        return (
            f"{self._path} is on a read-only file system, and no change can be kept: see the kernel's log, then "
            "mount it anew, with -o remount,rw"
        )

    def problem(self) -> str | None:
        """Why changes cannot be kept, or soon not any more; None if they can."""
        if self._path is None:
            return None
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return self._gone()
        if disk.f_bavail * disk.f_frsize < ROOM_BYTES:
            return f"the disk that holds {self._path} is full: no change can be kept"
        return self._gone() or self._read_only()


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells one file from another; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

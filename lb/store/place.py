"""Where the state file lies: whether it is still the one that is open, and whether there is room to write it."""

import os
from pathlib import Path

from lb.errors import StoreError

ROOM_BYTES = 1 << 20
"""With less the next changes may fail."""


class Place:
    """The path of an open file. None instead of a path: memory."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._identity = _identity(path) if path else None

    def check(self) -> None:
        """StoreError if the path leads elsewhere by now: what were written would be gone with this process."""
        if (says := self._gone()) is not None:
            raise StoreError(says)

    def _gone(self) -> str | None:
        if self._path is None or _identity(self._path) == self._identity:
            return None
        there = "is another file now" if self._path.exists() else "is gone"
        return (
            f"{self._path} {there}: put it back, or keep what is in force by sluice export, "
            "and apply that after a restart"
        )

    def problem(self) -> str | None:
        """Why changes cannot be kept, or soon not any more; None if they can."""
        if self._path is None:
            return None
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return self._gone()
        if disk.f_flag & os.ST_RDONLY:
            return f"{self._path} is on a read-only file system: no change can be kept"
        if disk.f_bavail * disk.f_frsize < ROOM_BYTES:
            return f"the disk that holds {self._path} is full: no change can be kept"
        return self._gone()


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells one file from another; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

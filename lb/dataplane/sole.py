"""One daemon per interface: whoever works on its pins locks their directories, until it ends, however it ends."""

import contextlib
import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

from lb.errors import DataPlaneError

PATIENCE_SECONDS = 5.0
"""A daemon that was killed takes its time to die."""
_PAUSE_SECONDS = 0.05


class Sole:
    """Holds directories of pins, by the interfaces' names. DataPlaneError: another process holds one of them."""

    def __init__(
        self, directories: Mapping[str, Path], *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._held: list[int] = []
        deadline = time.monotonic() + patience_seconds
        try:
            for name, directory in directories.items():
                self._held.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
                while not _is_ours(self._held[-1]):
                    if time.monotonic() >= deadline:
                        raise DataPlaneError(
                            f"{name} is served by a sluice that runs, on another socket maybe: stop that one first"
                        )
                    time.sleep(_PAUSE_SECONDS)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of them."""
        while self._held:
            os.close(self._held.pop())


def _is_ours(descriptor: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False

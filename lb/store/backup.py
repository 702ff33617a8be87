"""A copy of the newest revision beside the state file, for the day on which that is damaged."""

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from lb.errors import StoreError
from lb.model import Config
from lb.store.base import RevisionInfo
from lb.store.file import LAST_GOOD
from lb.store.sqlite import SqliteStore

INTERVAL_SECONDS = 600.0
"""How much older than the newest revision the copy may become."""


def write_copy(path: Path, info: RevisionInfo, config: Config, *, skip: int = 0) -> None:
    """A state file that holds this revision alone, put in place whole. StoreError, OSError: it could not be written.

    skip: so many numbers after the revision's are not given again.
    """
    fresh = path.with_name(path.name + ".new")
    for end in ("", "-wal", "-shm"):
        fresh.with_name(fresh.name + end).unlink(missing_ok=True)
    try:
        store = SqliteStore(fresh)
        try:
            store.begin_with(info, config, skip=skip)
        finally:
            store.close()
        fresh.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


class LastGood:
    """Keeps the copy beside a state file: at once when it starts and ends, else at most once in a while.

    newest: what there is to copy, None while that is not known for good; it is asked for on the thread that writes, and
    not at all while nothing is new.
    """

    def __init__(
        self,
        state: Path,
        newest: Callable[[], tuple[RevisionInfo, Config] | None],
        failed: Callable[[str], None],
    ) -> None:
        self._path = state.with_name(state.name + LAST_GOOD)
        self._newest, self._failed = newest, failed
        self._wake = threading.Condition()
        self._is_new, self._stopping = True, False
        self._thread = threading.Thread(target=self._run, name="last-good", daemon=True)

    def start(self) -> None:
        """Write the first copy, and go on."""
        self._thread.start()

    def note(self) -> None:
        """There is something new; called from any thread, it does not wait."""
        with self._wake:
            self._is_new = True
            self._wake.notify()

    def stop(self) -> None:
        """Write what is new, and end."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        put_off = False
        while True:
            with self._wake:
                stopping, is_new, self._is_new = self._stopping, self._is_new or put_off, False
            put_off = is_new and not self._copy()
            if stopping:
                return
            with self._wake:
                self._wake.wait_for(self._is_due, INTERVAL_SECONDS)

    def _is_due(self) -> bool:
        """Whether to look before the interval is over: the very first revision is copied at once."""
        return self._stopping or (self._is_new and not self._path.exists())

    def _copy(self) -> bool:
        """Whether there was something to copy."""
        try:
            found = self._newest()
            if found is None:
                return False
            write_copy(self._path, *found)
        except (OSError, StoreError) as error:
            self._failed(f"the copy {self._path} could not be written: {error}")
        return True

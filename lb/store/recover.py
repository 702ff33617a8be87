"""What can be had of a damaged state file: the newest revision that is whole, in it or in the copy beside it."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lb.errors import DamagedError, NotFoundError, StoreError
from lb.model import Config
from lb.model.times import format_moment
from lb.store.backup import write_copy
from lb.store.base import Pending, RevisionInfo
from lb.store.file import LAST_GOOD, reading
from lb.store.pending import read_pending
from lb.store.sqlite import SqliteStore, config_of, history

SKIPPED = 1000
"""Revision numbers that are not given again: the damaged file may have held later ones, which nobody can read."""


@dataclass(frozen=True, slots=True)
class Found:
    """A revision that is whole, and the file that it is in."""

    source: Path
    info: RevisionInfo
    config: Config
    waiting: Pending | None = None
    """What waited to be confirmed there: there is nobody any more who takes it back."""

    def __str__(self) -> str:
        at, info = format_moment(round(self.info.created_at)), self.info
        says = f"revision {info.revision} of {at} ({info.summary or 'no summary'}, by {info.actor}), from {self.source}"
        if self.waiting is None:
            return says
        newer = self.waiting.revision
        if info.revision < newer:
            return f"{says}; revision {newer}, which waited to be confirmed, is left out"
        return (
            f"{says}; revision {newer} waited to be confirmed, and what it changed is not taken back any more"
        )


def find(state: Path) -> Found | None:
    """The newest revision that can be read and does not wait to be confirmed; else the newest. Changes nothing."""
    found = [
        _newest_whole(path) for path in (state, state.with_name(state.name + LAST_GOOD)) if path.exists()
    ]
    return max((each for each in found if each), key=lambda each: each.info.revision, default=None)


def _newest_whole(path: Path) -> Found | None:
    with contextlib.suppress(StoreError, OSError), reading(path) as db:
        waiting = _waiting(db)
        base = waiting.base if waiting else 0
        # Of what was not confirmed it is not known whether one gets in with it: it comes last, though it is newer.
        for info in sorted(history(db), key=lambda info: info.revision > base):
            with contextlib.suppress(DamagedError):
                return Found(path, info, config_of(db, info.revision, str(path)), waiting)
    return None


def _waiting(db: sqlite3.Connection) -> Pending | None:
    with contextlib.suppress(ValueError, sqlite3.Error):
        return read_pending(db)
    return None


@contextlib.contextmanager
def offering(state: Path, close: Callable[[], None] | None = None) -> Iterator[None]:
    """Around what reads the state file: DamagedError then says which revision can be had. close lets go of the file."""
    try:
        yield
    except DamagedError as error:
        if close is not None:
            close()
        found = find(state)
        says = (
            f"that is {found}"
            if found
            else "but none can be read: move it away, and apply a saved configuration"
        )
        raise DamagedError(f"{error}; {says}") from error


def recover(state: Path) -> tuple[Found, Path]:
    """Put the newest revision that can be read in the state file's place: what it is, and where the damaged file is.

    NotFoundError: no file, a sound one, or nothing to be read. StoreError: it is in use, or of a later version.
    """
    if not state.exists():
        raise NotFoundError(f"there is no {state}: give the --state-dir of the daemon")
    try:
        store = SqliteStore(state)
        try:
            revision, _ = store.load()
        finally:
            store.close()
    except DamagedError:
        pass
    else:
        raise NotFoundError(f"{state} is sound, at revision {revision}: there is nothing to recover")
    found = find(state)
    if found is None:
        raise NotFoundError(
            f"no revision can be read in {state} or {state}{LAST_GOOD}: move it away, and apply a saved configuration"
        )
    fresh = state.with_name(state.name + ".recovered")
    write_copy(fresh, found.info, found.config, skip=SKIPPED)
    before = state.stat()
    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(fresh, before.st_uid, before.st_gid)  # root mends what a daemon of its own user must open
    aside = state.with_name(f"{state.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    # The log goes first: SQLite would replay it into the new file.
    for end in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            state.with_name(state.name + end).rename(aside.with_name(aside.name + end))
    os.link(state, aside)
    fresh.rename(state)
    return found, aside

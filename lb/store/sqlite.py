"""Keeps the desired state and its history in one SQLite file."""

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Final

from lb.errors import NotFoundError, StoreError
from lb.model import Config, PrefixList
from lb.model.entries import OPERATOR
from lb.store.base import Pending, RevisionInfo
from lb.store.file import FAULTS, MEMORY, VERSION, connect, damaged, translated
from lb.store.layers import LISTS, forget_layers, read_layers, sum_of_layers, write_layers
from lb.store.parts import forget_parts, read_parts, sum_of_parts, write_parts
from lb.store.pending import begin_pending, discard_pending, end_pending, forget_pending, read_pending
from lb.store.place import Place

KEEP: Final = 1000
"""Revisions kept, at least: the oldest are removed a few dozen at a time."""
HISTORY_BYTES: Final = 256 << 20
"""Beyond this size the older half of the revisions is removed."""

_INTEGER_MAX = (1 << 63) - 1
_LINE = "row_checksum(revision, created_at, actor, summary, parts_sum, layers_sum)"


class SqliteStore:
    """A Store in a file, or ":memory:".

    A revision holds only the services and settings that it changes. A layer of prefixes is stored as its difference,
    and whole again once the changes outweigh it; so blocking one prefix beside a million writes a few hundred
    bytes, and no history has to be replayed for long. Safe to call from several threads.
    """

    def __init__(self, path: Path | str, *, keep: int = KEEP, history_bytes: int = HISTORY_BYTES) -> None:
        self._path, self._keep, self._history_bytes = str(path), keep, history_bytes
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = connect(path)
        self._place = Place(None if str(path) == MEMORY else Path(path))
        self._refused: str | None = None
        """Why the last change could not be stored."""

    def load(self) -> tuple[int, Config]:
        """The newest revision and what it says; 0 and an empty Config if there is none."""
        with self._reading() as db:
            newest = self._newest(db)
            if newest == 0:
                return 0, Config()
            return newest, config_of(db, newest, self._path)

    def commit(
        self,
        config: Config,
        *,
        before: Config,
        actor: str,
        summary: str,
        now: float,
        confirm_within: int | None = None,
        is_rollback: bool = False,
    ) -> int:
        """Keep a new revision and return its number; before is what the newest one says."""
        with self._writing() as db:
            last = self._newest(db)
            cursor = db.execute(
                "INSERT INTO revisions (created_at, actor, summary) VALUES (?, ?, ?)",
                (float(now), actor, summary),
            )
            revision = int(cursor.lastrowid or 0)
            _write(db, revision, before, config, last=last)
            if is_rollback:
                end_pending(db, revision)
                db.execute("INSERT INTO rollbacks VALUES (?)", (revision,))
            if confirm_within is not None:
                begin_pending(db, Pending(revision, last, now + confirm_within, confirm_within))
            self._prune(db)
        return revision

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Writes inside are one transaction. Nobody else reads or writes meanwhile."""
        with self._writing():
            yield

    def begin_with(self, info: RevisionInfo, config: Config, *, skip: int = 0) -> None:
        """Fill an empty store with one revision, its number and author as given; skip: numbers left out after it."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO revisions (revision, created_at, actor, summary) VALUES (?, ?, ?, ?)",
                (info.revision, info.created_at, info.actor, info.summary),
            )
            _write(db, info.revision, Config(), config, last=0)
            db.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'revisions'", (skip,))

    def discard(self, revision: int) -> None:
        """Discard the newest revision; ValueError if it is not the newest."""
        with self._writing() as db:
            if revision != self._newest(db):
                raise ValueError(f"revision {revision} is not the newest")
            for table in ("revisions", "parts", "layers", "rollbacks"):
                db.execute(f"DELETE FROM {table} WHERE revision = ?", (revision,))
            discard_pending(db, revision)

    def pending(self) -> Pending | None:
        """What waits to be confirmed."""
        with self._reading() as db:
            try:
                return read_pending(db)
            except ValueError as error:
                raise damaged(self._path, str(error)) from error

    def confirm(self) -> None:
        """End the wait: nothing is pending."""
        with self._writing() as db:
            forget_pending(db)

    def last_edit(self, before: int | None = None) -> int | None:
        """The newest revision (before one, if it is given) that changes more than entries of other owners."""
        with self._reading() as db:
            newest = _INTEGER_MAX if before is None else min(before, _INTEGER_MAX)
            (found,) = db.execute(
                "SELECT max(revision) FROM (SELECT max(revision) AS revision FROM parts WHERE revision < :newest "
                "UNION ALL SELECT max(revision) FROM layers WHERE owner = :owner AND revision < :newest)",
                {"newest": newest, "owner": OPERATOR},
            ).fetchone()
            return None if found is None else int(found)

    def is_rollback(self, revision: int) -> bool:
        """Whether a revision was stored as a rollback."""
        with self._reading() as db:
            found = db.execute("SELECT 1 FROM rollbacks WHERE revision = ?", (revision,))
            return found.fetchone() is not None

    def revisions(self, limit: int = 100, before: int | None = None) -> list[RevisionInfo]:
        """Up to limit lines of the history, the newest first; those before one revision if it is given."""
        with self._reading() as db:
            return list(history(db, limit, before))

    def config_at(self, revision: int) -> Config:
        """What a revision says; NotFoundError if it is unknown or no longer kept."""
        with self._reading() as db:
            known = "SELECT 1 FROM revisions WHERE revision = ?"
            if not 0 < revision <= _INTEGER_MAX or not db.execute(known, (revision,)).fetchone():
                raise NotFoundError(
                    f"there is no revision {revision}, or it is no longer kept: "
                    '"sluice revisions" lists the existing ones'
                )
            return config_of(db, revision, self._path)

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for one caller at a time; what sqlite3 raises becomes StoreError."""
        with self._lock:
            if self._connection is None:
                raise StoreError(f"{self._path} was closed: open it again")
            try:
                yield self._connection
            except FAULTS as error:
                raise translated(error, self._path) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, or a part of an open one: all of it is stored, or nothing."""
        try:
            with self._reading() as db:
                if db.in_transaction:
                    yield db
                    return
                self._place.check()
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:  # something went wrong, and SQLite has not rolled back by itself
                        db.execute("ROLLBACK")
        except StoreError as error:
            self._refused = str(error)
            raise
        self._refused = None

    def problem(self) -> str | None:
        """Why changes cannot be stored; None if they can. A refused write is retried first."""
        with self._lock:
            if self._refused is not None and self._place.problem() is None:
                with contextlib.suppress(StoreError), self._writing() as db:
                    db.execute(f"PRAGMA user_version = {VERSION}")  # writes what is there already
            return self._place.problem() or self._refused

    @staticmethod
    def _newest(db: sqlite3.Connection) -> int:
        (newest,) = db.execute("SELECT coalesce(max(revision), 0) FROM revisions").fetchone()
        return int(newest)

    def _prune(self, db: sqlite3.Connection) -> None:
        """Remove the oldest revisions, once there are too many or they take too much room."""
        (count,) = db.execute("SELECT count(*) FROM revisions").fetchone()
        if count > self._keep + self._keep // 16:
            self._forget(db, count - self._keep)
            count = self._keep
        while count > 1 and _bytes_used(db) > self._history_bytes:
            self._forget(db, count // 2)
            count -= count // 2

    @staticmethod
    def _forget(db: sqlite3.Connection, count: int) -> None:
        (oldest_kept,) = db.execute(
            "SELECT revision FROM revisions ORDER BY revision LIMIT 1 OFFSET ?", (count,)
        ).fetchone()
        pending = read_pending(db)
        if pending is not None and pending.base:
            oldest_kept = min(oldest_kept, pending.base)
        for table in ("revisions", "rollbacks"):
            db.execute(f"DELETE FROM {table} WHERE revision < ?", (oldest_kept,))
        forget_parts(db, oldest_kept)
        forget_layers(db, oldest_kept)


def history(
    db: sqlite3.Connection, limit: int = _INTEGER_MAX, before: int | None = None
) -> Iterator[RevisionInfo]:
    """Lines of the history, the newest first."""
    rows = db.execute(
        "SELECT revision, created_at, actor, summary FROM revisions "
        "WHERE revision < ? ORDER BY revision DESC LIMIT ?",
        (_INTEGER_MAX if before is None else min(before, _INTEGER_MAX), min(limit, _INTEGER_MAX)),
    )
    return (RevisionInfo(*row) for row in rows.fetchall())


def _write(db: sqlite3.Connection, revision: int, before: Config, config: Config, *, last: int) -> None:
    """The rows of a revision whose line is there; last: the revision before, 0 for none."""
    sums = _sums(db, last) if last else (0, 0)
    change = write_parts(db, revision, before, config)
    sums = (sum_of_parts(db, revision) if sums[0] is None else sums[0] + change, sums[1])
    if write_layers(db, revision, before, config) or sums[1] is None:
        sums = (sums[0], sum_of_layers(db, revision))
    db.execute("UPDATE revisions SET parts_sum = ?, layers_sum = ? WHERE revision = ?", (*sums, revision))
    db.execute(f"UPDATE revisions SET checksum = {_LINE} WHERE revision = ?", (revision,))


def _sums(db: sqlite3.Connection, revision: int) -> tuple[int | None, int | None]:
    row = db.execute("SELECT parts_sum, layers_sum FROM revisions WHERE revision = ?", (revision,)).fetchone()
    return row or (None, None)


def config_of(db: sqlite3.Connection, revision: int, path: str) -> Config:
    """What a revision says; DamagedError: it is not as it was written."""
    try:
        known = f"SELECT checksum IS {_LINE} FROM revisions WHERE revision = ?"
        if not db.execute(known, (revision,)).fetchone()[0]:
            raise ValueError("the checksum of its line does not fit")
        parts_sum, layers_sum = _sums(db, revision)
        config = read_parts(db, revision, parts_sum)
        layers = read_layers(db, revision, layers_sum)
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise damaged(path, f"revision {revision} cannot be read: {error}") from error
    lists = {name: PrefixList() for name in LISTS}
    for (name, owner), layer in layers.items():
        lists[name] = lists[name].with_layer(owner, layer)
    return replace(config, blocklist=lists["blocklist"], allowlist=lists["allowlist"])


def _bytes_used(db: sqlite3.Connection) -> int:
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)

"""Opens Sluice's SQLite files: only what is Sluice's, whole, of a version that is known, and not in use by another."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from lb.errors import DamagedError, StoreError
from lb.store.schema import STATE, Schema, row_checksum

MEMORY = ":memory:"
FAULTS = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises: of a damaged file not even its own words need be UTF-8."""
_MAGIC = b"SQLite format 3\0"
VERSION = STATE.version
_READING_BYTES = 64 << 10
"""What SQLite needs beside a file to read it while others might."""


def connect(path: Path | str, schema: Schema = STATE) -> sqlite3.Connection:
    """A connection of which the caller owns every transaction. StoreError, and the file is as it was.

    The file is made with mode 0600, a missing directory with 0700. DamagedError: its structure is broken.
    """
    if str(path) == MEMORY:
        return _opened(MEMORY, schema)
    path, is_full = Path(path), False
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_mode & 0o022:
            raise StoreError(
                f"{path.parent} can be written by others, who could put their state in: chmod go-w {path.parent}"
            )
        if path.exists():
            with path.open("rb") as file:
                start = file.read(len(_MAGIC))
            if start != _MAGIC and (start or _has_company(path)):
                raise _not_ours(path, schema)
            if start and not (is_full := _is_full(path.parent)):
                with reading(path, schema) as connection:
                    _check(connection, str(path), schema)
        path.touch(mode=0o600)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened ({error.strerror}): correct that, or give another --state-dir"
        ) from error
    return _opened(str(path), schema, is_checked=not is_full)


def _is_full(folder: Path) -> bool:
    """Whether a file cannot be read before it is opened for good, which takes no room."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < _READING_BYTES


def _has_company(path: Path) -> bool:
    """Whether what lies beside a file says that it has been one of Sluice's: its log, or the copy of a state."""
    return path.with_name(path.name + "-wal").exists() or any(path.parent.glob(f"*{LAST_GOOD}"))


def _not_ours(path: Path, schema: Schema) -> StoreError:
    """What is to be said of a file that does not begin as SQLite's do."""
    if _has_company(path):
        return damaged(str(path), "its beginning is gone", schema)
    return StoreError(f"{path} is not a state file: move it away, or give another --state-dir")


LAST_GOOD = ".last-good"
"""Ends the name of the copy of the newest revision; see backup.py."""


@contextlib.contextmanager
def reading(path: Path, schema: Schema = STATE) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing of a file, nor of the log beside it; what SQLite raises becomes StoreError."""
    beside = [path.with_name(path.name + end) for end in ("-shm", "-wal")]
    made = [file for file in beside if not file.exists()]
    connection = None
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", timeout=1, isolation_level=None, uri=True
        )
        connection.create_function("row_checksum", -1, row_checksum, deterministic=True)
        yield connection
    except FAULTS as error:
        raise translated(error, str(path), schema) from error
    finally:
        if connection is not None:
            connection.close()
        for file in made:
            file.unlink(missing_ok=True)  # SQLite leaves them where it may not write the rest


def _opened(path: str, schema: Schema, *, is_checked: bool = True) -> sqlite3.Connection:
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
        connection.create_function("row_checksum", -1, row_checksum, deterministic=True)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # two daemons must not share it
        if not is_checked:
            _check(connection, path, schema)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {schema.synchronous}")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        _migrate(connection, schema)
    except (*FAULTS, StoreError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, StoreError):
            raise
        raise translated(error, path, schema) from error
    return connection


def _check(connection: sqlite3.Connection, path: str, schema: Schema) -> None:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if owner != schema.application_id and (tables or owner or version):
        raise StoreError(f"{path} is another program's database: move it away, or give another --state-dir")
    if version > schema.version:
        raise StoreError(
            f"{path} was written by a later version of Sluice (format {version}, this one knows {schema.version}): "
            "install that version, or move the file away to start empty"
        )
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise damaged(path, " ".join(found.split()), schema)


def _migrate(connection: sqlite3.Connection, schema: Schema) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == schema.version:
        return
    connection.execute("PRAGMA secure_delete = ON")
    script = "".join(schema.migrations[version:])
    connection.executescript(
        f"BEGIN IMMEDIATE; PRAGMA application_id = {schema.application_id}; {script}; "
        f"PRAGMA user_version = {schema.version}; COMMIT;"
    )


def damaged(path: str, why: object, schema: Schema = STATE) -> DamagedError:
    """The error that says so, and what to do."""
    remedy = schema.remedy.format(path=path, folder=Path(path).parent)
    return DamagedError(f"{path} is damaged ({why}): {remedy}")


def translated(error: Exception, path: str, schema: Schema = STATE) -> StoreError:
    """The error in words that say what to do."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            says = f"the disk that holds {path} is full: free some space and repeat the change"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            says = f"{path} is read-only: make its file system and directory writable and repeat the change"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            says = f"{path} is in use by another process: stop it, or give this daemon another --state-dir"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_FORMAT:
            return damaged(path, error, schema)
        case (
            sqlite3.SQLITE_ERROR | 0
        ):  # of a sound file there is nothing that we ask wrongly, or that is no UTF-8
            return damaged(path, error, schema)
        case _:
            says = f"{path} cannot be read or written ({error}): look after the disk and its permissions"
    return StoreError(says)

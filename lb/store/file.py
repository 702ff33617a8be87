"""Opens the state file: only if it is Sluice's, of a version that is known, and not in use by another."""

import sqlite3
from pathlib import Path

from lb.errors import StoreError

MEMORY = ":memory:"
_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID = 0x534C5543
"""Tells Sluice's files from those of other programs: "SLUC"."""

_MIGRATIONS = (
    """
    CREATE TABLE revisions (  -- the history; a number is never given twice, not even a discarded one
        revision INTEGER PRIMARY KEY AUTOINCREMENT,
        created_at REAL NOT NULL,
        actor TEXT NOT NULL,
        summary TEXT NOT NULL
    );
    CREATE TABLE parts (  -- services, their order, rules, settings: a row where a revision changes one
        name TEXT NOT NULL,
        revision INTEGER NOT NULL,
        body TEXT,  -- JSON; NULL where it is removed
        PRIMARY KEY (name, revision)
    ) WITHOUT ROWID;
    CREATE INDEX parts_by_revision ON parts (revision);
    CREATE TABLE layers (  -- a row where a revision changes a layer of a list
        id INTEGER PRIMARY KEY,
        list TEXT NOT NULL,
        owner TEXT NOT NULL,
        revision INTEGER NOT NULL,
        whole INTEGER NOT NULL,  -- 1: body is the whole layer, 0: what differs from the row before
        entries INTEGER NOT NULL,  -- how many the layer then has
        weight INTEGER NOT NULL,  -- of all changes since the last whole one, in bytes
        body BLOB NOT NULL,  -- see codec.py
        UNIQUE (list, owner, revision)
    );
    CREATE INDEX layers_by_revision ON layers (revision);
    CREATE INDEX whole_layers ON layers (list, owner, revision) WHERE whole;
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    """,
)
VERSION = len(_MIGRATIONS)


def connect(path: Path | str) -> sqlite3.Connection:
    """A connection of which the caller owns every transaction. StoreError, and the file is as it was.

    The file is made with mode 0600, a missing directory with 0700.
    """
    if str(path) == MEMORY:
        return _prepared(MEMORY)
    path = Path(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            with path.open("rb") as file:
                start = file.read(len(_MAGIC))
            if start and start != _MAGIC:
                raise StoreError(f"{path} is not a state file: move it away, or give another --state-dir")
        path.touch(mode=0o600)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened ({error.strerror}): correct that, or give another --state-dir"
        ) from error
    return _prepared(str(path))


def _prepared(path: str) -> sqlite3.Connection:
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # two daemons must not share it
        _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        _migrate(connection)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise translated(error, path) from error
    except StoreError:
        if connection is not None:
            connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: str) -> None:
    """Reads only."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if owner != _APPLICATION_ID and (tables or owner or version):
        raise StoreError(f"{path} is another program's database: move it away, or give another --state-dir")
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a later version of Sluice (format {version}, this one knows {VERSION}): "
            "install that version, or move the file away to start empty"
        )


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    script = "".join(_MIGRATIONS[version:])
    connection.executescript(
        f"BEGIN IMMEDIATE; PRAGMA application_id = {_APPLICATION_ID}; {script}; "
        f"PRAGMA user_version = {VERSION}; COMMIT;"
    )


def translated(error: sqlite3.Error, path: str) -> StoreError:
    """The error in words that say what to do."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            says = f"the disk that holds {path} is full: free some space and repeat the change"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            says = f"{path} is read-only: make its file system and directory writable and repeat the change"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            says = f"{path} is in use by another process: stop it, or give this daemon another --state-dir"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            says = f"{path} is damaged ({error}): move it away, and apply a saved configuration"
        case _:
            says = f"{path} cannot be read or written ({error}): look after the disk and its permissions"
    return StoreError(says)

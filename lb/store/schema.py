"""What Sluice's SQLite files hold: the tables of each, and by what number a file tells which it is."""

import zlib
from dataclasses import dataclass

_STATE = (
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
    # SQLite finds a broken structure, but no broken content: so each row has a checksum. And each revision has the sums
    # of those of the rows that it is read from, so that none of them is missed. Secrets are files of their own.
    """
    ALTER TABLE revisions ADD COLUMN parts_sum INTEGER;  -- NULL, both: of the first format, unknown
    ALTER TABLE revisions ADD COLUMN layers_sum INTEGER;
    ALTER TABLE revisions ADD COLUMN checksum INTEGER;
    ALTER TABLE parts ADD COLUMN checksum INTEGER;
    ALTER TABLE layers ADD COLUMN checksum INTEGER;
    UPDATE revisions SET checksum = row_checksum(revision, created_at, actor, summary, parts_sum, layers_sum);
    UPDATE parts SET checksum = row_checksum(name, revision, body);
    UPDATE layers SET checksum = row_checksum(list, owner, revision, whole, entries, weight, body);
    CREATE INDEX layer_checksums ON layers (list, owner, revision, checksum);
    DROP TABLE secrets;
    """,
    """
    CREATE TABLE pending (  -- revisions that wait to be confirmed: at most one that has no end
        revision INTEGER PRIMARY KEY,
        base INTEGER NOT NULL,  -- the revision that comes back unless it is confirmed; 0: the empty state
        deadline REAL NOT NULL,
        within INTEGER NOT NULL,
        ended_by INTEGER,  -- the revision that took its place before it was confirmed
        checksum INTEGER NOT NULL  -- of all but ended_by
    );
    """,
    """
    CREATE TABLE rollbacks (revision INTEGER PRIMARY KEY);  -- revisions that went back to an earlier state
    """,
)
AUDIT_KEPT = 500_000
"""Rows of the audit: older ones go, about 100 MB."""
_ACCESS = (
    f"""
    CREATE TABLE tokens (
        name TEXT PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,  -- SHA-256 of the token, which is kept nowhere
        role TEXT NOT NULL,
        created_at REAL NOT NULL,
        created_by TEXT NOT NULL,
        expires_at REAL  -- NULL: never
    ) WITHOUT ROWID;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time REAL NOT NULL,
        actor TEXT NOT NULL,
        role TEXT,
        origin TEXT NOT NULL,
        method TEXT NOT NULL,
        path TEXT NOT NULL,
        status INTEGER NOT NULL,
        detail TEXT NOT NULL,
        revision_before INTEGER,
        revision_after INTEGER
    );
    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
    BEGIN SELECT raise(ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
    WHEN OLD.id > (SELECT max(id) FROM audit) - {AUDIT_KEPT}
    BEGIN SELECT raise(ABORT, 'the audit is append-only'); END;
    """,
)


@dataclass(frozen=True, slots=True)
class Schema:
    """One kind of file. remedy: what to do where it is damaged, {path} and {folder} put in."""

    application_id: int
    migrations: tuple[str, ...]
    remedy: str
    synchronous: str

    @property
    def version(self) -> int:
        """The newest format, which is that of what is written."""
        return len(self.migrations)


STATE = Schema(
    0x534C5543,  # "SLUC"
    _STATE,
    'the file was left as it is; "sluice recover --state-dir {folder}" puts the newest revision that can be read '
    "in its place, and keeps the damaged file",
    "FULL",
)
ACCESS = Schema(
    0x534C4143,  # "SLAC"
    _ACCESS,
    "move it away to start with an empty audit and without tokens",
    "NORMAL",  # what was answered outlives a killed daemon, not a loss of power; revisions say who changed what, too
)


def row_checksum(*values: object) -> int:
    """Of one row's values: tells a row that was altered behind SQLite's back. Known to SQL by this name."""
    checksum = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode()
        checksum = zlib.crc32(b"%d:" % len(data), checksum)
        checksum = zlib.crc32(data, checksum)
    return checksum

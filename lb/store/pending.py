"""The revision that waits to be confirmed, as a row: gone once it is, ended by the revision that takes it back."""

import sqlite3

from lb.store.base import Pending


def begin_pending(db: sqlite3.Connection, pending: Pending) -> None:
    """It waits from now on; what waited before is over."""
    forget_pending(db)
    db.execute(
        "INSERT INTO pending (revision, base, deadline, within, checksum) "
        "VALUES (?1, ?2, ?3, ?4, row_checksum(?1, ?2, ?3, ?4))",
        (pending.revision, pending.base, float(pending.deadline), pending.within),
    )


def read_pending(db: sqlite3.Connection) -> Pending | None:
    """What waits, if anything does; ValueError: the row is damaged."""
    row = db.execute(
        "SELECT checksum IS row_checksum(revision, base, deadline, within), revision, base, deadline, within "
        "FROM pending WHERE ended_by IS NULL"
    ).fetchone()
    if row is None:
        return None
    if not row[0]:
        raise ValueError("the checksum of what waits to be confirmed does not fit")
    return Pending(*row[1:])


def end_pending(db: sqlite3.Connection, revision: int) -> None:
    """What waits is taken back by this revision."""
    db.execute("UPDATE pending SET ended_by = ? WHERE ended_by IS NULL", (revision,))


def discard_pending(db: sqlite3.Connection, revision: int) -> None:
    """A revision is no more: it does not wait, and what it has ended waits again."""
    db.execute("DELETE FROM pending WHERE revision = ?", (revision,))
    db.execute("UPDATE pending SET ended_by = NULL WHERE ended_by = ?", (revision,))


def forget_pending(db: sqlite3.Connection) -> None:
    """End the wait: nothing is pending."""
    db.execute("DELETE FROM pending")

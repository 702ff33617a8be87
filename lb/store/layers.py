"""Layers of prefixes as rows: whole first, then what changes, and whole again once that outweighs it."""

import sqlite3

import numpy as np

from lb.model import Config, PrefixList
from lb.model.columns import FAMILIES, sorted_unique
from lb.model.delta import compare, restricted
from lb.model.layers import Layer
from lb.store.codec import encode, replay, size_of

LISTS = ("blocklist", "allowlist")
_ROW_WEIGHT = 4096
"""What a change weighs beside its bytes: every start has to read and replay it."""

_BASE = (
    "SELECT list, owner, max(revision) AS revision FROM layers "
    "WHERE whole AND revision <= :revision GROUP BY list, owner"
)
"""The rows that the layers of a revision are replayed from."""
_ROWS = (
    "layers JOIN base ON layers.list = base.list AND layers.owner = base.owner "
    "AND layers.revision >= base.revision WHERE layers.revision <= :revision"
)
"""Those rows, and what changed since."""
_SOUND = "checksum IS row_checksum(layers.list, layers.owner, layers.revision, whole, entries, weight, body)"


def write_layers(db: sqlite3.Connection, revision: int, before: Config, after: Config) -> bool:
    """A row for each layer that differs; whether there is any."""
    wrote = False
    for name in LISTS:
        old: PrefixList = getattr(before, name)
        new: PrefixList = getattr(after, name)
        if old is not new:
            for owner in dict.fromkeys([*old.layers, *new.layers]):
                wrote |= _write(db, (name, owner, revision), old.layer(owner), new.layer(owner))
    return wrote


def _write(db: sqlite3.Connection, key: tuple[str, str, int], old: Layer, new: Layer) -> bool:
    delta = None if old is new else compare(old, new)
    if not delta:
        return False
    row = db.execute(
        "SELECT weight, entries FROM layers WHERE list = ? AND owner = ? ORDER BY revision DESC LIMIT 1",
        key[:2],
    ).fetchone()
    weight, entries = row or (0, -1)
    body = None
    # A count that does not fit means that before is not what was stored: then only the whole is safe.
    if entries == len(old) and len(delta) < len(new):
        put = {f: sorted_unique(np.concatenate([delta.added[f], delta.altered[f]])) for f in FAMILIES}
        body = encode(restricted(new, put), delta.gone)
        weight += len(body) + _ROW_WEIGHT
        if weight > size_of(new) + _ROW_WEIGHT:
            body = None
    whole = body is None
    db.execute(
        "INSERT INTO layers (list, owner, revision, whole, entries, weight, body, checksum) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, row_checksum(?1, ?2, ?3, ?4, ?5, ?6, ?7))",
        (*key, whole, len(new), 0 if whole else weight, encode(new, {}) if body is None else body),
    )
    return True


def sum_of_layers(db: sqlite3.Connection, revision: int) -> int:
    """Of the checksums of the rows that a revision is read from."""
    (found,) = db.execute(
        f"WITH base AS ({_BASE}) SELECT coalesce(sum(checksum), 0) FROM {_ROWS}", {"revision": revision}
    ).fetchone()
    return int(found)


def read_layers(db: sqlite3.Connection, revision: int, expected: int | None) -> dict[tuple[str, str], Layer]:
    """The layers as a revision has them, by list and owner; ValueError: a row is damaged.

    expected: what sum_of_layers was when it was written, if that is known.
    """
    rows = db.execute(
        f"WITH base AS ({_BASE}) SELECT layers.list, layers.owner, body, checksum, {_SOUND} FROM {_ROWS} "
        "ORDER BY layers.list, layers.owner, layers.revision",
        {"revision": revision},
    ).fetchall()  # a statement that is not at its end would keep a closed file locked
    bodies: dict[tuple[str, str], list[bytes]] = {}
    total = 0
    for name, owner, body, checksum, is_sound in rows:
        if not is_sound:
            raise ValueError(f"the checksum of the {name} of {owner!r} does not fit")
        bodies.setdefault((name, owner), []).append(body)
        total += checksum
    if expected not in (None, total):
        raise ValueError("there are not all the rows that there were")
    return {key: replay(some) for key, some in bodies.items()}


def forget_layers(db: sqlite3.Connection, oldest_kept: int) -> None:
    """Delete the rows that no revision from that one on reads."""
    for base in db.execute(_BASE, {"revision": oldest_kept}).fetchall():
        db.execute("DELETE FROM layers WHERE list = ? AND owner = ? AND revision < ?", base)

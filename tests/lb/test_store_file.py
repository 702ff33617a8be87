"""The store's file: whose it is, of which version, whole or damaged, full or read-only, and what a kill leaves."""

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_strategies import NOW
from test_store import blocking, commit, web

from lb.errors import DamagedError, StoreError
from lb.model import Config, PrefixList
from lb.model.entries import OPERATOR
from lb.model.layers import Attributes, Layer
from lb.store import SqliteStore


def test_another_daemon_is_kept_out(store: SqliteStore, path: Path) -> None:
    """Two daemons cannot share a state file."""
    commit(store, web(80), Config())
    with pytest.raises(StoreError, match="is in use by another process"):
        SqliteStore(path)
    assert store.load()[1] == web(80)


def test_a_later_version_is_left_alone(store: SqliteStore, path: Path) -> None:
    """A file of a later format is not touched, and the message says what to do."""
    commit(store, web(80), Config())
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()

    with pytest.raises(StoreError, match="written by a later version of Sluice"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_later_version_that_was_killed_is_left_alone(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    """Nor is a file touched whose last changes still lie in the log beside it, as a kill leaves them."""
    commit(store, web(80), Config())
    assert store._connection is not None
    store._connection.execute("PRAGMA user_version = 99")
    copy = tmp_path / "copy"
    shutil.copytree(path.parent, copy)
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    assert len(before[f"{path.name}-wal"]) > 0

    with pytest.raises(StoreError, match="written by a later version of Sluice"):
        SqliteStore(copy / path.name)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


def test_the_first_format_is_read(store: SqliteStore, path: Path) -> None:
    """A file without checksums gets them, keeps every revision, and loses the secrets that it had."""
    first = commit(store, web(80), Config())
    config = blocking(web(80), *(f"10.0.0.{n}" for n in range(200)))
    second = commit(store, config, web(80))
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE pending")
        db.execute("DROP TABLE rollbacks")
        db.execute("DROP INDEX layer_checksums")
        for table in ("revisions", "parts", "layers"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
        for column in ("parts_sum", "layers_sum"):
            db.execute(f"ALTER TABLE revisions DROP COLUMN {column}")
        db.execute("CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        db.execute("INSERT INTO secrets VALUES ('flow-key', CAST('not for all eyes' AS BLOB))")
        db.execute("PRAGMA user_version = 1")
    db.close()

    again = SqliteStore(path)
    assert (again.config_at(first), again.load()) == (web(80), (second, config))
    third = commit(again, web(81), config)
    assert again.load() == (third, web(81))
    again.close()
    assert b"not for all eyes" not in path.read_bytes()


def test_files_that_are_not_ours(path: Path) -> None:
    """What is no state file is not touched."""
    path.parent.mkdir()
    for content in (b"not a database at all, but text", b"x"):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="is not a state file"):
            SqliteStore(path)
        assert path.read_bytes() == content

    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE other (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is another program's database"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    """A file of no bytes, as a crash at the very first moment leaves it, is filled."""
    path.parent.mkdir()
    path.touch(mode=0o644)
    store = SqliteStore(path)
    assert commit(store, web(80), Config()) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    store.close()


def test_damage_is_told(store: SqliteStore, path: Path) -> None:
    """A damaged file raises StoreError, be it found by SQLite or by a checksum, and stays as it is."""
    commit(store, blocking(web(80), *(f"10.0.0.{n}" for n in range(200))), Config())
    store.close()
    good = path.read_bytes()
    broken = bytearray(good)
    broken[4096:8192] = b"\xaa" * 4096
    path.write_bytes(broken)
    with pytest.raises(DamagedError, match='"sluice recover --state-dir'):
        SqliteStore(path)
    assert path.read_bytes() == bytes(broken)

    path.write_bytes(good)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE layers SET body = zeroblob(length(body))")
    db.close()
    damaged = SqliteStore(path)
    with pytest.raises(StoreError, match=r"is damaged \(revision 1 cannot be read"):
        damaged.load()
    damaged.close()


def test_a_full_disk_keeps_what_was(store: SqliteStore) -> None:
    """A commit that finds no room raises StoreError and keeps nothing; with room the next one goes well."""
    first = commit(store, web(80), Config())
    keys = {4: (np.arange(300_000, dtype=np.uint64) << np.uint64(8)) | np.uint64(32)}
    layer = Layer().with_keys(keys, Attributes(created_at=NOW))
    large = replace(web(80), blocklist=PrefixList().with_layer(OPERATOR, layer))
    db = store._connection
    assert db is not None
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(StoreError, match="is full: free some space"):
        commit(store, large, web(80))
    assert store.load() == (first, web(80))
    assert [info.revision for info in store.revisions()] == [first]

    db.execute("PRAGMA max_page_count = 1000000")
    second = commit(store, large, web(80))
    assert store.load() == (second, large)


def test_a_read_only_file_keeps_what_was(store: SqliteStore) -> None:
    """Where nothing can be written, a commit raises StoreError, and reading goes on."""
    first = commit(store, web(80), Config())
    db = store._connection
    assert db is not None
    db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="is read-only: make"):
        commit(store, web(81), web(80))
    assert store.load() == (first, web(80))


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    """A directory in the place of the file, or a file in that of the directory, is told with its path."""
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(tmp_path / "file" / "sluice.db")


def test_a_closed_store(path: Path) -> None:
    """A closed store says so; closing it again does nothing."""
    store = SqliteStore(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="was closed"):
        store.load()


def test_what_was_not_closed_is_kept(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    """The files as they lie on the disk in mid-course, as a kill leaves them, hold all that was committed."""
    config = Config()
    for port in range(1, 30):
        commit(store, web(port), config)
        config = web(port)
        copy = tmp_path / f"copy{port}"
        copy.mkdir()
        for file in path.parent.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        found = SqliteStore(copy / path.name)
        assert found.load() == (port, config)
        found.close()

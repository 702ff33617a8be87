"""A state file whose disk is full, read-only or gone: what would be lost is not acknowledged, and the store says so."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_samples import addresses, service

from lb.errors import DamagedError, StoreError
from lb.model import Config
from lb.model.access import Role
from lb.store import SqliteStore, file
from lb.store.access import AccessStore, AuditRecord

WEB = Config().with_service(service("web", *addresses(3)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "state" / "state.db")
    yield store
    store.close()


def commit(store: SqliteStore) -> int:
    revision, before = store.load()
    config = WEB if revision % 2 == 0 else Config()
    return store.commit(config, before=before, actor="test", summary="test", now=0.0)


def test_all_is_well(store: SqliteStore) -> None:
    """A store that can be written has no problem; one in memory never has."""
    commit(store)

    assert store.problem() is None
    assert SqliteStore(":memory:").problem() is None


def test_file_that_is_gone(store: SqliteStore, tmp_path: Path) -> None:
    """What were written into a file that was removed would be gone with the process: it is refused. Put back, the
    file is written again."""
    commit(store)
    folder, aside = tmp_path / "state", tmp_path / "aside"
    folder.rename(aside)

    with pytest.raises(StoreError, match=r"state\.db is gone: put it back, or .* sluice export"):
        commit(store)
    assert "is gone" in str(store.problem())
    folder.mkdir()
    (folder / "state.db").touch()
    assert "is another file now" in str(store.problem())
    (folder / "state.db").unlink()
    folder.rmdir()

    aside.rename(folder)
    assert commit(store) == 2
    assert store.problem() is None


def test_tokens_and_audit_that_are_cut_to_nothing(tmp_path: Path) -> None:
    """An empty file beside the copy of a state was full once: it is refused, with what to do, and not begun anew."""
    path = tmp_path / "access.db"
    path.touch(mode=0o600)
    AccessStore(path).close()  # as a crash at the very first moment leaves it
    assert path.stat().st_size > 0
    (tmp_path / "state.db.last-good").touch()
    AccessStore(path).close()

    path.write_bytes(b"")
    with pytest.raises(
        DamagedError, match=r"its beginning is gone.* move it away to start with an empty audit"
    ):
        AccessStore(path)
    assert path.read_bytes() == b""
    path.unlink()
    AccessStore(path).close()


def test_tokens_and_audit_that_are_gone(tmp_path: Path) -> None:
    """No token or line of the audit is written into a file that was removed; put back, it is written again."""
    path, aside = tmp_path / "access.db", tmp_path / "aside"
    access = AccessStore(path)
    line = AuditRecord(0.0, "uid 0", "admin", "here", "PUT", "/v1/config", 200)
    access.record(line)
    assert access.problem() is None
    path.rename(aside)

    with pytest.raises(StoreError, match=r"access\.db is gone: put it back, or restart"):
        access.record(line)
    with pytest.raises(StoreError, match="is gone"):
        access.create("ci", Role.VIEWER, created_by="uid 0", now=0.0)
    assert "is gone" in str(access.problem())
    assert access.tokens() == []

    aside.rename(path)
    assert access.problem() is None
    access.record(line)
    assert access.count() == 2
    access.close()


def test_disk_that_is_full_or_read_only(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before a change fails on it."""
    real = os.statvfs

    def of(**other: int) -> None:
        names = [n for n in dir(real("/")) if n.startswith("f_")]
        values = {name: getattr(real("/"), name) for name in names} | other
        monkeypatch.setattr(os, "statvfs", lambda path: type("Disk", (), values))

    of(f_bavail=10, f_frsize=4096)
    assert "is full: no change can be kept" in str(store.problem())
    of(f_flag=os.ST_RDONLY)
    assert "read-only file system, and no change can be kept" in str(store.problem())
    with pytest.raises(StoreError, match="mount it anew"):
        commit(store)


def test_what_was_refused_is_said_until_it_works(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that the disk does not explain is a problem until a write has worked; that is tried when asked."""
    refuses = True

    class Connection:
        """Refuses to begin."""

        def __init__(self, inner: object) -> None:
            self._inner = inner

        def execute(self, *words: object) -> object:
            if refuses and str(words[0]).startswith("BEGIN"):
                import sqlite3

                raise sqlite3.OperationalError("disk I/O error")
            return self._inner.execute(*words)  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

    monkeypatch.setattr(store, "_connection", Connection(store._connection))
    with pytest.raises(StoreError):
        commit(store)

    assert "disk I/O error" in str(store.problem())
    refuses = False
    assert store.problem() is None


@pytest.mark.parametrize("killed", [False, True])
def test_a_full_disk_is_started_on(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """SQLite has no room then for what it lays beside a file that it only reads. The file is opened all the same, with
    what a killed daemon left in its log, unless it is damaged or of a later version."""
    path, left = tmp_path / "state" / "state.db", tmp_path / "left"
    commit(store)
    if killed:
        shutil.copytree(path.parent, left)
    store.close()
    if not killed:
        shutil.copytree(path.parent, left)
    assert (left / "state.db-wal").exists() == killed
    monkeypatch.setattr(file, "_is_full", lambda _folder: True)
    monkeypatch.setattr(file, "reading", None)

    again = SqliteStore(left / "state.db")
    assert again.load() == (1, WEB)
    again.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
        db.commit()
    with pytest.raises(StoreError, match="written by a later version"):
        SqliteStore(path)
    path.write_bytes(path.read_bytes()[:4096] + bytes(4096))
    with pytest.raises(DamagedError):
        SqliteStore(path)

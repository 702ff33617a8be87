"""A revision that waits to be confirmed, in the store: kept with its revision, ended by what takes it back."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_store import blocking, web

from lb.errors import DamagedError
from lb.store import Pending, SqliteStore

NOW = 1_700_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state file is."""
    return tmp_path / "state" / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """An empty one, which keeps no more than four revisions."""
    store = SqliteStore(path, keep=4)
    yield store
    store.close()


def commit(store: SqliteStore, port: int, *, within: int | None = None, ends: bool = False) -> int:
    """One revision: a service on that port."""
    _, before = store.load()
    return store.commit(
        web(port), before=before, actor="test", summary="", now=NOW, confirm_within=within, is_rollback=ends
    )


def test_it_waits_with_the_revision_before_it(store: SqliteStore, path: Path) -> None:
    """What to go back to, and until when, also for whoever opens the file next; confirmed, it is gone."""
    assert store.pending() is None
    base = commit(store, 80)
    revision = commit(store, 81, within=60)
    expected = Pending(revision, base, NOW + 60, 60)
    assert store.pending() == expected
    store.close()

    again = SqliteStore(path)
    assert again.pending() == expected
    again.confirm()
    assert again.pending() is None
    again.close()


def test_the_first_revision_goes_back_to_nothing(store: SqliteStore) -> None:
    """0 stands for the empty state."""
    pending = Pending(commit(store, 80, within=5), 0, NOW + 5, 5)
    assert store.pending() == pending


def test_what_takes_it_back_ends_it_unless_that_is_discarded(store: SqliteStore) -> None:
    """One transaction each: a revision that could not be applied leaves what waited waiting."""
    commit(store, 80)
    revision = commit(store, 81, within=60)
    pending = store.pending()

    back = commit(store, 80, ends=True)
    assert store.pending() is None
    store.discard(back)
    assert store.pending() == pending

    store.discard(revision)
    assert store.pending() is None


def test_others_revisions_do_not_end_it(store: SqliteStore) -> None:
    """A ban that comes meanwhile is a revision, too."""
    commit(store, 80)
    commit(store, 81, within=60)
    pending = store.pending()
    commit(store, 82)
    assert store.pending() == pending


def test_what_to_go_back_to_is_kept(store: SqliteStore) -> None:
    """However many revisions come meanwhile; once it is over the history is as short as ever."""
    base = commit(store, 80)
    commit(store, 81, within=60)
    for port in range(100, 120):
        commit(store, port)
    assert store.config_at(base) == web(80)

    store.confirm()
    commit(store, 120)
    assert base not in [info.revision for info in store.revisions()]


def test_the_last_edit_is_not_a_ban(store: SqliteStore) -> None:
    """The newest revision that changed the document, and those before it."""
    assert store.last_edit() is None
    first, second = commit(store, 80), commit(store, 81)
    banned = blocking(web(81), "192.0.2.7", owner="fail2ban")
    store.commit(banned, before=web(81), actor="test", summary="", now=NOW)
    assert (store.last_edit(), store.last_edit(before=second), store.last_edit(before=first)) == (
        second,
        first,
        None,
    )


def test_which_revisions_are_rollbacks(store: SqliteStore, path: Path) -> None:
    """Those that were stored as such; a number of which nothing is stored is none."""
    kept, back = commit(store, 80), commit(store, 81, ends=True)
    discarded = commit(store, 82, ends=True)
    store.discard(discarded)
    store.close()

    again = SqliteStore(path, keep=4)
    assert [again.is_rollback(revision) for revision in (kept, back, discarded)] == [False, True, False]
    for port in range(100, 110):
        commit(again, port)
    assert not again.is_rollback(back)
    again.close()


def test_a_damaged_deadline_is_refused(store: SqliteStore, path: Path) -> None:
    """A flipped bit must not keep a change for ever: the row has a checksum."""
    commit(store, 80)
    commit(store, 81, within=60)
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE pending SET deadline = deadline * 2")
    db.close()

    again = SqliteStore(path)
    with pytest.raises(DamagedError, match="what waits to be confirmed"):
        again.pending()
    again.close()

"""A damaged state file: it is refused as it is, and what comes out of it is a revision that was acknowledged."""

import os
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_strategies import NOW

from lb.errors import DamagedError, NotFoundError, StoreError
from lb.model import Config, Prefix, PrefixList, Service
from lb.model.entries import OPERATOR
from lb.model.layers import Attributes, Layer
from lb.store import RevisionInfo, SqliteStore
from lb.store.backup import LastGood, write_copy
from lb.store.file import LAST_GOOD
from lb.store.recover import find, offering, recover
from lb.store.secret import secret

FLIPS = 250
CUTS = 40


def state(number: int) -> Config:
    """Something of every kind, other with each number."""
    service = {"name": "web", "vip": "192.0.2.1", "port": 80 + number, "protocol": "tcp"}
    keys = {4: np.array([Prefix.parse(f"10.{number}.0.{n}").key for n in range(60)], np.uint64)}
    layer = Layer().with_keys(keys, Attributes(created_at=NOW, reason=f"number {number}"))
    config = Config().with_service(Service.model_validate(service))
    return replace(config, blocklist=PrefixList().with_layer(OPERATOR, layer))


def fill(store: SqliteStore, count: int) -> dict[int, Config]:
    """So many revisions, by number."""
    before = Config()
    revisions = {}
    for number in range(1, count + 1):
        after = state(number)
        revisions[store.commit(after, before=before, actor="uid 0", summary="PUT", now=NOW + number)] = after
        before = after
    return revisions


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A state file that was closed in good order, with four revisions."""
    path = tmp_path / "state" / "state.db"
    store = SqliteStore(path)
    fill(store, 4)
    store.close()
    yield path


REVISIONS = {number: state(number) for number in range(1, 5)}


def meets_damage(path: Path, written: bytes) -> bool:
    """Whether a file is refused; else it says what it said. What is refused is left as it was."""
    path.write_bytes(written)
    try:
        store = SqliteStore(path)
    except StoreError:
        assert path.read_bytes() == written
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        return True
    try:
        found = store.load()
    except DamagedError:
        return True
    finally:
        store.close()
    assert found == (4, REVISIONS[4])
    return False


def comes_back_as_it_was(path: Path) -> bool:
    """Whether something is found; if so it is a revision that there was, whole."""
    found = find(path)
    if found is None:
        return False
    assert found.config == REVISIONS[found.info.revision]
    return True


def test_no_flipped_bit_goes_unnoticed(path: Path) -> None:
    """Wherever one bit is another: the file says what it said, or is refused; what is recovered was acknowledged."""
    good = path.read_bytes()
    chance = random.Random(20261128)
    refused = recovered = 0
    filled = [place for place, byte in enumerate(good) if byte]  # most of so small a file is room
    for place in [*chance.sample(filled, FLIPS), *chance.sample(range(len(good)), FLIPS // 5)]:
        broken = bytearray(good)
        broken[place] ^= 1 << chance.randrange(8)
        if meets_damage(path, bytes(broken)):
            refused += 1
            recovered += comes_back_as_it_was(path)

    assert refused > FLIPS // 3
    assert recovered > refused // 3  # without a copy beside it


def test_no_flipped_bit_of_what_was_written_is_taken(path: Path) -> None:
    """The same within the bytes of names, bodies and numbers, where SQLite itself sees nothing wrong."""
    good = path.read_bytes()
    refused = 0
    marks = [b'"port":', b"uid 0", b"service/web", b"operator"]
    for mark in marks:
        place = good.index(mark)
        broken = bytearray(good)
        broken[place + len(mark) - 1] ^= 1
        refused += meets_damage(path, bytes(broken)) or good.count(mark) > 1

    assert refused == len(marks)


def test_no_cut_goes_unnoticed(path: Path) -> None:
    """Wherever the file ends too early, a whole one among its copies is what counts."""
    good = path.read_bytes()
    write_copy(path.with_name(path.name + LAST_GOOD), RevisionInfo(4, NOW, "uid 0", "PUT"), REVISIONS[4])
    chance = random.Random(7)
    for size in [0, 1, 15, 16, 100, 512, 4095, 4096, *(chance.randrange(len(good)) for _ in range(CUTS))]:
        path.write_bytes(good[:size])
        with pytest.raises(DamagedError):
            SqliteStore(path)
        assert path.read_bytes() == good[:size]
        assert comes_back_as_it_was(path)


def test_recovering(path: Path) -> None:
    """The newest whole revision takes the file's place, which is kept; no number is given again."""
    broken = bytearray(path.read_bytes())
    place = broken.rindex(b'"port":84')
    broken[place + 8] ^= 1
    path.write_bytes(broken)
    with pytest.raises(DamagedError, match=r"that is revision 3 of .* \(PUT, by uid 0\)"):
        store = SqliteStore(path)
        with offering(path, store.close):
            store.load()

    found, aside = recover(path)

    assert (found.info.revision, aside.read_bytes()) == (3, bytes(broken))
    again = SqliteStore(path)
    assert again.load() == (3, REVISIONS[3])
    assert again.revisions() == [RevisionInfo(3, NOW + 3, "uid 0", "PUT")]
    assert again.commit(REVISIONS[4], before=REVISIONS[3], actor="", summary="", now=NOW) > 1000
    again.close()
    with pytest.raises(NotFoundError, match="is sound, at revision 1004"):
        recover(path)


def damage(path: Path, mark: bytes) -> None:
    """One bit at the end of the last such bytes."""
    broken = bytearray(path.read_bytes())
    broken[broken.rindex(mark) + len(mark) - 1] ^= 1
    path.write_bytes(broken)


@pytest.mark.parametrize(
    ("marks", "revision", "says"),
    [
        ([], 5, "; revision 6, which waited to be confirmed, is left out"),
        (
            [b'"port":85', b'"port":84', b'"port":83', b'"port":82', b'"port":81'],
            6,
            "; revision 6 waited to be confirmed, and what it changed is not taken back any more",
        ),
    ],
)
def test_what_waited_to_be_confirmed_comes_last(
    path: Path, marks: list[bytes], revision: int, says: str
) -> None:
    """A revision that may lock its owner out is not made to stay, unless there is no other; both are said."""
    store = SqliteStore(path)
    before = REVISIONS[4]
    for number, within in ((5, None), (6, 60)):
        after = state(number)
        store.commit(after, before=before, actor="uid 0", summary="PUT", now=NOW, confirm_within=within)
        before = after
    store.close()
    for mark in marks:
        damage(path, mark)

    found = find(path)

    assert found is not None
    assert found.info.revision == revision
    assert str(found).endswith(says)


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root gives no file away")
def test_root_recovers_for_the_daemons_user(path: Path) -> None:
    """What is put in place is as much the daemon's user's as the damaged file was."""
    write_copy(path.with_name(path.name + LAST_GOOD), RevisionInfo(4, NOW, "uid 0", "PUT"), REVISIONS[4])
    path.write_bytes(path.read_bytes()[:5000])
    os.chown(path, 65534, 65534)

    found, aside = recover(path)

    assert found.info.revision == 4
    for file in (path, aside):
        assert (file.stat().st_uid, file.stat().st_gid, file.stat().st_mode & 0o777) == (65534, 65534, 0o600)


def test_a_log_of_the_damaged_file_is_not_replayed(tmp_path: Path) -> None:
    """What a killed daemon left beside the file is read, kept with it, and away from the new one."""
    first = tmp_path / "first" / "state.db"
    store = SqliteStore(first)
    fill(store, 4)
    folder = tmp_path / "killed"
    shutil.copytree(first.parent, folder)
    path = folder / "state.db"
    path.write_bytes(b"\xff" * 100 + path.read_bytes()[100:])

    _, aside = recover(path)

    assert aside.with_name(aside.name + "-wal").exists()
    again = SqliteStore(path)
    assert again.load() == (4, REVISIONS[4])
    assert len(again.revisions()) == 1
    again.close()
    store.close()


def test_what_is_not_to_be_recovered(path: Path) -> None:
    """A sound file, none at all, one in use, one of a later version, and one of which nothing is left: each says so."""
    with pytest.raises(NotFoundError, match="is sound, at revision 4"):
        recover(path)
    with pytest.raises(NotFoundError, match="there is no "):
        recover(path.with_name("other.db"))
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="in use by another process"):
        recover(path)
    assert store._connection is not None
    store._connection.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StoreError, match="later version"):
        recover(path)
    before = path.read_bytes()
    path.write_bytes(before[:100] + bytes(len(before) - 100))
    with pytest.raises(NotFoundError, match="no revision can be read in"):
        recover(path)


def test_the_copy_follows(tmp_path: Path) -> None:
    """It is written at the start, and at the end what has come since; it holds the newest revision alone."""
    path = tmp_path / "state.db"
    now = [1]
    written = threading.Event()
    failures: list[str] = []

    def newest() -> tuple[RevisionInfo, Config]:
        written.set()
        return RevisionInfo(now[0], NOW, "uid 0", "PUT"), REVISIONS[now[0]]

    copies = LastGood(path, newest, failures.append)
    copies.start()
    assert written.wait(30)
    now[0] = 4
    copies.note()
    copies.stop()

    found = find(path)
    assert found is not None
    assert (found.info.revision, found.config, failures) == (4, REVISIONS[4], [])
    assert [file.name for file in tmp_path.iterdir()] == [f"state.db{LAST_GOOD}"]


def test_what_waits_is_copied_when_it_is_known_to_stay(tmp_path: Path) -> None:
    """What was put off is looked at again, at the end for the last time."""
    asked = threading.Event()
    answers = [(RevisionInfo(4, NOW, "", ""), REVISIONS[4]), None]

    def newest() -> tuple[RevisionInfo, Config] | None:
        found = answers.pop()
        asked.set()
        return found

    copies = LastGood(tmp_path / "state.db", newest, pytest.fail)
    copies.start()
    assert asked.wait(30)
    copies.stop()

    found = find(tmp_path / "state.db")
    assert found is not None
    assert found.info.revision == 4


def test_a_copy_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """And the one that is there stays."""
    failures: list[str] = []
    (tmp_path / f"state.db{LAST_GOOD}.new").mkdir()
    copies = LastGood(
        tmp_path / "state.db", lambda: (RevisionInfo(1, NOW, "", ""), REVISIONS[1]), failures.append
    )
    copies.start()
    copies.stop()

    assert len(failures) == 1
    assert f"state.db{LAST_GOOD} could not be written" in failures[0]


def test_a_secret_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file for its owner alone; one that others read, or of another length, is refused; a credential is first."""
    (tmp_path / "flow.key.new").write_bytes(b"left by a killed run")
    first = secret(tmp_path, "flow.key", 16)
    assert [path.name for path in tmp_path.iterdir()] == ["flow.key"]
    path = tmp_path / "flow.key"
    assert (len(first), path.stat().st_mode & 0o777) == (16, 0o600)
    assert secret(tmp_path, "flow.key", 16) == first
    assert secret(tmp_path, "other.key", 16) != first
    with pytest.raises(StoreError, match="has 16 bytes, not 32"):
        secret(tmp_path, "flow.key", 32)
    path.chmod(0o640)
    with pytest.raises(StoreError, match=f"others may read it: chmod 600 {path}"):
        secret(tmp_path, "flow.key", 16)

    given = tmp_path / "credentials"
    given.mkdir()
    (given / "flow.key").write_bytes(b"0123456789abcdef")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
    assert secret(tmp_path, "flow.key", 16) == b"0123456789abcdef"

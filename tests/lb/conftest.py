"""What the tests of several files have: a store and its file, and a daemon with feeds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from feed_house import FOUR, House
from feed_server import FeedServer, serving

from lb.store import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a state file is to be; its directory is not there yet."""
    return tmp_path / "state" / "sluice.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """An empty store in that file."""
    opened = SqliteStore(path)
    yield opened
    opened.close()


@pytest.fixture
def server() -> Iterator[FeedServer]:
    """A server that has a list of four addresses."""
    with serving() as server:
        server.put(FOUR)
        yield server


@pytest.fixture
def house(tmp_path: Path, server: FeedServer) -> Iterator[House]:
    """A daemon without feeds."""
    house = House(tmp_path, server)
    yield house
    house.end()
    house.store.close()

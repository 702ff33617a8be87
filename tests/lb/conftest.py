"""A daemon with feeds, for the tests of several files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from feed_house import FOUR, House
from feed_server import FeedServer, serving


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

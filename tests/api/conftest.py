"""The real application over the real reconciler, a store in memory and the twin of the data plane."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from lb.dataplane.twin import TwinDataPlane
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore

WEB = {
    "name": "web",
    "vip": "192.0.2.10",
    "port": 80,
    "protocol": "tcp",
    "mode": "ipip",
    "affinity": "flow",
    "labels": {"team": "edge"},
    "backends": [
        {"address": "10.0.0.11", "weight": 1, "admin_state": "enabled"},
        {"address": "10.0.0.12", "weight": 2, "admin_state": "enabled"},
    ],
}


class Clock:
    """Time that stands still unless it is set; seconds since the epoch."""

    def __init__(self) -> None:
        self.now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock that deadlines are kept by; it begins at 2030-03-17T17:46:40Z."""
    return Clock()


@pytest.fixture
def plane() -> TwinDataPlane:
    """The data plane's twin."""
    return TwinDataPlane()


@pytest.fixture
def store() -> SqliteStore:
    """An empty store."""
    return SqliteStore(":memory:")


@pytest.fixture
def reconciler(plane: TwinDataPlane, store: SqliteStore, clock: Clock) -> Iterator[Reconciler]:
    """A started reconciler with nothing configured."""
    reconciler = Reconciler(store, plane, clock=clock)
    reconciler.start()
    yield reconciler
    reconciler.stop()
    store.close()


@pytest.fixture
def client(reconciler: Reconciler) -> TestClient:
    """A client of the API, from the address 198.51.100.77."""
    return TestClient(create_app(reconciler), raise_server_exceptions=False, client=("198.51.100.77", 40000))


@pytest.fixture
def web(client: TestClient) -> dict[str, Any]:
    """The service "web" with two backends, added."""
    client.post("/v1/services", json=WEB).raise_for_status()
    return WEB


@pytest.fixture
def flows(plane: TwinDataPlane, reconciler: Reconciler) -> Callable[[str, str, int], None]:
    """Sets how many flows the flow table holds, all of one backend of a service."""

    def put(service: str, address: str, number: int) -> None:
        plan = reconciler._plans.services.by_name[service]
        place = plan.place(ip_address(address).packed)
        assert place is not None
        table = plane.tables.arrays.flows.reshape(-1)
        table["tag_backend"][:] = 0
        table["tag_backend"][:number] = (
            np.arange(1, number + 1, dtype=np.uint64) << np.uint64(16)
        ) | np.uint64(place)
        table["state"][:] = plane.clock_seconds() << 32 | plan.number << 16

    return put

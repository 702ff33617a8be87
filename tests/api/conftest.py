"""Each layer of a fresh daemon as a fixture."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from api_guarded import Guarded, guarded_app
from api_stack import WEB, Clock, Stack, fill, running_stack
from fastapi.testclient import TestClient

from lb.dataplane.twin import TwinDataPlane
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A daemon with nothing configured."""
    with running_stack() as stack:
        yield stack


@pytest.fixture
def clock(stack: Stack) -> Clock:
    """The clock that deadlines are kept by."""
    return stack.clock


@pytest.fixture
def plane(stack: Stack) -> TwinDataPlane:
    """The data plane's twin."""
    return stack.plane


@pytest.fixture
def store(stack: Stack) -> SqliteStore:
    """Where the desired state is kept."""
    return stack.store


@pytest.fixture
def reconciler(stack: Stack) -> Reconciler:
    """The reconciler, started."""
    return stack.reconciler


@pytest.fixture
def client(stack: Stack) -> TestClient:
    """A client of the API."""
    return stack.client


@pytest.fixture
def web(client: TestClient) -> dict[str, Any]:
    """The service "web" with two backends, added."""
    client.post("/v1/services", json=WEB).raise_for_status()
    return WEB


@pytest.fixture
def filled(client: TestClient) -> TestClient:
    """A client of an API that has one of everything."""
    return fill(client)


@pytest.fixture
def flows(plane: TwinDataPlane, reconciler: Reconciler) -> Callable[[str, str, int], None]:
    """Sets how many flows the flow table holds, all of one backend of a service."""

    def put(service: str, address: str, number: int) -> None:
        plan = reconciler._plans.services.by_name[service]
        place = plan.place(ip_address(address).packed)
        assert place is not None
        table = plane.tables.arrays.flows.reshape(-1)
        table["tag_backend"][:] = 0
        tags = np.arange(1, number + 1, dtype=np.uint64) << np.uint64(16)
        table["tag_backend"][:number] = tags | np.uint64(place)
        table["state"][:] = plane.clock_seconds() << 32 | plan.number << 16

    return put


@pytest.fixture
def daemon() -> Iterator[Guarded]:
    """A daemon with nothing configured, that asks who comes."""
    with guarded_app() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def standing() -> Iterator[Guarded]:
    """One that is asked for what it refuses, and so stays as it is."""
    with guarded_app() as daemon:
        yield daemon

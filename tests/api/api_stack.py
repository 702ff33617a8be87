"""The real application over the real reconciler, a store in memory and the twin of the data plane."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from lb.dataplane.twin import TwinDataPlane, TwinTracer
from lb.feeds.schedule import Feeds
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore

CLIENT_ADDRESS = "100.64.0.77"
WEB = {
    "name": "web",
    "vip": "192.0.2.10",
    "port": 80,
    "protocol": "tcp",
    "mode": "ipip",
    "nat_source": "pool",
    "affinity": "flow",
    "udp_migration": False,
    "quic": False,
    "flood_protection": None,
    "labels": {"team": "edge"},
    "health_check": None,
    "backends": [
        {"address": "10.0.0.11", "weight": 1, "admin_state": "enabled", "quic_id": None, "port": None},
        {"address": "10.0.0.12", "weight": 2, "admin_state": "enabled", "quic_id": None, "port": None},
    ],
}
RULE = {"name": "web", "action": "drop", "source": "192.0.2.64/26", "count_only": True}


class Clock:
    """Time that stands still unless it is set, in seconds since the epoch: at first 2030-03-17T17:46:40Z."""

    def __init__(self) -> None:
        self.now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Stack:
    """All layers of one daemon, but for its server."""

    clock: Clock
    plane: TwinDataPlane
    store: SqliteStore
    reconciler: Reconciler
    app: FastAPI
    client: TestClient


@contextmanager
def running_stack(*, fetches: bool = True) -> Iterator[Stack]:
    """A started daemon with nothing configured, and a client that calls from CLIENT_ADDRESS.

    fetches: whether feeds are fetched once they are due.
    """
    clock, plane, store = Clock(), TwinDataPlane(), SqliteStore(":memory:")
    plane.tracers["twin0"] = TwinTracer()
    reconciler = Reconciler(store, plane, clock=clock)
    reconciler.start()
    feeds = Feeds(reconciler)
    if fetches:
        reconciler.listen(feeds.wake)
        feeds.start()
    app = create_app(reconciler, feeds)
    yield Stack(
        clock,
        plane,
        store,
        reconciler,
        app,
        TestClient(app, raise_server_exceptions=False, client=(CLIENT_ADDRESS, 40000)),
    )
    feeds.stop()
    reconciler.stop()
    store.close()


def fill(client: TestClient) -> TestClient:
    """One of everything: a service with two backends, entries of the operator and of a feed, a rule on trial."""
    client.post("/v1/services", json=WEB).raise_for_status()
    client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24"}).raise_for_status()
    client.post(
        "/v1/blocklist?feed=spam", content="192.0.2.9", headers={"Content-Type": "text/plain"}
    ).raise_for_status()
    client.post("/v1/allowlist", json={"prefix": "198.51.100.1"}).raise_for_status()
    client.post("/v1/rules", json=RULE).raise_for_status()
    client.post("/v1/tokens", json={"name": "web", "role": "viewer"}).raise_for_status()
    client.put("/v1/feeds/web", json={"file": "/no/such/list"}).raise_for_status()
    return client

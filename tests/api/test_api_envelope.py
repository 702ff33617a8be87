"""What every answer has: the revision it was made from, and who is named in the history."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from lb.reconcile.loop import Reconciler


@pytest.mark.parametrize(
    "path", ["/v1/services", "/v1/status", "/nothing", "/healthz", "/metrics", "/openapi.json"]
)
def test_every_answer_names_the_revision(client: TestClient, web: dict[str, Any], path: str) -> None:
    """Found or not, the answer says which revision is in force."""
    assert client.get(path).headers["sluice-revision"] == "1"


def test_a_write_names_the_revision_it_made(client: TestClient, web: dict[str, Any]) -> None:
    """Also where there is no body; a write that changes nothing names the one that stands."""
    assert client.put("/v1/blocklist/192.0.2.1", json={}).headers["sluice-revision"] == "2"
    assert client.put("/v1/blocklist/192.0.2.1", json={}).headers["sluice-revision"] == "2"
    assert client.delete("/v1/blocklist/192.0.2.1").headers["sluice-revision"] == "3"


def test_the_peer_of_the_unix_socket_is_the_actor(reconciler: Reconciler) -> None:
    """Where the server names the peer, the history says its uid; else the client's address, else "local"."""
    app = create_app(reconciler)

    async def with_peer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["sluice.peer"] = {"uid": 1000, "gid": 1000, "pid": 7}
        await app(scope, receive, send)

    async def without_client(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["client"] = None
        await app(scope, receive, send)

    TestClient(with_peer).put("/v1/blocklist/192.0.2.1", json={}).raise_for_status()
    TestClient(without_client).put("/v1/blocklist/192.0.2.2", json={}).raise_for_status()

    history = TestClient(app).get("/v1/config/revisions").json()["items"]
    assert [r["actor"] for r in history] == ["local", "uid 1000"]

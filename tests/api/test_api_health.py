"""Health checks over REST: written as part of a service, and seen under status."""

from api_stack import Stack
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

WEB = {
    "name": "web",
    "vip": "192.0.2.10",
    "port": 80,
    "protocol": "tcp",
    "backends": [{"address": "10.0.0.11"}],
}


def test_check_is_a_part_of_the_service(client: TestClient) -> None:
    """PUT takes it, PATCH changes a field of it or takes it away, and the ETag goes with it."""
    made = client.put("/v1/services/web", json={**WEB, "health_check": {"type": "http", "path": "/healthz"}})
    assert made.status_code == 201
    check = made.json()["health_check"]
    assert (check["type"], check["path"], check["interval_seconds"]) == ("http", "/healthz", 5.0)

    patched = client.patch("/v1/services/web", json={"health_check": {"fall": 5}})
    assert patched.json()["health_check"] == {**check, "fall": 5}
    assert patched.headers["etag"] != made.headers["etag"]
    assert client.patch("/v1/services/web", json={"health_check": None}).json()["health_check"] is None


def test_check_that_cannot_work(client: TestClient) -> None:
    """422 with a pointer to the field, and nothing changes."""
    client.put("/v1/services/web", json=WEB)
    answer = client.patch("/v1/services/web", json={"health_check": {"type": "udp", "timeout_seconds": 9}})

    assert answer.status_code == 422
    pointers = [error["pointer"] for error in answer.json()["errors"]]
    assert pointers == ["/health_check/timeout_seconds", "/health_check/request"]
    assert client.get("/v1/services/web").json()["health_check"] is None


def test_observed(client: TestClient, stack: Stack) -> None:
    """Nothing is known before the first check; in metrics a backend that is not checked is up."""
    client.put("/v1/services/web", json={**WEB, "health_check": {"type": "tcp"}})
    [backend] = client.get("/v1/services/web/status").json()["backends"]
    assert (backend["health"], backend["effective_state"]) == ("unknown", "active")
    assert [backend[key] for key in ("health_since", "health_error", "health_checked_at")] == [None] * 3

    families = {f.name: f for f in text_string_to_metric_families(client.get("/metrics").text)}
    assert [s.value for s in families["sluice_backend_up"].samples] == [1.0]
    assert families["sluice_health_check_duration_seconds"].type == "histogram"

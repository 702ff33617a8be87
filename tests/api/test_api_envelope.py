"""What every answer has: the revision it was made from, its request's id, a line of the log; who is in the history."""

import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
from api_stack import Stack
from fastapi.testclient import TestClient
from live import serving

from api import access_log
from api.app import create_app
from lb.events import REQUEST_ID
from lb.logs import JsonFormatter, TextFormatter
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


@pytest.mark.parametrize("sent", ["7d8c", "trace/01-ab.c_d:e=@+", "x" * 128])
def test_a_sane_request_id_comes_back(client: TestClient, sent: str) -> None:
    """In the header, in a problem, and in the event of a change; and it is forgotten after the answer."""
    headers = {"X-Request-Id": sent}
    refused = client.get("/v1/services/none", headers=headers)
    client.put("/v1/blocklist/192.0.2.1", json={}, headers=headers).raise_for_status()

    assert refused.headers["x-request-id"] == refused.json()["request_id"] == sent
    (event,) = client.get("/v1/events").json()["items"]
    assert event["request_id"] == sent
    assert REQUEST_ID.get() is None


@pytest.mark.parametrize("sent", [None, "", "a b", "x" * 129, '"quoted"', "line\tbreak", "\xe9"])
def test_any_other_is_replaced(client: TestClient, sent: str | None) -> None:
    """Each request has an id of its own, whatever was sent."""
    headers = {} if sent is None else {"X-Request-Id": sent.encode("latin-1")}
    ids = {client.get("/healthz", headers=headers).headers["x-request-id"] for _ in range(2)}

    assert len(ids) == 2
    assert sent not in ids
    assert all(len(request_id) == 16 for request_id in ids)


@pytest.mark.parametrize(
    "path", ["/v1/services", "/v1/services/web", "/v1/config", "/metrics", "/openapi.json"]
)
def test_head_is_get_without_a_body(client: TestClient, web: dict[str, Any], path: str) -> None:
    """The same status and headers, its ETag among them, and nothing after."""
    whole, head = client.get(path), client.head(path)

    assert (head.status_code, head.content) == (whole.status_code, b"")
    changing = {"x-request-id", "content-length", "date"}
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in whole.headers.items() if k not in changing
    }
    assert client.head("/v1/services/none").status_code == 404
    assert client.head("/v1/explain").status_code == 405


def test_head_of_an_answer_that_goes_on_is_over(stack: Stack, tmp_path: Path) -> None:
    """It has the head, and nobody is left who is told of events."""
    with serving(stack.app, tmp_path / "socket") as client:
        listeners = len(stack.reconciler.events._listeners)
        head = client.head("/v1/events", headers={"Accept": "text/event-stream"})
        assert (head.status_code, head.content) == (200, b"")
        while len(stack.reconciler.events._listeners) > listeners:
            client.get("/healthz")

        assert head.headers["content-type"].startswith("text/event-stream")


def test_options_says_what_a_path_takes(client: TestClient) -> None:
    """204 with Allow; a path that is none stays a 404, and nothing lets other sites' pages in."""
    answer = client.options("/v1/services/web", headers={"Origin": "https://example.net"})

    assert answer.status_code == 204
    allowed = set(answer.headers["allow"].split(", "))
    assert allowed == {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert client.options("/v1/nothing").status_code == 404


@pytest.mark.parametrize(
    "sent", [b"no http at all\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost : b\r\n\r\n"]
)
def test_what_is_no_http_is_a_problem_too(stack: Stack, tmp_path: Path, sent: bytes) -> None:
    """400 with a problem document, and the connection is closed."""
    with serving(stack.app, tmp_path / "socket"), socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(tmp_path / "socket"))
        raw.sendall(sent)
        answer = b"".join(iter(lambda: raw.recv(4096), b""))

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head.lower()
    assert json.loads(body)["type"] == "urn:sluice:problem:malformed"


def test_the_log_has_refusals_and_failures(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Each with who, what and how; what went well is debug, and a line break in a path is no line of the log."""
    with caplog.at_level(logging.INFO, "sluice"):
        client.get("/v1/services")
        client.get("/v1/services/none")
        client.get("/v1/services/a%0Ab")

    records = [r for r in caplog.records if r.name == "sluice.access"]
    assert [r.levelno for r in records] == [logging.INFO] * 2
    assert records[0].getMessage().startswith("GET /v1/services/none 404 in ")
    assert "\n" not in records[1].getMessage()
    fields = records[0].__dict__["fields"]
    assert (fields["actor"], fields["method"], fields["status"]) == ("100.64.0.77", "GET", 404)


@pytest.mark.parametrize(
    ("path", "status", "seconds", "level"),
    [
        ("/v1/services", 200, 0.01, logging.DEBUG),
        ("/v1/services", 200, 1.5, logging.INFO),
        ("/v1/services", 404, 0.01, logging.INFO),
        ("/v1/services", 500, 0.01, logging.WARNING),
        ("/v1/services", 507, 0.01, logging.WARNING),
        ("/readyz", 503, 0.01, logging.DEBUG),
        ("/metrics", 200, 1.5, logging.DEBUG),
    ],
)
def test_levels_of_the_access_log(path: str, status: int, seconds: float, level: int) -> None:
    """What is refused or slow is worth a line, what failed a warning; what programs ask all the time is neither."""
    assert access_log.level_of(path, status, seconds) == level


def test_lines_of_the_log_name_their_request() -> None:
    """As text and as JSON, only while a request is answered; JSON has what went wrong as well."""
    record = logging.LogRecord("sluice", logging.INFO, __file__, 1, "said %s", ("so",), None)
    try:
        raise ValueError("broken")
    except ValueError as error:
        failed = logging.LogRecord(
            "sluice", logging.ERROR, __file__, 1, "it failed", (), (type(error), error, None)
        )

    token = REQUEST_ID.set("7d8c")
    text, line = TextFormatter().format(record), json.loads(JsonFormatter().format(record))
    REQUEST_ID.reset(token)

    assert text.endswith("INFO sluice: said so [7d8c]")
    assert (line["message"], line["request_id"]) == ("said so", "7d8c")
    assert TextFormatter().format(record).endswith("said so")
    assert "request_id" not in json.loads(JsonFormatter().format(record))
    assert "ValueError: broken" in json.loads(JsonFormatter().format(failed))["exception"]

"""Every way to be refused: the right status, a whole problem document, and nothing changed."""

import re
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from api_refusals import NEW, READS, REFUSED, TEXT
from api_stack import fill, running_stack
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException
from starlette.types import Message

from api import problems
from api.app import create_app
from api.bodies import LIMITS, MIB, Media
from lb.dataplane.twin import SMALL, TwinDataPlane
from lb.errors import DataPlaneError, KnownAnswerError, SluiceError
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore


@pytest.fixture(scope="module")
def standing() -> Iterator[TestClient]:
    """A client of an API that has one of everything, for many tests: what is refused changes nothing."""
    with running_stack() as stack:
        yield fill(stack.client)


def state_of(client: TestClient) -> list[Any]:
    """All that is desired, feeds too, and its revision."""
    answers = [client.get(path) for path in ("/v1/config", "/v1/blocklist", "/v1/allowlist")]
    return [(a.content, a.headers["etag"], a.headers["sluice-revision"]) for a in answers]


def documented_statuses(client: TestClient, method: str, path: str) -> set[str]:
    """What the OpenAPI document says an operation may answer."""
    paths = client.get("/openapi.json").json()["paths"]
    path = path.partition("?")[0]
    for template, operations in sorted(paths.items(), key=lambda item: item[0].count("{")):
        pattern = re.sub(r"\{prefix\}", ".*", template)
        pattern = re.sub(r"\{\w+\}", "[^/]+", pattern)
        if re.fullmatch(pattern, path):
            return set(operations[method.lower()]["responses"])
    raise AssertionError(f"no operation is documented for {method} {path}")


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "faults"),
    REFUSED,
    ids=[f"{status}-{method}-{path}-{n}" for n, (method, path, _, status, _) in enumerate(REFUSED)],
)
def test_a_refused_write_says_why_and_changes_nothing(  # noqa: PLR0917  # a row of the table
    standing: TestClient, method: str, path: str, sent: dict[str, Any], status: int, faults: list[str]
) -> None:
    """The problem has the status, its own type, a detail and each fault; the state is what it was."""
    before = state_of(standing)

    answer = standing.request(method, path, **sent)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"] == f"urn:sluice:problem:{problems.kind_of_status(status).name}"
    assert problem["title"] == problems.kind_of_status(status).title
    assert problem["detail"]
    found = [e.get("parameter") or e["pointer"] for e in problem.get("errors", [])]
    assert sorted(found) == sorted(faults)
    assert all(e["detail"] for e in problem.get("errors", []))
    assert str(status) in documented_statuses(standing, method, path)
    assert state_of(standing) == before


def test_a_problem_is_whole(filled: TestClient) -> None:
    """One problem document, compared as a whole."""
    answer = filled.post("/v1/services", json={**NEW, "port": 70000})

    says = "port 70000 is out of range: 1 to 65535"
    assert answer.json() == {
        "request_id": answer.headers["x-request-id"],
        "type": "urn:sluice:problem:invalid",
        "title": "The request holds values that cannot be accepted",
        "status": 422,
        "detail": f"/port: {says}",
        "errors": [{"pointer": "/port", "detail": says}],
    }


def test_faults_of_lines_have_their_numbers(filled: TestClient) -> None:
    """A list with wrong lines names each by its number, and adds none of the others."""
    before = state_of(filled)

    answer = filled.post("/v1/blocklist", content="192.0.2.1\n# fine\n192.0.2.1/33\nx\n", headers=TEXT)
    assert answer.status_code == 422
    assert [(e["pointer"], e["line"]) for e in answer.json()["errors"]] == [("", 3), ("", 4)]
    assert state_of(filled) == before


@pytest.mark.parametrize(("path", "status"), READS)
def test_a_refused_read_is_a_problem_too(standing: TestClient, path: str, status: int) -> None:
    """Reads answer with documented problems."""
    answer = standing.get(path)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert str(status) in documented_statuses(standing, "GET", path)


def test_an_unknown_path_and_an_unknown_method_are_problems(filled: TestClient) -> None:
    """404 names the path; 405 says in Allow all that the resource takes."""
    missing = filled.get("/v1/service")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert "/v1/service" in missing.json()["detail"]
    assert filled.get("/v1/services/").status_code == 404

    wrong = filled.delete("/v1/services")
    assert (wrong.status_code, wrong.headers["content-type"]) == (405, "application/problem+json")
    assert wrong.json()["type"] == "urn:sluice:problem:method-not-allowed"
    assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "OPTIONS"}
    allowed = filled.post("/v1/blocklist/192.0.2.1", json={}).headers["allow"]
    assert set(allowed.split(", ")) == {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}


@pytest.mark.parametrize(
    ("path", "media"),
    [("/v1/services", Media.JSON), ("/v1/blocklist", Media.TEXT), ("/v1/config", Media.YAML)],
)
def test_a_body_over_its_limit_is_refused_by_its_announced_length(
    filled: TestClient, path: str, media: Media
) -> None:
    """413 comes by Content-Length, before the body is looked at."""
    before = state_of(filled)
    method = "PUT" if media is Media.YAML else "POST"
    headers = {"Content-Type": media.value, "Content-Length": str(LIMITS[media] + 1)}

    answer = filled.request(method, path, content=b"x", headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:sluice:problem:too-large")
    assert f"{LIMITS[media] // MIB} MiB" in answer.json()["detail"]
    assert state_of(filled) == before


def test_a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_large(reconciler: Reconciler) -> None:
    """The limit holds while the body streams in: no more than one piece past it is taken."""
    app = create_app(reconciler)
    taken, sent = 0, []

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b" " * MIB, "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/services",
        "raw_path": b"/v1/services",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": None,
        "server": None,
        "scheme": "http",
    }
    anyio.run(app, scope, receive, send)

    assert sent[0]["status"] == 413
    assert taken == LIMITS[Media.JSON] // MIB + 1


def test_a_full_table_is_507(filled: TestClient) -> None:
    """What does not fit is refused whole, and the problem names the option that makes room."""
    before = state_of(filled)
    items = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(SMALL.allow + 1)]

    answer = filled.post("/v1/allowlist", json=items)
    assert (answer.status_code, answer.json()["type"]) == (507, "urn:sluice:problem:capacity")
    assert "--allow" in answer.json()["detail"]
    assert state_of(filled) == before


def test_a_data_plane_that_refuses_is_503(
    filled: TestClient, plane: TwinDataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel refuses is not kept, and /readyz says why until it is mended."""
    before = state_of(filled)

    def refuse(*_: object, **__: object) -> None:
        raise DataPlaneError("the program is not attached: see the log")

    with monkeypatch.context() as broken:
        broken.setattr(plane, "require", refuse)
        answer = filled.post("/v1/services", json=NEW)
        ready = filled.get("/readyz")
    assert answer.json() == {
        "request_id": answer.headers["x-request-id"],
        "type": "urn:sluice:problem:data-plane",
        "title": "The data plane is not in service",
        "status": 503,
        "detail": "the program is not attached: see the log",
    }
    assert (ready.status_code, ready.headers["content-type"]) == (503, "application/problem+json")
    assert ready.json()["reasons"] == ["the program is not attached: see the log"]
    assert state_of(filled) == before


def test_a_program_that_fails_the_gate_is_503(
    filled: TestClient, plane: TwinDataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The problem says which known packet went wrong, nothing is changed, and the data plane is as ready as before."""
    before = state_of(filled)
    detail = 'the compiled program fails the known packet "TCP, 4 in 4": see the log'

    def refuse(*_: object, **__: object) -> None:
        raise KnownAnswerError(detail)

    require = plane.require
    monkeypatch.setattr(
        plane, "require", lambda wish, **how: refuse() if "HAVE_L2" in wish.features else require(wish, **how)
    )
    answer = filled.post("/v1/services", json={**NEW, "mode": "l2"})

    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert (answer.json()["type"], answer.json()["detail"]) == ("urn:sluice:problem:known-answer", detail)
    assert state_of(filled) == before
    assert filled.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("POST", "/v1/services", "it has force"),
        ("DELETE", "/v1/services/web", "it has force"),
        ("POST", "/v1/config/confirm", "it has force, revision"),
    ],
)
def test_a_parameter_that_is_not_known_changes_nothing(
    filled: TestClient, method: str, path: str, known: str
) -> None:
    """Whoever asks for a dry run where there is none, or mistypes, does not find the change made."""
    before = state_of(filled)

    answer = filled.request(method, f"{path}?dry_run=true", json=NEW if method == "POST" else None)

    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "dry_run")
    assert known in answer.json()["errors"][0]["detail"]
    assert state_of(filled) == before


def test_a_store_that_fails_is_503(filled: TestClient, store: SqliteStore) -> None:
    """A state file that cannot be written is an error of its own, and nothing is applied."""
    before = state_of(filled)
    store.close()

    answer = filled.post("/v1/services", json=NEW)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:sluice:problem:store")
    assert state_of(filled) == before


def test_an_unforeseen_error_is_a_problem_without_its_innards(
    filled: TestClient, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 has all that every answer has, and gives nothing away."""

    def fail() -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(reconciler, "status", fail)

    answer = filled.get("/v1/status")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["type"] == "urn:sluice:problem:internal"
    assert answer.headers["sluice-revision"] == str(reconciler.desired.revision)
    assert "secret" not in answer.text


def test_statuses_of_the_framework_keep_their_headers() -> None:
    """An HTTPException of any status becomes a problem: 429 with its Retry-After, others by their phrase."""
    app = FastAPI()
    problems.install(app)

    @app.get("/{status}")
    def refuse(status: int) -> None:
        raise HTTPException(status, "wait", {"Retry-After": "3"})

    client = TestClient(app)
    busy, teapot = client.get("/429"), client.get("/418")
    assert busy.json() == {
        "type": "urn:sluice:problem:too-many-requests",
        "title": "Too many requests",
        "status": 429,
        "detail": "wait",
    }
    assert busy.headers["retry-after"] == "3"
    assert (teapot.status_code, teapot.json()["type"]) == (418, "urn:sluice:problem:i'm-a-teapot")


def test_every_error_of_sluice_has_a_row() -> None:
    """Each class of lb/errors.py is found in the table, by itself or by its parent; types are unique."""

    def below(cls: type[SluiceError]) -> list[type[SluiceError]]:
        return [
            cls,
            *(c for sub in cls.__subclasses__() if sub.__module__ == "lb.errors" for c in below(sub)),
        ]

    for cls in below(SluiceError):
        kind = problems.kind_of_error(cls.__new__(cls))
        assert 400 <= kind.status < 600
        assert cls is SluiceError or kind is not problems.INTERNAL
    names = [kind.name for kind in problems.KINDS.values()]
    assert len(set(names)) == len(names)

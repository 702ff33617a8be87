"""ETags: 304 for what the caller has, 412 for what has changed under it."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.etags import etag_of

JsonDocument = dict[str, Any]
OTHER = '"000000000000000000000000"'

READABLE = [
    "/v1/services",
    "/v1/services/web",
    "/v1/services/web/backends",
    "/v1/services/web/backends/10.0.0.11",
    "/v1/blocklist",
    "/v1/blocklist/203.0.113.0/24",
    "/v1/allowlist",
    "/v1/rules",
    "/v1/rules/web",
    "/v1/config",
]


@pytest.mark.parametrize("path", READABLE)
def test_a_read_of_what_the_caller_has_is_not_modified(filled: TestClient, path: str) -> None:
    """If-None-Match with the ETag, a weak one, one of several or * gives 304 without a body."""
    etag = filled.get(path).headers["etag"]

    for given in (etag, f"W/{etag}", f"{OTHER}, {etag}", "*"):
        answer = filled.get(path, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert filled.get(path, headers={"If-None-Match": OTHER}).status_code == 200


WRITES = [
    (
        "POST",
        "/v1/services",
        "/v1/services",
        {"name": "b", "vip": "192.0.2.11", "port": 1, "protocol": "tcp"},
    ),
    ("PUT", "/v1/services/web", "/v1/services/web", {"vip": "192.0.2.11", "port": 1, "protocol": "tcp"}),
    ("PATCH", "/v1/services/web", "/v1/services/web", {"affinity": "source"}),
    ("DELETE", "/v1/services/web", "/v1/services/web", None),
    ("PUT", "/v1/services/web/backends", "/v1/services/web/backends", []),
    ("PUT", "/v1/services/web/backends/10.0.0.11", "/v1/services/web/backends/10.0.0.11", {"weight": 9}),
    ("PATCH", "/v1/services/web/backends/10.0.0.11", "/v1/services/web/backends/10.0.0.11", {"weight": 9}),
    ("DELETE", "/v1/services/web/backends/10.0.0.11", "/v1/services/web/backends/10.0.0.11", None),
    ("POST", "/v1/services/web/backends/10.0.0.11/drain", "/v1/services/web/backends/10.0.0.11", None),
    ("POST", "/v1/services/web/drain", "/v1/services/web/backends", {"addresses": ["10.0.0.12"]}),
    ("POST", "/v1/services/web/backends/10.0.0.11/disable", "/v1/services/web/backends/10.0.0.11", None),
    ("POST", "/v1/blocklist", "/v1/blocklist", {"prefix": "198.51.100.1"}),
    ("PUT", "/v1/blocklist", "/v1/blocklist", []),
    ("DELETE", "/v1/blocklist", "/v1/blocklist", None),
    ("PUT", "/v1/blocklist/203.0.113.0/24", "/v1/blocklist/203.0.113.0/24", {"reason": "other"}),
    ("DELETE", "/v1/blocklist/203.0.113.0/24", "/v1/blocklist/203.0.113.0/24", None),
    ("POST", "/v1/allowlist", "/v1/allowlist", {"prefix": "198.51.100.2"}),
    ("POST", "/v1/rules", "/v1/rules", {"name": "b", "action": "count"}),
    ("PUT", "/v1/rules/web", "/v1/rules/web", {"action": "count"}),
    ("PATCH", "/v1/rules/web", "/v1/rules/web", {"priority": 5}),
    ("POST", "/v1/rules/web/promote", "/v1/rules/web", None),
    ("DELETE", "/v1/rules/web", "/v1/rules/web", None),
    ("PUT", "/v1/config", "/v1/config", {}),
]


@pytest.mark.parametrize(("method", "path", "resource", "body"), WRITES)
def test_a_write_fits_the_state_it_was_made_for(
    filled: TestClient, method: str, path: str, resource: str, body: Any
) -> None:
    """If-Match with another ETag is refused with 412 and changes nothing; with the present one it is done."""
    before = filled.get("/v1/config")
    etag = filled.get(resource).headers["etag"]

    for wrong in (
        {"If-Match": OTHER},
        {"If-Match": f"W/{etag}"},
        {"If-None-Match": "*"},
        {"If-None-Match": etag},
    ):
        refused = filled.request(method, path, json=body, headers=wrong)
        assert (refused.status_code, refused.json()["type"]) == (412, "urn:sluice:problem:precondition")
    after = filled.get("/v1/config")
    assert after.content == before.content
    assert after.headers["sluice-revision"] == before.headers["sluice-revision"]

    done = filled.request(method, path, json=body, headers={"If-Match": f"{OTHER}, {etag}"})
    assert done.is_success
    assert int(done.headers["sluice-revision"]) == int(before.headers["sluice-revision"]) + 1


def test_if_none_match_star_only_creates(client: TestClient, web: JsonDocument) -> None:
    """PUT with If-None-Match: * makes what is not there; If-Match makes nothing where nothing is."""
    path = "/v1/services/web/backends/10.0.0.13"

    assert client.put(path, json={}, headers={"If-Match": "*"}).status_code == 412
    assert client.put(path, json={}, headers={"If-None-Match": "*"}).status_code == 201
    assert client.put(path, json={}, headers={"If-None-Match": "*"}).status_code == 412
    assert client.put(path, json={}, headers={"If-Match": "*"}).status_code == 200


def test_a_change_elsewhere_spoils_no_etag(filled: TestClient) -> None:
    """The ETag is that of the resource, not of the revision."""
    etag = filled.get("/v1/services/web").headers["etag"]
    filled.post("/v1/blocklist", json={"prefix": "198.51.100.1"})

    assert (
        filled.patch("/v1/services/web", json={"affinity": "source"}, headers={"If-Match": etag}).status_code
        == 200
    )


def test_a_dry_run_minds_if_match(filled: TestClient) -> None:
    """A plan made for another state is refused before anything is said about it."""
    refused = filled.put("/v1/config", params={"dry_run": True}, json={}, headers={"If-Match": OTHER})

    assert refused.status_code == 412


def test_etags_do_not_depend_on_how_a_document_is_written() -> None:
    """The order of keys does not count, their values do."""
    assert etag_of({"a": 1, "b": [1, 2]}) == etag_of({"b": [1, 2], "a": 1})
    assert etag_of({"a": 1, "b": [1, 2]}) != etag_of({"a": 1, "b": [2, 1]})


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("sent", ["", "abc", "'abc'", "W/abc", '"a" "b"', '"a', "**"])
def test_what_is_no_etag_is_refused(filled: TestClient, header: str, sent: str) -> None:
    """422 names the header and what to send, and nothing is changed: a precondition is never passed over."""
    before = filled.get("/v1/config").json()

    answer = filled.delete("/v1/services/web", headers={header: sent})
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert fault["parameter"] == header
    assert "send the value of the ETag header" in fault["detail"]
    assert filled.get("/v1/config").json() == before


def test_a_read_with_what_is_no_etag_is_refused_too(filled: TestClient) -> None:
    """Else a caller would read everything anew for ever, and not know why."""
    assert filled.get("/v1/services", headers={"If-None-Match": "abc"}).status_code == 422
    assert filled.get("/v1/services", headers={"If-None-Match": ' "a" ,W/"b", '}).status_code == 200

"""Feeds by REST: every verb, what is seen of them, and refreshes as operations. The lists are files."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from lb.dataplane.twin import TwinDataPlane
from lb.reconcile.loop import Reconciler

JsonDocument = dict[str, Any]
NOW = "2030-03-17T17:46:40Z"
DEFAULTS = {
    "url": None,
    "format": "auto",
    "action": "drop",
    "refresh_seconds": 3600,
    "jitter": 0.1,
    "max_change": 0.5,
    "allow_private_url": False,
    "allow_protected": False,
    "api_key_file": None,
    "reason": "",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A list of four addresses."""
    path = tmp_path / "list.txt"
    path.write_text("".join(f"203.0.113.{n}\n" for n in range(4)))
    return path


def put(client: TestClient, path: Path, **said: Any) -> JsonDocument:
    """The feed "drop" of a file, refreshed."""
    client.put("/v1/feeds/drop", json={"file": str(path), **said}).raise_for_status()
    document: JsonDocument = client.post("/v1/feeds/drop/refresh").raise_for_status().json()
    return document


def test_put_creates_and_replaces(client: TestClient, path: Path) -> None:
    """PUT answers the feed with its defaults: 201 at first, 200 after that; GET gives the same with its ETag."""
    made = client.put("/v1/feeds/drop", json={"file": str(path)})
    again = client.put("/v1/feeds/drop", json={"file": str(path), "reason": "known bad"})

    assert (made.status_code, made.headers["location"]) == (201, "/v1/feeds/drop")
    assert {k: v for k, v in made.json().items() if k != "observed"} == {
        "name": "drop",
        "file": str(path),
        **DEFAULTS,
    }
    assert (again.status_code, again.json()["reason"]) == (200, "known bad")
    read = client.get("/v1/feeds/drop")
    assert read.headers["etag"] == again.headers["etag"] != made.headers["etag"]
    assert client.get("/v1/feeds/drop", headers={"If-None-Match": read.headers["etag"]}).status_code == 304


def test_refresh_answers_what_is_seen(client: TestClient, path: Path) -> None:
    """A refresh that is done answers the feed with what it came to; its entries are on the blocklist by then."""
    document = put(client, path)

    seen = document["observed"]
    assert {k: seen[k] for k in ("entries", "packets", "bytes", "error", "failures")} == {
        "entries": 4,
        "packets": 0,
        "bytes": 0,
        "error": None,
        "failures": 0,
    }
    assert seen["last_success_at"] == seen["last_attempt_at"] == NOW
    assert "2030-03-17T18:46:40Z" <= seen["next_refresh_at"] <= "2030-03-17T18:52:40.1Z"
    assert client.get("/v1/feeds/drop").json() == document
    assert client.get("/v1/feeds").json() == {"items": [document], "total": 1, "next": None}
    entries = client.get("/v1/blocklist").json()["items"]
    assert [(e["prefix"], e["owner"]) for e in entries] == [
        (f"203.0.113.{n}/32", "feed:drop") for n in range(4)
    ]


def test_hits_are_the_feeds(
    client: TestClient, path: Path, plane: TwinDataPlane, reconciler: Reconciler
) -> None:
    """What its entries decided is counted for the feed, in the document and in the metrics."""
    put(client, path)
    (number,) = reconciler._plans.deny.shared
    plane.tables.deny_counters.add(number, 3, 180)  # type: ignore[attr-defined]

    seen = client.get("/v1/feeds/drop").json()["observed"]
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = {s.name: s.value for f in families for s in f.samples if s.labels == {"feed": "drop"}}

    assert (seen["packets"], seen["bytes"]) == (3, 180)
    assert samples == {
        "sluice_feed_entries": 4,
        "sluice_feed_packets_total": 3,
        "sluice_feed_bytes_total": 180,
        "sluice_feed_last_success_timestamp_seconds": 1_900_000_000,
        "sluice_feed_failures": 0,
    }


def test_refresh_that_is_refused(client: TestClient, path: Path) -> None:
    """A refresh that is refused is a 502 that says why; what was held stays, and the feed shows the reason."""
    put(client, path)
    path.write_text("203.0.113.1\n")

    answer = client.post("/v1/feeds/drop/refresh")

    assert (answer.status_code, answer.json()["type"]) == (502, "urn:sluice:problem:feed")
    assert "would take out 3 entries where 4 are held" in answer.json()["detail"]
    seen = client.get("/v1/feeds/drop").json()["observed"]
    assert (seen["entries"], seen["failures"]) == (4, 1)
    assert seen["error"] in answer.json()["detail"]


def test_refresh_as_an_operation(client: TestClient, path: Path) -> None:
    """A refresh that is not waited for is a 202 with an operation, which tells its end."""
    put(client, path)
    path.write_text("203.0.113.1\n")

    answer = client.post("/v1/feeds/drop/refresh?wait_seconds=0")
    while (operation := client.get(answer.headers["location"]).json())["state"] == "running":
        pass

    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/operations/{answer.json()['id']}"
    assert (answer.json()["kind"], answer.json()["feed"]) == ("refresh", "drop")
    assert operation["state"] == "failed" and "would take out 3" in operation["error"]


def test_delete_takes_the_entries_along(client: TestClient, path: Path) -> None:
    """A feed goes with its entries in one revision."""
    put(client, path)
    client.post("/v1/blocklist", json={"prefix": "203.0.113.1"}).raise_for_status()
    before = int(client.get("/v1/feeds").headers["sluice-revision"])

    gone = client.delete("/v1/feeds/drop")

    assert (gone.status_code, gone.headers["sluice-revision"]) == (204, str(before + 1))
    assert [e["owners"] for e in client.get("/v1/blocklist").json()["items"]] == [["operator"]]
    assert client.get("/v1/feeds/drop").status_code == 404


def test_what_get_shows_can_be_put_back(client: TestClient, path: Path) -> None:
    """The document of GET, sent back, changes nothing."""
    document = put(client, path)
    revision = client.get("/v1/feeds").headers["sluice-revision"]

    answer = client.put("/v1/feeds/drop", json=document)

    assert (answer.status_code, answer.headers["sluice-revision"]) == (200, revision)


def test_preconditions(client: TestClient, path: Path) -> None:
    """Writes mind If-Match and If-None-Match; what is seen is no part of the ETag."""
    etag = client.put("/v1/feeds/drop", json={"file": str(path)}).headers["etag"]
    client.post("/v1/feeds/drop/refresh").raise_for_status()
    other = {"If-Match": '"other"'}

    assert client.put("/v1/feeds/drop", json={"file": "/x"}, headers=other).status_code == 412
    assert (
        client.put("/v1/feeds/drop", json={"file": "/x"}, headers={"If-None-Match": "*"}).status_code == 412
    )
    assert client.delete("/v1/feeds/drop", headers=other).status_code == 412
    assert client.delete("/v1/feeds/drop", headers={"If-Match": etag}).status_code == 204


def test_document_has_feeds(client: TestClient, path: Path) -> None:
    """Feeds are part of the configuration, their entries are not; leaving one out removes both."""
    put(client, path)
    document = client.get("/v1/config").json()
    assert document["feeds"] == [{"name": "drop", "file": str(path), **DEFAULTS}]
    assert document["blocklist"] == []
    etag = client.get("/v1/config").headers["etag"]

    same = client.put("/v1/config", json=document, headers={"If-Match": etag})
    counts = client.put("/v1/config?dry_run=true", json={}).json()["counts"]
    client.put("/v1/config", json={}).raise_for_status()

    assert same.json()["same"]
    assert (counts["feed"]["remove"], counts["blocklist"]["remove"]) == (1, 4)
    assert client.get("/v1/blocklist").json()["total"] == 0
    assert client.get("/v1/config").headers["etag"] != etag


def test_unreadable_file_is_no_fault_of_the_feed(client: TestClient, path: Path) -> None:
    """A feed can be put before its file is there; it is tried again, and says why it has nothing."""
    path.rename(path.with_suffix(".later"))
    client.put("/v1/feeds/drop", json={"file": str(path)}).raise_for_status()

    assert client.post("/v1/feeds/drop/refresh").status_code == 502

    assert "No such file" in client.get("/v1/feeds/drop").json()["observed"]["error"]
    path.with_suffix(".later").rename(path)
    assert client.post("/v1/feeds/drop/refresh").json()["observed"]["entries"] == 4


@pytest.mark.parametrize("number", ["0", "99", "9" * 30, "9" * 5000])
def test_a_refresh_that_nobody_asked_for_is_no_operation(client: TestClient, path: Path, number: str) -> None:
    """A number that was never given out is not found, however long it is."""
    put(client, path)

    assert client.get(f"/v1/operations/refresh~drop~{number}").status_code == 404


def test_clearing_leaves_what_a_feed_holds(client: TestClient, path: Path) -> None:
    """owner=* takes everybody's entries but those of declared feeds, which would be back."""
    put(client, path)
    client.post("/v1/blocklist", json={"prefix": "198.51.100.7"}).raise_for_status()

    assert client.delete("/v1/blocklist", params={"owner": "*"}).status_code == 204

    left = client.get("/v1/blocklist").json()["items"]
    assert {item["prefix"] for item in left} == {f"203.0.113.{n}/32" for n in range(4)}

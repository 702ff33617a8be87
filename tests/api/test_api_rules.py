"""Rules over the API: made, changed, promoted, removed, warned of, and what they have matched."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from lb.dataplane.twin import TwinDataPlane
from lb.reconcile.loop import Reconciler

JsonDocument = dict[str, Any]
SCAN = {"name": "scan", "action": "drop", "protocol": "tcp", "tcp_flags": "fin,!ack", "count_only": True}


@pytest.fixture
def scan(client: TestClient) -> JsonDocument:
    """A rule on trial, as it was answered, without its warnings."""
    made: JsonDocument = client.put("/v1/rules/scan", json=SCAN).raise_for_status().json()
    assert made.pop("warnings") == []
    return made


def test_a_rule_is_made_and_read_back(client: TestClient, scan: JsonDocument) -> None:
    """PUT creates with 201; all fields are answered; what GET shows can be put back and changes nothing."""
    read = client.get("/v1/rules/scan")

    assert read.json() == scan
    assert (scan["priority"], scan["tcp_flags"], scan["limit"]) == (1000, "fin,!ack", None)
    again = client.put("/v1/rules/scan", json=read.json())
    assert (again.status_code, again.headers["etag"]) == (200, read.headers["etag"])
    assert again.headers["sluice-revision"] == read.headers["sluice-revision"]


def test_post_adds_and_says_where(client: TestClient) -> None:
    """201, Location, and 409 for a name that is taken."""
    made = client.post("/v1/rules", json=SCAN)

    assert (made.status_code, made.headers["location"]) == (201, "/v1/rules/scan")
    assert client.post("/v1/rules", json=SCAN).status_code == 409


def test_rules_are_listed_as_they_are_asked(client: TestClient, scan: JsonDocument) -> None:
    """Those that allow, then the others by priority, then by name."""
    for name, more in (("z", {"action": "allow"}), ("b", {"action": "count"}), ("a", {"action": "count"})):
        client.put(f"/v1/rules/{name}", json=more).raise_for_status()
    client.patch("/v1/rules/b", json={"priority": 1}).raise_for_status()

    document = client.get("/v1/rules").json()
    assert [rule["name"] for rule in document["items"]] == ["z", "b", "a", "scan"]
    assert (document["total"], document["next"]) == (4, None)


def test_promote_puts_a_trial_in_force(client: TestClient, scan: JsonDocument, plane: TwinDataPlane) -> None:
    """count_only ends, nothing else changes, and a second time nothing happens."""
    answer = client.post("/v1/rules/scan/promote")
    again = client.post("/v1/rules/scan/promote")

    assert answer.json() == {**scan, "count_only": False, "warnings": []}
    assert again.headers["sluice-revision"] == answer.headers["sluice-revision"]
    bank = int(plane.tables.arrays.rule_bank["bank"][0])
    assert plane.tables.arrays.rule_actions[bank, 0]["flags"] == 0


def test_a_removed_rule_is_gone(client: TestClient, scan: JsonDocument) -> None:
    """204, then 404."""
    assert client.delete("/v1/rules/scan").status_code == 204
    assert client.get("/v1/rules/scan").status_code == 404
    assert client.get("/v1/rules").json()["items"] == []


def test_a_rule_behind_another_is_accepted_with_a_warning(client: TestClient) -> None:
    """The answer names the earlier one; so does that of a whole document."""
    client.put("/v1/rules/wide", json={"action": "drop", "source": "10.0.0.0/8"}).raise_for_status()
    narrow = {"action": "drop", "source": "10.1.0.0/16"}

    answer = client.put("/v1/rules/zz", json=narrow)
    (said,) = answer.json()["warnings"]
    assert answer.status_code == 201
    assert said.startswith('rule "zz" is never reached: rule "wide" comes before it')
    document = client.get("/v1/config").json()
    document["rules"].append({"name": "zzz", **narrow})
    found = client.put("/v1/config", json=document, params={"dry_run": True}).json()
    assert [text.split(":")[0] for text in found["warnings"]] == ['rule "zzz" is never reached']


def test_a_service_that_a_rule_names_is_not_removed(client: TestClient, web: JsonDocument) -> None:
    """409 names the rule; once it is gone the service goes."""
    client.put("/v1/rules/no-fin", json={"action": "drop", "service": "web"}).raise_for_status()

    refused = client.delete("/v1/services/web")
    assert refused.status_code == 409
    assert 'rule "no-fin" names service "web"' in refused.json()["detail"]
    client.delete("/v1/rules/no-fin").raise_for_status()
    assert client.delete("/v1/services/web").status_code == 204


def test_rules_that_do_not_fit_are_refused(client: TestClient) -> None:
    """507 says what to do, and nothing changes."""
    rules = [{"name": f"r{n}", "action": "count"} for n in range(1025)]

    refused = client.put("/v1/config", json={"rules": rules})
    assert refused.status_code == 507
    assert "put addresses on the blocklist" in refused.json()["detail"]
    assert client.get("/v1/rules").json()["total"] == 0


def test_what_a_rule_has_matched(
    client: TestClient, scan: JsonDocument, plane: TwinDataPlane, reconciler: Reconciler
) -> None:
    """Its counters are shown under its status, in the statistics, and as metrics by result."""
    number = reconciler._plans.rules.numbers["scan"]
    plane.tables.rule_counters.values[number] = (7, 700, 3, 300, plane.clock_seconds())  # type: ignore[attr-defined]
    counts = client.get("/v1/rules/scan/status").json()

    last = counts.pop("last_match_at")
    assert last.startswith("2030-03-17T17:46:")
    assert counts == {
        "packets": 7,
        "bytes": 700,
        "dropped_packets": 3,
        "dropped_bytes": 300,
        "position": 1,
    }
    assert client.get("/v1/stats").json()["rules"]["scan"]["dropped_bytes"] == 300
    metrics = client.get("/metrics").text.splitlines()
    assert 'sluice_rule_packets_total{result="matched",rule="scan"} 7.0' in metrics
    assert 'sluice_rule_bytes_total{result="dropped",rule="scan"} 300.0' in metrics


def test_a_rule_that_matched_nothing(client: TestClient, scan: JsonDocument) -> None:
    """Zeros, and no time of a last match."""
    counts = client.get("/v1/rules/scan/status").json()

    assert (counts["packets"], counts["last_match_at"]) == (0, None)


def test_rules_are_in_the_document(client: TestClient, scan: JsonDocument) -> None:
    """GET /v1/config has them in order; PUT makes them so, and what is left out goes."""
    document = client.get("/v1/config").json()

    assert document["rules"] == [scan]
    assert client.put("/v1/config", json=document).json()["same"]
    assert client.put("/v1/config", json={}).json()["counts"]["rule"] == {"add": 0, "remove": 1, "change": 0}
    assert client.get("/v1/rules").json()["total"] == 0

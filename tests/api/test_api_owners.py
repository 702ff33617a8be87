"""Owners of entries, and changes that would lock somebody out, over REST."""

import pytest
from api_stack import CLIENT_ADDRESS, WEB
from fastapi.testclient import TestClient

from lb.dataplane.twin import TwinCounters, TwinDataPlane
from lb.model import Prefix
from lb.reconcile.lists import rules_of
from lb.reconcile.loop import Reconciler

TEXT = {"Content-Type": "text/plain"}


def owners(client: TestClient, prefix: str = "203.0.113.7") -> list[str]:
    """Who holds a prefix, the foremost first."""
    found: list[str] = client.get(f"/v1/blocklist/{prefix}").json()["owners"]
    return found


def test_several_owners_hold_one_prefix(client: TestClient) -> None:
    """Each has its own action, reason and TTL; the operator's word is foremost, then what drops."""
    for owner, action in (("feed:a", "count"), ("fail2ban", "drop"), ("operator", "count")):
        said = {"prefix": "203.0.113.7", "owner": owner, "action": action, "reason": f"by {owner}"}
        client.post("/v1/blocklist", json=said).raise_for_status()

    shown = client.get("/v1/blocklist/203.0.113.7").json()
    words = [(word["owner"], word["action"], word["reason"]) for word in shown["entries"]]
    assert words == [
        ("operator", "count", "by operator"),
        ("fail2ban", "drop", "by fail2ban"),
        ("feed:a", "count", "by feed:a"),
    ]
    assert shown["action"] == "count"
    assert client.delete("/v1/blocklist/203.0.113.7").status_code == 204
    assert client.get("/v1/blocklist/203.0.113.7").json()["action"] == "drop"
    assert client.delete("/v1/blocklist/203.0.113.7", params={"owner": "fail2ban"}).status_code == 204
    assert owners(client) == ["feed:a"]


def test_owner_in_the_query_and_in_the_body(client: TestClient) -> None:
    """The query's counts for entries that do not say; one request may have several owners."""
    items = ["203.0.113.7", {"prefix": "203.0.113.8", "owner": "crowdsec"}]
    made = client.post("/v1/blocklist", params={"owner": "fail2ban"}, json=items)

    assert made.json()["changed"] == {"added": 2, "replaced": 0, "removed": 0, "total": 2}
    assert [item["owner"] for item in made.json()["items"]] == ["fail2ban", "crowdsec"]
    client.post("/v1/blocklist", params={"owner": "fail2ban"}, content="203.0.113.9", headers=TEXT)
    only = client.get("/v1/blocklist", params={"owner": "fail2ban"}).json()
    assert [item["prefix"] for item in only["items"]] == ["203.0.113.7/32", "203.0.113.9/32"]
    assert only["total"] == 2
    client.put("/v1/blocklist", params={"owner": "fail2ban"}, json=[]).raise_for_status()
    assert [item["owner"] for item in client.get("/v1/blocklist").json()["items"]] == ["crowdsec"]


@pytest.mark.parametrize("owner", ["", "Fail2ban", "a" * 33, "feed:", "any:thing", "two words", "*"])
def test_a_name_that_is_no_owners_is_refused(client: TestClient, owner: str) -> None:
    """422 with the field, in the body and in the query."""
    said = client.post("/v1/blocklist", json=[{"prefix": "203.0.113.7", "owner": owner}])
    asked = client.post("/v1/blocklist", params={"owner": owner}, json={"prefix": "203.0.113.7"})

    assert (said.status_code, said.json()["errors"][0]["pointer"]) == (422, "/0/owner")
    assert (asked.status_code, asked.json()["errors"][0]["parameter"]) == (422, "owner")


@pytest.mark.parametrize(("ttl", "says"), [(0, "not 0"), (-5, "not -5"), (315360001, "1 second to 10 years")])
def test_a_ttl_that_cannot_be_is_refused(client: TestClient, ttl: int, says: str) -> None:
    """Zero, negative, or beyond ten years."""
    refused = client.post("/v1/blocklist", json={"prefix": "203.0.113.7", "ttl_seconds": ttl})

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/ttl_seconds"
    assert says in refused.json()["detail"]


def test_a_rules_entries_are_made_by_the_rule(client: TestClient) -> None:
    """Nobody else adds to them."""
    refused = client.post("/v1/blocklist", json={"prefix": "203.0.113.7", "owner": "rule:ssh"})

    assert refused.status_code == 409
    assert "are made by the rule itself" in refused.json()["detail"]


def test_everyones_entry_of_a_prefix(client: TestClient) -> None:
    """owner=* takes a prefix off whoever holds it, and leaves the others' other prefixes."""
    for owner in ("operator", "fail2ban", "feed:a"):
        client.post(
            "/v1/blocklist", json=[{"prefix": p, "owner": owner} for p in ("203.0.113.7", "203.0.113.8")]
        )

    assert client.delete("/v1/blocklist/203.0.113.7", params={"owner": "*"}).status_code == 204
    assert client.get("/v1/blocklist/203.0.113.7").status_code == 404
    assert owners(client, "203.0.113.8") == ["operator", "fail2ban", "feed:a"]


def test_each_owners_hits_are_its_own(
    client: TestClient, plane: TwinDataPlane, reconciler: Reconciler
) -> None:
    """What an owner's entry decided while it was foremost stays its own when another comes before it."""
    client.post("/v1/blocklist", json={"prefix": "203.0.113.7", "owner": "fail2ban"})
    counters = plane.tables.deny_counters
    assert isinstance(counters, TwinCounters)
    counters.add(rules_of(reconciler._plans.deny, 4, [Prefix.parse("203.0.113.7").key])[0], 3, 180)
    client.post("/v1/blocklist", json={"prefix": "203.0.113.7"})
    counters.add(rules_of(reconciler._plans.deny, 4, [Prefix.parse("203.0.113.7").key])[0], 5, 300)

    words = client.get("/v1/blocklist/203.0.113.7").json()["entries"]

    hits = {word["owner"]: (word["hits"]["packets"], word["hits"]["shared"]) for word in words}
    assert hits == {"operator": (5, False), "fail2ban": (3, False)}


@pytest.mark.parametrize("verb", ["post", "put", "text", "whole", "config"])
def test_every_way_to_block_minds_the_caller(client: TestClient, verb: str) -> None:
    """409 that names the address; with force it is done."""
    prefix = "100.64.0.0/10"

    def ask(force: bool) -> int:
        params = {"force": str(force).lower()}
        match verb:
            case "post":
                answer = client.post("/v1/blocklist", params=params, json={"prefix": prefix})
            case "put":
                answer = client.put(f"/v1/blocklist/{prefix}", params=params, json={})
            case "text":
                answer = client.post("/v1/blocklist", params=params, content=prefix, headers=TEXT)
            case "whole":
                answer = client.put("/v1/blocklist", params=params, json=[prefix])
            case _:
                answer = client.put("/v1/config", params=params, json={"blocklist": [{"prefix": prefix}]})
        if answer.status_code == 409:
            assert f"{prefix} (operator) covers {CLIENT_ADDRESS}" in answer.json()["detail"]
        return answer.status_code

    assert ask(force=False) == 409
    assert client.get("/v1/blocklist").json()["total"] == 0
    assert ask(force=True) < 300
    assert client.get("/v1/blocklist").json()["total"] == 1


def test_a_dry_run_says_what_would_be_refused(client: TestClient) -> None:
    """So that nobody finds out later."""
    document = {"blocklist": [{"prefix": "100.64.0.0/10"}]}

    assert client.put("/v1/config", params={"dry_run": "true"}, json=document).status_code == 409


def test_the_session_that_a_local_caller_tells_of(client: TestClient) -> None:
    """The header is believed; what is no address in it is refused."""
    blocked = {"prefix": "198.51.100.0/24"}
    told = {"Sluice-Caller-Address": "198.51.100.9"}

    assert client.post("/v1/blocklist", json=blocked, headers=told).status_code == 409
    wrong = client.post("/v1/blocklist", json=blocked, headers={"Sluice-Caller-Address": "me"})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["parameter"].lower() == "sluice-caller-address"


def test_a_backend_under_an_entry_is_warned_of(client: TestClient) -> None:
    """The service is made, and a header tells what an entry takes from it."""
    client.post("/v1/blocklist", json={"prefix": "10.0.0.0/8"}).raise_for_status()

    made = client.post("/v1/services", json=WEB)

    assert made.status_code == 201
    told = made.headers.get_list("Sluice-Warning")
    assert [words.split(",")[0] for words in told] == [
        "10.0.0.0/8 (operator) covers 10.0.0.11",
        "10.0.0.0/8 (operator) covers 10.0.0.12",
    ]

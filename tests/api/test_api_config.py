"""The configuration document and the history."""

from typing import Any

import yaml
from fastapi.testclient import TestClient

from api.negotiate import prefers_yaml
from lb.model.access import Access

JsonDocument = dict[str, Any]
YAML = {"Content-Type": "application/yaml"}
SETTINGS = {
    "encap_source_ipv4": "172.16.0.0/16",
    "encap_source_ipv6": "100::/64",
    "udp_idle_seconds": 30,
    "tcp_idle_seconds": 3600,
    "drop_spoofed": True,
    "answer_echo": True,
    "too_big_replies_per_second": 1000,
    "gue_port": 6080,
    "nat_pools": [],
    "nat_ports": "1024-65535",
    "nat_opening_seconds": 30,
    "nat_closing_seconds": 60,
    "nat_tcp_idle_seconds": 7440,
    "nat_udp_idle_seconds": 120,
    "nat_icmp_idle_seconds": 60,
    "max_moved_percent": None,
    "access": Access().model_dump(mode="json"),
}


def test_the_document_holds_all_that_is_wanted(client: TestClient, web: JsonDocument) -> None:
    """GET gives services, both lists and settings, and nothing that a feed holds."""
    client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24", "reason": "scan", "ttl_seconds": 60})
    client.post("/v1/allowlist", json={"prefix": "2001:db8::7"})
    client.post(
        "/v1/blocklist?feed=spam", content="192.0.2.1", headers={"Content-Type": "text/plain"}
    ).raise_for_status()

    answer = client.get("/v1/config")
    assert answer.json() == {
        "services": [web],
        "allowlist": [{"prefix": "2001:db8::7/128"}],
        "blocklist": [{"prefix": "203.0.113.0/24", "reason": "scan", "ttl_seconds": 60}],
        "rules": [],
        "feeds": [],
        "settings": SETTINGS,
    }
    assert answer.headers["vary"] == "Accept"


def test_the_document_is_yaml_where_it_is_asked_for(client: TestClient, web: JsonDocument) -> None:
    """By Accept; it says the same as the JSON, under the same ETag."""
    as_json = client.get("/v1/config")
    as_yaml = client.get("/v1/config", headers={"Accept": "application/yaml, application/json;q=0.5"})

    assert as_yaml.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(as_yaml.text) == as_json.json()
    assert as_yaml.headers["etag"] == as_json.headers["etag"]


def test_accept_weighs_what_it_names() -> None:
    """YAML is given only where it is named and weighs more than JSON."""
    assert prefers_yaml("application/yaml")
    assert prefers_yaml("application/json;q=0.1, text/yaml;q=0.2")
    assert not prefers_yaml("")
    assert not prefers_yaml("*/*")
    assert not prefers_yaml("application/yaml, application/json")
    assert not prefers_yaml("application/yaml;q=nonsense")


def test_put_replaces_the_whole(client: TestClient, web: JsonDocument) -> None:
    """What is left out goes, what is new comes, in one revision; the answer says what changed."""
    dns = {"name": "dns", "vip": "192.0.2.53", "port": 53, "protocol": "udp"}
    client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24"})

    answer = client.put("/v1/config", json={"services": [dns], "settings": {"udp_idle_seconds": 60}})
    assert answer.status_code == 200
    assert answer.headers["sluice-revision"] == "3"
    whole = answer.json()
    assert [(c["op"], c["kind"], c["name"]) for c in whole["changes"]] == [
        ("remove", "service", "web"),
        ("add", "service", "dns"),
        ("change", "setting", "udp_idle_seconds"),
        ("remove", "blocklist", "203.0.113.0/24"),
    ]
    assert whole["same"] is False
    present = client.get("/v1/config")
    assert [s["name"] for s in present.json()["services"]] == ["dns"]
    assert present.json()["settings"] == {**SETTINGS, "udp_idle_seconds": 60}
    assert present.headers["etag"] == answer.headers["etag"]


def test_what_get_gives_can_be_put_back_in_either_form(client: TestClient, web: JsonDocument) -> None:
    """The document is the state: putting it back makes no revision, in JSON or YAML."""
    client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24", "ttl_seconds": 60})
    revision = client.get("/v1/config").headers["sluice-revision"]

    for media in ("application/json", "application/yaml"):
        document = client.get("/v1/config", headers={"Accept": media}).content
        back = client.put("/v1/config", content=document, headers={"Content-Type": media})
        assert back.json()["same"] is True
        assert back.headers["sluice-revision"] == revision


def test_a_dry_run_says_what_would_change_and_changes_nothing(client: TestClient, web: JsonDocument) -> None:
    """dry_run answers with the very diff that the change then has, and makes no revision."""
    before = client.get("/v1/config")
    wanted = b"services: []\nblocklist: [{prefix: 203.0.113.0/24}]\n"

    plan = client.put("/v1/config", params={"dry_run": "true"}, content=wanted, headers=YAML)
    after = client.get("/v1/config")
    assert plan.status_code == 200
    assert after.content == before.content
    assert after.headers["sluice-revision"] == before.headers["sluice-revision"]

    done = client.put("/v1/config", content=wanted, headers=YAML)
    assert plan.json() == done.json()
    assert client.get("/v1/services").json()["total"] == 0


def test_faults_of_a_document_have_their_lines(client: TestClient) -> None:
    """A YAML fault is named by pointer and line."""
    text = b"services:\n- name: web\n  vip: 192.0.2.10\n  port: 70000\n  protocol: tcp\ncolour: red\n"

    answer = client.put("/v1/config", content=text, headers=YAML)
    assert answer.status_code == 422
    assert {(e["pointer"], e["line"]) for e in answer.json()["errors"]} == {
        ("/services/0/port", 4),
        ("/colour", 6),
    }


def test_the_history_says_who_did_what(client: TestClient, web: JsonDocument) -> None:
    """Revisions come newest first, with actor, request and time, a page at a time."""
    client.patch("/v1/services/web", json={"affinity": "source"})
    client.delete("/v1/services/web")

    first = client.get("/v1/config/revisions", params={"limit": 2}).json()
    assert first == {
        "items": [
            {
                "revision": number,
                "created_at": "2030-03-17T17:46:40Z",
                "actor": "100.64.0.77",
                "summary": f"{method} /v1/services/web",
            }
            for number, method in ((3, "DELETE"), (2, "PATCH"))
        ],
        "total": 3,
        "next": "2",
    }
    last = client.get("/v1/config/revisions", params={"limit": 2, "after": first["next"]}).json()
    assert [(r["revision"], r["summary"]) for r in last["items"]] == [(1, "POST /v1/services")]
    assert last["next"] is None

"""Collections in pages and by what they hold; several added in one request."""

from typing import Any

import pytest
from api_stack import WEB
from fastapi.testclient import TestClient

NAMES = ["web", "dns", "mail", "six"]
SERVICES: list[dict[str, Any]] = [
    {**WEB, "labels": {"team": "edge", "tier": "1"}},
    {
        "name": "dns",
        "vip": "192.0.2.53",
        "port": 53,
        "protocol": "udp",
        "mode": "gue",
        "labels": {"team": "core"},
        "backends": [{"address": "10.0.0.12", "admin_state": "draining"}],
    },
    {"name": "mail", "vip": "192.0.2.10", "port": 25, "protocol": "tcp", "labels": {"team": "edge"}},
    {"name": "six", "vip": "2001:db8:5::/64", "port": 443, "protocol": "tcp"},
]
RULES = [
    {"name": "a", "action": "drop", "source": "203.0.113.0/24"},
    {"name": "b", "action": "allow", "service": "web"},
    {"name": "c", "action": "drop", "service": "web", "count_only": True},
]


@pytest.fixture
def stocked(client: TestClient) -> TestClient:
    """A client of an API with four services and three rules."""
    client.post("/v1/services", json=SERVICES).raise_for_status()
    client.post("/v1/rules", json={"items": RULES}).raise_for_status()
    return client


def named(client: TestClient, path: str, **query: Any) -> list[str]:
    """The names in an answer, whose total is theirs."""
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["total"] == len(document["items"])
    return [item["name"] for item in document["items"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, NAMES),
        ({"label": "team=edge"}, ["web", "mail"]),
        ({"label": "team"}, ["web", "dns", "mail"]),
        ({"label": ["team=edge", "tier=1"]}, ["web"]),
        ({"label": "team="}, []),
        ({"vip": "192.0.2.10"}, ["web", "mail"]),
        ({"vip": "2001:db8:5::77"}, ["six"]),
        ({"vip": "2001:db8::/32"}, []),
        ({"protocol": "udp"}, ["dns"]),
        ({"mode": "gue"}, ["dns"]),
        ({"backend": "10.0.0.12"}, ["web", "dns"]),
        ({"state": "draining"}, ["dns"]),
        ({"vip": "192.0.2.10", "label": "tier"}, ["web"]),
    ],
)
def test_services_by_what_they_are(stocked: TestClient, query: dict[str, Any], found: list[str]) -> None:
    """Each filter by itself, and several: what fits all of them."""
    assert named(stocked, "/v1/services", **query) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"action": "drop"}, ["a", "c"]),
        ({"service": "web"}, ["b", "c"]),
        ({"count_only": True}, ["c"]),
        ({"count_only": False, "action": "drop"}, ["a"]),
    ],
)
def test_rules_by_what_they_do(stocked: TestClient, query: dict[str, Any], found: list[str]) -> None:
    """By action, by the service they name, and on trial or in force."""
    assert named(stocked, "/v1/rules", **query) == found


def test_backends_by_state(stocked: TestClient) -> None:
    """Those that take new flows, or do not."""
    stocked.post("/v1/services/web/backends/10.0.0.12/disable").raise_for_status()

    page = stocked.get("/v1/services/web/backends", params={"state": "enabled"}).json()
    assert [backend["address"] for backend in page["items"]] == ["10.0.0.11"]
    assert page["total"] == 1


@pytest.mark.parametrize("path", ["/v1/services", "/v1/rules", "/v1/services/web/backends", "/v1/feeds"])
def test_collections_come_in_pages(stocked: TestClient, path: str) -> None:
    """Page by page it is what it is at once; the ETag is that of all of it, on every page."""
    for name in ("one", "two"):
        stocked.put(f"/v1/feeds/{name}", json={"file": "/no/such/list"}).raise_for_status()
    whole = stocked.get(path)
    key = "address" if "backends" in path else "name"

    seen, after = [], None
    while True:
        page = stocked.get(path, params={"limit": 1} | ({} if after is None else {"after": after}))
        seen += [item[key] for item in page.json()["items"]]
        assert page.headers["etag"] == whole.headers["etag"]
        assert page.json()["total"] == whole.json()["total"]
        after = page.json()["next"]
        if after is None:
            break

    assert seen == [item[key] for item in whole.json()["items"]]
    assert len(seen) > 1
    lost = stocked.get(path, params={"after": "none"})
    assert (lost.status_code, lost.json()["errors"][0]["parameter"]) == (422, "after")


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 10001}, {"vip": "x"}, {"backend": "x"}, {"protocol": "sctp"}, {"state": "up"}],
)
def test_a_filter_that_cannot_be_is_refused(stocked: TestClient, query: dict[str, Any]) -> None:
    """422 names the parameter."""
    answer = stocked.get("/v1/services", params=query)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == next(iter(query))


@pytest.mark.parametrize("at", ["", "/items"])
def test_several_services_are_added_or_none(client: TestClient, at: str) -> None:
    """All in one revision; if some cannot be, each of these is named, and none is added."""

    def body(services: list[dict[str, Any]]) -> Any:
        return {"items": services} if at else services

    twice = {**SERVICES[0], "name": "again"}
    clash = client.post("/v1/services", json=body([*SERVICES, twice, SERVICES[1]]))
    wrong = client.post("/v1/services", json=body([{**WEB, "port": 0}, SERVICES[1], {"name": "x"}]))
    assert named(client, "/v1/services") == []
    made = client.post("/v1/services", json=body(SERVICES))

    assert (clash.status_code, [e["pointer"] for e in clash.json()["errors"]]) == (
        409,
        [f"{at}/4", f"{at}/5"],
    )
    assert clash.json()["detail"].endswith("(and 1 more)")
    assert wrong.status_code == 422
    assert [e["pointer"] for e in wrong.json()["errors"]] == [
        f"{at}/0/port",
        *(f"{at}/2/{key}" for key in ("vip", "port", "protocol")),
    ]
    assert made.status_code == 201
    assert [service["name"] for service in made.json()["items"]] == NAMES
    assert made.headers["etag"] == client.get("/v1/services").headers["etag"]
    assert made.headers["sluice-revision"] == "1"


def test_several_rules_are_added_or_none(client: TestClient) -> None:
    """Likewise; a rule that names a service that is not there is named."""
    wrong = client.post("/v1/rules", json=RULES)
    assert (wrong.status_code, [e["pointer"] for e in wrong.json()["errors"]]) == (
        422,
        ["/1/service", "/2/service"],
    )
    assert named(client, "/v1/rules") == []

    client.post("/v1/services", json=WEB).raise_for_status()
    made = client.post("/v1/rules", json=RULES)
    assert (made.status_code, made.json()["total"]) == (201, 3)
    assert any('"c"' in warning for warning in made.json()["warnings"])
    assert named(client, "/v1/rules") == ["b", "a", "c"]

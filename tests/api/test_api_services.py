"""Services and their backends: every verb, and what each leaves behind."""

from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient

JsonDocument = dict[str, Any]
DNS = {"name": "dns", "vip": "2001:db8::10", "port": "5000-5100", "protocol": "udp"}


def test_a_service_that_was_posted_is_answered_whole_and_can_be_read(client: TestClient) -> None:
    """POST fills in defaults, says where the service is, and GET gives the same with the same ETag."""
    made = client.post("/v1/services", json=DNS)

    defaults = {
        "mode": "ipip",
        "nat_source": "pool",
        "affinity": "flow",
        "udp_migration": False,
        "quic": False,
    }
    expected = {
        **DNS,
        **defaults,
        "flood_protection": None,
        "labels": {},
        "health_check": None,
        "backends": [],
    }
    assert made.status_code == 201
    assert made.json() == expected
    assert made.headers["location"] == "/v1/services/dns"
    assert made.headers["sluice-revision"] == "1"
    read = client.get("/v1/services/dns")
    assert read.json() == expected
    assert read.headers["etag"] == made.headers["etag"]


def test_a_quic_id_is_taken_away(client: TestClient) -> None:
    """null takes a quic_id away; quic cannot go while a backend has one, and each of them is named."""
    backends = [{"address": f"10.0.0.{n}", "quic_id": n} for n in (1, 2)]
    client.post("/v1/services", json={**DNS, "quic": True, "backends": backends}).raise_for_status()

    patched = client.patch("/v1/services/dns/backends/10.0.0.1", json={"quic_id": None})
    refused = client.patch("/v1/services/dns", json={"quic": False})

    assert patched.json()["quic_id"] is None
    assert refused.status_code == 422
    assert [e["pointer"] for e in refused.json()["errors"]] == ["/backends/1/quic_id"]
    assert client.get("/v1/services/dns/status").json()["backends"][1]["quic_id"] == 2


def test_vips_that_are_prefixes(client: TestClient) -> None:
    """A prefix is answered as it was written; the same prefix and port again is a conflict."""
    vip = "2001:db8:5::/64"
    made = client.post("/v1/services", json={**DNS, "vip": vip})
    again = client.post("/v1/services", json={**DNS, "vip": vip, "name": "more"})
    wrong = client.post("/v1/services", json={**DNS, "vip": "2001:db8:5::1/64"})

    assert (made.status_code, made.json()["vip"], again.status_code) == (201, vip, 409)
    assert wrong.json()["errors"] == [
        {"pointer": "/vip", "detail": "2001:db8:5::1/64 has host bits set: the network is 2001:db8:5::/64"}
    ]


def test_the_collection_keeps_the_order_of_adding(client: TestClient, web: JsonDocument) -> None:
    """GET /services answers items, total and next."""
    client.post("/v1/services", json=DNS)

    answer = client.get("/v1/services").json()
    assert [s["name"] for s in answer["items"]] == ["web", "dns"]
    assert (answer["total"], answer["next"]) == (2, None)
    assert answer["items"][0] == web


def test_put_creates_then_replaces_then_changes_nothing(client: TestClient, web: JsonDocument) -> None:
    """PUT answers 201 for a new service and 200 for one that is there; repeated, it makes no revision."""
    document = {key: value for key, value in DNS.items() if key != "name"}

    created = client.put("/v1/services/dns", json=document)
    assert (created.status_code, created.headers["location"]) == (201, "/v1/services/dns")
    assert created.json()["name"] == "dns"

    replaced = client.put("/v1/services/web", json={**web, "backends": []})
    assert replaced.status_code == 200
    assert client.get("/v1/services/web").json() == {**web, "backends": []}

    again = client.put("/v1/services/web", json={**web, "backends": []})
    assert again.status_code == 200
    assert again.headers["sluice-revision"] == replaced.headers["sluice-revision"]
    assert again.headers["etag"] == replaced.headers["etag"]


def test_patch_merges(client: TestClient, web: JsonDocument) -> None:
    """A merge patch sets what it names, puts null back to the default, and leaves the rest."""
    answer = client.patch(
        "/v1/services/web",
        json={"affinity": "source", "labels": {"team": None, "site": "ams"}, "mode": None},
        headers={"Content-Type": "application/merge-patch+json"},
    )

    assert answer.status_code == 200
    assert answer.json() == {**web, "affinity": "source", "labels": {"site": "ams"}, "mode": "ipip"}
    assert client.get("/v1/services/web").json() == answer.json()


def test_a_deleted_service_is_gone(client: TestClient, web: JsonDocument) -> None:
    """DELETE answers 204 without a body, and the service is not found any more."""
    answer = client.delete("/v1/services/web")

    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get("/v1/services/web").status_code == 404
    assert client.delete("/v1/services/web").status_code == 404


def test_put_of_the_backends_replaces_the_set(client: TestClient, web: JsonDocument) -> None:
    """The set can be sent as an array, or as the document that GET gives."""
    answer = client.put("/v1/services/web/backends", json=[{"address": "10.0.0.13", "weight": 5}])

    expected = [
        {"address": "10.0.0.13", "weight": 5, "admin_state": "enabled", "quic_id": None, "port": None}
    ]
    assert answer.json() == {"items": expected, "total": 1, "next": None}
    assert client.get("/v1/services/web").json() == {**web, "backends": expected}

    given = client.get("/v1/services/web/backends")
    back = client.put("/v1/services/web/backends", json=given.json())
    assert back.status_code == 200
    assert back.headers["sluice-revision"] == answer.headers["sluice-revision"]
    assert back.headers["etag"] == given.headers["etag"]


def test_one_backend_is_created_changed_and_removed(client: TestClient, web: JsonDocument) -> None:
    """PUT creates and replaces, PATCH merges, DELETE removes; the others stay as they are."""
    path = "/v1/services/web/backends/2001:db8::13"

    created = client.put("/v1/services/web/backends/2001:DB8:0::13", json={"weight": 3})
    assert (created.status_code, created.headers["location"]) == (201, path)
    assert created.json() == {
        "address": "2001:db8::13",
        "weight": 3,
        "admin_state": "enabled",
        "quic_id": None,
        "port": None,
    }
    assert client.get(path).json() == created.json()

    replaced = client.put(path, json={"address": "2001:db8::13", "admin_state": "disabled"})
    assert replaced.status_code == 200
    assert replaced.json() == {
        "address": "2001:db8::13",
        "weight": 1,
        "admin_state": "disabled",
        "quic_id": None,
        "port": None,
    }

    patched = client.patch(path, json={"weight": 7})
    assert patched.json() == {
        "address": "2001:db8::13",
        "weight": 7,
        "admin_state": "disabled",
        "quic_id": None,
        "port": None,
    }

    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    assert client.get("/v1/services/web").json() == web


def test_a_drain_is_an_operation_that_ends_with_the_last_flow(
    client: TestClient, web: JsonDocument, flows: Callable[[str, str, int], None]
) -> None:
    """POST …/drain answers 202; the operation runs while flows are left and is done without."""
    flows("web", "10.0.0.12", 3)

    begun = client.post("/v1/services/web/backends/10.0.0.12/drain")
    expected = {
        "id": "drain~web~10.0.0.12",
        "kind": "drain",
        "state": "running",
        "service": "web",
        "address": "10.0.0.12",
        "admin_state": "draining",
        "flows": 3,
    }
    assert (begun.status_code, begun.json()) == (202, expected)
    assert client.get("/v1/services/web/backends/10.0.0.12").json()["admin_state"] == "draining"
    assert client.get(begun.headers["location"]).json() == expected

    flows("web", "10.0.0.12", 0)
    assert client.get(begun.headers["location"]).json() == {**expected, "state": "done", "flows": 0}

    repeated = client.post("/v1/services/web/backends/10.0.0.12/drain")
    assert repeated.headers["sluice-revision"] == begun.headers["sluice-revision"]


def test_a_drain_ends_when_its_backend_takes_flows_again(client: TestClient, web: JsonDocument) -> None:
    """Enabled again, the backend has no operation any more; disabled, its drain is done."""
    where = client.post("/v1/services/web/backends/10.0.0.12/drain").headers["location"]

    disabled = client.post("/v1/services/web/backends/10.0.0.12/disable")
    assert disabled.json() == {
        "address": "10.0.0.12",
        "weight": 2,
        "admin_state": "disabled",
        "quic_id": None,
        "port": None,
    }
    over = client.get(where).json()
    assert (over["state"], over["admin_state"], over["flows"]) == ("done", "disabled", 0)

    enabled = client.post("/v1/services/web/backends/10.0.0.12/enable")
    assert enabled.json() == {
        "address": "10.0.0.12",
        "weight": 2,
        "admin_state": "enabled",
        "quic_id": None,
        "port": None,
    }
    assert client.get(where).status_code == 404


def test_a_drain_of_nobody(client: TestClient, web: JsonDocument) -> None:
    """It is refused in words that are not a library's."""
    refused = client.post("/v1/services/web/drain", json={"addresses": []}).json()["errors"]

    assert refused == [{"pointer": "/addresses", "detail": "it should have at least 1 item, not 0"}]


def test_drains_go_on_side_by_side(
    client: TestClient, web: JsonDocument, flows: Callable[[str, str, int], None]
) -> None:
    """Several in one step are one revision and an operation each, and each ends by itself."""
    flows("web", "10.0.0.12", 2)

    begun = client.post("/v1/services/web/drain", json={"addresses": ["10.0.0.12", "10.0.0.11"]})

    assert begun.status_code == 202
    assert [(o["address"], o["state"], o["flows"]) for o in begun.json()["items"]] == [
        ("10.0.0.12", "running", 2),
        ("10.0.0.11", "done", 0),
    ]
    assert begun.headers["sluice-revision"] == "2"
    states = client.get("/v1/services/web/backends").json()["items"]
    assert [b["admin_state"] for b in states] == ["draining", "draining"]

    client.post("/v1/services/web/backends/10.0.0.11/enable")
    assert client.get("/v1/operations/drain~web~10.0.0.11").status_code == 404
    assert client.get("/v1/operations/drain~web~10.0.0.12").json()["flows"] == 2


def test_operations_of_ipv6_backends_have_usable_names(client: TestClient, web: JsonDocument) -> None:
    """The Location of a drain leads to it, colons and all."""
    client.put("/v1/services/web/backends/2001:db8::13", json={})

    where = client.post("/v1/services/web/backends/2001:db8::13/drain").headers["location"]
    assert client.get(where).json()["id"] == "drain~web~2001:db8::13"

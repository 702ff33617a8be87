"""Changes with a bound and a deadline, the way back, and what earlier revisions said."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from api_stack import WEB, Clock, Stack
from fastapi.testclient import TestClient

from lb.dataplane.twin import TwinDataPlane
from lb.errors import ConflictError, DataPlaneError
from lb.reconcile.loop import Reconciler

JsonDocument = dict[str, Any]
ONE = {"services": [{**WEB, "backends": WEB["backends"][:1]}]}  # type: ignore[index]
Flows = Callable[[str, str, int], None]


def memory(plane: TwinDataPlane) -> list[bytes]:
    """What packets of services read, but for the rings."""
    arrays, tables = plane.tables.arrays, plane.tables.services4.read()
    return [arrays.backends.tobytes(), *(table.tobytes() for table in tables)]


def due(reconciler: Reconciler) -> None:
    """What is due is done, as the background thread does it."""
    with reconciler._lock:
        reconciler._follow_once(hops_changed=False)


def test_a_dry_run_says_what_would_move(client: TestClient, web: JsonDocument, flows: Flows) -> None:
    """By service: its share of the ring, and live flows; then it is what did."""
    flows("web", "10.0.0.12", 9)

    plan = client.put("/v1/config", json=ONE, params={"dry_run": "true"})
    assert plan.json()["disruption"] == [
        {
            "service": "web",
            "ring_slots_moved": 43691,
            "ring_share_moved": 43691 / 65537,
            "flows": 9,
            "flows_moved": 9,
            "exact": True,
            "note": None,
        }
    ]
    assert client.put("/v1/config", json=ONE).json() == plan.json()


@pytest.mark.parametrize("bound", ["query", "setting"])
def test_more_than_may_move_is_refused(
    client: TestClient, web: JsonDocument, plane: TwinDataPlane, flows: Flows, bound: str
) -> None:
    """409, with what would move; nothing is changed, a dry run is refused too, and force does it."""
    flows("web", "10.0.0.12", 9)
    query = {"max_moved_percent": "66"}
    if bound == "setting":
        client.put(
            "/v1/config", json={"services": [WEB], "settings": {"max_moved_percent": 66}}
        ).raise_for_status()
        query = {}
    held, revision = memory(plane), client.get("/v1/config").headers["sluice-revision"]

    for dry_run in ("true", "false"):
        refused = client.put("/v1/config", json=ONE, params={**query, "dry_run": dry_run})
        assert refused.status_code == 409
        assert refused.json()["type"] == "urn:sluice:problem:budget"
        assert "9 of 9 live flows would move, but the bound is 66 %" in refused.json()["detail"]
        assert [move["flows_moved"] for move in refused.json()["disruption"]] == [9]
    assert memory(plane) == held
    assert client.get("/v1/config").headers["sluice-revision"] == revision

    done = client.put("/v1/config", json=ONE, params={**query, "force": "true"})
    assert done.status_code == 200
    assert done.json()["disruption"][0]["flows_moved"] == 9


def test_the_setting_bounds_every_write(client: TestClient, web: JsonDocument) -> None:
    """Services and backends too, as far as packets move; 100 bounds nothing."""
    settings = {"services": [WEB], "settings": {"max_moved_percent": 30}}
    client.put("/v1/config", json=settings).raise_for_status()

    backends = "/v1/services/web/backends"
    assert client.post(f"{backends}/10.0.0.11/drain").status_code == 409
    assert client.post("/v1/services/web/drain", json={"addresses": ["10.0.0.11"]}).status_code == 409
    assert client.delete(f"{backends}/10.0.0.12").status_code == 409
    assert client.delete("/v1/services/web").status_code == 409
    assert client.put(f"{backends}/10.0.0.13", json={}).status_code == 201
    assert client.post("/v1/blocklist", json={"prefix": "198.51.100.9"}).status_code == 201
    assert client.delete(f"{backends}/10.0.0.12", params={"force": "true"}).status_code == 204


def test_what_is_not_confirmed_is_taken_back(
    client: TestClient, web: JsonDocument, clock: Clock, reconciler: Reconciler, plane: TwinDataPlane
) -> None:
    """At the deadline the state before comes back by itself, as a revision; status and events say so."""
    held = memory(plane)
    query = {"confirm_within_seconds": 60}
    made = client.put("/v1/config", json=ONE, params=query)
    assert made.json()["pending"] == {"revision": 2, "back_to": 1, "seconds_left": 60.0}
    clock.now += 59.5
    due(reconciler)
    assert client.get("/v1/status").json()["pending"] == {"revision": 2, "back_to": 1, "seconds_left": 0.5}

    clock.now += 0.5
    due(reconciler)
    assert client.get("/v1/status").json()["pending"] is None
    assert client.get("/v1/services/web").json() == web
    assert memory(plane) == held
    newest = client.get("/v1/config/revisions").json()["items"][0]
    said = "revision 2 was not confirmed in time: back to revision 1"
    assert (newest["revision"], newest["actor"], newest["summary"]) == (3, "confirm", said)
    (event,) = [e for e in client.get("/v1/events").json()["items"] if e["kind"] == "config.rolled-back"]
    assert (event["level"], event["text"]) == ("warning", said)
    assert client.post("/v1/config/confirm").status_code == 409


def test_what_waits_can_be_confirmed_or_taken_back_and_nothing_else(
    client: TestClient, web: JsonDocument, clock: Clock, reconciler: Reconciler
) -> None:
    """A second change is a 409 that says how to go on; entries of other owners, and dry runs, are made."""
    client.put("/v1/config", json=ONE, params={"confirm_within_seconds": 60}).raise_for_status()

    second = client.delete("/v1/services/web")
    assert second.status_code == 409
    assert "POST /v1/config/confirm" in second.json()["detail"]
    assert client.put("/v1/config", json={}, params={"confirm_within_seconds": 9}).status_code == 409
    assert client.put("/v1/config", json={}, params={"dry_run": "true"}).status_code == 200
    assert client.put("/v1/config", json=ONE).status_code == 200  # it is what is there
    ban = {"prefix": "198.51.100.7", "owner": "fail2ban"}
    assert client.post("/v1/blocklist", json=ban).status_code == 201

    wrong = client.post("/v1/config/confirm", params={"revision": 1})
    assert wrong.status_code == 409
    stale = client.post("/v1/config/confirm", headers={"If-Match": '"000000000000000000000000"'})
    assert stale.status_code == 412
    kept = client.post("/v1/config/confirm", params={"revision": 2})
    assert (kept.status_code, kept.json()) == (200, {"revision": 2})
    assert kept.headers["etag"] == client.get("/v1/config").headers["etag"]
    clock.now += 61
    due(reconciler)
    assert len(client.get("/v1/services/web").json()["backends"]) == 1

    client.put("/v1/config", json={}, params={"confirm_within_seconds": 60}).raise_for_status()
    back = client.post("/v1/config/rollback")
    assert (back.status_code, back.json()["counts"]["service"]["add"]) == (200, 1)
    assert client.get("/v1/status").json()["pending"] is None
    assert client.get("/v1/blocklist").json()["total"] == 1  # the ban that came meanwhile


def test_a_refused_way_back_is_tried_again(
    stack: Stack, web: JsonDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the maps cannot be written at the deadline it goes on waiting, and is taken back once they can be."""
    client, clock, reconciler, plane = stack.client, stack.clock, stack.reconciler, stack.plane
    client.put("/v1/config", json=ONE, params={"confirm_within_seconds": 60}).raise_for_status()
    clock.now += 60

    def refuse(*_: object, **__: object) -> None:
        raise DataPlaneError("the kernel refuses")

    with monkeypatch.context() as patched:
        patched.setattr(plane, "require", refuse)
        with pytest.raises(DataPlaneError):
            due(reconciler)
    assert client.get("/v1/status").json()["pending"]["seconds_left"] == 0
    assert client.post("/v1/config/confirm").status_code == 409

    due(reconciler)  # the maps are as they were
    due(reconciler)
    assert client.get("/v1/services/web").json() == web


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_refused_change_does_not_come_back_by_a_second_rollback(
    client: TestClient, web: JsonDocument, clock: Clock, reconciler: Reconciler, by_hand: bool
) -> None:
    """Right after a rollback, one without a number is a 409 that names the revision; a newer edit is undone."""
    client.put("/v1/config", json=ONE, params={"confirm_within_seconds": 60}).raise_for_status()
    client.post("/v1/blocklist", json={"prefix": "198.51.100.7", "owner": "fail2ban"}).raise_for_status()
    if by_hand:
        client.post("/v1/config/rollback").raise_for_status()
    else:
        clock.now += 60
        due(reconciler)
    client.post("/v1/blocklist", json={"prefix": "198.51.100.8", "owner": "fail2ban"}).raise_for_status()

    for dry_run in ("true", "false"):
        refused = client.post("/v1/config/rollback", params={"dry_run": dry_run})
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:sluice:problem:conflict")
        assert refused.json()["detail"] == (
            "the newest change, revision 4, is itself a rollback: going back once more would put revision 2 in force "
            'again; if that is wanted, "sluice rollback 2" (POST /v1/config/rollback with {"revision": 2}) does it'
        )
    assert client.get("/v1/services/web").json() == web

    client.post("/v1/services", json={**WEB, "name": "more", "vip": "192.0.2.99"}).raise_for_status()
    assert client.post("/v1/config/rollback").json()["counts"]["service"]["remove"] == 1
    assert client.get("/v1/services/web").json() == web
    assert client.post("/v1/config/rollback").status_code == 409
    assert client.post("/v1/config/rollback", json={"revision": 2}).status_code == 200
    assert len(client.get("/v1/services/web").json()["backends"]) == 1


@pytest.mark.parametrize("away", [10, 100])
def test_a_deadline_outlives_the_daemon(stack: Stack, web: JsonDocument, away: int) -> None:
    """A daemon that starts before it goes on waiting; one that starts after begins with the state before."""
    client, clock, store, reconciler = stack.client, stack.clock, stack.store, stack.reconciler
    client.put("/v1/config", json=ONE, params={"confirm_within_seconds": 60}).raise_for_status()
    reconciler.stop()
    clock.now += away

    again = Reconciler(store, stack.plane, clock=clock)
    again.start()
    try:
        pending = again.history.pending
        if away < 60:
            assert pending is not None
            assert (pending.revision, pending.back_to, pending.seconds_left) == (2, 1, 60 - away)
            clock.now += 60 - away
            due(again)
        assert again.history.pending is None
        assert len(again.desired.config.service("web").backends) == 2
        assert store.load() == (3, again.desired.config)
        assert "revision 2 was not confirmed in time" in again.history.revisions(1)[0].summary
        with pytest.raises(ConflictError, match='"sluice rollback 2"'):
            again.check(again.history.back_to(None))
    finally:
        again.stop()


def test_a_clock_that_is_set_back_puts_the_deadline_off_once(
    client: TestClient, web: JsonDocument, clock: Clock, reconciler: Reconciler
) -> None:
    """By no more than was given; the change does not stay for hours."""
    client.put("/v1/config", json=ONE, params={"confirm_within_seconds": 60}).raise_for_status()
    clock.now -= 7200
    due(reconciler)
    assert client.get("/v1/status").json()["pending"]["seconds_left"] == 60

    clock.now += 60
    due(reconciler)
    assert client.get("/v1/services/web").json() == web


def test_the_first_change_of_all_is_taken_back_to_nothing(
    client: TestClient, clock: Clock, reconciler: Reconciler
) -> None:
    """Before it there was no revision: the empty state comes back."""
    made = client.put("/v1/config", json=ONE, params={"confirm_within_seconds": 1})
    assert made.json()["pending"]["back_to"] == 0
    clock.now += 1
    due(reconciler)
    assert client.get("/v1/services").json()["total"] == 0


def test_every_revision_can_be_rolled_back_to(client: TestClient, clock: Clock) -> None:
    """Services, rules, feeds, settings and entries are as they were; each time as a new revision."""
    rule = {"name": "trial", "action": "drop", "source": "192.0.2.64/26", "count_only": True}
    for method, path, body in (
        ("POST", "/v1/services", WEB),
        ("POST", "/v1/blocklist", {"prefix": "203.0.113.0/24", "ttl_seconds": 100}),
        ("POST", "/v1/rules", rule),
        ("PUT", "/v1/feeds/spam", {"file": "/no/such/list"}),
        ("PATCH", "/v1/services/web", {"affinity": "source"}),
        ("PUT", "/v1/config", {"settings": {"gue_port": 6081}}),
    ):
        client.request(method, path, json=body).raise_for_status()
    said = {n: client.get(f"/v1/config/revisions/{n}").json() for n in range(1, 7)}
    assert said[6] == client.get("/v1/config").json()

    for n in (1, 5, 2, 4, 3, 6, 1):
        differs = said[n] != client.get("/v1/config").json()
        before = int(client.get("/v1/config").headers["sluice-revision"])
        back = client.post("/v1/config/rollback", json={"revision": n})
        assert (back.status_code, back.json()["same"]) == (200, not differs)
        assert int(back.headers["sluice-revision"]) == before + differs
        assert client.get("/v1/config").json() == said[n]

    clock.now += 101
    client.post("/v1/config/rollback", json={"revision": 5}).raise_for_status()
    assert client.get("/v1/config").json() == {**said[5], "blocklist": []}  # what is over stays over
    assert client.get("/v1/config/revisions/5").json()["blocklist"] == []


def test_a_feed_that_comes_back_has_what_it_had(client: TestClient) -> None:
    """Until it is refreshed; a feed that stayed keeps what it has by now."""
    text = {"Content-Type": "text/plain"}
    client.post("/v1/blocklist?feed=spam", content="192.0.2.1", headers=text).raise_for_status()
    client.put("/v1/feeds/spam", json={"file": "/no/such/list"}).raise_for_status()
    client.delete("/v1/feeds/spam").raise_for_status()
    assert client.get("/v1/blocklist").json()["total"] == 0

    client.post("/v1/config/rollback").raise_for_status()
    assert [e["prefix"] for e in client.get("/v1/blocklist").json()["items"]] == ["192.0.2.1/32"]


def test_what_is_asked_of_the_history_must_be_there(client: TestClient, web: JsonDocument) -> None:
    """404 names the revision; a body or a number that cannot be is refused by its name."""
    assert client.post("/v1/config/rollback").status_code == 404  # there is nothing before the first
    for path in (
        "/v1/config/revisions/99",
        "/v1/config/revisions/99/diff",
        "/v1/config/revisions/1/diff?since=99",
    ):
        assert client.get(path).status_code == 404
    assert client.post("/v1/config/rollback", json={"revision": 99}).status_code == 404
    for body, pointer in (
        ({"revision": 0}, "/revision"),
        ({"revision": "x"}, "/revision"),
        ({"to": 1}, "/to"),
    ):
        refused = client.post("/v1/config/rollback", json=body)
        assert refused.status_code == 422
        assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
    for query in (
        "confirm_within_seconds=0",
        "confirm_within_seconds=86401",
        "max_moved_percent=101",
        "max_moved_percent=nan",
    ):
        assert client.put(f"/v1/config?{query}", json={}).status_code == 422
    assert client.get("/v1/config").headers["sluice-revision"] == "1"


def test_a_revision_is_yaml_where_it_is_asked_for(client: TestClient, web: JsonDocument) -> None:
    """As PUT /config takes it."""
    client.delete("/v1/services/web").raise_for_status()
    answer = client.get("/v1/config/revisions/1", headers={"Accept": "application/yaml"})
    assert answer.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(answer.text) == client.get("/v1/config/revisions/1").json()
    back = client.put("/v1/config", content=answer.content, headers={"Content-Type": "application/yaml"})
    assert back.status_code == 200
    assert client.get("/v1/services/web").json() == web


def test_differences_between_revisions(client: TestClient, web: JsonDocument) -> None:
    """From the present state, or from another revision."""
    client.delete("/v1/services/web/backends/10.0.0.12").raise_for_status()

    from_now = client.get("/v1/config/revisions/1/diff").json()
    assert [(c["op"], c["name"]) for c in from_now["changes"]] == [("add", "web/10.0.0.12")]
    between = client.get("/v1/config/revisions/2/diff", params={"since": 1}).json()
    assert [(c["op"], c["name"]) for c in between["changes"]] == [("remove", "web/10.0.0.12")]


def test_a_whole_file_is_one_revision_or_none(
    client: TestClient, web: JsonDocument, plane: TwinDataPlane
) -> None:
    """Of many services the last is wrong, or does not fit a table: nothing is changed. Right, it is one revision."""

    def service(n: int, **fields: Any) -> JsonDocument:
        vip = f"10.9.{n // 200}.{n % 200 + 1}"
        backends = [{"address": f"10.0.0.{n % 8 + at}"} for at in range(1, 4)]
        return {"name": f"s{n}", "vip": vip, "port": 80, "protocol": "tcp", "backends": backends, **fields}

    every = [service(n) for n in range(399)]
    held = memory(plane)
    for last, status in (
        (service(399, port=70000), 422),
        (service(399, vip="10.9.0.1"), 422),
        (service(399, port="1-2000"), 507),
    ):
        refused = client.put("/v1/config", json={"services": [*every, last]})
        assert refused.status_code == status
        assert all(e["pointer"].startswith("/services/399/") for e in refused.json().get("errors", ()))
        assert client.get("/v1/config").headers["sluice-revision"] == "1"
        assert memory(plane) == held

    done = client.put("/v1/config", json={"services": [*every[:200], service(399)]})
    assert (done.status_code, done.headers["sluice-revision"]) == (200, "2")
    assert client.get("/v1/config/revisions").json()["total"] == 2
    assert client.get("/v1/services").json()["total"] == 201

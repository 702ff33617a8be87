"""Every write and every refusal is written down, and stays so."""

import sqlite3

import pytest
from api_guarded import ADDRESS, Guarded

from api.access import audit
from lb.errors import StoreError
from lb.store.access import AccessStore, AuditRecord

ENTRY = {"prefix": "203.0.113.0/24"}


def test_writes_and_refusals_are_written_down(daemon: Guarded) -> None:
    """Who, with what role, from where, what, what became of it and why, and the revisions before and after."""
    operator, viewer = daemon.tls(daemon.token("operator")), daemon.tls(daemon.token("viewer"))
    operator.post("/v1/blocklist?force=true", json=ENTRY).raise_for_status()
    operator.put("/v1/blocklist/203.0.113.0%2F24", json={}).raise_for_status()
    operator.put("/v1/config", json={})
    viewer.get("/v1/services")
    viewer.get("/v1/services/no")
    viewer.post("/v1/explain", json={"src": "192.0.2.1", "dst": "192.0.2.2", "protocol": "tcp"})
    viewer.get("/v1/tokens")
    daemon.tls("wrong").delete("/v1/services/web")
    daemon.tls().get("/v1/services")
    operator.put("/v1/blocklist/no%1Bprefix", json={})
    operator.post("/v1/rules", content=b"{", headers={"Content-Type": "application/json"})
    operator.put("/v1/blocklist/203.0.113.9", json={}, headers={"If-Match": '"x"'})

    found = [
        (r.actor, r.role, r.method, r.path, r.status)
        for r in daemon.audit()
        if r.method != "POST" or r.status != 404
    ]
    op, vi = ("token operator", "operator"), ("token viewer", "viewer")
    assert found == [
        (*op, "POST", "/v1/blocklist?force=true", 201),
        (*op, "PUT", "/v1/blocklist/203.0.113.0/24", 200),
        (*op, "PUT", "/v1/config", 403),
        (*vi, "GET", "/v1/tokens", 403),
        ("unknown", None, "DELETE", "/v1/services/web", 401),
        ("unknown", None, "GET", "/v1/services", 401),
        (*op, "PUT", "/v1/blocklist/no?prefix", 422),
        (*op, "POST", "/v1/rules", 400),
        (*op, "PUT", "/v1/blocklist/203.0.113.9", 412),
    ]
    lines = daemon.audit()
    assert [(r.revision_before, r.revision_after) for r in lines[:3]] == [(0, 1), (1, 1), (None, None)]
    assert {r.origin for r in lines} == {f"{ADDRESS}:40000"}
    assert lines[2].detail == "token operator is operator, and PUT /v1/config needs the role admin"
    assert lines[0].time == daemon.clock.now
    revisions = daemon.unix().get("/v1/config/revisions").json()["items"]
    assert revisions[0]["actor"] == "token operator"


def test_the_audit_over_rest(daemon: Guarded) -> None:
    """For admins, the newest first, in pages, by actor and by outcome."""
    admin = daemon.unix()
    for number in range(5):
        admin.put(f"/v1/blocklist/192.0.2.{number}", json={}).raise_for_status()
    daemon.tls().get("/v1/services")

    first = admin.get("/v1/audit", params={"limit": 4}).json()
    assert [line["status"] for line in first["items"]] == [401, 201, 201, 201]
    assert (first["total"], first["next"]) == (6, str(first["items"][-1]["id"]))
    rest = admin.get("/v1/audit", params={"limit": 4, "after": first["next"]}).json()
    assert [line["path"] for line in rest["items"]] == ["/v1/blocklist/192.0.2.1", "/v1/blocklist/192.0.2.0"]
    assert rest["next"] is None
    assert admin.get("/v1/audit", params={"refused": "true"}).json()["total"] == 1
    assert admin.get("/v1/audit", params={"actor": "uid 0", "refused": "false"}).json()["total"] == 5
    assert daemon.tls(daemon.token("operator")).get("/v1/audit").status_code == 403


def test_the_audit_is_append_only(daemon: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file itself refuses to alter a line, or to delete one of the newest; what is too old goes."""
    daemon.unix().put("/v1/blocklist/192.0.2.1", json={}).raise_for_status()
    db = daemon.control.tokens._db
    assert db is not None
    for statement in ("UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(statement)
    assert len(daemon.audit()) == 1


def test_a_flood_of_refusals_does_not_bury_the_rest(daemon: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a rate they are only counted, the count is told, and writes are never left out."""
    monkeypatch.setattr(audit, "REFUSALS_AT_ONCE", 20)
    for number in range(50):
        daemon.tls("x", address=f"198.51.100.{number}").get("/v1/services")
    assert len(daemon.audit()) == 20
    daemon.unix().put("/v1/blocklist/192.0.2.1", json={}).raise_for_status()
    assert (len(daemon.audit()), daemon.audit()[-1].status) == (21, 201)
    daemon.steady.now += 1
    daemon.tls("x").get("/v1/services")

    assert "(and 30 refusals before, left out)" in daemon.audit()[-1].detail


def test_an_audit_that_cannot_be_written_is_told(daemon: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, as an event; forwarding is not held up by it, nor is what admins do against it."""

    def fail(_record: AuditRecord) -> int:
        raise StoreError("the disk is full")

    monkeypatch.setattr(AccessStore, "record", lambda _self, record: fail(record))
    for number in range(3):
        assert daemon.unix().put(f"/v1/blocklist/192.0.2.{number}", json={}).status_code == 201

    told = [event.text for event in daemon.reconciler.events.since(0) if event.kind == "failure"]
    assert told == ["the audit cannot be written, and the API goes on: the disk is full"]

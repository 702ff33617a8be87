"""Who may do what: roles by socket, token and certificate; refusals; limits; and that all of it is written down."""

import hmac
import sqlite3
from collections.abc import Iterator

import pytest
from api_guarded import ADDRESS, SOCKET_GROUP, Guarded, guarded_app
from api_stack import WEB

from api.access import audit
from api.access.control import AccessControl
from api.access.permissions import is_open, needed
from lb.errors import ConflictError, StoreError, TooManyError
from lb.model.access import Limits, Role
from lb.store import access as access_store
from lb.store.access import AccessStore, AuditRecord

PROBLEM = "application/problem+json"
ENTRY = {"prefix": "203.0.113.0/24"}


@pytest.fixture
def daemon() -> Iterator[Guarded]:
    """A daemon with nothing configured, that asks who comes."""
    with guarded_app() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def standing() -> Iterator[Guarded]:
    """One that is asked for what it refuses, and so stays as it is."""
    with guarded_app() as daemon:
        yield daemon


ROLES = {
    Role.VIEWER: {"POST /v1/explain"},
    Role.OPERATOR: {
        "GET /v1/capture",
        *(f"{m} /v1/{name}" for name in ("blocklist", "allowlist") for m in ("POST", "PUT", "DELETE")),
        *(f"{m} /v1/{name}/{{prefix}}" for name in ("blocklist", "allowlist") for m in ("PUT", "DELETE")),
        "POST /v1/rules",
        *(f"{m} /v1/rules/{{name}}" for m in ("PUT", "PATCH", "DELETE")),
        "POST /v1/rules/{name}/promote",
        "POST /v1/feeds/{name}/refresh",
        "PUT /v1/services/{name}/backends",
        "POST /v1/services/{name}/drain",
        *(f"{m} /v1/services/{{name}}/backends/{{address}}" for m in ("PUT", "PATCH", "DELETE")),
        *(f"POST /v1/services/{{name}}/backends/{{address}}/{w}" for w in ("drain", "enable", "disable")),
    },
    Role.ADMIN: {"GET /v1/tokens", "GET /v1/tokens/{name}", "GET /v1/audit"},
}
"""What is an exception to: viewers read, admins write."""


def test_every_operation_takes_its_role(daemon: Guarded) -> None:
    """Of all that the document lists, and what is not listed here is for admins to write and for viewers to read."""
    found: dict[Role, set[str]] = {role: set() for role in Role}
    for path, methods in daemon.app.openapi()["paths"].items():
        for method in map(str.upper, methods):
            role = needed(method, path)
            usual = Role.VIEWER if method == "GET" else Role.ADMIN
            if role is not usual:
                found[role].add(f"{method} {path}")

    assert found[Role.VIEWER] == ROLES[Role.VIEWER]
    assert found[Role.OPERATOR] == ROLES[Role.OPERATOR]
    assert found[Role.ADMIN] == ROLES[Role.ADMIN]
    assert [p for p in daemon.app.openapi()["paths"] if is_open("GET", p)] == ["/healthz"]


SPELLINGS = (
    "/v1/services/web%2Fbackends",
    "/v1/services/backends",
    "/v1/blocklist%2F..%2Fconfig/x",
    "/v1/config/%2E%2E/blocklist",
    "//v1/blocklist/192.0.2.1",
    "/V1/blocklist/192.0.2.1",
    "/v1/tokens%2Fci",
    "/v1/services/web%0A/backends/10.0.0.1",
    "/v1/config%00/backends",
)


def test_no_spelling_of_a_path_does_what_the_role_may_not(daemon: Guarded) -> None:
    """An operator may write lists and backends only, however the path is encoded: the router reads what was judged."""
    operator = daemon.tls(daemon.token("operator"))
    daemon.unix().post("/v1/services", json=WEB).raise_for_status()
    before = daemon.reconciler.desired.revision

    for path in SPELLINGS:
        for method in ("PUT", "PATCH", "DELETE", "POST"):
            answer = operator.request(method, path, json={"name": "x", "role": "admin"})
            assert answer.status_code in {400, 403, 404, 405, 409, 422}, (method, path, answer.text)
    assert daemon.reconciler.desired.revision == before
    assert [token.name for token in daemon.control.tokens.tokens()] == ["operator"]


def test_roles_of_tokens(daemon: Guarded) -> None:
    """A viewer reads; an operator writes lists as well; an admin all. Who may not is a 403 that says what it takes."""
    by_role = {role: daemon.tls(daemon.token(role)) for role in ("viewer", "operator", "admin")}
    asked = {
        "read": ("GET", "/v1/services", None),
        "block": ("POST", "/v1/blocklist", ENTRY),
        "add": ("PUT", "/v1/services/web", {k: v for k, v in WEB.items() if k != "name"}),
        "configure": ("PUT", "/v1/config", {}),
        "tokens": ("GET", "/v1/tokens", None),
    }
    found = {
        role: {
            what for what, (m, path, body) in asked.items() if client.request(m, path, json=body).is_success
        }
        for role, client in by_role.items()
    }

    assert found == {"viewer": {"read"}, "operator": {"read", "block"}, "admin": set(asked)}
    refused = by_role["viewer"].post("/v1/blocklist", json=ENTRY)
    assert (refused.status_code, refused.headers["content-type"]) == (403, PROBLEM)
    assert refused.json()["detail"] == (
        "token viewer is viewer, and POST /v1/blocklist takes the role operator"
    )
    assert by_role["operator"].get("/v1/whoami").json() == {
        "name": "token operator",
        "role": "operator",
        "by": "token",
        "expires_at": None,
    }


@pytest.mark.parametrize(
    ("authorization", "error"),
    [
        (None, None),
        ("", "invalid_request"),
        ("Bearer", "invalid_request"),
        ("Bearer ", "invalid_request"),
        ("Basic YWRtaW46YWRtaW4=", "invalid_request"),
        ("Bearer a b", "invalid_request"),
        ("Bearer \x00", "invalid_request"),
        ("Bearer " + "x" * 5000, "invalid_request"),
        ("Bearer tökén", "invalid_request"),
        ("Bearer sluice_unknown", "invalid_token"),
    ],
)
def test_who_is_unknown_is_asked_for_a_token(
    standing: Guarded, authorization: str | None, error: str | None
) -> None:
    """Missing, malformed or unknown: 401, a challenge as RFC 6750 has it, and nothing is told or changed."""
    client = standing.tls(address=f"192.0.2.{len(authorization or '')}")
    headers = [] if authorization is None else [(b"Authorization", authorization.encode("latin-1"))]
    challenge = 'Bearer realm="sluice"' + (f', error="{error}"' if error else "")
    for method, path in [
        ("GET", "/v1/services"),
        ("PUT", "/v1/config"),
        ("GET", "/no/such"),
        ("GET", "/metrics"),
    ]:
        answer = client.request(method, path, json={} if method == "PUT" else None, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (401, PROBLEM)
        assert answer.headers["www-authenticate"] == challenge
    assert client.get("/healthz", headers=headers).status_code == 200


def test_a_token_counts_until_it_is_over_or_revoked(daemon: Guarded) -> None:
    """To the second; then it is a 401 that says so. Two headers are none."""
    text = daemon.token("viewer", expires_in=60)
    client = daemon.tls(text)
    daemon.clock.now += 59
    assert client.get("/v1/whoami").json()["expires_at"] == "2030-03-17T17:47:40Z"
    daemon.clock.now += 1
    answer = client.get("/v1/services")
    assert (answer.status_code, answer.json()["detail"]) == (
        401,
        'the token "viewer" is over: an admin makes a new one by "sluice token create"',
    )

    lasting = daemon.tls(daemon.token("viewer", "lasting"))
    assert lasting.get("/v1/services").status_code == 200
    assert daemon.unix().delete("/v1/tokens/lasting").status_code == 204
    assert lasting.get("/v1/services").status_code == 401
    twice = daemon.tls()
    headers = [("Authorization", f"Bearer {text}"), ("Authorization", f"Bearer {text}")]
    assert twice.get("/v1/services", headers=headers).status_code == 401


def test_every_token_is_compared_in_constant_time(daemon: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right, wrong or malformed, each is compared with all there are, and by nothing that stops at a difference."""
    texts = [daemon.token("viewer", f"t{n}") for n in range(5)]
    compared: list[int] = []

    compare_digest = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return compare_digest(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    counts = []
    for shown in (texts[0], texts[4], "sluice_wrong", ""):
        compared.clear()
        daemon.tls(shown).get("/v1/whoami")
        counts.append(list(compared))

    assert counts == [[32] * 5] * 4


def test_the_unix_socket_goes_by_peer(daemon: Guarded) -> None:
    """Root and the socket's group are admins; grants come first; everybody else is known, and refused."""
    assert daemon.unix().get("/v1/whoami").json() == {
        "name": "uid 0",
        "role": "admin",
        "by": "unix",
        "expires_at": None,
    }
    assert daemon.unix(1000, 1000).get("/v1/services").status_code == 403
    assert daemon.unix(1000, SOCKET_GROUP).get("/v1/whoami").json()["role"] == "admin"
    assert daemon.unix(1000, 1000, 5, SOCKET_GROUP).get("/v1/whoami").json()["role"] == "admin"

    daemon.allow(
        unix=[
            {"user": 1000, "role": "viewer"},
            {"user": "nobody", "role": "operator"},
            {"group": 77, "role": "operator"},
        ]
    )

    roles = {
        "user, though of the group": daemon.unix(1000, SOCKET_GROUP),
        "user by name": daemon.unix(65534, 1),
        "group": daemon.unix(1001, 1, 77),
        "root": daemon.unix(0, 77),
    }
    found = {who: client.get("/v1/whoami").json()["role"] for who, client in roles.items()}
    assert found == {
        "user, though of the group": "viewer",
        "user by name": "operator",
        "group": "operator",
        "root": "admin",
    }
    refused = daemon.unix(1002, 1).get("/v1/whoami")
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "uid 1002 may not use this API: an admin gives it a role in settings.access",
    )
    assert daemon.unix(1002, 1).get("/v1/whoami", headers={"Authorization": "Bearer no"}).status_code == 401


def test_certificates_have_roles_by_name(daemon: Guarded) -> None:
    """The first grant that fits any name of a verified certificate; without one it is a 403, not a 401."""
    daemon.allow(
        certificates=[
            {"name": "CN:alice", "role": "admin"},
            {"name": "DNS:ci.example.net", "role": "operator"},
        ]
    )

    assert daemon.tls(names=("CN:alice", "O:Example")).get("/v1/whoami").json()["role"] == "admin"
    ci = daemon.tls(names=("CN:x", "DNS:ci.example.net"))
    assert ci.get("/v1/whoami").json() == {
        "name": "certificate DNS:ci.example.net",
        "role": "operator",
        "by": "certificate",
        "expires_at": None,
    }
    assert ci.put("/v1/config", json={}).status_code == 403
    assert ci.post("/v1/blocklist", json=ENTRY, headers={"Origin": "https://evil.test"}).status_code == 403
    other = daemon.tls(names=("CN:ALICE",)).get("/v1/whoami")
    assert (other.status_code, "certificate CN:ALICE may not" in other.text) == (403, True)


def test_loopback_is_open_to_this_host_alone(daemon: Guarded) -> None:
    """Without TLS whoever is on this host is admin, unless the settings say otherwise; no page of another site is."""
    assert daemon.loopback().post("/v1/blocklist", json=ENTRY).status_code == 201
    for host in ("127.0.0.1:8080", "[::1]:8080", "LocalHost"):
        assert daemon.loopback(host).get("/v1/whoami").json()["name"] == "127.0.0.1"
    for host in ("evil.test", "127.0.0.1.evil.test:8080", "localhost.evil.test", "10.0.0.1"):
        rebound = daemon.loopback(host).get("/v1/services")
        assert (rebound.status_code, "is no name of this listener" in rebound.text) == (403, True)
    for origin in ("https://evil.test", "null", "http://localhost:9", "http://127.0.0.1:8080"):
        foreign = daemon.loopback(Origin=origin).post("/v1/blocklist", json=ENTRY)
        assert (foreign.status_code, "another site" in foreign.text) == (403, True)
    assert daemon.loopback(Origin="http://localhost:8080").get("/v1/services").status_code == 200

    daemon.allow(loopback="viewer", hosts=["Edge.example.net"])
    assert daemon.loopback().post("/v1/blocklist", json=ENTRY).status_code == 403
    assert daemon.loopback("edge.example.net").get("/v1/services").status_code == 200
    daemon.allow(loopback=None)
    assert daemon.loopback().get("/v1/services").status_code == 401
    bearer = {"Authorization": f"Bearer {daemon.token('operator')}"}
    assert daemon.loopback("evil.test", **bearer).post("/v1/blocklist", json=ENTRY).status_code == 201


def test_tokens_over_rest(daemon: Guarded) -> None:
    """A token is told once, listed without what is secret, and nowhere kept as it is."""
    admin = daemon.unix()
    made = admin.post("/v1/tokens", json={"name": "ci", "role": "operator", "expires_in_seconds": 3600})
    assert (made.status_code, made.headers["location"], made.headers["cache-control"]) == (
        201,
        "/v1/tokens/ci",
        "no-store",
    )
    text = made.json()["token"]
    assert daemon.tls(text).get("/v1/whoami").json()["role"] == "operator"
    view = {
        "name": "ci",
        "role": "operator",
        "created_at": "2030-03-17T17:46:40Z",
        "created_by": "uid 0",
        "expires_at": "2030-03-17T18:46:40Z",
        "expired": False,
    }
    assert made.json() == {**view, "token": text}
    assert admin.get("/v1/tokens").json() == {"items": [view], "total": 1, "next": None}
    assert admin.get("/v1/tokens/ci").json() == view
    daemon.clock.now += 3600
    assert admin.get("/v1/tokens/ci").json()["expired"] is True
    assert admin.post("/v1/tokens", json={"name": "ci", "role": "viewer"}).status_code == 409
    lasting = admin.post("/v1/tokens", json={"name": "x", "role": "viewer", "expires_in_seconds": None})
    assert lasting.json()["expires_at"] is None
    assert admin.delete("/v1/tokens/no").status_code == admin.get("/v1/tokens/no").status_code == 404
    kept = daemon.control.tokens._db
    assert kept is not None
    dump = "\n".join(kept.iterdump())
    assert text not in dump and text.removeprefix("sluice_") not in dump
    assert all(text not in str(event.document()) for event in daemon.reconciler.events.since(0))


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "viewer"}, "/name"),
        ({"name": "a b", "role": "viewer"}, "/name"),
        ({"name": "x\n", "role": "viewer"}, "/name"),
        ({"name": "x"}, "/role"),
        ({"name": "x", "role": "root"}, "/role"),
        ({"name": "x", "role": "viewer", "expires_in_seconds": 0}, "/expires_in_seconds"),
        ({"name": "x", "role": "viewer", "expires_in_seconds": 1e12}, "/expires_in_seconds"),
        ({"name": "x", "role": "viewer", "token": "mine"}, "/token"),
    ],
)
def test_tokens_that_cannot_be(standing: Guarded, body: dict[str, object], pointer: str) -> None:
    """Each fault is a 422 at its field, and no token is made."""
    answer = standing.unix().post("/v1/tokens", json=body)

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert standing.control.tokens.tokens() == []


@pytest.mark.parametrize(
    ("access", "pointer"),
    [
        ({"unix": [{"role": "viewer"}]}, "/settings/access/unix/0/user"),
        ({"unix": [{"user": 1, "group": 2, "role": "viewer"}]}, "/settings/access/unix/0/user"),
        ({"unix": [{"user": -1, "role": "viewer"}]}, "/settings/access/unix/0/user"),
        ({"unix": [{"user": "a b", "role": "viewer"}]}, "/settings/access/unix/0/user"),
        ({"unix": [{"user": True, "role": "viewer"}]}, "/settings/access/unix/0/user"),
        ({"unix": [{"user": 1, "role": "king"}]}, "/settings/access/unix/0/role"),
        ({"certificates": [{"name": "alice", "role": "viewer"}]}, "/settings/access/certificates/0/name"),
        ({"certificates": [{"name": "XN:alice", "role": "viewer"}]}, "/settings/access/certificates/0/name"),
        ({"loopback": "everyone"}, "/settings/access/loopback"),
        ({"limits": {"streams": 0}}, "/settings/access/limits/streams"),
        ({"limits": {"requests_per_second": 0}}, "/settings/access/limits/requests_per_second"),
        ({"ldap": {}}, "/settings/access/ldap"),
    ],
)
def test_grants_that_cannot_be(standing: Guarded, access: dict[str, object], pointer: str) -> None:
    """Each fault is a 422 at its field."""
    answer = standing.unix().put("/v1/config", json={"settings": {"access": access}})

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_a_caller_that_asks_too_often_waits(daemon: Guarded) -> None:
    """429 with Retry-After, for it alone, until its bucket has some again; root is exempt."""
    daemon.allow(limits={"requests_per_second": 2, "request_burst": 3})
    token = daemon.token("viewer")
    client, other = daemon.tls(token), daemon.tls(daemon.token("viewer", "other"))

    assert [client.get("/v1/verdicts").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = client.get("/v1/verdicts")
    assert (refused.headers["retry-after"], refused.headers["content-type"]) == ("1", PROBLEM)
    assert other.get("/v1/verdicts").status_code == 200
    assert all(daemon.unix().get("/v1/verdicts").is_success for _ in range(10))
    daemon.steady.now += 0.5
    assert [client.get("/v1/verdicts").status_code for _ in range(2)] == [200, 429]


def test_who_guesses_tokens_waits(daemon: Guarded) -> None:
    """An address without good credentials has a bucket of its own: good ones from there still count."""
    guess = daemon.tls("sluice_guess")
    found = [guess.get("/v1/services").status_code for _ in range(101)]

    assert found == [401] * 100 + [429]
    assert daemon.tls("sluice_guess", address="198.51.100.8").get("/v1/services").status_code == 401
    assert daemon.tls(daemon.token("viewer")).get("/v1/services").status_code == 200
    six = [daemon.tls("x", address=f"2001:db8::{n:x}").get("/v1/services").status_code for n in range(101)]
    assert six[-1] == 429


def test_answers_that_go_on_are_few(daemon: Guarded) -> None:
    """So many for each caller, and so many in all; what has ended makes room."""
    daemon.allow(limits={"streams_per_caller": 2, "streams": 3})
    quotas = daemon.control.quotas
    for _ in range(2):
        quotas.hold("token viewer", is_exempt=False)

    mine = daemon.tls(daemon.token("viewer")).get("/v1/events?follow=true")
    assert (mine.status_code, mine.headers["retry-after"]) == (429, "1")
    assert "has 2 answers open" in mine.json()["detail"]
    quotas.hold("uid 0", is_exempt=True)
    for path in ("/v1/events?follow=true", "/v1/capture?seconds=1", "/v1/top?seconds=0.1"):
        all_of_them = daemon.unix().get(path)
        assert (all_of_them.status_code, all_of_them.headers["retry-after"]) == (429, "10")

    quotas.let_go("uid 0", 1)
    assert daemon.unix().get("/v1/top?seconds=0.1").status_code == 200
    assert daemon.unix().get("/v1/top?seconds=0.1").status_code == 200  # the one before was let go
    assert daemon.unix().get("/v1/events").status_code == 200  # a page is no stream


def test_a_bucket_fills_by_time_and_no_further() -> None:
    """And what was longest quiet is forgotten first, so that no number of addresses takes memory."""
    now = [0.0]
    from api.access.limits import BUCKETS_MAX, Buckets, Quotas

    buckets = Buckets(lambda: now[0])
    assert [buckets.take("a", 1, 2) for _ in range(3)] == [0, 0, 1]
    now[0] = 100
    assert [buckets.take("a", 1, 2) for _ in range(3)] == [0, 0, 1]
    now[0] = 99  # a clock that goes back gives nothing
    assert buckets.take("a", 1, 2) == 1
    for number in range(BUCKETS_MAX):
        buckets.take(f"other {number}", 1, 2)
    assert len(buckets._levels) == BUCKETS_MAX
    assert buckets.take("a", 1, 2) == 0
    quotas = Quotas(lambda: Limits(streams=1), lambda: now[0])
    quotas.hold("a", is_exempt=False)
    with pytest.raises(TooManyError):
        quotas.hold("b", is_exempt=True)
    quotas.let_go("a", 1)
    assert not quotas._streams


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
    assert lines[2].detail == "token operator is operator, and PUT /v1/config takes the role admin"
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


def test_there_is_an_end_to_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that comparing with all stays quick."""
    monkeypatch.setattr(access_store, "TOKENS_MAX", 2)
    store = AccessStore(":memory:")
    for name in ("a", "b"):
        store.create(name, Role.VIEWER, created_by="", now=0)
    with pytest.raises(ConflictError, match="there are 2 tokens, the most"):
        store.create("c", Role.VIEWER, created_by="", now=0)
    store.close()


def test_an_app_of_ours_alone_guards_nothing(daemon: Guarded) -> None:
    """Where no listener of the daemon's serves it, whoever asks may do all: that is how `control_of` is told."""
    from api.access.control import control_of

    control: AccessControl = control_of(daemon.reconciler)
    assert not control.is_guarding
    assert daemon.control.is_guarding
    control.tokens.close()

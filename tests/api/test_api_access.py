"""Who may do what: roles by socket, token and certificate, grants, and what is refused."""

import threading

import pytest
from api_guarded import SOCKET_GROUP, Guarded
from api_stack import WEB

from api.access import control
from api.access.control import AccessControl
from api.access.permissions import is_open, needed
from lb.model.access import Role

PROBLEM = "application/problem+json"
ENTRY = {"prefix": "203.0.113.0/24"}


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
        "token viewer is viewer, and POST /v1/blocklist needs the role operator"
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
        "uid 1002 may not use this API: an admin can give it a role in settings.access",
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
        assert (rebound.status_code, "is not a name of this listener" in rebound.text) == (403, True)
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


def test_an_app_of_ours_alone_guards_nothing(daemon: Guarded) -> None:
    """Where no listener of the daemon's serves it, whoever asks may do all: that is how `control_of` is told."""
    from api.access.control import control_of

    control: AccessControl = control_of(daemon.reconciler)
    assert not control.is_guarding
    assert daemon.control.is_guarding
    control.tokens.close()


@pytest.mark.parametrize("how", ["revoked", "over", "another role"])
def test_an_answer_that_goes_on_ends_with_the_right_to_it(
    daemon: Guarded, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not ask any more hears no more: the answer ends in good order, and what it held is let go."""
    monkeypatch.setattr(control, "RECHECK_SECONDS", 0.01)
    daemon.allow(unix=[{"user": 1234, "role": "viewer"}])
    client = (
        daemon.unix(uid=1234) if how == "another role" else daemon.tls(daemon.token("viewer", expires_in=60))
    )
    name = "uid 1234" if how == "another role" else "token viewer"
    answers: list[tuple[int, str]] = []
    began = threading.Event()

    def read() -> None:
        with client.stream("GET", "/v1/events?follow=true") as answer:
            lines = answer.iter_lines()
            first = next(lines)
            began.set()
            for _ in lines:
                pass
            answers.append((answer.status_code, first))

    reader = threading.Thread(target=read)
    reader.start()
    assert began.wait(timeout=30)
    assert daemon.control.quotas._streams[name]

    match how:
        case "revoked":
            daemon.control.tokens.revoke("viewer")
        case "over":
            daemon.clock.now += 61
        case _:
            daemon.allow(unix=[])
    reader.join(timeout=30)

    assert [status for status, _ in answers] == [200]
    assert answers[0][1].startswith("id: ")
    assert not daemon.control.quotas._streams
    assert client.get("/v1/events?follow=true").status_code == (403 if how == "another role" else 401)

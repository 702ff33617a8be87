"""Tokens: made once, compared in constant time, over to the second, and never kept as they are."""

import hmac

import pytest
from api_guarded import Guarded

from lb.errors import ConflictError
from lb.model.access import Role
from lb.store import access as access_store
from lb.store.access import AccessStore


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
        'the token "viewer" has expired: an admin creates a new one with "sluice token create"',
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


def test_there_is_an_end_to_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that comparing with all stays quick."""
    monkeypatch.setattr(access_store, "TOKENS_MAX", 2)
    store = AccessStore(":memory:")
    for name in ("a", "b"):
        store.create(name, Role.VIEWER, created_by="", now=0)
    with pytest.raises(ConflictError, match="there are 2 tokens, the most"):
        store.create("c", Role.VIEWER, created_by="", now=0)
    store.close()

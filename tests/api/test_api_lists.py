"""The blocklist and the allowlist: single entries, many, lines of text, owners, pages and deadlines."""

from typing import Any

import pytest
from api_stack import Clock
from fastapi.testclient import TestClient

from lb.dataplane.twin import TwinCounters, TwinDataPlane

TEXT = {"Content-Type": "text/plain"}
CREATED = "2030-03-17T17:46:40Z"
NO_HITS = {"packets": 0, "bytes": 0, "last_hit_at": None, "shared": False}


def entry(prefix: str, **said: Any) -> dict[str, Any]:
    """A blocklist entry as GET shows it."""
    return {
        "prefix": prefix,
        "reason": "",
        "owner": "operator",
        "owners": ["operator"],
        "created_at": CREATED,
        "ttl_seconds": None,
        "expires_at": None,
        "action": "drop",
        "hits": NO_HITS,
        **said,
    }


def detailed(prefix: str, **said: Any) -> dict[str, Any]:
    """The same where it is shown alone: with what its only owner says."""
    shown = entry(prefix, **said)
    word = {key: value for key, value in shown.items() if key not in {"prefix", "owners"}}
    return {**shown, "entries": [word]}


def prefixes(client: TestClient, path: str = "/v1/blocklist") -> list[str]:
    """What is on a list."""
    return [item["prefix"] for item in client.get(path).json()["items"]]


def test_one_entry_is_answered_with_itself(client: TestClient) -> None:
    """POST of one object answers 201, its path and the whole entry; a bare address is a /32."""
    body = {"prefix": "203.0.113.7", "reason": "scan", "ttl_seconds": 3600, "action": "count"}

    made = client.post("/v1/blocklist", json=body)
    said = {"reason": "scan", "ttl_seconds": 3600, "action": "count"}
    expected = entry("203.0.113.7/32", expires_at="2030-03-17T18:46:40Z", **said)
    assert made.status_code == 201
    assert made.json() == expected
    assert made.headers["location"] == "/v1/blocklist/203.0.113.7%2F32"
    read = client.get(made.headers["location"])
    assert read.json() == detailed("203.0.113.7/32", expires_at="2030-03-17T18:46:40Z", **said)
    assert read.headers["etag"] == made.headers["etag"]


@pytest.mark.parametrize("name", ["203.0.113.0%2F24", "203.0.113.0/24"])
def test_the_slash_of_a_prefix_may_be_encoded_or_not(client: TestClient, name: str) -> None:
    """PUT, GET and DELETE take both forms of the same path."""
    created = client.put(f"/v1/blocklist/{name}", json={"reason": "a"})
    assert (created.status_code, created.json()) == (201, detailed("203.0.113.0/24", reason="a"))

    replaced = client.put(f"/v1/blocklist/{name}", json={"prefix": "203.0.113.0/24", "reason": "b"})
    assert (replaced.status_code, replaced.json()) == (200, detailed("203.0.113.0/24", reason="b"))

    assert client.get(f"/v1/blocklist/{name}").json() == detailed("203.0.113.0/24", reason="b")
    assert client.delete(f"/v1/blocklist/{name}").status_code == 204
    assert client.get(f"/v1/blocklist/{name}").status_code == 404


def test_a_bare_address_in_the_path_is_a_host(client: TestClient) -> None:
    """An address without a length is a /32, or a /128."""
    client.post("/v1/blocklist", json=["203.0.113.7", "2001:db8::7"])

    assert client.get("/v1/blocklist/203.0.113.7").json()["prefix"] == "203.0.113.7/32"
    assert client.get("/v1/blocklist/2001:DB8:0::7").json()["prefix"] == "2001:db8::7/128"


@pytest.mark.parametrize("wrapped", [False, True])
def test_many_entries_are_added_at_once(client: TestClient, wrapped: bool) -> None:
    """An array, or an object with items, is answered with all entries and what they changed."""
    client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24", "reason": "old"})
    items = [{"prefix": "203.0.113.0/24", "reason": "new"}, {"prefix": "2001:db8::/32"}]

    made = client.post("/v1/blocklist", json={"items": items} if wrapped else items)
    assert made.status_code == 201
    assert made.json() == {
        "items": [entry("203.0.113.0/24", reason="new"), entry("2001:db8::/32")],
        "changed": {"added": 1, "replaced": 1, "removed": 0, "total": 2},
    }
    assert client.get("/v1/blocklist").json()["items"] == made.json()["items"]


def test_adding_again_changes_nothing(client: TestClient) -> None:
    """An entry without a TTL that is there already keeps its age, and no revision is made."""
    first = client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24", "reason": "scan"})
    again = client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24", "reason": "scan"})

    assert again.status_code == 201
    assert again.json() == first.json()
    assert again.headers["sluice-revision"] == first.headers["sluice-revision"]


def test_a_ttl_starts_anew_when_the_entry_is_added_again(client: TestClient, clock: Clock) -> None:
    """Who blocks for an hour at noon and at half past has it blocked until half past one."""
    client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24", "ttl_seconds": 3600})
    clock.now += 1800

    again = client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24", "ttl_seconds": "1h"})
    assert again.json()["expires_at"] == "2030-03-17T19:16:40Z"


def test_an_entry_is_gone_when_its_time_is_over(client: TestClient, clock: Clock) -> None:
    """An expired entry is not shown, not counted, cannot be removed, and the list has another ETag."""
    client.post("/v1/blocklist", json=[{"prefix": "203.0.113.0/24", "ttl_seconds": 60}, "198.51.100.0/24"])
    etag = client.get("/v1/blocklist").headers["etag"]
    clock.now += 61

    page = client.get("/v1/blocklist", headers={"If-None-Match": etag})
    assert page.status_code == 200
    assert [e["prefix"] for e in page.json()["items"]] == ["198.51.100.0/24"]
    assert page.json()["total"] == 1
    assert client.get("/v1/blocklist/203.0.113.0/24").status_code == 404
    assert client.delete("/v1/blocklist/203.0.113.0/24").status_code == 404
    assert client.put("/v1/blocklist/203.0.113.0/24", json={}).status_code == 201


def test_pages_follow_one_another_without_gap_or_double(client: TestClient) -> None:
    """limit and after walk through the list in order of family and address; the last page has no next."""
    wanted = [f"203.0.113.{n}/32" for n in range(5)] + ["2001:db8::/32", "2001:db8::/64"]
    client.post("/v1/blocklist", json=wanted[::-1]).raise_for_status()

    seen, after, pages = [], None, 0
    while pages == 0 or after is not None:
        query = {"limit": 3} | ({"after": after} if after else {})
        page = client.get("/v1/blocklist", params=query).json()
        assert page["total"] == 7
        seen += [item["prefix"] for item in page["items"]]
        after, pages = page["next"], pages + 1
    assert seen == wanted
    assert pages == 3


def test_text_adds_lines(client: TestClient) -> None:
    """Lines are added to the operator's entries, all with what the query says; comments are passed over."""
    client.post("/v1/blocklist", json={"prefix": "192.0.2.1"})
    lines = "# a list\n198.51.100.0/24\r\n\n203.0.113.7 ; one\n2001:db8::/32\n198.51.100.0/24\n"

    answer = client.post(
        "/v1/blocklist",
        params={"reason": "import", "ttl_seconds": 60, "action": "count"},
        content=lines,
        headers={"Content-Type": "text/plain; charset=utf-8"},
    )
    assert (answer.status_code, answer.json()) == (201, {"added": 3, "replaced": 0, "removed": 0, "total": 4})
    assert client.get("/v1/blocklist/203.0.113.7").json() == detailed(
        "203.0.113.7/32",
        reason="import",
        ttl_seconds=60,
        expires_at="2030-03-17T17:47:40Z",
        action="count",
    )


def test_text_of_a_feed_is_all_that_the_feed_holds(client: TestClient) -> None:
    """With feed=NAME the lines replace what that feed had; the operator's entries stay."""
    client.post("/v1/blocklist", json={"prefix": "192.0.2.1"})
    feed = {"feed": "spam"}

    first = client.post("/v1/blocklist", params=feed, content="192.0.2.1\n192.0.2.2\n192.0.2.3", headers=TEXT)
    assert first.json() == {"added": 3, "replaced": 0, "removed": 0, "total": 3}
    second = client.post("/v1/blocklist", params=feed, content="192.0.2.1\n192.0.2.4", headers=TEXT)
    assert second.json() == {"added": 1, "replaced": 0, "removed": 2, "total": 2}
    again = client.post("/v1/blocklist", params=feed, content="192.0.2.4\n192.0.2.1", headers=TEXT)
    assert again.headers["sluice-revision"] == second.headers["sluice-revision"]

    items = client.get("/v1/blocklist").json()["items"]
    assert [(e["prefix"], e["owner"], e["owners"]) for e in items] == [
        ("192.0.2.1/32", "operator", ["operator", "feed:spam"]),
        ("192.0.2.4/32", "feed:spam", ["feed:spam"]),
    ]


def test_put_makes_the_operators_list_what_it_says(client: TestClient, clock: Clock) -> None:
    """PUT drops what it does not name, keeps the age of what is the same, and leaves feeds alone."""
    client.post("/v1/blocklist", params={"feed": "spam"}, content="192.0.2.9", headers=TEXT)
    client.post("/v1/blocklist", json=[{"prefix": "192.0.2.1", "ttl_seconds": 600}, "192.0.2.2"])
    clock.now += 60

    answer = client.put(
        "/v1/blocklist",
        json={"items": [{"prefix": "192.0.2.1", "ttl_seconds": 600}, {"prefix": "192.0.2.3"}]},
    )
    assert answer.json() == {"added": 1, "replaced": 0, "removed": 1, "total": 2}
    assert prefixes(client) == ["192.0.2.1/32", "192.0.2.3/32", "192.0.2.9/32"]
    assert client.get("/v1/blocklist/192.0.2.1").json()["created_at"] == CREATED
    assert client.get("/v1/blocklist/192.0.2.1").json()["expires_at"] == "2030-03-17T17:56:40Z"

    assert client.put("/v1/blocklist", content="192.0.2.5\n", headers=TEXT).json()["total"] == 1
    assert prefixes(client) == ["192.0.2.5/32", "192.0.2.9/32"]


def test_what_get_gives_can_be_put_back(client: TestClient) -> None:
    """The operator's entries as shown, hits and all, are taken by PUT and change nothing."""
    client.post("/v1/blocklist", json=[{"prefix": "192.0.2.1", "ttl_seconds": 600}, "192.0.2.2"])
    shown = client.get("/v1/blocklist")

    back = client.put("/v1/blocklist", json=shown.json())
    assert back.json() == {"added": 0, "replaced": 0, "removed": 0, "total": 2}
    assert back.headers["sluice-revision"] == shown.headers["sluice-revision"]

    one = {**client.get("/v1/blocklist/192.0.2.2").json(), "reason": "edited"}
    assert client.put("/v1/blocklist/192.0.2.2", json=one).json()["reason"] == "edited"


def test_an_entry_of_a_feed_is_not_the_operators_to_remove(client: TestClient) -> None:
    """DELETE removes the operator's entry; one that only a feed holds is a conflict until that is named."""
    client.post("/v1/blocklist", params={"feed": "spam"}, content="192.0.2.1\n192.0.2.2", headers=TEXT)
    client.post("/v1/blocklist", json={"prefix": "192.0.2.1"})

    assert client.delete("/v1/blocklist/192.0.2.1").status_code == 204
    assert client.get("/v1/blocklist/192.0.2.1").json()["owners"] == ["feed:spam"]
    assert client.delete("/v1/blocklist/192.0.2.1").status_code == 409
    assert client.delete("/v1/blocklist/192.0.2.1", params={"owner": "feed:spam"}).status_code == 204
    assert prefixes(client) == ["192.0.2.2/32"]


@pytest.mark.parametrize("body", [[], {"items": []}])
def test_adding_nothing_changes_nothing(client: TestClient, body: Any) -> None:
    """An empty array is a list like another, and makes no revision."""
    client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24"})
    before = client.get("/v1/config/revisions").json()

    answer = client.post("/v1/blocklist", json=body)
    assert answer.is_success
    assert answer.json() == {"items": [], "changed": {"added": 0, "replaced": 0, "removed": 0, "total": 1}}
    assert client.get("/v1/config/revisions").json() == before


def test_clearing_takes_one_owners_entries_or_all(client: TestClient) -> None:
    """DELETE of the list clears the operator's entries; owner names another's, * everyone's."""
    for feed in ("a", "b"):
        client.post("/v1/blocklist", params={"feed": feed}, content=f"192.0.2.{ord(feed)}", headers=TEXT)
    client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24"})

    assert client.delete("/v1/blocklist").status_code == 204
    assert prefixes(client) == ["192.0.2.97/32", "192.0.2.98/32"]
    assert client.delete("/v1/blocklist", params={"owner": "feed:a"}).status_code == 204
    assert prefixes(client) == ["192.0.2.98/32"]
    client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24"})
    assert client.delete("/v1/blocklist", params={"owner": "*"}).status_code == 204
    assert prefixes(client) == []


def test_entries_show_the_packets_they_decided(client: TestClient, plane: TwinDataPlane) -> None:
    """Hits are those of the data plane; those of a feed are shared. They are no part of the ETag."""
    client.post("/v1/blocklist", json={"prefix": "203.0.113.0/24"})
    client.post("/v1/blocklist", params={"feed": "spam"}, content="192.0.2.1\n192.0.2.2", headers=TEXT)
    etag = client.get("/v1/blocklist/203.0.113.0/24").headers["etag"]
    counters = plane.tables.deny_counters
    assert isinstance(counters, TwinCounters)
    counters.values["packets"], counters.values["bytes"] = 2, 120
    counters.values["last_s"] = plane.clock_seconds()

    hits = {e["prefix"]: e["hits"] for e in client.get("/v1/blocklist").json()["items"]}
    assert hits["203.0.113.0/24"] | {"last_hit_at": None} == {**NO_HITS, "packets": 2, "bytes": 120}
    assert hits["203.0.113.0/24"]["last_hit_at"].startswith("2030-03-17T17:46:")
    assert [hits[p]["shared"] for p in ("192.0.2.1/32", "192.0.2.2/32")] == [True, True]
    assert client.get("/v1/blocklist/203.0.113.0/24").headers["etag"] == etag


def test_the_allowlist_is_another_list(client: TestClient) -> None:
    """It has the same verbs, entries without an action, and shares nothing with the blocklist."""
    made = client.post("/v1/allowlist", json={"prefix": "203.0.113.7", "reason": "monitoring"})

    expected = entry("203.0.113.7/32", reason="monitoring")
    del expected["action"]
    assert (made.status_code, made.json()) == (201, expected)
    assert made.headers["location"] == "/v1/allowlist/203.0.113.7%2F32"
    assert client.get("/v1/blocklist").json() == {"items": [], "total": 0, "next": None}

    lines = client.post("/v1/allowlist", content="192.0.2.1\n", headers=TEXT)
    assert lines.json() == {"added": 1, "replaced": 0, "removed": 0, "total": 2}
    assert client.delete("/v1/allowlist/203.0.113.7").status_code == 204
    assert prefixes(client, "/v1/allowlist") == ["192.0.2.1/32"]


@pytest.mark.parametrize(
    ("overlaps", "expected"),
    [
        ("203.0.113.7", ["203.0.112.0/22", "203.0.113.0/24", "203.0.113.7/32"]),
        ("203.0.113.0/25", ["203.0.112.0/22", "203.0.113.0/24", "203.0.113.7/32"]),
        ("203.0.113.128/25", ["203.0.112.0/22", "203.0.113.0/24", "203.0.113.200/32"]),
        (
            "0.0.0.0/0",
            ["198.51.100.1/32", "203.0.112.0/22", "203.0.113.0/24", "203.0.113.7/32", "203.0.113.200/32"],
        ),
        ("255.255.255.255", []),
        ("2001:db8:1::9", ["2001:db8::/32"]),
        ("ffff::/16", []),
    ],
)
def test_what_is_listed_about_an_address(client: TestClient, overlaps: str, expected: list[str]) -> None:
    """`overlaps` leaves the entries that hold a prefix and those within it, whoever owns them, and counts them."""
    mine = ["203.0.113.0/24", "203.0.113.7", "198.51.100.1", "2001:db8::/32"]
    client.post("/v1/blocklist", json=[{"prefix": prefix} for prefix in mine]).raise_for_status()
    client.post(
        "/v1/blocklist?feed=spam", content="203.0.112.0/22\n203.0.113.200", headers=TEXT
    ).raise_for_status()

    page = client.get("/v1/blocklist", params={"overlaps": overlaps}).json()

    assert [item["prefix"] for item in page["items"]] == expected
    assert (page["total"], page["next"]) == (len(expected), None)
    first = client.get("/v1/blocklist", params={"overlaps": overlaps, "limit": 2}).json()
    assert [item["prefix"] for item in first["items"]] == expected[:2]
    assert first["next"] == (expected[1] if len(expected) > 2 else None)


def test_an_address_to_look_for_that_is_none(client: TestClient) -> None:
    """It is refused by name."""
    refused = client.get("/v1/blocklist?overlaps=203.0.113.7/24")

    assert refused.status_code == 422
    assert refused.json()["errors"][0]["parameter"] == "overlaps"

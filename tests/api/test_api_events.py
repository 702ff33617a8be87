"""GET /v1/events: pages, streams, resuming, and readers that are too slow."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_stack import WEB, Stack
from fastapi.testclient import TestClient
from live import messages, serving

from api.followers import Followers
from api.routes import events as route
from lb.events import KEPT, Events
from lb.reconcile.loop import Reconciler

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def live(stack: Stack, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client over a real socket."""
    with serving(stack.client.app, tmp_path / "api.sock") as client:  # type: ignore[arg-type]
        yield client


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["text"] for event in found]


def take(stream: Iterator[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """So many messages with data; places and comments are passed over."""
    found = []
    while len(found) < number:
        message = next(stream)
        if "data" in message:
            found.append(message)
    return found


def test_a_change_is_an_event(client: TestClient) -> None:
    """A change of the desired state is told with revision, who and what; an answer without Accept is a page of JSON."""
    client.post("/v1/services", json=WEB).raise_for_status()

    page = client.get("/v1/events").json()

    (event,) = page["items"]
    assert (event["kind"], event["level"]) == ("config.changed", "info")
    assert event["facts"].pop("apply_seconds") > 0
    assert event["facts"] == {"revision": 1, "actor": "100.64.0.77", "summary": "POST /v1/services"}
    assert event["text"] == "revision 1 by 100.64.0.77: POST /v1/services"
    assert (page["total"], page["next"], page["last"]) == (1, None, event["id"])


def test_what_changes_nothing_is_none(client: TestClient) -> None:
    """A write that makes no revision makes no event either."""
    for _ in range(2):
        client.put("/v1/services/web", json=WEB).raise_for_status()

    assert client.get("/v1/events").json()["total"] == 1


def test_pages_follow_each_other(client: TestClient, reconciler: Reconciler) -> None:
    """`next` leads from page to page through all that match, oldest first; filters hold on every page."""
    for number in range(7):
        kind, level = ("a.b", "info") if number % 2 else ("a", "error")
        reconciler.events.publish(kind, str(number), level=level)

    def walk(**query: Any) -> list[list[str]]:
        pages, after = [], 0
        while after is not None:
            page = client.get("/v1/events", params={**query, "after": after, "limit": 2}).json()
            pages.append([event["text"] for event in page["items"]])
            after = page["next"]
        return pages

    assert walk() == [["0", "1"], ["2", "3"], ["4", "5"], ["6"]]
    assert walk(kind="a.b") == [["1", "3"], ["5"]]
    assert walk(kind=["a", "x"]) == walk()
    assert walk(level="warning") == [["0", "2"], ["4", "6"]]
    assert walk(since="1h") == walk()


@pytest.mark.parametrize(
    ("query", "headers", "parameter"),
    [
        ({"since": "soon"}, {}, "since"),
        ({"level": "debug"}, {}, "level"),
        ({"after": "-1"}, {}, "after"),
        ({}, {"Last-Event-ID": "x"}, "Last-Event-ID"),
        ({}, {"Last-Event-ID": "x", **STREAM}, "Last-Event-ID"),
    ],
)
def test_what_cannot_be_is_refused(
    client: TestClient, query: dict[str, str], headers: dict[str, str], parameter: str
) -> None:
    """A wrong parameter is a problem document that names it, for a stream too."""
    answer = client.get("/v1/events", params=query, headers=headers)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == parameter


def test_a_stream_tells_what_happens(live: httpx.Client, reconciler: Reconciler) -> None:
    """It begins with what comes next, in order; the data is the event as a page has it."""
    reconciler.events.publish("before", "before")
    with live.stream("GET", "/v1/events", headers=STREAM) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = messages(answer.iter_lines())
        place = next(stream)["place"]
        live.post("/v1/services", json=WEB).raise_for_status()
        reconciler.events.publish("after", "after")
        first, second = take(stream, 2)

    assert int(first["id"]) == int(place) + 1 == int(second["id"]) - 1
    page = live.get("/v1/events", params={"after": place}).json()
    assert [first["data"], second["data"]] == page["items"]
    assert [event["kind"] for event in page["items"]] == ["config.changed", "after"]


def test_a_stream_goes_on_after_the_last(live: httpx.Client, reconciler: Reconciler) -> None:
    """With Last-Event-ID nothing is missing and nothing comes twice, whatever happened meanwhile."""
    events = [reconciler.events.publish("n", str(number)) for number in range(5)]

    for last in (0, 2, 4):
        headers = {**STREAM, "Last-Event-ID": str(events[last].id)}
        with live.stream("GET", "/v1/events", headers=headers) as answer:
            stream = messages(answer.iter_lines())
            extra = reconciler.events.publish("n", f"extra {last}")
            expected = [str(n) for n in range(last + 1, 5)]
            found = texts(take(stream, len(expected) + 1 + (last // 2)))
        assert found[: len(expected)] == expected
        assert found[-1] == extra.text


def test_a_stream_can_be_filtered(live: httpx.Client, reconciler: Reconciler) -> None:
    """By kind and by level; the place goes on over what is not wanted."""
    with live.stream("GET", "/v1/events?kind=feed&level=warning", headers=STREAM) as answer:
        stream = messages(answer.iter_lines())
        for kind, level in (("feed.failed", "error"), ("rule.hit", "error"), ("feed.refreshed", "info")):
            reconciler.events.publish(kind, kind, level=level)
        wanted = reconciler.events.publish("feed.slow", "feed.slow", level="warning")
        found = take(stream, 2)

    assert texts(found) == ["feed.failed", "feed.slow"]
    assert found[1]["id"] == str(wanted.id)


def test_silence_has_a_comment(
    live: httpx.Client, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing happens a comment shows that the connection stands, with the place to go on from."""
    monkeypatch.setattr(route, "HEARTBEAT_SECONDS", 0.05)
    hidden = reconciler.events.publish("hidden", "hidden")
    with live.stream("GET", "/v1/events?kind=other", headers=STREAM) as answer:
        stream = messages(answer.iter_lines())
        first = [next(stream) for _ in range(3)]

    assert first == [{"place": str(hidden.id)}, {"comment": "nothing new"}, {"place": str(hidden.id)}]


def test_a_slow_reader_gets_what_is_kept_and_hears_of_the_rest(
    live: httpx.Client, reconciler: Reconciler
) -> None:
    """Who reads nothing for a long while holds nobody up; then it gets what is kept, and how many it missed."""
    blob, published = "x" * 2000, 4 * KEPT
    with live.stream("GET", "/v1/events", headers=STREAM) as answer:
        stream = messages(answer.iter_lines())
        place = int(next(stream)["place"])
        for number in range(published):
            reconciler.events.publish("n", str(number), blob=blob)
        assert live.get("/v1/events", params={"limit": 1}).json()["total"] == KEPT
        got, lost = 0, 0
        last = place
        while last < place + published:
            (message,) = take(stream, 1)
            if message.get("event") == "lost":
                lost += message["data"]["lost"]
            else:
                got += 1
                assert int(message["id"]) > last
                last = int(message["id"])

    assert got + lost == published
    assert got >= KEPT
    assert lost > 0


def test_another_runs_reader_is_told_so(live: httpx.Client, reconciler: Reconciler) -> None:
    """A number that this run never gave: all there is comes, after a `lost` that does not know how many."""
    event = reconciler.events.publish("n", "x")
    headers = {**STREAM, "Last-Event-ID": str(event.id + 1000)}
    with live.stream("GET", "/v1/events", headers=headers) as answer:
        stream = messages(answer.iter_lines())
        lost, first = take(stream, 2)

    assert (lost["event"], lost["data"]) == ("lost", {"lost": None})
    assert first["data"] == event.document()


def test_streams_end_with_the_daemon(live: httpx.Client, reconciler: Reconciler) -> None:
    """The last event is that it stops; then the answer ends."""
    with live.stream("GET", "/v1/events", headers=STREAM) as answer:
        stream = messages(answer.iter_lines())
        next(stream)
        reconciler.events.close()
        reconciler.events.publish("daemon.stopping", "bye")
        rest = list(stream)

    assert texts(rest) == ["bye"]


def test_follow_says_what_accept_does_not(live: httpx.Client, reconciler: Reconciler) -> None:
    """follow=false is a page whatever Accept says, follow=true a stream."""
    assert live.get("/v1/events?follow=false", headers=STREAM).json()["items"] == []
    with live.stream("GET", "/v1/events?follow=true") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")


def test_who_hangs_up_is_forgotten(live: httpx.Client, reconciler: Reconciler) -> None:
    """A reader that goes leaves nobody behind who is told of events."""
    others = list(reconciler.events._listeners)
    for _ in range(3):
        with live.stream("GET", "/v1/events", headers=STREAM) as answer:
            lines = answer.iter_lines()
            next(lines)
            assert len(reconciler.events._listeners) > len(others)
    while len(reconciler.events._listeners) > len(others):
        live.get("/healthz")

    assert reconciler.events._listeners == others


def test_a_reader_that_never_reads_delays_nobody(
    live: httpx.Client, reconciler: Reconciler, tmp_path: Path
) -> None:
    """Megabytes that one does not take reach another whole, writes go on, and the first finds all of it later."""
    many, text = 3000, "x" * 1000
    with socket.socket(socket.AF_UNIX) as idle:
        idle.connect(str(tmp_path / "api.sock"))
        idle.sendall(b"GET /v1/events?follow=true&kind=test&level=info HTTP/1.1\r\nHost: a\r\n\r\n")
        idle.recv(1)  # it follows from here on
        with live.stream("GET", "/v1/events?kind=test", headers=STREAM) as answer:
            stream = messages(answer.iter_lines())
            next(stream)
            for number in range(many):
                reconciler.events.publish("test", f"{number} {text}")
            heard = texts(take(stream, many))
            live.put("/v1/blocklist/192.0.2.1", json={}).raise_for_status()
        found = b""
        while found.count(b"data: ") < many:
            found += idle.recv(1 << 16)

    assert heard == [f"{number} {text}" for number in range(many)]
    assert b'"text": "2999 ' in found


def test_all_who_wait_are_woken_and_none_is_kept() -> None:
    """One call into the loop wakes every follower, a few at a time; who gives up, or goes, leaves nothing behind."""
    events = Events()
    followers = Followers(events)

    async def follow(seconds: float) -> bool:
        with followers.room() as room:
            return await room.wait(seconds)

    async def all_of_it() -> tuple[list[bool], list[bool]]:
        patient = [asyncio.ensure_future(follow(60)) for _ in range(100)]
        hasty = [asyncio.ensure_future(follow(0)) for _ in range(3)]
        gone = asyncio.ensure_future(follow(60))
        given_up = await asyncio.gather(*hasty)
        gone.cancel()
        await asyncio.wait([gone])
        assert len(events._listeners) == 1
        with followers.room() as room:
            assert len(room._waiting) == 100
        await asyncio.to_thread(events.publish, "test", "one")
        return given_up, await asyncio.gather(*patient)

    assert asyncio.run(all_of_it()) == ([False] * 3, [True] * 100)
    assert events._listeners == []


def test_an_event_is_put_into_words_once() -> None:
    """Who gets it has no part in what it says; texts that nobody will ask for again are forgotten."""
    events = Events()
    followers = Followers(events)
    event = events.publish("test", "one")

    assert followers.text(event) is followers.text(event)
    for _ in range(3000):
        followers.text(events.publish("test", "more"))
    assert len(followers._texts) <= 1000

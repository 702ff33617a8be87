"""Feeds at work: the reconciler over the twin, a server on loopback, and a clock that is set by hand."""

import gzip
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from feed_house import FOUR, HOUR, START, House
from feed_server import FeedServer, Handler, Page

from lb.feeds.guard import Protected
from lb.model import Feed, Prefix, Service
from lb.model.entries import OPERATOR
from lb.model.layers import Attributes, Layer


def test_new_feed_is_fetched_at_once(house: House) -> None:
    """A feed that is added is on the blocklist as soon as it came, with what the feed says of its entries."""
    event = house.add(action="count", reason="known bad")

    assert (event.kind, event.level) == ("feed.refreshed", "info")
    assert {k: v for k, v in event.facts.items() if k != "seconds"} == {
        "feed": "drop",
        "added": 4,
        "removed": 0,
        "total": 4,
    }
    said = house.entries()
    assert sorted(said) == [f"203.0.113.{n}/32" for n in (1, 2, 3, 4)]
    assert {(str(a.action), a.reason, a.created_at) for a in said.values()} == {("count", "known bad", START)}


def test_refresh_changes_only_what_differs(house: House, server: FeedServer) -> None:
    """Entries that stay keep their age, and the feed's hits go on."""
    house.add()
    counters = house.twin.tables.deny_counters
    (number,) = house.reconciler._plans.deny.shared
    counters.add(number, 3, 180)  # type: ignore[attr-defined]
    server.put(FOUR.replace(b"203.0.113.4", b"203.0.113.5"))

    event = house.advance(HOUR)

    assert (event.facts["added"], event.facts["removed"], event.facts["total"]) == (1, 1, 4)
    ages = {prefix: said.created_at for prefix, said in house.entries().items()}
    assert ages == {**{f"203.0.113.{n}/32": START for n in (1, 2, 3)}, "203.0.113.5/32": START + HOUR}
    assert house.reconciler.counters().owners["feed:drop"].packets == 3


@pytest.mark.parametrize("headers", [{"ETag": '"v1"'}, {}])
def test_unchanged_makes_no_revision(house: House, server: FeedServer, headers: dict[str, str]) -> None:
    """The same list again, told by the server or seen by its bytes, is a success and no revision."""
    server.put(FOUR, headers=headers)
    house.add()
    revision = house.revision

    event = house.advance(HOUR)

    assert (event.kind, event.facts["total"]) == ("feed.unchanged", 4)
    assert house.revision == revision
    assert house.state().last_success_at == START + HOUR
    assert server.asked[-1][1].get("If-None-Match") == headers.get("ETag")


def test_other_order_is_unchanged(house: House, server: FeedServer) -> None:
    """The same prefixes in other words are no revision."""
    house.add()
    revision = house.revision
    server.put(b"# new\n" + b"".join(reversed(FOUR.splitlines(keepends=True))))

    assert house.advance(HOUR).kind == "feed.unchanged"

    assert house.revision == revision


def test_validators_are_for_what_is_held(house: House, server: FeedServer) -> None:
    """Where the layer is not what the last answer made, all is asked for again."""
    server.put(FOUR, headers={"ETag": '"v1"'})
    house.add()
    house.edit(lambda c: replace(c, blocklist=c.blocklist.with_layer("feed:drop", Layer())))

    event = house.advance(HOUR)

    assert (event.kind, event.facts["added"]) == ("feed.refreshed", 4)
    assert "If-None-Match" not in server.asked[-1][1]


BAD: list[tuple[str, Page, str]] = [
    ("HTML", Page(b"<!DOCTYPE html><html>Sorry</html>"), "HTML"),
    ("empty", Page(b""), "no prefix at all"),
    ("without a prefix", Page(b"# nothing here\n"), "no prefix at all"),
    ("half of it", Page(FOUR, length=len(FOUR) + 100), "read to its end"),
    ("announced as too large", Page(b"", length=65 << 20), "over 64 MiB"),
    ("bomb", Page(gzip.compress(bytes(260 << 20)), headers={"Content-Encoding": "gzip"}), "over 256 MiB"),
    ("redirects in a ring", Page(status=302, headers={"Location": "/list"}), "more than 5 redirects"),
    ("UTF-16", Page(FOUR.decode().encode("utf-16")), "UTF-16"),
    ("Latin-1", Page(b"203.0.113.1 # caf\xe9\n"), "not UTF-8"),
    ("other encoding", Page(FOUR, headers={"Content-Encoding": "zstd"}), "only gzip"),
    ("an error", Page(FOUR, status=500), "answers 500"),
    ("a faulty line", Page(FOUR + b"203.0.113\n"), "line 5"),
    ("shrunk", Page(b"203.0.113.1\n"), "would take out 3 entries where 4 are held"),
    ("grown", Page(FOUR + b"".join(b"198.51.100.%d\n" % n for n in range(3))), "would add 3 entries"),
    ("private space", Page(FOUR + b"10.0.0.0/8\n"), "its entry 10.0.0.0/8 would block private address space"),
    ("default route", Page(FOUR + b"0.0.0.0/0\n"), "its entry 0.0.0.0/0 would block as good as the whole"),
    ("a backend", Page(FOUR + b"198.51.100.0/24\n"), '198.51.100.11, a backend of service "web"'),
    ("a VIP", Page(FOUR + b"192.0.2.10\n"), 'the VIP of service "web"'),
    ("a gateway", Page(FOUR + b"192.0.2.200/29\n"), "the gateway"),
]


@pytest.mark.parametrize(("page", "words"), [pytest.param(p, w, id=name) for name, p, w in BAD])
def test_last_good_copy_stays(house: House, server: FeedServer, page: Page, words: str) -> None:
    """Whatever comes that is no list to be trusted: what was held stays, and an event says why."""
    web = {"name": "web", "vip": "192.0.2.10", "port": 80, "protocol": "tcp"}
    service = Service.model_validate({**web, "backends": [{"address": "198.51.100.11"}]})
    house.edit(lambda c: c.with_service(service))
    house.more = [Protected(Prefix.parse("192.0.2.201"), "the gateway")]
    house.add()
    held, revision = house.entries(), house.revision
    server.pages["/list"] = page

    event = house.advance(HOUR)

    assert (event.kind, event.level) == ("feed.failed", "warning")
    assert words in str(event.facts["reason"])
    assert (house.entries(), house.revision) == (held, revision)
    assert words in (house.state().error or "")
    assert house.state().last_success_at == START


def test_private_url_is_refused(house: House, server: FeedServer) -> None:
    """Without allow_private_url a loopback server is never asked."""
    event = house.add(allow_private_url=False)

    assert "set allow_private_url" in str(event.facts["reason"])
    assert not server.asked and not house.entries()


def test_guards_can_be_told_to_let_through(house: House, server: FeedServer) -> None:
    """max_change and allow_protected let through what they are for, at once when the feed is changed."""
    house.add()
    server.put(b"203.0.113.1\n10.0.0.0/8\n")
    assert house.refresh().kind == "feed.failed"

    event = house.add(max_change=1, allow_protected=True)

    assert event.kind == "feed.refreshed"
    assert sorted(house.entries()) == ["10.0.0.0/8", "203.0.113.1/32"]


def test_other_url_is_a_first_fetch(house: House, server: FeedServer) -> None:
    """A feed whose URL is changed may hold something else altogether."""
    house.add()
    server.put(b"198.51.100.0/24\n", "/other")

    event = house.add(url=server.url("/other"))

    assert event.kind == "feed.refreshed"
    assert sorted(house.entries()) == ["198.51.100.0/24"]


def test_failures_back_off(house: House, server: FeedServer) -> None:
    """After a failure it is tried again in a minute, then in two, up to the interval; a success starts anew."""
    house.add(refresh_seconds=300)
    server.pages["/list"] = Page(status=503)
    waits = []
    house.advance(300)
    for _ in range(5):
        waits.append(house.state().next_refresh_at - house.now)
        house.advance(waits[-1])
    assert waits == [60, 120, 240, 300, 300]
    assert house.state().failures == 6

    server.put(FOUR)
    house.advance(300)

    assert (house.state().failures, house.state().error) == (0, None)
    assert house.state().next_refresh_at == house.now + 300


def test_jitter_makes_it_later(house: House) -> None:
    """Chance puts a refresh off by up to the jitter's share of the interval."""
    house.draw = 0.5
    house.add(jitter=0.2)

    assert house.state().next_refresh_at == START + HOUR * 1.1


def test_one_that_hangs_stalls_no_other(house: House, server: FeedServer) -> None:
    """While one feed's server says nothing, others are refreshed; stopping does not wait for it."""
    began = threading.Event()

    def silent(handler: Handler) -> None:
        began.set()
        server.closing.wait()

    server.pages["/silent"] = silent
    feed = Feed.model_validate({"name": "slow", "url": server.url("/silent"), "allow_private_url": True})
    house.edit(lambda c: c.with_feeds({"slow": feed}))
    assert began.wait(10)

    assert house.add().kind == "feed.refreshed"
    assert not house.feeds.wait("slow", 1, 0)


def test_refresh_by_hand_begins_after_it_is_asked_for(house: House, server: FeedServer) -> None:
    """A refresh that is asked for while one is under way is one of its own: what it was asked for is in it."""
    house.add()
    entered, go_on = threading.Event(), threading.Event()

    def late(handler: Handler) -> None:
        page = Page(FOUR)
        entered.set()
        go_on.wait()
        page(handler)

    server.pages["/list"] = late
    house.feeds.refresh("drop")
    assert entered.wait(10)
    server.put(FOUR.replace(b"113.4", b"113.5"))
    number = house.feeds.refresh("drop")
    go_on.set()

    assert house.feeds.wait("drop", number, 10)
    assert "203.0.113.5/32" in house.entries()


def test_removed_feed_takes_its_entries_along(house: House, server: FeedServer) -> None:
    """Removing a feed is one revision, in which its entries go and those of others stay."""
    house.add()
    house.edit(
        lambda c: replace(
            c,
            blocklist=c.blocklist.with_layer(
                OPERATOR, Layer.of([(Prefix.parse("203.0.113.1"), Attributes())])
            ),
        )
    )
    revision = house.revision

    house.edit(lambda c: c.with_feeds({}))

    assert house.revision == revision + 1
    assert list(house.reconciler.desired.config.blocklist.layers) == [OPERATOR]


def test_what_comes_for_a_removed_feed_is_of_no_use(house: House, server: FeedServer) -> None:
    """A feed that is removed while it is fetched leaves nothing behind."""
    entered, go_on = threading.Event(), threading.Event()

    def late(handler: Handler) -> None:
        entered.set()
        go_on.wait()
        Page(FOUR)(handler)

    server.pages["/list"] = late
    feed = Feed.model_validate({"name": "gone", "url": server.url(), "allow_private_url": True})
    house.edit(lambda c: c.with_feeds({"gone": feed}))
    assert entered.wait(10)
    house.edit(lambda c: c.with_feeds({}))
    revision = house.revision
    server.put(FOUR, "/other")
    go_on.set()

    house.add(url=server.url("/other"))

    assert house.revision == revision + 2
    assert list(house.reconciler.desired.config.blocklist.layers) == ["feed:drop"]
    assert [e.facts["feed"] for e in house.events.since(0)] == ["drop"]


def test_restart_keeps_everything(house: House, server: FeedServer) -> None:
    """After a restart entries, dates and validators are as they were, and nothing is fetched before it is due."""
    server.put(FOUR, headers={"ETag": '"v1"'})
    house.add()
    house.add("bad", url=server.url("/none"))
    states = {name: house.state(name) for name in ("drop", "bad")}
    entries, asked = house.entries(), len(server.asked)

    house.now += 30
    house.restart()

    assert {name: house.state(name) for name in states} == states
    assert house.entries() == entries
    assert house.advance(30, "bad").kind == "feed.failed"
    assert len(server.asked) == asked + 1
    assert house.advance(HOUR - 60).kind == "feed.unchanged"
    assert [headers.get("If-None-Match") for path, headers in server.asked if path == "/list"] == [
        None,
        '"v1"',
    ]


def test_no_storm_after_a_long_stop(house: House, server: FeedServer) -> None:
    """What fell due while the daemon was down is fetched within a minute, at a moment of chance."""
    house.add()
    house.draw = 0.5
    house.now += 10 * HOUR

    house.restart()

    assert house.state().next_refresh_at == house.now + 30
    assert house.advance(30).kind == "feed.unchanged"


@pytest.mark.parametrize(
    "text", [None, "{", '{"drop": 1}', '{"drop": {"failures": "x"}}', '{"drop": {"new": 1}}']
)
def test_lost_states_are_fetched_anew(house: House, server: FeedServer, text: str | None) -> None:
    """Without a readable file of states feeds are fetched once more, and what they held stays meanwhile."""
    house.add()
    house.end()
    path = house.folder / "feeds.json"
    path.unlink()
    if text is not None:
        path.write_text(text)

    house.begin()

    assert len(house.entries()) == 4
    assert house.refresh().kind == "feed.unchanged"
    assert "drop" in json.loads(path.read_text())


def test_clock_that_is_set_back(house: House) -> None:
    """A clock that was wrong by years delays no refresh by more than the interval."""
    house.add()
    house.now -= 10 * 365 * 86400
    house.feeds.wake()
    with house.feeds._changed:
        seen = house.feeds._changed.wait_for(lambda: house.state().next_refresh_at < START, 10)
    assert seen

    assert house.advance(HOUR * 1.1).kind == "feed.unchanged"


def test_file(house: House, tmp_path: Path) -> None:
    """A feed may be a file on this machine."""
    path = tmp_path / "list.txt"
    path.write_bytes(FOUR)
    assert house.add(file=str(path)).facts["total"] == 4

    path.unlink()

    assert "No such file" in str(house.refresh().facts["reason"])
    assert len(house.entries()) == 4


def test_first_fetch_may_be_empty(house: House, server: FeedServer) -> None:
    """A list that is empty from the beginning is no fault."""
    server.put(b"# nothing yet\n")

    assert house.add().kind == "feed.unchanged"

    server.put(FOUR)
    assert house.refresh().facts["added"] == 4


def test_a_file_that_is_no_list_is_not_quoted(house: House, tmp_path: Path) -> None:
    """Who may name a file may not be one who may read it: the refusal has the line's number, and none of its words."""
    path = tmp_path / "shadow"
    path.write_text("root:$y$j9T$secret:19000:0:99999:7:::\n")

    failed = house.add("drop", file=str(path))

    assert failed.kind == "feed.failed"
    assert "line 1" in failed.text
    assert not any(word in failed.text for word in ("root", "secret"))


def test_a_feed_that_may_blocks_a_backend(house: House) -> None:
    """allow_protected is the whole of what it takes; without it the refusal names the backend."""
    web = {"name": "web", "vip": "10.200.1.1", "port": 80, "protocol": "tcp"}
    backends = [{"address": "203.0.113.1"}]
    house.edit(lambda c: c.with_service(Service.model_validate({**web, "backends": backends})))
    house.server.pages["/list"] = Page(FOUR)

    assert "203.0.113.1" in house.add("one").text
    assert house.add("two", allow_protected=True).kind == "feed.refreshed"

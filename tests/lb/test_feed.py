"""Feeds as the operator writes them, and what becomes of their entries when they go."""

from typing import Any

import pytest
from pydantic import ValidationError

from lb.errors import InvalidError, NotFoundError
from lb.model import Config, Feed, Prefix
from lb.model.diff import diff
from lb.model.document import from_mapping, to_document
from lb.model.entries import OPERATOR
from lb.model.fields import field_errors
from lb.model.layers import Attributes, Layer
from lb.reconcile.desired import keeping
from lb.store import SqliteStore

URL = "https://lists.example.net/drop.txt"
NOW = 1_900_000_000.0


def feed(**said: Any) -> Feed:
    """A feed by URL, unless something else is said."""
    return Feed.model_validate({"name": "drop", **({} if "file" in said else {"url": URL}), **said})


def config(*feeds: Feed, entries: str = "203.0.113.0/24") -> Config:
    """These feeds, each with one entry, beside one of the operator's and one of an import."""
    made = Config(feeds={f.name: f for f in feeds})
    blocklist = made.blocklist
    for owner in (OPERATOR, "feed:imported", *(f.owner for f in feeds)):
        blocklist = blocklist.with_layer(owner, Layer.of([(Prefix.parse(entries), Attributes())]))
    return Config(feeds=made.feeds, blocklist=blocklist)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"url": None}, "/url", "one of url and file is needed"),
    ({"file": "/lists/drop", "url": URL}, "/url", "exclude each other"),
    ({"url": "ftp://lists.example.net/drop"}, "/url", "not an http or https URL"),
    ({"url": "https:///drop"}, "/url", "not an http or https URL"),
    ({"url": "https://lists.example.net:x/"}, "/url", "not a URL"),
    ({"url": "https://lists.example.net/a b"}, "/url", "percent-encode"),
    ({"url": "https://me:secret@lists.example.net/"}, "/url", "leave it out"),
    ({"url": f"{URL}#part"}, "/url", "fragment"),
    ({"url": f"https://{'a' * 2048}.example.net/"}, "/url", "at most 2048"),
    ({"file": "drop.txt"}, "/file", "absolute"),
    ({"refresh_seconds": 59}, "/refresh_seconds", "greater than or equal to 60"),
    ({"refresh_seconds": 30 * 86400 + 1}, "/refresh_seconds", "less than or equal to 2592000"),
    ({"refresh_seconds": "60"}, "/refresh_seconds", "integer"),
    ({"jitter": 1.5}, "/jitter", "less than or equal to 1"),
    ({"max_change": -0.1}, "/max_change", "greater than or equal to 0"),
    ({"max_change": float("nan")}, "/max_change", "not nan"),
    ({"format": "rss"}, "/format", "it should be 'auto'"),
    ({"format": "crowdsec"}, "/api_key_file", "cscli bouncers add"),
    ({"format": "crowdsec", "api_key_file": "/k", "file": "/lists/d"}, "/url", "local API"),
    ({"api_key_file": "/k"}, "/api_key_file", "only a crowdsec feed"),
    ({"reason": "two\nlines"}, "/reason", "line break"),
    ({"name": "a b"}, "/name", "a name is"),
    ({"colour": 1}, "/colour", "not known here"),
]


@pytest.mark.parametrize(("said", "pointer", "words"), BAD)
def test_what_is_wrong_is_named(said: dict[str, Any], pointer: str, words: str) -> None:
    """A fault of a feed names the field, and says what to write."""
    with pytest.raises(ValidationError) as caught:
        feed(**said)

    faults = field_errors(caught.value)
    assert [fault.pointer for fault in faults] == [pointer]
    assert words in faults[0].detail


def test_defaults() -> None:
    """A feed is refreshed hourly, drops, and is trusted with nothing out of the ordinary."""
    assert feed().model_dump(mode="json") == {
        "name": "drop",
        "url": URL,
        "file": None,
        "format": "auto",
        "action": "drop",
        "refresh_seconds": 3600,
        "jitter": 0.1,
        "max_change": 0.5,
        "allow_private_url": False,
        "allow_protected": False,
        "api_key_file": None,
        "reason": "",
    }


def test_fingerprint_is_of_what_entries_depend_on() -> None:
    """Another URL, action or reason makes other entries; another interval does not."""
    same = feed().fingerprint

    assert feed(refresh_seconds=60, jitter=0, max_change=1).fingerprint == same
    for other in ({"url": f"{URL}2"}, {"action": "count"}, {"reason": "x"}, {"allow_protected": True}):
        assert feed(**other).fingerprint != same


def test_layer_goes_with_its_feed() -> None:
    """What a feed had on the blocklist goes with it; entries of others and of imports stay."""
    have = config(feed(), feed(name="other"))

    want = have.with_feeds({"other": have.feeds["other"]})

    assert set(want.blocklist.layers) == {OPERATOR, "feed:imported", "feed:other"}
    with pytest.raises(NotFoundError, match='no feed "drop": "sluice feed list"'):
        want.feed("drop")


def test_document_is_the_whole() -> None:
    """A feed that a document leaves out goes with its entries; one that it has keeps them."""
    have = config(feed(), feed(name="other"))
    document = to_document(have, now=NOW)
    assert [f["name"] for f in document["feeds"]] == ["drop", "other"]
    assert from_mapping(document, now=NOW, have=have) == have

    document["feeds"] = document["feeds"][1:]
    want = from_mapping(document, now=NOW, have=have)

    assert list(want.feeds) == ["other"]
    assert set(want.blocklist.layers) == {OPERATOR, "feed:imported", "feed:other"}
    assert [(c.op, c.kind, c.name) for c in diff(have, want).changes] == [
        ("remove", "feed", "drop"),
        ("remove", "blocklist", "203.0.113.0/24"),
    ]


def test_document_names_faults() -> None:
    """Faults of feeds have pointers into the document, names given twice among them."""
    twice = {"feeds": [{"name": "a", "file": "/a"}, {"name": "a", "file": "/b"}]}
    for document, pointer in (({"feeds": [{"name": "a"}]}, "/feeds/0/url"), (twice, "/feeds/1/name")):
        with pytest.raises(InvalidError) as caught:
            from_mapping(document, now=NOW, have=Config())
        assert [fault.pointer for fault in caught.value.errors] == [pointer]


def test_change_of_a_feed_is_told_by_field() -> None:
    """A diff shows of a changed feed only what differs."""
    (change,) = diff(config(feed()), config(feed(refresh_seconds=60))).changes

    assert (change.op, change.before, change.after) == (
        "change",
        {"refresh_seconds": 3600},
        {"refresh_seconds": 60},
    )


def test_equal_feeds_are_no_change() -> None:
    """A config with equal feeds is the present one itself."""
    have = config(feed())

    assert keeping(have, config(feed())) is have
    changed = keeping(have, config(feed(), feed(name="other")))
    assert changed.feeds["drop"] is have.feeds["drop"]


def test_store_keeps_feeds() -> None:
    """Feeds come back in their order; a revision from before there were any has none."""
    store = SqliteStore(":memory:")
    old = config()
    new = config(feed(name="b"), feed(name="a", file="/lists/a"))
    first = store.commit(old, before=Config(), actor="t", summary="", now=NOW)
    second = store.commit(new, before=old, actor="t", summary="", now=NOW)
    third = store.commit(old.with_feeds({}), before=new, actor="t", summary="", now=NOW)

    assert store.config_at(first).feeds == {}
    assert list(store.config_at(second).feeds.items()) == list(new.feeds.items())
    assert store.config_at(third).feeds == {}
    store.close()

"""The decisions stream: what an answer says, and what becomes of the layer."""

import json
from typing import Any

import pytest

from lb.errors import FeedError
from lb.feeds.crowdsec import TTL_JITTER, applied, parse_decisions, parse_go_duration, stream_url
from lb.model import Feed, Prefix
from lb.model.layers import Attributes, Layer

P = Prefix.parse
NOW = 1_900_000_000.0
FEED = Feed.model_validate(
    {"name": "cs", "url": "http://127.0.0.1:8080", "format": "crowdsec", "api_key_file": "/key"}
)


def decision(value: str, duration: str = "3h59m57s", **more: Any) -> dict[str, Any]:
    scope = "Range" if "/" in value else "Ip"
    said = {"value": value, "scope": scope, "type": "ban", "duration": duration, "scenario": "ssh-bf", **more}
    return {"id": 1, "origin": "crowdsec", **said}


def answer(new: list[dict[str, Any]] | None = None, deleted: list[dict[str, Any]] | None = None) -> bytes:
    return json.dumps({"new": new, "deleted": deleted}).encode()


def put(have: Layer, data: bytes, now: float = NOW, *, whole: bool = False, feed: Feed = FEED) -> Layer:
    return applied(have, parse_decisions(data), feed, now, whole=whole)


def entries(layer: Layer) -> dict[str, Attributes]:
    return {
        str(p): said
        for column in layer.columns.values()
        for key in column.keys.tolist()
        if (said := layer.get(p := Prefix.from_key(key)))
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3h59m", 14340),
        ("3h59m57.5s", 14397.5),
        ("167h59m59.123456789s", 604799.123456789),
        ("1m0s", 60),
        ("500ms", 0.5),
        ("20µs", 2e-5),
        ("-1h2m", -3720),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are read as Go writes them."""
    assert parse_go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "4", "4 h", "h", "1d", "1h-2m", None, 60, "1.2.3s"])
def test_no_durations(text: object) -> None:
    """Anything else is refused."""
    with pytest.raises(FeedError, match="write one such as 3h59m"):
        parse_go_duration(text)


@pytest.mark.parametrize(
    ("url", "startup", "expected"),
    [
        ("http://127.0.0.1:8080", True, "http://127.0.0.1:8080/v1/decisions/stream?startup=true"),
        ("http://127.0.0.1:8080/", False, "http://127.0.0.1:8080/v1/decisions/stream?startup=false"),
        (
            "http://h/v1/decisions/stream?scopes=ip&startup=true",
            False,
            "http://h/v1/decisions/stream?scopes=ip&startup=false",
        ),
        ("http://h/base", True, "http://h/base/v1/decisions/stream?startup=true"),
    ],
)
def test_stream_url(url: str, startup: bool, expected: str) -> None:
    """The URL of the API, or of its stream, will do."""
    assert stream_url(url, startup=startup) == expected


def test_durations_become_deadlines() -> None:
    """A ban holds for its duration, up to a twentieth longer, and says its scenario."""
    bans = [decision(f"192.0.2.{n}", "1h") for n in range(100)] + [decision("2001:db8::/32", "1h")]

    found = entries(put(Layer(), answer(bans), whole=True))

    assert len(found) == 101
    ends = [said.expires_at - NOW for said in found.values() if said.expires_at is not None]
    assert all(3600 <= end <= 3600 * (1 + TTL_JITTER) + 1 for end in ends)
    assert len(set(ends)) > 50
    assert {said.reason for said in found.values()} == {"ssh-bf"}
    assert {said.created_at for said in found.values()} == {NOW}


def test_deltas() -> None:
    """What is deleted goes, what is new comes, what is not named stays as it is."""
    have = put(Layer(), answer([decision("192.0.2.1"), decision("192.0.2.2"), decision("192.0.2.3")]))

    after = put(
        have,
        answer(
            [decision("192.0.2.4"), decision("192.0.2.3")], [decision("192.0.2.1"), decision("192.0.2.3")]
        ),
        NOW + 60,
    )

    found = entries(after)
    assert sorted(found) == ["192.0.2.2/32", "192.0.2.3/32", "192.0.2.4/32"]
    assert found["192.0.2.2/32"] == entries(have)["192.0.2.2/32"]
    assert found["192.0.2.4/32"].created_at == NOW + 60
    assert entries(put(after, answer())) == found


def test_whole_answer_keeps_what_is_the_same() -> None:
    """Asked for all again, an entry that ends about when it did keeps its end and age; what is not named goes."""
    have = put(
        Layer(),
        answer([decision("192.0.2.1", "4h"), decision("192.0.2.2", "4h"), decision("192.0.2.3", "4h")]),
    )

    after = entries(
        put(
            have,
            answer([decision("192.0.2.1", "3h59m0.2s"), decision("192.0.2.2", "8h")]),
            NOW + 60,
            whole=True,
        )
    )

    before = entries(have)
    assert sorted(after) == ["192.0.2.1/32", "192.0.2.2/32"]
    assert after["192.0.2.1/32"] == before["192.0.2.1/32"]
    assert after["192.0.2.2/32"].created_at == NOW
    assert (after["192.0.2.2/32"].expires_at or 0) >= NOW + 60 + 8 * 3600


def test_only_bans_of_addresses_count() -> None:
    """Captchas, countries and bans that are over are passed over, and counted."""
    found = parse_decisions(
        answer(
            [
                decision("192.0.2.1"),
                decision("192.0.2.2", type="captcha"),
                decision("DE", scope="Country"),
                decision("192.0.2.3", "-5s"),
            ],
            [decision("DE", scope="Country")],
        )
    )

    assert [str(prefix) for prefix in found.new] == ["192.0.2.1/32"]
    assert (found.deleted, found.passed_over) == (set(), 3)


def test_longest_of_two_bans_counts() -> None:
    """Of two bans of one address the longer one counts."""
    found = parse_decisions(answer([decision("192.0.2.1", "2h"), decision("192.0.2.1", "1h")]))

    assert found.new[P("192.0.2.1")].seconds == 7200


def test_reason_of_the_feed_goes_before_the_scenario() -> None:
    """A feed's own reason is every entry's; a scenario is put on one line."""
    feed = FEED.model_copy(update={"reason": "banned"})
    data = answer([decision("192.0.2.1", scenario="a\nb" * 200)])

    assert entries(put(Layer(), data, feed=feed))["192.0.2.1/32"].reason == "banned"
    shown = entries(put(Layer(), data))["192.0.2.1/32"].reason
    assert "\n" not in shown and len(shown) == 200


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "not a decisions stream"),
        (b'{"message":"access forbidden"}', "not a decisions stream"),
        (b'{"new":{},"deleted":[1]}', "not a list of decisions"),
        (answer([decision("nonsense")]), "a decision is faulty"),
        (answer([{**decision("192.0.2.1"), "value": None}]), "has no value"),
        (answer([decision("192.0.2.1", "soon")]), "such as 3h59m"),
    ],
)
def test_what_is_no_answer_is_refused(data: bytes, words: str) -> None:
    """Nothing is taken of an answer with a fault."""
    with pytest.raises(FeedError, match=words):
        parse_decisions(data)

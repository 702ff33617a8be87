"""Entries as people write them: one, or very many, and how they are shown."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import NOW, QUICK
from pydantic import ValidationError

from lb.errors import FieldError, InvalidError
from lb.model import Action, Entry, Prefix
from lb.model.entries import FEED_PREFIX, OPERATOR
from lb.model.entry_input import FAULTS_SHOWN, AllowlistInput, BlocklistInput, read_entries
from lb.model.entry_view import AllowlistView, BlocklistView
from lb.model.fields import field_errors
from lb.model.layers import Attributes, Layer
from lb.model.times import SECONDS_MAX, format_moment, parse_duration, parse_moment

P = Prefix.parse


def read(given: dict[str, Any]) -> tuple[Prefix, Attributes]:
    return BlocklistInput.model_validate(given).entry(NOW)


def faults(given: dict[str, Any]) -> list[tuple[str, str]]:
    """Where an entry is wrong, and what is said of it."""
    try:
        read(given)
    except ValidationError as error:
        return [(e.pointer, e.detail) for e in field_errors(error)]
    except InvalidError as error:
        return [(e.pointer, e.detail) for e in error.errors]
    return []


def test_an_entry() -> None:
    """The prefix alone is enough; what it says is made now."""
    assert read({"prefix": "192.0.2.1"}) == (P("192.0.2.1"), Attributes(created_at=NOW))
    assert read({"prefix": "2001:db8::/32", "action": "count", "reason": "scan", "ttl_seconds": "1h"}) == (
        P("2001:db8::/32"),
        Attributes(Action.COUNT, "scan", NOW, 3600, NOW + 3600),
    )
    assert read({"prefix": "192.0.2.1", "expires_at": format_moment(NOW + 1.5)})[1].expires_at == NOW + 1.5


def test_an_entry_of_the_allowlist_has_no_action() -> None:
    """An allowlist allows, so action is an unknown key there."""
    with pytest.raises(ValidationError, match="action"):
        AllowlistInput.model_validate({"prefix": "192.0.2.1", "action": "drop"})


def test_times_are_kept_to_the_millisecond() -> None:
    """What is made at an odd moment is shown without a tail of digits."""
    _, said = BlocklistInput.model_validate({"prefix": "192.0.2.1", "ttl_seconds": 1}).entry(NOW + 0.1234567)

    assert (said.created_at, said.expires_at) == (NOW + 0.123, NOW + 1.123)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [("/prefix", "this key is needed")]),
        (
            {"prefix": "10.0.0.1/8"},
            [("/prefix", "10.0.0.1/8 has host bits set: the network is 10.0.0.0/8")],
        ),
        ({"prefix": "::1", "action": "deny"}, [("/action", "it should be 'drop' or 'count', not \"deny\"")]),
        ({"prefix": "::1", "reason": "x" * 201}, [("/reason", "string should have at most 200 characters")]),
        (
            {"prefix": "::1", "reason": "a\x1bb"},
            [("/reason", "it holds a control character or a line break: write plain text on one line")],
        ),
        ({"prefix": "::1", "ttl": 5}, [("/ttl", "this key is not known here: correct it or leave it out")]),
        (
            {"prefix": "::1", "ttl_seconds": 5, "expires_at": format_moment(NOW + 9)},
            [("/expires_at", "ttl_seconds and expires_at contradict each other: give one of them")],
        ),
        (
            {"prefix": "::1", "expires_at": format_moment(NOW)},
            [("/expires_at", "2027-01-15T08:00:00Z is in the past: give a time in the future")],
        ),
        (
            {"prefix": "::1", "expires_at": "9999-12-31T23:59:59Z"},
            [
                (
                    "/expires_at",
                    "9999-12-31T23:59:59Z is over 10 years ahead: "
                    "leave expires_at out for an entry that stays",
                )
            ],
        ),
    ],
)
def test_entries_that_are_refused(given: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """What is wrong is named by its key, with what to do."""
    assert faults(given) == expected


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(1, 1), ("90s", 90), ("3600", 3600), ("1h", 3600), ("1h30m", 5400), ("7d", 604800), (" 2w ", 1209600)],
)
def test_durations(given: object, seconds: int) -> None:
    """Seconds, or a text with units."""
    assert parse_duration(given) == seconds


@pytest.mark.parametrize(
    "given", [0, -1, "0s", SECONDS_MAX + 1, "522w", 10**30, "9" * 5000, "1y", "1.5h", "", "h", "１h"]
)
def test_durations_that_are_refused(given: object) -> None:
    """A duration is one second to ten years, in units that are known."""
    with pytest.raises(ValueError, match=r"1 second to 10 years|is not a duration"):
        parse_duration(given)


@pytest.mark.parametrize("given", [True, 1.5, None, [1]])
def test_durations_of_the_wrong_type(given: object) -> None:
    """A truth or a fraction is not a duration."""
    with pytest.raises(ValueError, match="a duration is a whole number of seconds"):
        parse_duration(given)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15t08:00:00z", NOW),
        ("2027-01-15 09:30:00+01:30", NOW),
        ("2027-01-15T08:00:00.25Z", NOW + 0.25),
        ("2027-01-15T08:00:00.000001Z", NOW + 1e-6),
    ],
)
def test_moments(given: str, seconds: float) -> None:
    """RFC 3339, in any zone."""
    assert parse_moment(given) == pytest.approx(seconds, abs=1e-7)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("2027-01-15T08:00:00", "lacks its offset: write 2027-01-15T08:00:00Z if it is UTC"),
        ("2027-01-15", "lacks its offset"),
        ("tomorrow", '"tomorrow" is not a timestamp: write RFC 3339'),
        ("2027-02-30T00:00:00Z", "is not a timestamp"),
        (1800000000, "a timestamp is a text in RFC 3339"),
        (None, "a timestamp is a text in RFC 3339"),
    ],
)
def test_moments_that_are_refused(given: object, says: str) -> None:
    """A moment without a zone, or none at all, is refused."""
    with pytest.raises(ValueError, match=says):
        parse_moment(given)


@QUICK
@given(st.integers(0, 4 * 10**15).map(lambda microseconds: microseconds / 10**6))
def test_moments_are_written_exactly(seconds: float) -> None:
    """To the microsecond a moment survives being written and read."""
    assert parse_moment(format_moment(seconds)) == seconds


def test_moments_are_written_shortly() -> None:
    """Whole seconds are written whole."""
    assert format_moment(NOW) == "2027-01-15T08:00:00Z"
    assert format_moment(NOW + 0.5) == "2027-01-15T08:00:00.500Z"
    assert format_moment(NOW + 0.000001) == "2027-01-15T08:00:00.000001Z"


prefix_texts = st.sampled_from(
    ["10.0.0.1", "10.0.0.1/32", "10.0.0.0/8", "2001:db8::/32", "10.0.0.1/8", "", "x", "10.0.0.1 # x", None, 5]
)
said = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["drop", "count", "deny", None, ["drop"]]),
        "reason": st.sampled_from(["", "scan", "a\nb", 5]),
        "ttl_seconds": st.sampled_from([3600, "1h", 1, True, 1.0, None, 0]),
        "expires_at": st.sampled_from(
            [None, format_moment(NOW + 5), format_moment(NOW - 5), format_moment(NOW + 5.5)]
        ),
        "extra": st.just(1),
    },
)
items = st.builds(lambda prefix, rest: {"prefix": prefix, **rest}, prefix_texts, said) | prefix_texts | said


def one_by_one(
    given: Sequence[object], drop_expired: bool
) -> tuple[dict[Prefix, Attributes], set[str], set[str]]:
    """What reading each entry by itself makes of them, where the faults are, and where contradictions are.

    The prefix, and what is beside it, are read apart: a fault in one does not hide one in the other.
    """
    found: dict[Prefix, Attributes] = {}
    wrong: set[str] = set()
    contradictions: set[str] = set()
    for place, item in enumerate(given):
        entry = item if isinstance(item, dict) else {"prefix": item}
        pointers = {p for p, _ in faults({"prefix": entry.get("prefix")})}
        beside = {**entry, "prefix": "::"}
        try:
            wanted = BlocklistInput.model_validate(beside)
            over = wanted.expires_at is not None and wanted.expires_at <= NOW
        except ValidationError:
            over = False
        if not (over and drop_expired):
            pointers |= {p for p, _ in faults(beside)}
            if not pointers:
                prefix, attributes = read(entry)
                if found.get(prefix, attributes) != attributes:
                    contradictions.add(f"/x/{place}")
                found[prefix] = attributes
        wrong |= {f"/x/{place}{p if isinstance(item, dict) else ''}" for p in pointers}
    return found, wrong, contradictions


@QUICK
@given(st.lists(items, max_size=6), st.booleans())
def test_many_are_read_as_one_by_one(given: list[object], drop_expired: bool) -> None:
    """In bulk the entries, and the places of the faults, are those of reading one by one."""
    expected, wrong, contradictions = one_by_one(given, drop_expired)
    try:
        layer = read_entries(BlocklistInput, given, now=NOW, at="/x", drop_expired=drop_expired)
    except InvalidError as error:
        assert {e.pointer for e in error.errors} == (wrong or contradictions) != set()
    else:
        assert not wrong | contradictions
        assert layer == Layer.of(expected.items())


def test_entries_that_contradict_each_other() -> None:
    """A prefix given twice is accepted only if it says the same both times."""
    same = [{"prefix": "10.0.0.1", "ttl_seconds": "1h"}, {"ttl_seconds": 3600, "prefix": "10.0.0.1/32"}]
    assert len(read_entries(BlocklistInput, same, now=NOW)) == 1

    with pytest.raises(InvalidError) as caught:
        read_entries(BlocklistInput, ["10.0.0.1", *same], now=NOW, at="/blocklist")
    assert caught.value.errors == (
        FieldError("/blocklist/1", "10.0.0.1/32 is given twice and says different things (see item 0)"),
    )


def test_faults_of_many() -> None:
    """Faults come in the order of the entries, and not without end."""
    with pytest.raises(InvalidError) as caught:
        read_entries(AllowlistInput, [{"prefix": "x", "reason": 1}, "10.0.0.1/8"], now=NOW)
    assert [e.pointer for e in caught.value.errors] == ["/0/reason", "/0/prefix", "/1"]

    with pytest.raises(InvalidError) as caught:
        read_entries(AllowlistInput, [{"prefix": "x", "nonsense": n} for n in range(500)], now=NOW)
    assert len(caught.value.errors) == FAULTS_SHOWN


def test_how_entries_are_shown() -> None:
    """An entry shows every key, times in RFC 3339, and all its owners."""
    entry = Entry(
        P("10.0.0.1"), Attributes(Action.COUNT, "scan", NOW, 60, NOW + 60), (OPERATOR, FEED_PREFIX + "x")
    )
    shown = {
        "prefix": "10.0.0.1/32",
        "reason": "scan",
        "owner": "operator",
        "owners": ["operator", "feed:x"],
        "created_at": "2027-01-15T08:00:00Z",
        "ttl_seconds": 60,
        "expires_at": "2027-01-15T08:01:00Z",
    }
    assert AllowlistView.of(entry).model_dump(mode="json") == shown
    assert BlocklistView.of(entry).model_dump(mode="json") == {**shown, "action": "count"}
    staying = Entry(P("10.0.0.1"), Attributes(), (OPERATOR,))
    assert AllowlistView.of(staying).expires_at is None

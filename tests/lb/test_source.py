"""Documents as text: what YAML and JSON mean here, what is refused, and which line a part stands in."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import QUICK

from lb.errors import InvalidError, MalformedError
from lb.model.source import read

texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\ufeff\ufffe\uffff", exclude_categories=("Cc", "Cs"))
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from(
        ["on", "0800", "1:20", "1e3", "0x1f", "2030-01-31", "~", "<<", "", "1_0", "+1", "=", "- a", ".5"]
    )
)
values = st.recursive(
    scalars,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3),
    max_leaves=8,
)


@QUICK
@given(st.dictionaries(texts, values))
def test_json_is_read_as_json(document: dict[str, Any]) -> None:
    """A JSON text, however indented, means what it means to json."""
    for indent in (None, 2, "\t"):
        assert read(json.dumps(document, indent=indent).encode()).document == document


@QUICK
@given(st.dictionaries(texts, values, min_size=1), st.sampled_from([True, False, None]))
def test_written_yaml_is_read_back(document: dict[str, Any], flow: bool | None) -> None:
    """What PyYAML writes is read back the same."""
    text = yaml.dump(document, Dumper=yaml.CSafeDumper, default_flow_style=flow, allow_unicode=True)
    if not text.startswith("{"):
        assert read(text.encode()).document == document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("0800", "0800"),
        ("1:20", "1:20"),
        ("2001:10:20:30:40:50:1:2", "2001:10:20:30:40:50:1:2"),
        ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00Z"),
        ("0x1f", "0x1f"),
        ("true", True),
        ("80", 80),
        ("-7", -7),
        ("1.5", 1.5),
        ("~", None),
        ("", None),
        ('"80"', "80"),
        ("'true'", "true"),
        ("!!str 80", "80"),
        ("[a, {b: 1}]", ["a", {"b": 1}]),
        ("&x [1, 2]", [1, 2]),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_yaml_values(text: str, value: object) -> None:
    """Only what is plainly a number, a truth or nothing is not text."""
    assert read(f"key: {text}\n".encode()).document == {"key": value}


def test_aliases() -> None:
    """What is marked once may be used again below."""
    text = b"a: &one [{x: 1}]\nb: *one\nc: [*one, &two t, *two]\n1: n\n"
    expected = {"a": [{"x": 1}], "b": [{"x": 1}], "c": [[{"x": 1}], "t", "t"], "1": "n"}
    assert read(text).document == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "the document is empty"),
        (b" \n# only a comment\n", "the document is empty"),
        (b"a: \xe9", "line 1 of the document is not UTF-8"),
        (b"a: 1\nb: [1,\nc: 2", "line 4, column 1 cannot be read as YAML: did not find expected"),
        (b"a: 1\n\tb: 2", "line 2, column 1 cannot be read as YAML: found a tab character"),
        (b"a: 1\n---\nb: 2\n", "line 2, column 1 cannot be read as YAML: a second document begins"),
        (
            b"a: !!python/object:os.system x",
            "the tag tag:yaml.org,2002:python/object:os.system is not accepted",
        ),
        (b"a: *b", "nothing above is marked &b"),
        (b"a: &x [*x]", "nothing above is marked &x"),
        (b"[a]: 1", "a key is plain text"),
        (b"? *a\n: 1", "a key is plain text"),
        (b"a: \x01", "is not YAML"),
        (b"[" * 100_000, "nested too deeply"),
        (b"- " * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": 1,}', "line 1, column 8 is not JSON|line 1, column 9 is not JSON"),
        (b'{"a": 1}\n{"b": 2}', "line 2, column 1 is not JSON: Extra data"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "is not JSON"),
    ],
)
def test_texts_that_are_refused(text: bytes, says: str) -> None:
    """What cannot be read is refused in words that say where and why."""
    with pytest.raises(MalformedError, match=says):
        read(text)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (b"a: 1\nb: 2\na: 3\n", [("/a", 3)]),
        (b'{"a": 1,\n "b": [{"c": 1,\n "c": 2}],\n "a": null}', [("/b/0/c", 3), ("/a", 4)]),
        (b"- x: 1\n- y/z: 1\n  y/z: 1\n", [("/1/y~1z", 3)]),
        (b"a:\na:\n", [("/a", 2)]),
    ],
)
def test_keys_given_twice(text: bytes, faults: list[tuple[str, int]]) -> None:
    """A key that a mapping has twice is named with its place, in YAML and in JSON."""
    with pytest.raises(InvalidError) as caught:
        read(text)
    assert [(e.pointer, e.line) for e in caught.value.errors] == faults
    assert "is given twice" in caught.value.errors[0].detail


def test_a_key_twice_where_no_line_can_be_told() -> None:
    """Half a character written as an escape is JSON but not YAML: the fault is told all the same."""
    with pytest.raises(InvalidError, match='the key "a" is given twice') as caught:
        read(rb'{"a": "\ud800", "a": 1}')
    assert caught.value.errors[0].line is None


def test_lines() -> None:
    """A key is found at its line, an item where it starts, what is missing at what is around it."""
    text = b"# head\nservices:\n- name: a\n  port: 80\n- &b\n  name: b\nlabels: {x/y: 1}\nmore: *b\n"
    source = read(text)

    def lines(*pointers: str) -> list[int | None]:
        return [source.line(p) for p in pointers]

    assert lines("", "/services", "/services/0", "/services/0/port", "/services/1") == [2, 2, 3, 4, 5]
    assert lines("/services/1/port", "/services/7", "/labels/x~1y", "/more/name", "/none") == [5, 2, 7, 8, 2]


def test_lines_of_json() -> None:
    """Lines are told in JSON too, tabs and all."""
    source = read(b'{\n\t"services": [\n\t\t{"name": "a"},\n\t\t{"name":\n\t\t"b"}\n\t]\n}')
    assert [source.line(p) for p in ("/services", "/services/0/name", "/services/1/name")] == [2, 3, 4]

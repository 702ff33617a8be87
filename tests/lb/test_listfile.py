"""Lists of prefixes as text: read in bulk exactly as Prefix.parse reads them line by line."""

import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from model_strategies import QUICK, any_prefixes

import lb.model.listfile
from lb.errors import InvalidError, MalformedError
from lb.model import Prefix
from lb.model.listfile import FAULTS_SHOWN, parse_each, parse_list

FORMS = [
    *("1.2.3.4", "0.0.0.0/0", "255.255.255.255/32", "10.0.0.0/8", "192.0.2.0/024", "1.2.3.4/32", "9.9.9.9/0"),
    *(
        "01.2.3.4",
        "1.2.3.256",
        "1.2.3",
        "1.2.3.4.5",
        "1..3.4",
        ".1.2.3.4",
        "1.2.3.4/",
        "1.2.3.4/33",
        "1.2.3.4/ 8",
    ),
    *(
        "1.2.3.4/99999999999",
        "1.2.3.4//24",
        "10.0.0.0/8/9",
        "1000.2.3.4",
        "1.2.3.0/0000",
        "1.2.3.4/-1",
        "+1.2.3.4",
    ),
    *(
        "2001:db8::/32",
        "2001:db8::1/32",
        "::",
        "::ffff:1.2.3.4",
        "fe80::1%eth0",
        "::1.2.3.4",
        ":",
        "1.2.3.4:80",
    ),
    *(
        "",
        " ",
        "\t",
        "\r",
        "\v",
        "\x85",
        "#",
        ";",
        "# 1.2.3.4",
        "x",
        "é",
        "١.2.3.4",
        "1.2.3.4 5.6.7.8",
        "-",
        "/",
    ),
]
TAILS = [
    "",
    " ",
    "\t",
    "  ",
    "\r",
    " \r",
    "#",
    ";x",
    " # é",
    " ; 9.9.9.9",
    "\t#",
    "\r#",
    " \x0b",
    " x",
    "\xa0",
]
lines = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "", " ", "\t", "\r"]),
        st.sampled_from(FORMS)
        | any_prefixes.map(str)
        | st.lists(st.integers(0, 300), min_size=4, max_size=4).map(lambda n: ".".join(map(str, n)))
        | st.text("0123456789./:# ;\r", max_size=12),
        st.sampled_from(TAILS),
    ),
)


def one_by_one(texts: list[str]) -> tuple[dict[int, list[int | bytes]], list[tuple[int, str]]]:
    """What Prefix.parse makes of each line, comments and blanks passed over: keys, and faults by line."""
    keys: dict[int, list[int | bytes]] = {4: [], 6: []}
    faults = []
    for number, line in enumerate(texts, 1):
        text = re.split("[#;]", line, maxsplit=1)[0].strip()
        if not text:
            continue
        try:
            prefix = Prefix.parse(text)
        except ValueError as error:
            faults.append((number, str(error)))
        else:
            keys[prefix.family].append(
                np.array(prefix.key, "S17").item() if prefix.family == 6 else prefix.key
            )
    return keys, faults


@QUICK
@given(st.lists(lines, max_size=30), st.sampled_from([1, 20, 1 << 20]), st.booleans())
@example(FORMS, 1 << 20, False)
def test_equal_to_line_by_line(texts: list[str], block: int, closed: bool) -> None:
    """The same keys, or the same first faults at the same lines, wherever blocks of bytes may end."""
    texts = [text for line in texts for text in line.split("\n")]
    data = ("\n".join(texts) + "\n" * closed).encode()
    keys, faults = one_by_one(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lb.model.listfile, "_BLOCK", block)
        if faults:
            with pytest.raises(InvalidError) as caught:
                parse_list(data)
            assert [(e.line, e.detail) for e in caught.value.errors] == faults[:FAULTS_SHOWN]
        else:
            found = parse_list(data)
            assert {f: sorted(some.tolist()) for f, some in found.items()} == {
                f: sorted(s) for f, s in keys.items()
            }


@QUICK
@given(st.lists(lines | st.none() | st.integers(), max_size=30), st.sampled_from([1, 1 << 20]))
@example([*FORMS, 7, "\ud800", "1.2.3.4\n5.6.7.8"], 1 << 20)
@example(FORMS[:7], 1 << 20)
@example([], 1 << 20)
def test_each_equal_to_one_by_one(texts: list[object], block: int) -> None:
    """Texts of their own know no comments: each is read, or refused, as Prefix.parse does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lb.model.listfile, "_BLOCK", block)
        parsed = parse_each(texts)
    found = dict(parsed.faults)
    for family, keys in parsed.keys.items():
        for place, key in zip(parsed.places[family].tolist(), keys.tolist(), strict=True):
            assert place not in found
            found[place] = str(Prefix.from_key(key))

    def expected(text: object) -> str:
        try:
            return str(Prefix.parse(text))
        except ValueError as error:
            return str(error)

    assert found == {place: expected(text) for place, text in enumerate(texts)}


def test_a_usual_list() -> None:
    """Comments, blanks, CRLF, a byte order mark, both families and a missing end of line are all taken."""
    data = (
        b"\xef\xbb\xbf# a list\r\n\r\n192.0.2.0/24 ; SBL1\r\n198.51.100.7\r\n; more\r\n"
        b"  2001:db8::/32   # doc\r\n192.0.2.0/24"
    )
    found = parse_list(data)

    assert [str(Prefix.from_key(key)) for key in found[4].tolist()] == [
        "192.0.2.0/24",
        "198.51.100.7/32",
        "192.0.2.0/24",
    ]
    assert [str(Prefix.from_key(key)) for key in found[6].tolist()] == ["2001:db8::/32"]


@pytest.mark.parametrize("data", [b"", b"\n", b"# nothing\n", b"\xef\xbb\xbf"])
def test_an_empty_list(data: bytes) -> None:
    """A list without prefixes has no keys, of either family."""
    assert {f: len(keys) for f, keys in parse_list(data).items()} == {4: 0, 6: 0}


def test_all_or_nothing() -> None:
    """Faults are told by line, with the network that was meant, and only the first of many."""
    with pytest.raises(InvalidError) as caught:
        parse_list(b"192.0.2.0/24\n192.0.2.1/24\n\nx" + b"\ny" * 100)
    errors = caught.value.errors

    assert len(errors) == FAULTS_SHOWN
    assert (errors[0].line, errors[0].pointer) == (2, "")
    assert errors[0].detail == "192.0.2.1/24 has host bits set: the network is 192.0.2.0/24"
    assert errors[1].line == 4


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"192.0.2.1\n\xff\xe9\n", "line 2 of the list is not UTF-8"),
        (b"192.0.2.1\n\n192.0\0.2.1", "line 3 of the list holds a NUL byte"),
        (b"\x1f\x8b\x08\0", "the list is gzip"),
        (b"PK\x03\x04", "the list is a zip archive"),
        ("192.0.2.1".encode("utf-16"), "the list is UTF-16"),
    ],
)
def test_bytes_that_are_no_list(data: bytes, says: str) -> None:
    """What is no UTF-8 text is told from a list with faults."""
    with pytest.raises(MalformedError, match=says):
        parse_list(data)


def test_a_long_list() -> None:
    """Over the border of many blocks no line is lost and line numbers stay right."""
    good = b"".join(b"10.%d.%d.%d/32 ; x\n" % (n >> 16, n >> 8 & 255, n & 255) for n in range(150_000))

    assert (parse_list(good)[4] == (np.arange(150_000, dtype=np.uint64) + (10 << 24)) * 256 + 32).all()
    with pytest.raises(InvalidError) as caught:
        parse_list(good + b"bad\n")
    assert caught.value.errors[0].line == 150_001

"""Every format that a feed may have, and every way in which bytes are no list."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import QUICK, any_prefixes

from lb.errors import FeedError
from lb.feeds.parse import parse
from lb.model import FeedFormat, Prefix

AUTO = FeedFormat.AUTO


def read(data: bytes | str, form: FeedFormat = AUTO) -> list[str]:
    """The prefixes of a feed, sorted."""
    found = parse(data.encode() if isinstance(data, str) else data, form)
    return [str(Prefix.from_key(key)) for keys in found.values() for key in sorted(keys.tolist())]


PLAIN = """\
# a comment
192.0.2.0/24
203.0.113.7\t# and another
198.51.100.0/24 ; SBL1
; and another
// and another
198.51.101.1 // and another
2001:db8::/32

"""
NETSET = """\
#
# firehol_level1
# Maintainer      : somebody, somewhere
#
5.8.37.0/24
1.10.16.0/20
"""
SPAMHAUS = """\
; Spamhaus DROP List 2026/03/02
; Last-Modified: Mon, 02 Mar 2026 10:00:00 GMT
1.10.16.0/20 ; SBL256894
1.19.0.0/16 ; SBL434604
"""
SPAMHAUS_JSON = """\
{"cidr":"1.10.16.0/20","sblid":"SBL256894","rir":"apnic"}
{"cidr":"2001:db8::/32","sblid":"SBL434604","rir":"apnic"}
{"type":"metadata","timestamp":1772445600,"size":98,"records":2,"copyright":"(c) 2026"}
"""
CSV = """\
# first seen, address, port
"first_seen_utc","dst_ip","dst_port","malware"
"2026-03-02 10:00:00","192.0.2.7","443","one, two"
"2026-03-02 10:01:00","2001:db8::1","80","three"
"""
FORMATS = [
    (
        PLAIN,
        FeedFormat.PLAIN,
        ["192.0.2.0/24", "198.51.100.0/24", "198.51.101.1/32", "203.0.113.7/32", "2001:db8::/32"],
    ),
    (NETSET, FeedFormat.NETSET, ["1.10.16.0/20", "5.8.37.0/24"]),
    (SPAMHAUS, FeedFormat.SPAMHAUS_DROP, ["1.10.16.0/20", "1.19.0.0/16"]),
    (SPAMHAUS_JSON, FeedFormat.SPAMHAUS_JSON, ["1.10.16.0/20", "2001:db8::/32"]),
    (CSV, FeedFormat.CSV, ["192.0.2.7/32", "2001:db8::1/128"]),
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(("text", "form", "expected"), FORMATS, ids=[form for _, form, _ in FORMATS])
def test_every_format(text: str, form: FeedFormat, expected: list[str], mark: str, end: str) -> None:
    """Each format is read, told or not, with any line ends, with a byte order mark or without."""
    data = mark + text.replace("\n", end)

    assert read(data, form) == expected
    assert read(data, AUTO) == expected


def test_last_line_needs_no_end() -> None:
    """A last line without its line feed counts."""
    assert read("192.0.2.0/24\n192.0.2.1") == ["192.0.2.0/24", "192.0.2.1/32"]


def test_host_bits_mean_the_network() -> None:
    """Who publishes 192.0.2.7/24 means the network, in every format."""
    for data in (
        "192.0.2.7/24\n2001:db8::1/64",
        "a,192.0.2.7/24\nb,2001:db8::1/64",
        '{"cidr":"192.0.2.7/24"}\n{"cidr":"2001:db8::1/64"}',
    ):
        assert read(data) == ["192.0.2.0/24", "2001:db8::/64"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_columns(delimiter: str) -> None:
    """The first column that holds a prefix counts, whatever divides the columns; one alone will do."""
    rows = [["id", "net", "also"], ["1", "192.0.2.0/24", "192.0.2.9"], ["2", "192.0.2.1", "x"]]

    text = "\n".join(delimiter.join(row) for row in rows)

    assert read(text, FeedFormat.CSV) == ["192.0.2.0/24", "192.0.2.1/32"]
    assert read("address\n192.0.2.1\n", FeedFormat.CSV) == ["192.0.2.1/32"]


@pytest.mark.parametrize("data", ["", "\n\n", "# nothing\n", "; nothing", "// nothing", "\ufeff"])
@pytest.mark.parametrize("form", [AUTO, FeedFormat.PLAIN, FeedFormat.CSV, FeedFormat.SPAMHAUS_DROP])
def test_nothing_in_it(data: str, form: FeedFormat) -> None:
    """Bytes without a prefix are a list without a prefix: what that means is not the parser's business."""
    assert read(data, form) == []


def test_metadata_alone() -> None:
    """JSON lines that say that there is nothing are a list without a prefix."""
    assert read('{"type":"metadata","records":0}') == []


FAULTY: list[tuple[bytes | str, FeedFormat, str]] = [
    ("<!DOCTYPE html><html><body>Too many requests</body></html>", AUTO, "an HTML (or XML) page"),
    ("\n  <html>", FeedFormat.PLAIN, "an HTML (or XML) page"),
    ("\ufeff<?xml version='1.0'?>", FeedFormat.CSV, "an HTML (or XML) page"),
    ("192.0.2.1\n192.0.2.\n", AUTO, 'line 2: "192.0.2." is not an IPv4 or IPv6 prefix'),
    ("192.0.2.1\n192.0.2.1/33\n", AUTO, 'line 2: "192.0.2.1/33" has no valid prefix length'),
    ("192.0.2.1 - 192.0.2.9\n", FeedFormat.NETSET, "line 1"),
    ("(192.0.2.1)", AUTO, "line 1"),
    (b"\n" * 5_000_001, AUTO, "over 5,000,000 lines"),
    ('{"cidr":"192.0.2.1","more":"' + "a" * 20_000 + '"}', AUTO, "a line of over 16,384 characters"),
    (f"192.0.2.1{',' * 20_000}", AUTO, "a line of over 16,384 characters"),
    ("::ffff:192.0.2.1\n", AUTO, "IPv4-mapped"),
    ("Too many requests, try later\n", AUTO, "no column holds a prefix"),
    ("a,192.0.2.1\nb\n", AUTO, "has no column 2"),
    ("a,192.0.2.1\nb,later\n", AUTO, "row 2"),
    ('a,192.0.2.1\nb,"192.0.2.2\n', AUTO, "it is not CSV"),
    ('{"cidr":"192.0.2.0/24"}\n{"cidr":"192.0\n', AUTO, "object 2: it is not JSON"),
    ('{"cidr":"192.0.2.0/24"}\n{"net":"192.0.2.1"}', AUTO, 'object 2: it has no "cidr"'),
    ('{"cidr":"192.0.2.0/24"}\n[1]', AUTO, 'object 2: it has no "cidr"'),
    ('{"cidr":17}', AUTO, "record 1"),
    ('{"cidr":"192.0.2.0/24"}\n{"type":"metadata","records":2}', AUTO, "has 2 records, and has 1"),
    ('{"cidr":"192.0.2.0/24"},{"cidr":"192.0.2.1"}', AUTO, "object 1: it is not JSON"),
    ("[" * 10_000, FeedFormat.SPAMHAUS_JSON, "object 1: it is not JSON"),
    ("192.0.2.1\n".encode("utf-16"), AUTO, "UTF-16"),
    (b"192.0.2.1 # caf\xe9\n", AUTO, "line 1 of the list is not UTF-8"),
    (b"a,192.0.2.1,caf\xe9\n", FeedFormat.CSV, "not UTF-8"),
    (b"192.0.2.1\n\0\0\0", AUTO, "NUL byte"),
    (b"PK\x03\x04", AUTO, "zip archive"),
]


@pytest.mark.parametrize(("data", "form", "words"), FAULTY)
def test_what_is_no_list_is_refused(data: bytes | str, form: FeedFormat, words: str) -> None:
    """Nothing is taken of a feed with a fault, and the first one is named."""
    with pytest.raises(FeedError) as caught:
        read(data, form)

    assert words in str(caught.value)


def test_place_of_a_fault_in_a_long_list() -> None:
    """JSON is read in stretches, and the place of a fault is that in the whole."""
    lines = [json.dumps({"cidr": f"192.0.{n >> 8}.{n & 255}"}) for n in range(1200)]
    assert len(read("\n".join(lines))) == 1200
    lines[1100] = "{"

    with pytest.raises(FeedError, match="object 1101: it is not JSON"):
        read("\n".join(lines))


@QUICK
@given(st.lists(any_prefixes, min_size=1, max_size=20))
def test_formats_agree(prefixes: list[Prefix]) -> None:
    """Whatever the prefixes, each format says the same of them."""
    texts = [str(prefix) for prefix in prefixes]
    expected = sorted(texts)

    for data in (
        "\n".join(texts),
        "\n".join(f"{text} ; SBL" for text in texts),
        "\n".join(f'1,"{text}",x' for text in texts),
        "\n".join(json.dumps({"cidr": text}) for text in texts),
    ):
        assert sorted(read(data)) == expected

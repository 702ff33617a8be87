"""From the bytes of a feed to prefixes: lines, columns, or one JSON object per line. Pure."""

import csv
import json
import re
from collections.abc import Iterator
from ipaddress import ip_network
from itertools import chain
from typing import Any

import numpy as np

from lb.errors import FeedError, InvalidError, MalformedError
from lb.model.columns import FAMILIES, KEY_TYPE, Keys
from lb.model.feed import FeedFormat
from lb.model.listfile import checked_text, parse_each, parse_list
from lb.model.prefix import Prefix

LINES_MAX = 5_000_000
LINE_MAX = 16_384
"""Characters of a line, of CSV and JSON."""
_AT_ONCE = 500
"""Lines of JSON that are read in one go: so many of the longest are a few MB."""
_COMMENTS = ("#", ";", "//")
_DELIMITERS = ",;\t|"
_LOOKED_AT = 65536
"""Bytes of the beginning by which a format is told."""
_LINES = (FeedFormat.PLAIN, FeedFormat.NETSET, FeedFormat.SPAMHAUS_DROP)
_FAULT = "{what}: {says}; nothing of the feed is used until it is fixed"


def parse(data: bytes, form: FeedFormat) -> dict[int, Keys]:
    """The keys of all prefixes, by family (KEY_TYPE): neither sorted nor unique.

    A network written with host bits is taken for the network. FeedError names the first line that is no prefix, or
    says what the bytes are instead of a list.
    """
    start = data[:_LOOKED_AT].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        raise FeedError("it is an HTML (or XML) page, not a list: give the URL of the list itself")
    try:
        told = form is not FeedFormat.AUTO
        form = form if told else _seen(start)
        if data.count(b"\n") > LINES_MAX:
            raise FeedError(f"it has over {LINES_MAX:,} lines, the limit for a feed: give a shorter list")
        if form in _LINES:
            return parse_list(data, loosely)
        lines = _lines(checked_text(data).decode())
    except InvalidError as error:
        fault = error.errors[0]
        raise FeedError(_FAULT.format(what=f"line {fault.line}", says=fault.detail)) from None
    except MalformedError as error:
        raise FeedError(str(error)) from None
    return _columns(lines, told=told) if form is FeedFormat.CSV else _json_lines(lines)


def _seen(start: bytes) -> FeedFormat:
    """The format, by how it begins: a comma in the first line that says something makes it CSV."""
    if start.startswith(b"{"):
        return FeedFormat.SPAMHAUS_JSON
    for line in start.splitlines():
        said = re.split(rb"[#;]|//", line, maxsplit=1)[0].strip()
        if said:
            return FeedFormat.CSV if b"," in said else FeedFormat.PLAIN
    return FeedFormat.PLAIN


def loosely(text: str) -> Prefix | None:
    """A prefix, also with host bits set, for who publishes 192.0.2.7/24 means the network; None for a comment."""
    said = text.partition("//")[0].strip()
    if not said:
        return None
    try:
        return Prefix.parse(said)
    except ValueError as error:
        try:
            network = ip_network(said, strict=False)
        except ValueError:
            raise error from None
        if "/" not in said or not said.rpartition("/")[2].isdigit():
            raise
        return Prefix.parse(str(network))


def _columns(lines: list[str], *, told: bool) -> dict[int, Keys]:
    """The first column that holds a prefix, in the first row that has one; a header may be above it.

    told: that it is CSV; else a header alone may be any sentence with a comma.
    """
    rows = _rows(lines)
    try:
        first = next(rows, None)
        column = None if first is None else _column(first)
        if first is not None and column is None:
            below = next(rows, None)
            column = None if below is None else _column(below)
            first = below if below is not None or told else first
        if first is None:
            return _none()
        if column is None:
            raise FeedError(_FAULT.format(what="the first rows", says="no column holds a prefix"))
        place = column
        texts = [row[place].strip() for row in chain([first], rows)]
    except IndexError:
        raise FeedError(_FAULT.format(what="a row", says=f"it has no column {place + 1}")) from None
    except csv.Error as error:
        raise FeedError(_FAULT.format(what="it is not CSV", says=str(error))) from None
    return _each(texts, "row")


def _lines(text: str) -> list[str]:
    """The lines that are not blank. Long ones are refused: what is made of them takes many times their size."""
    lines = [line for line in text.splitlines() if line and not line.isspace()]
    if max(map(len, lines), default=0) > LINE_MAX:
        raise FeedError(f"it has a line of over {LINE_MAX:,} characters: give a list with one entry a line")
    return lines


def _rows(lines: list[str]) -> Iterator[list[str]]:
    """The rows that are neither blank nor a comment."""
    said = (line for line in lines if not line.lstrip().startswith(_COMMENTS))
    first = next(said, None)
    if first is None:
        return iter(())
    delimiter = max(_DELIMITERS, key=first.count)
    return csv.reader(chain([first], said), delimiter=delimiter, skipinitialspace=True, strict=True)


def _column(row: list[str]) -> int | None:
    for place, cell in enumerate(row):
        try:
            if loosely(cell) is not None:
                return place
        except ValueError:
            continue
    return None


def _json_lines(lines: list[str]) -> dict[int, Keys]:
    """Objects, one a line, with the prefix in "cidr"; one of type "metadata" says how many there are."""
    texts: list[object] = []
    expected = None
    for start in range(0, len(lines), _AT_ONCE):
        for number, item in enumerate(_objects(lines[start : start + _AT_ONCE], start), start + 1):
            if isinstance(item, dict) and "cidr" in item:
                texts.append(item["cidr"])
            elif isinstance(item, dict) and item.get("type") == "metadata":
                expected = item.get("records")
            else:
                raise FeedError(_FAULT.format(what=f"object {number}", says='it has no "cidr"'))
    if isinstance(expected, int) and expected != len(texts):
        raise FeedError(
            f"it says that it has {expected} records, and has {len(texts)}: a part of it is missing"
        )
    return _each(texts, "record")


def _objects(lines: list[str], above: int) -> list[Any]:
    """What each line holds; above: how many lines there were before."""
    try:
        found: list[Any] = json.loads(f"[{','.join(lines)}]")
    except (ValueError, RecursionError):
        found = []
    if len(found) == len(lines):
        return found
    return [_object(number, line) for number, line in enumerate(lines, above + 1)]  # one is broken: which?


def _object(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FeedError(_FAULT.format(what=f"object {number}", says=f"it is not JSON ({error})")) from None


def _each(texts: list[Any], what: str) -> dict[int, Keys]:
    """Many prefixes, each a text of its own."""
    parsed = parse_each(texts)
    odd: dict[int, list[int | bytes]] = {family: [] for family in FAMILIES}
    for place, says in parsed.faults:
        try:
            prefix = loosely(texts[place]) if isinstance(texts[place], str) else None
        except ValueError:
            prefix = None
        if prefix is None:
            raise FeedError(_FAULT.format(what=f"{what} {place + 1}", says=says))
        odd[prefix.family].append(prefix.key)
    return {f: np.concatenate([parsed.keys[f], np.array(odd[f], KEY_TYPE[f])]) for f in FAMILIES}


def _none() -> dict[int, Keys]:
    return {family: np.empty(0, KEY_TYPE[family]) for family in FAMILIES}

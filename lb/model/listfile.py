"""Reads prefixes as text in bulk: a million ordinary IPv4 lines in a fraction of a second.

The ordinary forms a.b.c.d and a.b.c.d/nn are read by numpy over the bytes. Every other line, and every line
that seems wrong, goes to Prefix.parse, so the result is that of Prefix.parse line by line.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lb.errors import FieldError, InvalidError, MalformedError
from lb.model.columns import FAMILIES, KEY_TYPE, Keys, Mask, Positions
from lb.model.prefix import Prefix

FAULTS_SHOWN = 20
"""Faulty lines that are reported before the rest is left unread."""
_BLOCK = 1 << 20
"""Bytes read at a time: numpy's columns of a block stay in the processor's cache."""
_BOM = b"\xef\xbb\xbf"
_COMMENT = re.compile(b"[#;]")
_FOREIGN = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "a zip archive", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_LF, _CR, _TAB, _SPACE, _HASH, _SEMICOLON, _DOT, _SLASH = b"\n\r\t #;./"

Bytes = npt.NDArray[np.uint8]


def _one_of(*marks: int) -> Mask:
    """A table by byte: true for these."""
    table = np.zeros(256, bool)
    table[list(marks)] = True
    return table


_ENDS = _one_of(_LF, _HASH, _SEMICOLON)
_BLANKS = _one_of(_SPACE, _TAB, _CR)


def parse_list(data: bytes, read: Callable[[str], Prefix | None] = Prefix.parse) -> dict[int, Keys]:
    """The keys of a list, one prefix a line, by family (KEY_TYPE): neither sorted nor unique.

    Lines end in LF or CRLF; IPv4 and IPv6 may be mixed; blank lines, and what follows "#" or ";", are passed
    over. InvalidError names the first faulty lines (up to FAULTS_SHOWN); MalformedError: it is no UTF-8 text.
    read: what is made of a line that is out of the ordinary; None passes over it, ValueError says its fault.
    """
    data = checked_text(data)
    found: dict[int, list[Keys]] = {family: [] for family in FAMILIES}
    faults: list[FieldError] = []
    above = 0
    for block in _blocks(data):
        lines = _read(np.frombuffer(block, np.uint8))
        found[4].append(lines.keys[lines.ordinary])
        odd: dict[int, list[int | bytes]] = {family: [] for family in FAMILIES}
        for number in np.flatnonzero(~(lines.ordinary | lines.blank)).tolist():
            line = block[lines.starts[number] : lines.ends[number]]
            text = _COMMENT.split(line, maxsplit=1)[0].decode().strip()
            if not text:
                continue
            try:
                prefix = read(text)
            except ValueError as error:
                faults.append(FieldError("", str(error), above + number + 1))
                if len(faults) == FAULTS_SHOWN:
                    raise InvalidError(faults) from None
            else:
                if prefix is not None:
                    odd[prefix.family].append(prefix.key)
        for family, keys in odd.items():
            found[family].append(np.array(keys, KEY_TYPE[family]))
        above += len(lines.ends)
    if faults:
        raise InvalidError(faults)
    return {f: np.concatenate([np.empty(0, KEY_TYPE[f]), *parts]) for f, parts in found.items()}


@dataclass(frozen=True, slots=True)
class Parsed:
    """What parse_each found: keys by family, the place of each in the texts; faults as (place, sentence)."""

    keys: dict[int, Keys]
    places: dict[int, Positions]
    faults: list[tuple[int, str]]


def parse_each(texts: Sequence[object]) -> Parsed:
    """Many prefixes, each a text of its own: as Prefix.parse would read them one by one."""
    keys: list[Keys] = []
    plain = np.zeros(len(texts), bool)
    joined = _joined(texts)
    if joined is not None:
        blocks = [_read(np.frombuffer(block, np.uint8)) for block in _blocks(joined)]
        keys = [lines.keys[lines.ordinary] for lines in blocks]
        plain = np.concatenate([lines.ordinary for lines in blocks])
    odd: dict[int, list[int | bytes]] = {family: [] for family in FAMILIES}
    places: dict[int, list[int]] = {family: [] for family in FAMILIES}
    faults: list[tuple[int, str]] = []
    for place in np.flatnonzero(~plain).tolist():
        try:
            prefix = Prefix.parse(texts[place])
        except ValueError as error:
            faults.append((place, str(error)))
        else:
            odd[prefix.family].append(prefix.key)
            places[prefix.family].append(place)
    four = np.concatenate([*keys, np.array(odd[4], KEY_TYPE[4])])
    at = np.concatenate([np.flatnonzero(plain), np.array(places[4], np.intp)])
    return Parsed(
        {4: four, 6: np.array(odd[6], KEY_TYPE[6])}, {4: at, 6: np.array(places[6], np.intp)}, faults
    )


def _joined(texts: Sequence[object]) -> bytes | None:
    """The texts as the lines of a list, or None where that would change what one of them says."""
    try:
        lines = "\n".join(texts)  # type: ignore[arg-type]  # what is no text raises, and is read one by one
        data = lines.encode()
    except (TypeError, UnicodeEncodeError):
        return None
    clean = texts and data.count(b"\n") == len(texts) - 1 and not _COMMENT.search(data)
    return data + b"\n" if clean else None


def checked_text(data: bytes) -> bytes:
    """The bytes without a byte order mark, closed by a line feed; MalformedError if they are no text."""
    for magic, kind in _FOREIGN.items():
        if data.startswith(magic):
            raise MalformedError(f"the list is {kind}: send it as plain UTF-8 text, one prefix a line")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MalformedError(
            f"line {line} of the list is not UTF-8: save it as UTF-8, one prefix a line"
        ) from None
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise MalformedError(f"line {line} of the list holds a NUL byte: send plain text, one prefix a line")
    data = data.removeprefix(_BOM)
    return data if data.endswith(b"\n") else data + b"\n"


def _blocks(data: bytes) -> Iterator[bytes]:
    """Stretches of whole lines, of about _BLOCK bytes."""
    start = 0
    while start < len(data):
        stop = data.find(b"\n", start + _BLOCK) + 1 or len(data)
        yield data[start:stop]
        start = stop


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of a block: where each starts and ends, whether it is ordinary, or blank, and its key."""

    starts: Positions
    ends: Positions
    ordinary: Mask
    blank: Mask
    keys: npt.NDArray[np.uint64]


def _read(block: Bytes) -> _Lines:
    """Reads the ordinary lines of a block that ends in a line feed.

    The bytes that are no digits divide the numbers: an ordinary line has dots at its first three such places,
    then perhaps a slash, then what ends it.
    """
    digits = block - np.uint8(48)
    places = np.flatnonzero(digits > 9)
    marks = block[places]
    line_feeds = np.flatnonzero(marks == _LF)
    ends = places[line_feeds]
    starts = np.concatenate([[0], ends[:-1] + 1])
    first = np.concatenate([[0], line_feeds[:-1] + 1])
    blank = (places[first] == starts) & _closes(block, places[first])

    # So that a look past the last place of the last line finds no dot.
    places = np.append(places, [len(block)] * 4)
    marks = np.append(marks, np.full(4, _LF, np.uint8))
    dotted = (marks[first] == _DOT) & (marks[first + 1] == _DOT) & (marks[first + 2] == _DOT)
    lines = np.flatnonzero(dotted)
    mark = first[lines]
    good = np.ones(len(lines), bool)
    network = np.zeros(len(lines), np.uint64)
    begin = starts[lines]
    for part in range(4):
        end = places[mark + part]
        value, well_formed = _number(digits, begin, end)
        octal = (end - begin > 1) & (digits[begin] == 0)  # or so some would read a leading zero
        good &= well_formed & (value <= 255) & ~octal
        network = network << np.uint64(8) | value
        begin = end + 1
    sliced = marks[mark + 3] == _SLASH
    end = places[mark + 3 + sliced]
    length, well_formed = _number(digits, np.minimum(begin, end), end)
    length = np.where(sliced, length, np.uint64(32))
    good &= ~sliced | (well_formed & (length <= 32))
    host_bits = (np.uint64(1) << (np.uint64(32) - np.minimum(length, np.uint64(32)))) - np.uint64(1)
    good &= (network & host_bits == 0) & _closes(block, end)

    ordinary = np.zeros(len(ends), bool)
    ordinary[lines[good]] = True
    keys = np.zeros(len(ends), np.uint64)
    keys[lines] = network << np.uint64(8) | length
    return _Lines(starts, ends, ordinary, blank, keys)


def _number(digits: Bytes, begin: Positions, end: Positions) -> tuple[npt.NDArray[np.uint64], Mask]:
    """The decimal number between two places, and whether it has one to three digits."""
    size = end - begin
    value = digits[end - 1].astype(np.uint64)
    value += np.where(size > 1, digits[end - 2], 0).astype(np.uint64) * np.uint64(10)
    value += np.where(size > 2, digits[end - 3], 0).astype(np.uint64) * np.uint64(100)
    return value, (size >= 1) & (size <= 3)


def _closes(block: Bytes, place: Positions) -> Mask:
    """Whether the text of a line ends there: by a comment or the end of the line, one blank or CR between."""
    after = block[np.minimum(place + 1, len(block) - 1)]
    return _ENDS[block[place]] | (_BLANKS[block[place]] & _ENDS[after])

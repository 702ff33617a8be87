"""Prints documents: as tables for people, as JSON or YAML exactly as the daemon gave them.

Own columns and not rich: a listing may hold a million rows and go to a pipe, where nothing may be cut,
coloured or padded.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import click

from lb.cli.session import Session

Row = Sequence[object]
_STEP = 1000
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_GAP = "  "
_NOTHING = "-"


def emit(session: Session, document: Any, table: Callable[[], Iterable[str]]) -> None:
    """Print a document, unless it is None; for people print the lines that table makes."""
    if session.is_table:
        say(table())
    elif document is not None:
        click.echo(encoded(session.output, document), nl=session.output == "json")


def encoded(output: str, document: Any) -> str:
    """The document as JSON or YAML text."""
    if output == "yaml":
        import yaml

        dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        text: str = yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True)
        return text
    return json.dumps(document, indent=2, ensure_ascii=False)


def say(lines: Iterable[str]) -> None:
    """Lines to standard output, in one write."""
    text = "\n".join(lines)
    if text:
        click.echo(text)


def plural(number: int, noun: str) -> str:
    """How many of a noun, to the last one: 1 packet, 2 packets, 3 entries."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def bold(text: str) -> str:
    """Bold on a terminal (click takes it out elsewhere), plain under NO_COLOR."""
    return text if os.environ.get("NO_COLOR") else click.style(text, bold=True)


def alarming(text: str) -> str:
    """Red on a terminal, plain under NO_COLOR."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg="red", bold=True)


def cell(value: object) -> str:
    """One value as text: a dash for nothing, yes or no, a question mark for a control character."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = _NOTHING if value is None or value == "" else str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def table(header: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """Aligned columns under a header; a column that holds only figures (Figure) is set to the right."""
    body = list(rows)
    cells = [[cell(value) for value in row] for row in body]
    right = [bool(body) and all(isinstance(row[i], Figure) for row in body) for i in range(len(header))]
    widths = [
        max(len(name), *(len(row[i]) for row in cells)) if cells else len(name)
        for i, name in enumerate(header)
    ]

    def line(texts: Sequence[str]) -> str:
        columns = zip(texts, widths, right, strict=True)
        return _GAP.join(t.rjust(w) if r else t.ljust(w) for t, w, r in columns).rstrip()

    return [bold(line([name.upper() for name in header])), *map(line, cells)]


def fields(pairs: Iterable[tuple[str, object]]) -> list[str]:
    """Names and values, one a line, the values aligned."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    return [f"{bold(name.ljust(width))}{_GAP}{cell(value)}" for name, value in listed]


class Figure(str):
    """Text that stands for a number, so that its column is set to the right."""

    __slots__ = ()


def count(number: float, unit: str = "") -> Figure:
    """A number people can read: 999, 1.2 k, 3.4 M; with unit "B": 999 B, 1.2 MB."""
    size, step = float(number), 0
    while round(size, 1 if step else 0) >= _STEP and step < len(_PREFIXES) - 1:
        size, step = size / _STEP, step + 1
    figure = f"{size:.1f}" if step else f"{size:.0f}"
    return Figure(f"{figure} {_PREFIXES[step]}{unit}".rstrip())


def percent(share: float) -> Figure:
    """A share of one as per cent."""
    return Figure(f"{share * 100:.1f} %")


def when(stamp: float | str | None) -> str | None:
    """A time (epoch seconds, or RFC 3339) in the reader's time zone."""
    if stamp is None:
        return None
    moment = datetime.fromisoformat(stamp) if isinstance(stamp, str) else datetime.fromtimestamp(stamp)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """A time span in its two largest units: 45s, 59m 30s, 2h 5m, 3d 4h."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        number, left = divmod(left, size)
        if number or (unit == "s" and not parts):
            parts.append(f"{number}{unit}")
        elif parts:
            break
    return " ".join(parts[:2])

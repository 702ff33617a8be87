"""Prints collections that come in pages, each page as it comes: a million entries need no memory here."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from textwrap import indent
from typing import Any

import click

from lb.cli.output import Row, emit, encoded, say, table
from lb.cli.session import Session

FIRST_PAGE = 500
"""Entries asked for at first, so that the first lines come soon."""
PAGE = 5000
"""Entries asked for after that."""

Page = dict[str, Any]


def print_collection(
    session: Session,
    path: str,
    header: Sequence[str],
    row: Callable[[dict[str, Any]], Row],
    **query: str | None,
) -> None:
    """A whole collection; JSON and YAML are one document, as if the daemon had given all in one page."""
    following = _pages(session, path, query)
    first = next(following)
    if session.is_table:
        say(table(header, map(row, first["items"])))
        for page in following:
            say(table(header, map(row, page["items"]))[1:])
    elif first["next"] is None:
        emit(session, first, list)
    else:
        for text in joined(session.output, first, following):
            click.echo(text, nl=False)


def _pages(session: Session, path: str, query: Mapping[str, str | None]) -> Iterator[Page]:
    limit, after = FIRST_PAGE, None
    while True:
        page: Page = session.client.call(
            "GET", path, query={"limit": limit, "after": after, **query}
        ).document
        yield page
        limit, after = PAGE, page["next"]
        if after is None:
            return


def joined(output: str, first: Page, following: Iterable[Page]) -> Iterator[str]:
    """The text, in parts, of one document whose items are those of all pages."""
    end = {**{key: value for key, value in first.items() if key != "items"}, "next": None}
    if output == "yaml":
        yield encoded(output, {"items": first["items"]})
        for page in following:
            yield encoded(output, page["items"])
        yield encoded(output, end)
        return
    yield '{\n  "items": [\n' + _json_items(first)
    for page in following:
        yield ",\n" + _json_items(page)
    yield "\n  ],\n" + json.dumps(end, indent=2, ensure_ascii=False).removeprefix("{\n") + "\n"


def _json_items(page: Page) -> str:
    return ",\n".join(indent(encoded("json", item), "    ") for item in page["items"])

"""Reads a JSON or YAML document such that a fault can be traced to its line."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

from lb.errors import FieldError, InvalidError, MalformedError
from lb.model import yaml_events


@dataclass(frozen=True)
class Source:
    """A document that was read: dicts, lists, text, numbers, booleans and None; and the text it came from."""

    document: Any
    text: str = field(repr=False)

    def line(self, at: str) -> int | None:
        """The line (from 1) of what a JSON pointer names, or of the nearest part around it."""
        while at and at not in self._lines:
            at = at.rpartition("/")[0]
        return self._lines.get(at)

    @cached_property
    def _lines(self) -> dict[str, int]:
        return _lines_of(self.text)


def read(data: bytes) -> Source:
    """JSON if the first character that is not blank is "{", else YAML.

    MalformedError: it is neither, or not UTF-8, or empty. InvalidError: a key is given twice in one mapping.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MalformedError(f"line {line} of the document is not UTF-8: save it as UTF-8") from None
    source = Source(_from_json(text) if text.lstrip().startswith("{") else yaml_events.load(text), text)
    if source.document is None:
        raise MalformedError("the document is empty: write {} for an empty state")
    return source


def _from_json(text: str) -> Any:
    twice: list[str] = []

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.extend(key for key in found if keys.count(key) > 1)
        return found

    try:
        document = json.loads(text, object_pairs_hook=mapping, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise MalformedError(f"line {error.lineno}, column {error.colno} is not JSON: {error.msg}") from None
    except RecursionError:
        raise MalformedError(yaml_events.TOO_DEEP) from None
    except ValueError as error:  # an integer of thousands of digits
        raise MalformedError(f"the document is not JSON: {error}") from None
    if twice:
        _lines_of(text)  # which knows the places
        raise InvalidError([FieldError("", f'the key "{key}" is given twice') for key in twice])
    return document


def _refuse(constant: str) -> NoReturn:
    raise MalformedError(f"{constant} is not JSON: write a number")


def _lines_of(text: str) -> dict[str, int]:
    """YAML holds JSON, but for halves of characters written as escapes: then no line is known."""
    try:
        return yaml_events.lines(text)
    except MalformedError:
        return {}

"""Changes of the desired state as lines of text: what differs, and what moves."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from lb.cli.output import cell, percent, plural

_SIGNS = {"add": "+", "remove": "-", "change": "~"}
_LISTS = {"allowlist": "allowlist entry", "blocklist": "blocklist entry"}
"""The lists, and what one of each is called."""
_DONE = {"add": "added", "remove": "removed", "change": "changed"}

max_moved_option = click.option(
    "--max-moved",
    metavar="PERCENT",
    help="Refuse if more of any service's ring or live flows would move, such as 5%; --force overrides.",
)


def percent_of(text: str | None) -> str | None:
    """The number that a percentage is; a usage error."""
    if text is None:
        return None
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise click.UsageError(f'--max-moved "{text}" is not a percentage: write a value from 0% to 100%')
    return f"{number:g}"


def said_of(found: Mapping[str, Any]) -> Iterator[str]:
    """A line for each change, and each service of which something moves; warnings go to standard error."""
    for text in found["warnings"]:
        click.echo(f"sluice: warning: {cell(text)}", err=True)
    yield from difference_lines(found)
    for move in found["disruption"]:
        if move["ring_slots_moved"] or move["flows_moved"]:
            yield moving_line(move)


def moving_line(move: Mapping[str, Any]) -> str:
    """What moves of a service."""
    most = "" if move["exact"] else "at most "
    line = (
        f"  {move['service']}: {percent(move['ring_share_moved'])} of the ring moves, "
        f"and {most}{move['flows_moved']} of {move['flows']} live flows"
    )
    return line if move["exact"] else f"{line} ({move['note']})"


def difference_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A line for each change, and one for each kind of which not all are shown."""
    shown: dict[str, int] = {}
    for change in found["changes"]:
        shown[change["kind"]] = shown.get(change["kind"], 0) + 1
        yield f"{_SIGNS[change['op']]} {change['kind']} {change['name']}{_owner(change)}{_detail(change)}"
    for kind, counts in found["counts"].items():
        more = sum(counts.values()) - shown.get(kind, 0)
        if more > 0:
            yield f"  and {more} more of {kind}"


def _owner(change: Mapping[str, Any]) -> str:
    """Whose entry it is, where it is not the operator's: several owners may hold one prefix."""
    if change["kind"] not in _LISTS:
        return ""
    owner = (change["after"] or change["before"] or {}).get("owner")
    return f" ({cell(owner)})" if owner else ""


def _detail(change: Mapping[str, Any]) -> str:
    """What a change makes of what; nothing where a whole thing comes or goes."""
    if change["op"] != "change":
        return ""
    before, after = change["before"], change["after"]
    if not isinstance(after, Mapping):
        return f": {_value(before)} -> {_value(after)}"
    names = dict.fromkeys([*(before or {}), *after])
    was = before or {}
    return ": " + ", ".join(f"{name} {_value(was.get(name))} -> {_value(after.get(name))}" for name in names)


def _value(value: object) -> str:
    """A value as a document has it, on one line; nothing is a dash."""
    if isinstance(value, Mapping | list | bool):
        return json.dumps(value, ensure_ascii=False)
    return cell(value)


def ended(found: Mapping[str, Any], verb: str, *, would: bool) -> str:
    """How many of each kind were (or would be) added, removed and changed; verb: what was done."""
    if found["same"]:
        return "nothing to change"
    parts = [
        f"{plural(number, _LISTS.get(kind, kind))} {_DONE[op]}"
        for kind, counts in found["counts"].items()
        for op, number in counts.items()
        if number
    ]
    return ("would change: " if would else f"{verb}: ") + ", ".join(parts)

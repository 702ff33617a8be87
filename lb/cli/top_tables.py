"""What the tabs of `sluice top` show: rates from two looks at the counters, the highest first. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from lb.cli.output import Figure, cell, count, percent, span, table

Document = Mapping[str, Any]
_TROUBLE = ("unresolved", "unhealthy")
_ACTIONS = {"forwarded": ("TX_", "REDIRECT_"), "dropped": ("DROP_",), "passed": ("PASS_",)}


@dataclass(frozen=True, slots=True)
class Look:
    """The documents of /status and /stats as they were at a time (seconds of a steady clock)."""

    at: float
    status: Document
    stats: Document


@dataclass(frozen=True, slots=True)
class Seen:
    """The last two looks, and who sends the most, as far as they have been had."""

    now: Look | None = None
    before: Look | None = None
    talkers: Document | None = None

    def after(self, look: Look) -> "Seen":
        """With one more look."""
        return Seen(look, self.now, self.talkers)


@dataclass(frozen=True, slots=True)
class Rate:
    """Packets and bits a second; None while they are not known, as after a counter began anew."""

    packets: float | None
    bits: float | None

    @property
    def cells(self) -> tuple[Figure, Figure]:
        """As two columns."""
        return _figure(self.packets), _figure(self.bits)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the screen; is_bad: something is wrong with what it tells of."""

    text: str
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A tab's content: the line over the columns, and a line for each row."""

    header: str
    lines: list[Line] = field(default_factory=list)
    nothing: str = ""
    """What is said where there are no lines."""


def _figure(number: float | None) -> Figure:
    return Figure("-") if number is None else count(number)


def rate_of(seen: Seen, *path: str) -> Rate:
    """How fast the counter goes that is there in /stats."""
    now, before = (None if look is None else _at(look.stats, path) for look in (seen.now, seen.before))
    return _between(seen, now, before)


def _at(document: Document, path: Iterable[str]) -> Document | None:
    """What is there in a document, or None."""
    found: Any = document
    for key in path:
        found = found.get(key, {})
    return found or None


def _between(seen: Seen, now: Document | None, before: Document | None) -> Rate:
    if seen.now is None or seen.before is None or now is None or before is None:
        return Rate(None, None)
    seconds = seen.now.at - seen.before.at
    packets, octets = now["packets"] - before["packets"], now["bytes"] - before["bytes"]
    if seconds <= 0 or packets < 0:
        return Rate(None, None)
    return Rate(packets / seconds, octets * 8 / seconds)


def _view(
    header: tuple[str, ...], rows: Iterable[tuple[Rate, tuple[object, ...], bool]], nothing: str
) -> View:
    ordered = sorted(rows, key=lambda row: -(row[0].packets or 0))
    head, *texts = map(click.unstyle, table(header, (cells for _, cells, _ in ordered)))
    return View(head, [Line(t, bad) for t, (_, _, bad) in zip(texts, ordered, strict=True)], nothing)


def services(seen: Seen) -> View:
    """Each service: where, how many of its backends are active, flows and rates."""
    rows = []
    for service in seen.now.status["services"] if seen.now else ():
        name = service["name"]
        rate = rate_of(seen, "services", name)
        active = sum(b["effective_state"] == "active" for b in service["backends"])
        where = " ".join(str(service[key]) for key in ("protocol", "vip", "port") if service[key] is not None)
        cells = (
            name,
            where,
            f"{active}/{len(service['backends'])} active",
            count(service["flows"]),
            *rate.cells,
        )
        rows.append((rate, cells, active == 0))
    return _view(("service", "address", "backends", "flows", "packets/s", "bits/s"), rows, "no services")


def backends(seen: Seen) -> View:
    """Each backend of each service."""
    rows = []
    for service in seen.now.status["services"] if seen.now else ():
        for backend in service["backends"]:
            at = (service["name"], backend["address"])
            rate = rate_of(seen, "backends", *at)
            state = backend["effective_state"]
            cells = (
                *at[::-1],
                state,
                backend["health"],
                backend["weight"],
                count(backend["flows"]),
                *rate.cells,
            )
            rows.append((rate, cells, state in _TROUBLE))
    return _view(
        ("backend", "service", "state", "health", "weight", "flows", "packets/s", "bits/s"),
        rows,
        "no backends",
    )


def drops(seen: Seen) -> View:
    """Each reason for which something has been dropped, and how much of all drops it is now."""
    found = []
    for name, tally in seen.now.stats["verdicts"].items() if seen.now else ():
        if name.startswith("DROP_") and tally["packets"]:
            rate = rate_of(seen, "verdicts", name)
            found.append((name, tally, rate))
    whole = sum(rate.packets or 0 for _, _, rate in found)
    rows = [
        (
            rate,
            (
                name,
                *rate.cells,
                percent((rate.packets or 0) / whole if whole else 0),
                count(tally["packets"]),
            ),
            False,
        )
        for name, tally, rate in found
    ]
    return _view(("reason", "packets/s", "bits/s", "share", "in all"), rows, "nothing has been dropped")


def summary(seen: Seen, wall: float) -> list[str]:
    """The two lines at the top: how the daemon is, and what goes through it. wall: seconds since the epoch."""
    if seen.now is None:
        return ["Sluice", ""]
    status = seen.now.status
    interfaces = ", ".join(
        f"{i['name']} {i['xdp_mode'] if i['attached'] else 'not attached'}" for i in status["interfaces"]
    )
    state = "ready" if status["ready"] else "NOT READY"
    sums = {action: _sum(seen, prefixes) for action, prefixes in _ACTIONS.items()}
    flows = next((t for t in status["tables"] if t["name"] == "flows"), {"entries": 0, "capacity": 0})
    rates = ", ".join(f"{name} {_figure(rate.packets)}" for name, rate in sums.items())
    up = span(wall - status["started_at"])
    return [
        f"Sluice {cell(status['version'])}: {state}, revision {status['revision']}, up {up}, {cell(interfaces)}",
        f"packets/s: {rates}; flows {count(flows['entries'])} of {count(flows['capacity'])}",
    ]


def _sum(seen: Seen, prefixes: tuple[str, ...]) -> Rate:
    now, before = (None if look is None else _total(look.stats, prefixes) for look in (seen.now, seen.before))
    return _between(seen, now, before)


def _total(stats: Document, prefixes: tuple[str, ...]) -> Document:
    some = [tally for name, tally in stats["verdicts"].items() if name.startswith(prefixes)]
    return {key: sum(tally[key] for tally in some) for key in ("packets", "bytes")}

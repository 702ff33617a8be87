"""The decisions stream of a CrowdSec local API: bans that come with a duration, and bans that are taken back. Pure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np
from pydantic_core import from_json

from lb.errors import FeedError
from lb.feeds.parse import loosely
from lb.model import Feed, Prefix
from lb.model.columns import FAMILIES, KEY_TYPE, Keys
from lb.model.entry_input import REASON_MAX
from lb.model.layers import Attributes, Layer
from lb.model.times import SECONDS_MAX

STREAM = "/v1/decisions/stream"
ANSWER_MAX = 64 << 20
"""Bytes; an answer for a hundred thousand decisions has half of that."""
TTL_JITTER = 0.05
"""Share by which an entry may stay longer than its decision says, so that not all of a list end in one moment."""
_SLACK_SECONDS = 2.0
"""What rounding, and the way of an answer, may make of a deadline that is meant to be the same."""
_SCOPES = frozenset({"ip", "range"})
_DURATION = re.compile(r"(-?)((?:[0-9]+(?:\.[0-9]*)?(?:h|m|s|ms|us|µs|μs|ns))+)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True, slots=True)
class Decision:
    """A ban: for how many seconds from now, and what it was given for."""

    seconds: float
    scenario: str


@dataclass(slots=True)
class Decisions:
    """One answer of the stream. passed_over: decisions that are no bans of addresses (captchas, countries)."""

    new: dict[Prefix, Decision] = field(default_factory=dict)
    deleted: set[Prefix] = field(default_factory=set)
    passed_over: int = 0

    def new_keys(self) -> dict[int, Keys]:
        """The keys of what is new, by family."""
        return {
            family: np.array([p.key for p in self.new if p.family == family], KEY_TYPE[family])
            for family in FAMILIES
        }


def stream_url(url: str, *, startup: bool) -> str:
    """The URL of the stream, from that of the API or of the stream itself; startup asks for all decisions."""
    parts = urlsplit(url)
    path = parts.path if parts.path.endswith(STREAM) else parts.path.rstrip("/") + STREAM
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "startup"]
    query.append(("startup", "true" if startup else "false"))
    return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query), ""))


def parse_decisions(data: bytes) -> Decisions:
    """What an answer says; FeedError if it is none."""
    if len(data) > ANSWER_MAX:
        raise FeedError(
            f"the answer is over {ANSWER_MAX >> 20} MiB: ask for less by the URL's query (scopes, origins)"
        )
    try:
        document = from_json(data)
    except ValueError as error:
        raise FeedError(
            f"the answer is not JSON ({error}): check that the URL is a CrowdSec local API's"
        ) from None
    if not isinstance(document, dict) or not {"new", "deleted"} <= document.keys():
        raise FeedError("the answer is not a decisions stream: check that the URL is a CrowdSec local API's")
    found = Decisions()
    for item in _items(document, "deleted"):
        if (prefix := _prefix(item)) is not None:
            found.deleted.add(prefix)
    for item in _items(document, "new"):
        prefix, seconds = _prefix(item), parse_go_duration(item.get("duration"))
        if prefix is None or seconds <= 0:
            found.passed_over += 1
            continue
        known = found.new.get(prefix)
        if known is None or known.seconds < seconds:
            found.new[prefix] = Decision(min(seconds, SECONDS_MAX), str(item.get("scenario") or ""))
    return found


def _items(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = document[key] or []  # null where there are none
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise FeedError(f'"{key}" of the answer is not a list of decisions: check the URL')
    return items


def _prefix(item: Mapping[str, Any]) -> Prefix | None:
    """What a decision is about, None if it is no ban of an address or range."""
    if str(item.get("scope", "")).lower() not in _SCOPES or str(item.get("type", "")).lower() != "ban":
        return None
    value = item.get("value")
    try:
        prefix = loosely(value) if isinstance(value, str) else None
    except ValueError as error:
        raise FeedError(f"a decision is faulty: {error}") from None
    if prefix is None:
        raise FeedError("a decision has no value: check that the URL is a CrowdSec local API's")
    return prefix


def parse_go_duration(text: object) -> float:
    """Seconds, from Go's way to write a duration ("3h59m57.5s", "-1m0s"); FeedError."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise FeedError(f'a decision has the duration "{str(text)[:40]}": write one such as 3h59m')
    parts = re.findall(r"([0-9.]+)([a-zµμ]+)", match[2])
    seconds = math.fsum(float(number) * _UNITS[unit] for number, unit in parts)
    return -seconds if match[1] else seconds


def applied(have: Layer, decisions: Decisions, feed: Feed, now: float, *, whole: bool) -> Layer:
    """The layer as an answer wants it. whole: the answer has all decisions there are.

    An entry whose end is about the same keeps its end and its creation time.
    """
    entries: list[tuple[Prefix, Attributes]] = []
    for prefix, decision in decisions.new.items():
        present = have.get(prefix)
        if present is not None and _is_kept(present, decision, feed, now):
            entries.append((prefix, present))
        else:
            entries.append((prefix, _attributes(prefix, decision, feed, now, present)))
    if whole:
        return Layer.of(entries)
    return have.without(decisions.deleted).with_entries(entries)


def _is_kept(present: Attributes, decision: Decision, feed: Feed, now: float) -> bool:
    if (present.action, present.reason) != (
        feed.action,
        _reason(feed, decision),
    ) or present.expires_at is None:
        return False
    left = present.expires_at - now
    return decision.seconds - _SLACK_SECONDS <= left <= decision.seconds * (1 + TTL_JITTER) + _SLACK_SECONDS


def _attributes(
    prefix: Prefix, decision: Decision, feed: Feed, now: float, present: Attributes | None
) -> Attributes:
    # By chance, but the same chance for a prefix each time.
    draw = int.from_bytes(blake2b(str(prefix).encode(), digest_size=2).digest(), "big") / 0xFFFF
    return Attributes(
        action=feed.action,
        reason=_reason(feed, decision),
        created_at=round(now, 3) if present is None else present.created_at,
        expires_at=float(math.ceil(now + decision.seconds * (1 + TTL_JITTER * draw))),
    )


def _reason(feed: Feed, decision: Decision) -> str:
    shown = "".join(c for c in decision.scenario if c.isprintable())
    return feed.reason or shown[:REASON_MAX]

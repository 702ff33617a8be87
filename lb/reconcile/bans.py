"""Sources over the limit of a rule that bans: gathered in batches and turned into entries."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lb.dataplane.tables import Array
from lb.events import Events
from lb.model import Config, Limit, Prefix, Rule
from lb.model.layers import Attributes
from lb.model.owner import RULE_PREFIX
from lb.model.prefix import BITS

log = logging.getLogger("sluice.bans")

Ban = tuple[int, bytes, int]
"""Family, packed source, number of the rule."""
WAITING_MOST = 10_000
"""Sources that wait to be banned; one that finds no room is reported again while it is over its limit."""
PAUSE_SECONDS = 1.0
"""Between two batches: each is a revision."""


class Banner:
    """Hands bans over in batches, each source once, a batch a second at most, from a thread of its own."""

    def __init__(self, on_bans: Callable[[list[Ban]], None]) -> None:
        self._on_bans = on_bans
        self._waiting: dict[Ban, None] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, rows: Array) -> None:
        """Records of SAMPLE_BAN, shape (N,)."""
        if not len(rows):
            return
        with self._changed:
            for ban in _bans_of(rows):
                if len(self._waiting) < WAITING_MOST:
                    self._waiting[ban] = None
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._hand_over, name="bans", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread; what waits is let go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join()

    def _hand_over(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                bans, self._waiting = list(self._waiting), {}
            try:
                self._on_bans(bans)
            except Exception:  # the next batch may fare better
                log.exception("%d sources could not be banned", len(bans))
            with self._changed:
                self._changed.wait_for(lambda: self._closed, PAUSE_SECONDS)


def _bans_of(rows: Array) -> Iterator[Ban]:
    for family, source, rule in zip(
        rows["family"].tolist(), rows["source"], rows["rule"].tolist(), strict=True
    ):
        if family in (4, 6):
            yield family, source.tobytes()[: 4 if family == 4 else 16], rule


@dataclass(frozen=True, slots=True)
class Banned:
    """An entry to be: in the layer of its rule."""

    prefix: Prefix
    rule: str
    attributes: Attributes


def bans_wanted(config: Config) -> bool:
    """Whether a rule bans."""
    return any(rule.bans for rule in config.rules.values())


def entries_of(
    bans: Iterable[Ban],
    rules: Mapping[int, Rule],
    config: Config,
    now: float,
    in_use: Sequence[Prefix] = (),
) -> list[Banned]:
    """The entries that bans become, each prefix once a rule.

    Left out: a rule that bans no longer, what its layer blocks already, what the allowlist lets in whole, and what
    touches what is in use: nobody is there to say that it may be locked out.
    """
    used = _InUse(in_use)
    found: dict[tuple[str, Prefix], Banned] = {}
    for family, source, number in bans:
        rule = rules.get(number)
        if rule is None or rule.limit is None or not rule.ban_seconds:
            continue
        prefix = _prefix_of(family, source, rule.limit)
        held = config.blocklist.layer(RULE_PREFIX + rule.name).get(prefix)
        if held is not None and held.is_active(now):
            continue
        if next(config.allowlist.covering(prefix, now), None) is not None:
            continue
        if used.touches(prefix):
            continue
        created_at = round(now, 3)
        said = Attributes(
            reason=f"over the limit of rule {rule.name}",
            created_at=created_at,
            ttl_seconds=rule.ban_seconds,
            expires_at=created_at + rule.ban_seconds,
        )
        found[rule.name, prefix] = Banned(prefix, rule.name, said)
    return list(found.values())


class _InUse:
    """Prefixes that are in use, for many questions: each is asked with the writer's lock held."""

    def __init__(self, used: Sequence[Prefix]) -> None:
        self._used = used
        self._cut: dict[tuple[int, int], tuple[set[tuple[int, int]], set[int]]] = {}

    def touches(self, prefix: Prefix) -> bool:
        """Whether one of them lies in a prefix, or holds it."""
        family, longest = prefix.family, prefix.length
        known = self._cut.get((family, longest))
        if known is None:
            cut = {_cut(used, min(used.length, longest)) for used in self._used if used.family == family}
            known = self._cut[family, longest] = cut, {length for _, length in cut}
        networks, lengths = known
        return any(_cut(prefix, length) in networks for length in lengths)


def _cut(prefix: Prefix, length: int) -> tuple[int, int]:
    """The network of a prefix's first bits, and how many they are."""
    left_out = BITS[prefix.family] - length
    return prefix.network >> left_out << left_out, length


def _prefix_of(family: int, source: bytes, limit: Limit) -> Prefix:
    length = limit.ipv4_length if family == 4 else limit.ipv6_length
    left_out = BITS[family] - length
    return Prefix(family, int.from_bytes(source, "big") >> left_out << left_out, length)


def with_bans(config: Config, banned: Iterable[Banned]) -> Config:
    """The config with these entries, each in its rule's layer."""
    by_rule: dict[str, list[tuple[Prefix, Attributes]]] = {}
    for each in banned:
        by_rule.setdefault(RULE_PREFIX + each.rule, []).append((each.prefix, each.attributes))
    blocklist = config.blocklist
    for owner, entries in by_rule.items():
        blocklist = blocklist.with_layer(owner, blocklist.layer(owner).with_entries(entries))
    return replace(config, blocklist=blocklist)


def tell_bans(events: Events, banned: Iterable[Banned], revision: int) -> None:
    """An event for each."""
    for each in banned:
        seconds = each.attributes.ttl_seconds
        events.publish(
            "entry.banned",
            f"{each.prefix} is blocked for {seconds} s: {each.attributes.reason}",
            prefix=str(each.prefix),
            rule=each.rule,
            owner=RULE_PREFIX + each.rule,
            ttl_seconds=seconds,
            revision=revision,
        )

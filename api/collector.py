"""Observed state as metrics: read from the reconciler at each scrape; nothing is kept."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from api.metrics import (
    ATTACHED,
    BACKEND_BYTES,
    BACKEND_FLOWS,
    BACKEND_PACKETS,
    BACKEND_UP,
    BACKEND_WEIGHT,
    BUILD_INFO,
    FEED_BYTES,
    FEED_ENTRIES,
    FEED_FAILING,
    FEED_PACKETS,
    FEED_SUCCESS,
    FLOW_EVICTIONS,
    FLOW_HITS,
    FLOW_MISSES,
    FLOW_UNTRACKED,
    GUARD_FLOWS,
    HEALTH_DURATION,
    HEALTH_MISSED,
    HEALTH_TRANSITIONS,
    NAT_CAPACITY,
    NAT_ENTRIES,
    NAT_FLOWS,
    NAT_REFUSED,
    OWNER_BYTES,
    OWNER_PACKETS,
    QUIC_PACKETS,
    READY,
    REVISION,
    RULE_BYTES,
    RULE_PACKETS,
    SERVICE_BYTES,
    SERVICE_FLOWS,
    SERVICE_PACKETS,
    STARTED,
    TABLE_CAPACITY,
    TABLE_ENTRIES,
    UNDER_ATTACK,
    VERDICT_BYTES,
    VERDICT_PACKETS,
)
from api.observations import Observations
from lb.feeds.schedule import Feeds
from lb.health.checker import Checker
from lb.reconcile.loop import Reconciler
from lb.reconcile.observed import Counters, NatStats, Status, Tally

# When each counter began would be a series more of each: sluice_start_time_seconds says it.
disable_created_metrics()  # type: ignore[no-untyped-call]

_UP = frozenset({"active", "draining"})
"""Effective states in which a backend gets packets."""
_GUARD_RESULTS = ("known", "tested", "proven", "refused")
_NAT_EVENTS = ("opened", "reopened", "taken_over", "raced", "ended", "ended_early")


class SluiceCollector(Collector):
    """Reads everything anew at each scrape; keeps nothing."""

    def __init__(
        self, reconciler: Reconciler, observations: Observations, feeds: Feeds, checker: Checker
    ) -> None:
        self._reconciler, self._observations = reconciler, observations
        self._feeds, self._checker = feeds, checker

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        status, counters = self._reconciler.status(), self._reconciler.counters()
        actions = {v.name: v.action for v in self._reconciler.verdicts()}
        yield from _of_daemon(status)
        yield from _of_services(status, counters)
        yield from _of_packets(counters, actions)
        yield from _of_nat(status, counters.nat)
        yield from _of_rules(counters)
        yield from self._of_feeds(counters)
        yield from _of_health(self._checker)
        yield from self._observations.families()

    def _of_feeds(self, counters: Counters) -> Iterator[Metric]:
        config, now = self._reconciler.desired.config, self._reconciler.now()
        names = {name: feed.owner for name, feed in config.feeds.items()}
        states = {name: self._feeds.state(name) for name in names}
        hits = {name: counters.owners.get(owner, Tally()) for name, owner in names.items()}
        layers = config.blocklist.layers
        yield FEED_ENTRIES.family(
            ((name,), layers[owner].count(now) if owner in layers else 0) for name, owner in names.items()
        )
        yield FEED_PACKETS.family(((name,), tally.packets) for name, tally in hits.items())
        yield FEED_BYTES.family(((name,), tally.bytes) for name, tally in hits.items())
        yield FEED_SUCCESS.family(((name,), state.last_success_at or 0) for name, state in states.items())
        yield FEED_FAILING.family(((name,), state.failures) for name, state in states.items())


def _of_daemon(status: Status) -> Iterator[Metric]:
    yield BUILD_INFO.family([((status.version,), 1)])
    yield READY.family([((), status.ready)])
    yield STARTED.family([((), status.started_at)])
    yield REVISION.family([((), status.revision)])
    yield ATTACHED.family(((i.name,), i.attached) for i in status.interfaces)
    yield TABLE_ENTRIES.family(((t.name,), t.entries) for t in status.tables)
    yield TABLE_CAPACITY.family(((t.name,), t.capacity) for t in status.tables)


def _of_services(status: Status, counters: Counters) -> Iterator[Metric]:
    backends = [((s.name, b.address), b) for s in status.services for b in s.backends]
    yield SERVICE_PACKETS.family(((name,), t.packets) for name, t in counters.services.items())
    yield SERVICE_BYTES.family(((name,), t.bytes) for name, t in counters.services.items())
    yield SERVICE_FLOWS.family(((s.name,), s.flows) for s in status.services)
    yield UNDER_ATTACK.family(
        ((s.name,), s.flood_protection.under_attack) for s in status.services if s.flood_protection
    )
    yield GUARD_FLOWS.family(
        ((name, result), getattr(stats, result))
        for name, stats in counters.flood_protection.items()
        for result in _GUARD_RESULTS
    )
    yield BACKEND_PACKETS.family((key, t.packets) for key, t in counters.backends.items())
    yield BACKEND_BYTES.family((key, t.bytes) for key, t in counters.backends.items())
    yield BACKEND_UP.family(
        (key, b.effective_state in _UP and b.health != "unhealthy") for key, b in backends
    )
    yield BACKEND_WEIGHT.family((key, b.weight) for key, b in backends)
    yield BACKEND_FLOWS.family((key, b.flows) for key, b in backends)


def _of_health(checker: Checker) -> Iterator[Metric]:
    wanted = HEALTH_DURATION
    durations = HistogramMetricFamily(wanted.name, wanted.help, labels=wanted.labels)
    for name, histogram in checker.book.durations().items():
        durations.add_metric((name,), histogram.cumulative(), histogram.total)
    yield durations
    yield HEALTH_TRANSITIONS.family(checker.book.transitions.copy().items())
    yield HEALTH_MISSED.family([((), checker.missed)])


def _of_packets(counters: Counters, actions: dict[str, str]) -> Iterator[Metric]:
    verdicts = [((name, actions.get(name, "")), t) for name, t in counters.verdicts.items()]
    yield VERDICT_PACKETS.family((labels, t.packets) for labels, t in verdicts)
    yield VERDICT_BYTES.family((labels, t.bytes) for labels, t in verdicts)
    yield OWNER_PACKETS.family(((owner,), t.packets) for owner, t in counters.owners.items())
    yield OWNER_BYTES.family(((owner,), t.bytes) for owner, t in counters.owners.items())
    flows = counters.flow_table
    yield FLOW_HITS.family([((), flows.hits)])
    yield FLOW_MISSES.family([((), flows.misses)])
    yield FLOW_EVICTIONS.family([((), flows.evictions)])
    yield FLOW_UNTRACKED.family([((), flows.untracked)])
    quic = counters.quic
    by_id = {"known": quic.by_id, "unknown": quic.unknown, "none": quic.without}
    yield QUIC_PACKETS.family(((kind,), packets) for kind, packets in by_id.items())


def _of_nat(status: Status, nat: NatStats) -> Iterator[Metric]:
    tables = {t.name.removeprefix("nat_"): t for t in status.tables if t.name.startswith("nat_")}
    yield NAT_ENTRIES.family(((kind,), t.entries) for kind, t in tables.items())
    yield NAT_CAPACITY.family(((kind,), t.capacity) for kind, t in tables.items())
    yield NAT_REFUSED.family(((kind,), count) for kind, count in asdict(nat.no_port).items())
    yield NAT_FLOWS.family(((event,), getattr(nat, event)) for event in _NAT_EVENTS)


def _of_rules(counters: Counters) -> Iterator[Metric]:
    rules = counters.rules.items()
    matched = [((name, "matched"), t.packets, t.bytes) for name, t in rules]
    dropped = [((name, "dropped"), t.dropped_packets, t.dropped_bytes) for name, t in rules]
    yield RULE_PACKETS.family((labels, packets) for labels, packets, _ in (*matched, *dropped))
    yield RULE_BYTES.family((labels, octets) for labels, _, octets in (*matched, *dropped))


def registry_of(
    reconciler: Reconciler, observations: Observations, feeds: Feeds, checker: Checker
) -> CollectorRegistry:
    """A registry with nothing else in it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SluiceCollector(reconciler, observations, feeds, checker))
    return registry

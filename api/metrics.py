"""The metrics: one list of definitions, and a collector that reads the reconciler when it is scraped.

No label ever holds a client's address: series must stay few, and scrapes are kept by others for long.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.envelope import RequestCounts
from lb.feeds.schedule import Feeds
from lb.reconcile.loop import Reconciler
from lb.reconcile.observed import Counters, Status, Tally

Sample = tuple[Sequence[str], float]
COUNTER, GAUGE = CounterMetricFamily, GaugeMetricFamily


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric: its name (a counter's without _total, which the exposition adds), help and labels."""

    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    help: str
    labels: tuple[str, ...] = ()

    def family(self, samples: Iterable[Sample]) -> Metric:
        """The metric with its samples: label values in the order of `labels`, and a number."""
        family = self.kind(self.name, self.help, labels=self.labels)
        for values, number in samples:
            family.add_metric(values, number)
        return family


_BACKEND = ("service", "backend")

BUILD_INFO = Definition(GAUGE, "sluice_build_info", "Always 1; the version is a label.", ("version",))
READY = Definition(
    GAUGE, "sluice_ready", "1 while the data plane is attached and in step with the desired state."
)
STARTED = Definition(GAUGE, "sluice_start_time_seconds", "When the daemon started, seconds since the epoch.")
REVISION = Definition(GAUGE, "sluice_config_revision", "Revision of the desired state in force.")
APPLY_SECONDS = Definition(
    GAUGE, "sluice_config_apply_duration_seconds", "How long the last change took from plan to maps."
)
ATTACHED = Definition(
    GAUGE, "sluice_interface_attached", "1 while the program is on the interface.", ("interface",)
)
SERVICE_PACKETS = Definition(
    COUNTER, "sluice_service_packets", "Packets that came for a service.", ("service",)
)
SERVICE_BYTES = Definition(
    COUNTER, "sluice_service_bytes", "Bytes of frames that came for a service.", ("service",)
)
SERVICE_FLOWS = Definition(
    GAUGE, "sluice_service_flows", "Flows of a service in the flow table.", ("service",)
)
BACKEND_PACKETS = Definition(COUNTER, "sluice_backend_packets", "Packets sent to a backend.", _BACKEND)
BACKEND_BYTES = Definition(
    COUNTER, "sluice_backend_bytes", "Bytes of frames sent to a backend, as received.", _BACKEND
)
BACKEND_UP = Definition(
    GAUGE, "sluice_backend_up", "1 if packets can be and are sent to the backend.", _BACKEND
)
BACKEND_WEIGHT = Definition(GAUGE, "sluice_backend_weight", "Weight the operator gave the backend.", _BACKEND)
BACKEND_FLOWS = Definition(
    GAUGE, "sluice_backend_flows", "Flows that the backend holds in the flow table.", _BACKEND
)
VERDICT_PACKETS = Definition(
    COUNTER, "sluice_verdict_packets", "Packets by what became of them.", ("verdict", "action")
)
VERDICT_BYTES = Definition(
    COUNTER, "sluice_verdict_bytes", "Bytes of frames by what became of them.", ("verdict", "action")
)
OWNER_PACKETS = Definition(
    COUNTER,
    "sluice_blocklist_packets",
    'Packets that an owner\'s entries decided: "operator" or "feed:NAME".',
    ("owner",),
)
OWNER_BYTES = Definition(
    COUNTER, "sluice_blocklist_bytes", "Bytes of frames that an owner's entries decided.", ("owner",)
)
TABLE_ENTRIES = Definition(GAUGE, "sluice_table_entries", "Entries in a table of the data plane.", ("table",))
TABLE_CAPACITY = Definition(GAUGE, "sluice_table_capacity", "Entries that a table can hold.", ("table",))
FLOW_HITS = Definition(COUNTER, "sluice_flow_table_hits", "Packets whose flow was known.")
FLOW_MISSES = Definition(
    COUNTER, "sluice_flow_table_misses", "Packets whose flow was new: the ring chose the backend."
)
FLOW_EVICTIONS = Definition(
    COUNTER, "sluice_flow_table_evictions", "Flows put out to make room for newer ones."
)
FLOW_UNTRACKED = Definition(
    COUNTER, "sluice_flow_table_untracked", "Packets of new flows that found no room."
)
QUIC_PACKETS = Definition(
    COUNTER,
    "sluice_quic_packets",
    "Packets of services with quic, by whether their connection id names a backend: known, unknown or none.",
    ("id",),
)
RULE_PACKETS = Definition(
    COUNTER,
    "sluice_rule_packets",
    "Packets that a rule matched, and those of them it dropped (in count-only mode: would have).",
    ("rule", "result"),
)
RULE_BYTES = Definition(COUNTER, "sluice_rule_bytes", "Bytes of frames, likewise.", ("rule", "result"))
UNDER_ATTACK = Definition(
    GAUGE,
    "sluice_service_under_attack",
    "1 while a service with flood protection is under attack, 0 in peace.",
    ("service",),
)
GUARD_FLOWS = Definition(
    COUNTER,
    "sluice_guard_new_flows",
    "New flows of a service under attack: known, tested, proven or refused.",
    ("service", "result"),
)
FEED_ENTRIES = Definition(GAUGE, "sluice_feed_entries", "Prefixes of a feed on the blocklist.", ("feed",))
FEED_PACKETS = Definition(COUNTER, "sluice_feed_packets", "Packets that a feed's entries decided.", ("feed",))
FEED_BYTES = Definition(
    COUNTER, "sluice_feed_bytes", "Bytes of frames that a feed's entries decided.", ("feed",)
)
FEED_SUCCESS = Definition(
    GAUGE,
    "sluice_feed_last_success_timestamp_seconds",
    "When a feed was last had, changed or not; 0 if never.",
    ("feed",),
)
FEED_FAILING = Definition(
    GAUGE, "sluice_feed_failures", "Attempts to refresh a feed that failed since the last success.", ("feed",)
)
API_REQUESTS = Definition(
    COUNTER, "sluice_api_requests", "API requests answered, by route template.", ("method", "route", "status")
)

_UP = frozenset({"active", "draining"})
"""Effective states in which a backend gets packets."""
_GUARD_RESULTS = ("known", "tested", "proven", "refused")


class SluiceCollector(Collector):
    """Reads everything anew at each scrape; keeps nothing."""

    def __init__(self, reconciler: Reconciler, requests: RequestCounts, feeds: Feeds) -> None:
        self._reconciler, self._requests, self._feeds = reconciler, requests, feeds

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        status, counters = self._reconciler.status(), self._reconciler.counters()
        actions = {v.name: v.action for v in self._reconciler.verdicts()}
        yield from _of_daemon(status)
        yield APPLY_SECONDS.family([((), self._reconciler.apply_seconds)])
        yield from _of_services(status, counters)
        yield from _of_packets(counters, actions)
        yield from _of_rules(counters)
        yield from self._of_feeds(counters)
        yield API_REQUESTS.family(
            ((r.method, r.route, str(r.status)), count) for r, count in self._requests.copy().items()
        )

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
    yield BACKEND_UP.family((key, b.effective_state in _UP) for key, b in backends)
    yield BACKEND_WEIGHT.family((key, b.weight) for key, b in backends)
    yield BACKEND_FLOWS.family((key, b.flows) for key, b in backends)


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


def _of_rules(counters: Counters) -> Iterator[Metric]:
    rules = counters.rules.items()
    matched = [((name, "matched"), t.packets, t.bytes) for name, t in rules]
    dropped = [((name, "dropped"), t.dropped_packets, t.dropped_bytes) for name, t in rules]
    yield RULE_PACKETS.family((labels, packets) for labels, packets, _ in (*matched, *dropped))
    yield RULE_BYTES.family((labels, octets) for labels, _, octets in (*matched, *dropped))


def registry_of(reconciler: Reconciler, requests: RequestCounts, feeds: Feeds) -> CollectorRegistry:
    """A registry with nothing else in it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SluiceCollector(reconciler, requests, feeds))
    return registry

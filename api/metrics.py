"""The metrics: the one list of their definitions. collector.py reads them, observations.py counts as things happen.

No label ever holds a client's address: series must stay few, and scrapes are kept by others for long.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

Sample = tuple[Sequence[str], float]
COUNTER, GAUGE, HISTOGRAM = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric: its name (a counter's without _total, which the exposition adds), help and labels."""

    kind: type[CounterMetricFamily] | type[GaugeMetricFamily] | type[HistogramMetricFamily]
    name: str
    help: str
    labels: tuple[str, ...] = ()

    def family(self, samples: Iterable[Sample]) -> Metric:
        """The metric with its samples: label values in the order of `labels`, and a number. Not for histograms."""
        family = self.kind(self.name, self.help, labels=self.labels)
        assert not isinstance(family, HISTOGRAM)
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
    HISTOGRAM, "sluice_config_apply_duration_seconds", "How long changes took, from plan to maps."
)
APPLY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
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
    GAUGE,
    "sluice_backend_up",
    "1 if packets can be sent to the backend, and health checks do not forbid it.",
    _BACKEND,
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
    COUNTER, "sluice_flow_table_evictions", "Flows evicted to make room for newer ones."
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
NAT_ENTRIES = Definition(
    GAUGE, "sluice_nat_entries", "Ports of mode nat in use, by pool: ipv4, ipv6 or keep.", ("pool",)
)
NAT_CAPACITY = Definition(GAUGE, "sluice_nat_capacity", "Ports of mode nat in total.", ("pool",))
NAT_REFUSED = Definition(
    COUNTER, "sluice_nat_refused_flows", "New flows of mode nat for which no port was free.", ("pool",)
)
NAT_FLOWS = Definition(
    COUNTER,
    "sluice_nat_flows",
    "Flows of mode nat: opened, reopened, taken_over, raced, ended, or ended_early (also counted as ended).",
    ("event",),
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
HEALTH_DURATION = Definition(
    HISTOGRAM,
    "sluice_health_check_duration_seconds",
    "How long checks took, including failed ones.",
    ("service",),
)
HEALTH_TRANSITIONS = Definition(
    COUNTER,
    "sluice_health_check_transitions",
    "How often a backend became healthy or unhealthy by its checks.",
    (*_BACKEND, "to"),
)
HEALTH_MISSED = Definition(
    COUNTER, "sluice_health_check_missed", "Checks that were due and did not begin within an interval."
)
FEED_ENTRIES = Definition(GAUGE, "sluice_feed_entries", "Prefixes of a feed on the blocklist.", ("feed",))
FEED_PACKETS = Definition(COUNTER, "sluice_feed_packets", "Packets that a feed's entries decided.", ("feed",))
FEED_BYTES = Definition(
    COUNTER, "sluice_feed_bytes", "Bytes of frames that a feed's entries decided.", ("feed",)
)
FEED_SUCCESS = Definition(
    GAUGE,
    "sluice_feed_last_success_timestamp_seconds",
    "When a feed was last fetched successfully, changed or not; 0 if never.",
    ("feed",),
)
FEED_FAILING = Definition(
    GAUGE, "sluice_feed_failures", "Attempts to refresh a feed that failed since the last success.", ("feed",)
)
API_REQUESTS = Definition(
    COUNTER, "sluice_api_requests", "API requests answered, by route template.", ("method", "route", "status")
)
API_SECONDS = Definition(
    HISTOGRAM,
    "sluice_api_request_duration_seconds",
    "How long requests took until their answer began, by route template.",
    ("method", "route"),
)
API_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
EVENTS = Definition(COUNTER, "sluice_events", "Events, as in /v1/events.", ("kind", "level"))

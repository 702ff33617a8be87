"""What the API and the reconciler do, counted as it happens; everything else is read when it is scraped."""

from collections.abc import Iterable

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric

from api import metrics
from lb.events import Event


class Observations:
    """The metrics that are no state of anything. Safe to call from several threads."""

    def __init__(self) -> None:
        self._requests = _counter(metrics.API_REQUESTS)
        self._request_seconds = _histogram(metrics.API_SECONDS, metrics.API_BUCKETS)
        self._apply_seconds = _histogram(metrics.APPLY_SECONDS, metrics.APPLY_BUCKETS)
        self._events = _counter(metrics.EVENTS)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request, by its route's template and never its path, so that the series stay few."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def on_event(self, event: Event) -> None:
        """Whoever publishes need not know of metrics."""
        self._events.labels(event.kind, event.level).inc()
        seconds = event.facts.get("apply_seconds")
        if isinstance(seconds, float):
            self._apply_seconds.observe(seconds)

    def families(self) -> Iterable[Metric]:
        """As they are now."""
        for each in (self._requests, self._request_seconds, self._apply_seconds, self._events):
            yield from each.collect()


def _counter(definition: metrics.Definition) -> Counter:
    return Counter(definition.name, definition.help, definition.labels, registry=None)


def _histogram(definition: metrics.Definition, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(definition.name, definition.help, definition.labels, registry=None, buckets=buckets)

"""Feeds as documents: desired with observed state."""

from collections.abc import Iterable

from api.schemas import FeedObserved, FeedView
from lb.feeds.schedule import Feeds
from lb.model import Config, Feed
from lb.model.times import format_moment
from lb.reconcile.loop import Reconciler
from lb.reconcile.observed import Tally


def shown(some: Iterable[Feed], config: Config, reconciler: Reconciler, feeds: Feeds) -> list[FeedView]:
    """How feeds of a config are shown."""
    owners, now = reconciler.counters().owners, reconciler.now()
    found = []
    for feed in some:
        state, hits = feeds.state(feed.name), owners.get(feed.owner, Tally())
        observed = FeedObserved(
            entries=config.blocklist.layer(feed.owner).count(now),
            packets=hits.packets,
            bytes=hits.bytes,
            last_success_at=_moment(state.last_success_at),
            last_attempt_at=_moment(state.last_attempt_at),
            next_refresh_at=_moment(state.next_refresh_at or None),
            error=state.error,
            failures=state.failures,
            passed_over=state.passed_over,
        )
        found.append(FeedView(**dict(feed), observed=observed))
    return found


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else format_moment(round(seconds, 3))

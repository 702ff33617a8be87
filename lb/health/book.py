"""What is known of every checked backend, and what follows for the ring. Safe from any thread.

The checker records outcomes here; the reconciler reads the standing of a service, the API reads reports.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from lb.events import Events
from lb.health import policy
from lb.health.histogram import Histogram
from lb.health.memory import Known
from lb.health.policy import Seen
from lb.health.probes import Outcome
from lb.health.state import Count
from lb.health.target import Key, targets
from lb.model import Service
from lb.model.health import AllDown
from lb.model.standing import FULL, Health, Report, Standing

_NOTHING = Known()


@dataclass
class _Page:
    """One service. enabled: who took new flows when it was last looked at: who joins them starts slowly."""

    service: Service
    counts: dict[bytes, Count] = field(default_factory=dict)
    seen: dict[bytes, Seen] = field(default_factory=dict)
    reports: dict[bytes, Report] = field(default_factory=dict)
    held: frozenset[bytes] = frozenset()
    all_down: bool = False
    enabled: frozenset[bytes] = frozenset()
    standing: Standing | None = None
    durations: Histogram = field(default_factory=Histogram)


class Book:
    """clock: seconds since the epoch; steady: seconds of a clock that is never set."""

    def __init__(
        self,
        events: Events,
        known: Mapping[Key, Known] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._events, self._clock, self._steady = events, clock, steady
        self._known = dict(known or {})
        """From an earlier run: used when the backend is first seen."""
        self._pages: dict[str, _Page] = {}
        self._lock = threading.RLock()
        self.transitions: Counter[tuple[str, str, str]] = Counter()
        """By service, backend and what it became."""

    def follow(self, services: Iterable[Service]) -> bool:
        """Set the services; what is known of backends that stay is kept.

        Returns whether a new or changed one has a standing that should be put in force.
        """
        touched = []
        checked = {service.name: service for service in services if service.health_check}
        with self._lock:
            for name in self._pages.keys() - checked.keys():
                del self._pages[name]
            for name, service in checked.items():
                page = self._pages.get(name)
                if page is None:
                    page = self._pages[name] = self._open(service)
                elif page.service is not service:
                    self._turn(page, service)
                else:
                    continue
                touched.append(page.standing)
        return any(standing != FULL for standing in touched)

    def _open(self, service: Service) -> _Page:
        page = _Page(service, enabled=_enabled(service), held=self._remembered_held(service))
        for target in targets([service]):
            self._begin(page, target.key)
        self._settle(page)
        return page

    def _begin(self, page: _Page, key: Key) -> None:
        page.seen[key[1]] = self._remembered(key)
        known = self._known.pop(key, _NOTHING)
        page.counts[key[1]] = Count(known.health)
        page.reports[key[1]] = Report(known.health, known.since)

    def _turn(self, page: _Page, service: Service) -> None:
        now, before = self._steady(), page.enabled
        page.service, page.enabled = service, _enabled(service)
        wanted = {target.backend.packed for target in targets([service])}
        for address in page.counts.keys() - wanted:
            for part in (page.counts, page.seen, page.reports):
                del part[address]
        for address in wanted - page.counts.keys():
            self._begin(page, (service.name, address))
        for address in page.enabled - before:
            page.seen[address] = replace(page.seen[address], returned_at=now)
        self._settle(page)

    def standing_of(self, service: Service) -> Standing:
        """Which share of a service's backends is in the ring; also for a service that is not (yet) followed."""
        if service.health_check is None:
            return FULL
        with self._lock:
            page = self._pages.get(service.name)
            if page is None:
                # As a start finds it: with what was known.
                seen = {t.backend.packed: self._remembered(t.key) for t in targets([service])}
                return policy.standing(service, seen, self._remembered_held(service), self._steady())
            if page.service is service and page.standing is not None:
                return page.standing
            now = self._steady()
            joining = _enabled(service) - page.enabled
            seen = {a: replace(page.seen.get(a, Seen()), returned_at=now) for a in joining}
            return policy.standing(service, {**page.seen, **seen}, page.held, now)

    def _remembered(self, key: Key) -> Seen:
        known = self._known.get(key, _NOTHING)
        # What failed before this run did not fail at once with anything that fails now.
        failed_at = float("-inf") if known.health is Health.UNHEALTHY else None
        gone = None if known.returned is None else max(0.0, self._clock() - known.returned)
        return Seen(known.health, failed_at, None if gone is None else self._steady() - gone)

    def _remembered_held(self, service: Service) -> frozenset[bytes]:
        return frozenset(
            t.backend.packed for t in targets([service]) if self._known.get(t.key, _NOTHING).held
        )

    def note(self, key: Key, outcome: Outcome, *, passive: str | None = None) -> bool:
        """Record how a check ended; returns whether the standing of the service may have changed.

        passive: what clients' packets say against the backend, which then fails whatever the check found.
        """
        name, address = key
        with self._lock:
            page = self._pages.get(name)
            if page is None or address not in page.counts:
                return False
            check, report = page.service.health_check, page.reports[address]
            assert check
            ok, why = (outcome.ok, outcome.why) if passive is None else (False, passive)
            report = replace(
                report,
                checked_at=self._clock(),
                duration_seconds=outcome.seconds,
                error=why if ok is False else None,
                unable=outcome.why if outcome.ok is None else None,
            )
            page.durations.add(outcome.seconds)
            page.reports[address] = report
            if ok is None:
                return False
            before = page.counts[address].health
            count = page.counts[address] = page.counts[address].after(ok, check.rise, check.fall)
            if count.health is before:
                return False
            self._became(page, address, before, count.health, why)
            return True

    def _became(self, page: _Page, address: bytes, before: Health, health: Health, why: str | None) -> None:
        now, seen, name = self._steady(), page.seen[address], page.service.name
        page.reports[address] = replace(page.reports[address], health=health, since=self._clock())
        if health is Health.UNHEALTHY:
            page.seen[address] = Seen(health, failed_at=now)
        else:
            # Whom the guard held, or who was let in as all were down, has its share already.
            was_out = page.standing is not None and page.standing.is_out(address)
            returned = now if before is Health.UNHEALTHY and was_out else seen.returned_at
            page.seen[address] = Seen(health, returned_at=returned)
        where = str(ip_address(address))
        self.transitions[name, where, str(health)] += 1
        if health is Health.UNHEALTHY:
            text = f'backend {where} of service "{name}" is unhealthy: {why}'
            self._events.publish(
                "backend.down", text, level="warning", service=name, backend=where, reason=why
            )
        elif before is Health.UNHEALTHY:
            text = f'backend {where} of service "{name}" is healthy again'
            self._events.publish("backend.up", text, service=name, backend=where, reason="checks are good")
        self._settle(page)

    def _settle(self, page: _Page) -> None:
        """Recompute the standing, and publish what changed for the service as a whole."""
        check, now, name = page.service.health_check, self._steady(), page.service.name
        assert check
        before, page.held = page.held, policy.held(page.service, page.seen, page.held, now)
        if bool(before) != bool(page.held):
            self._tell_held(name, len(page.held), len(page.seen))
        page.reports = {a: replace(r, held=a in page.held) for a, r in page.reports.items()}
        down = policy.all_down(page.service, page.seen, page.held)
        if down != page.all_down:
            page.all_down = down
            self._tell_all_down(name, down, check.when_all_down)
        page.standing = policy.standing(page.service, page.seen, page.held, now)

    def _tell_held(self, name: str, count: int, of: int) -> None:
        if count:
            text = (
                f'{count} of the {of} backends of service "{name}" became unhealthy at once: their states are held, '
                "and packets go on to them"
            )
            self._events.publish("health.held", text, level="error", service=name, failing=count, backends=of)
        else:
            text = f'the states of service "{name}" are followed again'
            self._events.publish("health.followed", text, service=name)

    def _tell_all_down(self, name: str, down: bool, policy_is: AllDown) -> None:
        if down:
            what = "packets go to all of them" if policy_is is AllDown.OPEN else "its new flows are dropped"
            text = f'no backend of service "{name}" is healthy: {what}'
            self._events.publish(
                "service.down", text, level="error", service=name, when_all_down=str(policy_is)
            )
        else:
            text = f'service "{name}" has a healthy backend again'
            self._events.publish("service.up", text, service=name)

    def advance(self) -> tuple[bool, float | None]:
        """Give backends in slow start the share that corresponds to the elapsed time.

        Returns whether the standing of a service has changed, and when the next may (by the steady clock).
        """
        changed, due = False, None
        with self._lock:
            now = self._steady()
            for page in self._pages.values():
                check = page.service.health_check
                assert check
                rising = [
                    one.returned_at
                    for one in page.seen.values()
                    if one.returned_at is not None and now - one.returned_at < check.slow_start_seconds
                ]
                fresh = policy.standing(page.service, page.seen, page.held, now)
                if fresh != page.standing:
                    page.standing, changed = fresh, True
                for at in rising:
                    step = policy.next_share_at(at, check.slow_start_seconds, now)
                    due = step if due is None else min(due, step)
        return changed, due

    def reports(self, service: str) -> Mapping[bytes, Report]:
        """What is seen of a service's backends, by packed address."""
        with self._lock:
            page = self._pages.get(service)
            return page.reports if page else {}

    def note_passive(self, key: Key, syn_retries: int, unreachables: int) -> None:
        """What clients' packets said of a backend in its last window."""
        with self._lock:
            page = self._pages.get(key[0])
            if page is not None and key[1] in page.reports:
                page.reports[key[1]] = replace(
                    page.reports[key[1]], syn_retries=syn_retries, unreachables=unreachables
                )

    def known(self) -> dict[Key, Known]:
        """What a restart should begin with."""
        with self._lock:
            found = {
                (name, address): Known(
                    report.health, report.since, self._returned(page, address), address in page.held
                )
                for name, page in self._pages.items()
                for address, report in page.reports.items()
            }
            return {key: known for key, known in found.items() if known != _NOTHING}

    def _returned(self, page: _Page, address: bytes) -> float | None:
        """Since when it starts slowly, if it still does."""
        check, at = page.service.health_check, page.seen[address].returned_at
        if check is None or at is None or (gone := self._steady() - at) >= check.slow_start_seconds:
            return None
        return self._clock() - gone

    def durations(self) -> dict[str, Histogram]:
        """How long checks took, by service."""
        with self._lock:
            return {name: page.durations for name, page in self._pages.items()}


def _enabled(service: Service) -> frozenset[bytes]:
    return frozenset(backend.address.packed for backend in service.backends if backend.ring_weight)

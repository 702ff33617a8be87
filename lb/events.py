"""What happened, for whoever follows: a bounded list of events with numbers. No I/O; safe from any thread."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

KEPT = 10_000
"""Events; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. kind: like "feed.refreshed"; level: info, warning or error; time: since the epoch."""

    id: int
    time: float
    kind: str
    level: str
    text: str
    facts: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


class Events:
    """A list that many read and write. Numbers begin with `first`: those of an earlier run are not given again."""

    def __init__(self, first: int = 1, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._next = clock, first
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._changed = threading.Condition()

    def publish(self, kind: str, text: str, *, level: str = "info", **facts: object) -> Event:
        """Add one, and wake whoever waits."""
        with self._changed:
            event = Event(self._next, self._clock(), kind, level, text, MappingProxyType(facts))
            self._next += 1
            self._kept.append(event)
            self._changed.notify_all()
        return event

    def since(self, last: int) -> list[Event]:
        """Those with a number above `last` that are still there, oldest first."""
        with self._changed:
            return self._since(last)

    def wait(self, last: int, seconds: float) -> list[Event]:
        """The same; waits for one if there is none, so many seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._next - 1 > last, seconds)
            return self._since(last)

    def _since(self, last: int) -> list[Event]:
        return [event for event in self._kept if event.id > last]

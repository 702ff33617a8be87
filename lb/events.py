"""Events: a bounded, numbered list that many follow. No I/O; safe from any thread."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from types import MappingProxyType

KEPT = 10_000
"""Events; the oldest go first."""
LEVELS = ("info", "warning", "error")
"""From the least to the worst."""

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request that is being answered, wherever its answer is made; None for what the daemon does by itself."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. kind: like "feed.refreshed"; level: info, warning or error; time: since the epoch.

    request_id: the request that it was done for, if any.
    """

    id: int
    time: float
    kind: str
    level: str
    text: str
    facts: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    request_id: str | None = None

    def document(self) -> dict[str, object]:
        """As it is shown: in the API, and in a line of the JSON log."""
        moment = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds")
        return {
            "id": self.id,
            "time": moment.replace("+00:00", "Z"),
            "kind": self.kind,
            "level": self.level,
            "text": self.text,
            "facts": dict(self.facts),
            "request_id": self.request_id,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """What came after an event. last: the number to go on from.

    lost: events that came between and are no longer kept; None: an earlier run's, nobody knows how many.
    """

    events: list[Event]
    last: int
    lost: int | None = 0


def first_of_run() -> int:
    """The number that a run's events begin with: milliseconds since the epoch.

    So numbers go on over a restart without being written down: they would meet those of an earlier run only if that
    had published a thousand events a second all along.
    """
    return int(time.time() * 1000)


class Events:
    """A list that many read and write. Numbers begin with `first`: those of an earlier run are not given again."""

    def __init__(self, first: int = 1, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._first, self._next = clock, first, first
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._changed = threading.Condition()
        self._listeners: list[Callable[[Event], None]] = []
        self.is_closed = False
        """Whether nobody should wait for more."""

    def publish(self, kind: str, text: str, *, level: str = "info", **facts: object) -> Event:
        """Add one, and wake whoever waits."""
        with self._changed:
            facts_kept, request_id = MappingProxyType(facts), REQUEST_ID.get()
            event = Event(self._next, self._clock(), kind, level, text, facts_kept, request_id)
            self._next += 1
            self._kept.append(event)
            for listener in self._listeners:
                listener(event)
            self._changed.notify_all()
        return event

    def failure(self, text: str) -> None:
        """Something could not be done, and will be tried again."""
        self.publish("failure", text, level="error")

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call back with each event, in order, from the thread that publishes it; call the result to end that."""
        with self._changed:
            self._listeners.append(listener)

        def end() -> None:
            with self._changed:
                self._listeners.remove(listener)

        return end

    def close(self) -> None:
        """Nobody need wait for more than the next: the daemon stops."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    @property
    def last(self) -> int:
        """The number of the newest, or what its number would have to be followed by the next."""
        return self._next - 1

    def since(self, last: int) -> list[Event]:
        """Those with a number above `last` that are still there, oldest first."""
        with self._changed:
            return self._since(last)

    def read(self, last: int, most: int = KEPT) -> Part:
        """The first `most` of those after number `last`, and how many are missing between; 0: from the oldest on."""
        with self._changed:
            foreign = 0 < last < self._first - 1 or last >= self._next
            found = self._since(0 if foreign else last)
            lost = None if foreign else found[0].id - 1 - last if found and last else 0
            newest = self.last
        some = found[:most]
        return Part(some, some[-1].id if some else newest, lost)

    def wait(self, last: int, seconds: float) -> list[Event]:
        """The same as since; waits for one if there is none, so many seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._next - 1 > last or self.is_closed, seconds)
            return self._since(last)

    def _since(self, last: int) -> list[Event]:
        count = min(len(self._kept), self._next - 1 - last)
        return list(islice(reversed(self._kept), max(0, count)))[::-1]


def matcher(kinds: list[str], level: str | None = None) -> Callable[[Event], bool]:
    """Whether an event is one of these kinds ("feed" takes in "feed.failed"; none: all) and of that level or worse."""
    least = LEVELS.index(level) if level else 0

    def matches(event: Event) -> bool:
        named = not kinds or any(event.kind == k or event.kind.startswith(f"{k}.") for k in kinds)
        return named and LEVELS.index(event.level) >= least

    return matches

"""Refreshes every feed when it is due, each in its own time: one thread, in which fetches wait side by side."""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from lb.errors import SluiceError
from lb.events import Events
from lb.feeds import memory
from lb.feeds.memory import FeedState
from lb.feeds.refresh import Keeper, MoreProtected, Outcome, Refresh, SupersededError
from lb.model import Feed

log = logging.getLogger("sluice.feeds")

RETRY_SECONDS = 60
"""Delay after a first failure; each further failure doubles it, up to the feed's interval."""
SPREAD_SECONDS = 60.0
"""Refreshes that fell due while the daemon was down are spread over this time."""
AT_ONCE = 8
"""Feeds that are fetched side by side, at most."""
_LONGEST_PAUSE = 60.0
"""Longest sleep, in seconds, after which a changed clock is noticed."""


class Feeds:
    """The feeds of a daemon. Safe to call from several threads."""

    def __init__(
        self,
        keeper: Keeper,
        *,
        path: Path | None = None,
        events: Events | None = None,
        protected: MoreProtected = tuple,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._keeper, self._path, self._events, self._draw = keeper, path, events, draw
        self._protected = protected
        self._changed = threading.Condition()
        self._states: dict[str, FeedState] = {}
        self._asked: set[str] = set()
        self._begun: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._stopping = False
        self._awake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Continue where the last run ended: what is not due is not fetched."""
        now = self._keeper.now()
        saved = memory.load(self._path) if self._path else {}
        config = self._keeper.desired.config
        for name, feed in config.feeds.items():
            state = saved.get(name, FeedState())
            known = state.fingerprint == feed.fingerprint
            if known or feed.owner in config.blocklist.layers:
                due = state.next_refresh_at
                if due <= now:
                    due = now + self._draw() * min(SPREAD_SECONDS, feed.refresh_seconds * feed.jitter)
                kept = state if known else FeedState(feed.fingerprint)
                self._states[name] = replace(kept, next_refresh_at=due)
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="feeds", daemon=True)
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """End the thread: what is being fetched is given up, what is being applied is finished."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self.wake()
        if self._thread:
            self._thread.join()

    def wake(self) -> None:
        """Check again which feeds there are, and what is due."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._awake.set)
            except RuntimeError:  # it was closed meanwhile
                return

    def state(self, name: str) -> FeedState:
        """Observed state of a feed; empty for a new one."""
        with self._changed:
            return self._states.get(name, FeedState())

    def refresh(self, name: str) -> int:
        """Ask for a refresh that begins from now on; its number, for `wait`."""
        with self._changed:
            self._asked.add(name)
            number = self._begun.get(name, 0) + 1
        self.wake()
        return number

    def was_asked(self, name: str, number: int) -> bool:
        """Whether there is such a refresh since the daemon started, over or not."""
        with self._changed:
            return 0 < number <= self._begun.get(name, 0) + (name in self._asked)

    def wait(self, name: str, number: int, seconds: float) -> bool:
        """Whether that refresh has ended, after so many seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._is_over(name, number), seconds)
            return self._is_over(name, number)

    def _is_over(self, name: str, number: int) -> bool:
        return self._ended.get(name, 0) >= number or name not in self._keeper.desired.config.feeds

    def _run(self, ready: threading.Event) -> None:
        asyncio.run(self._main(ready))

    async def _main(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        ready.set()
        refresh, slots = Refresh(self._keeper, self._protected), asyncio.Semaphore(AT_ONCE)
        tasks: dict[str, asyncio.Task[None]] = {}
        while not self._stopping:
            self._awake.clear()
            try:
                pause = self._begin_due(tasks, refresh, slots)
            except Exception:  # whatever it was, feeds must be refreshed
                log.exception("the feeds could not be looked at")
                pause = _LONGEST_PAUSE
            try:
                async with asyncio.timeout(pause):
                    await self._awake.wait()
            except TimeoutError:
                continue
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _begin_due(
        self, tasks: dict[str, asyncio.Task[None]], refresh: Refresh, slots: asyncio.Semaphore
    ) -> float:
        """Start what is due; returns for how long nothing else can be."""
        feeds, now = self._keeper.desired.config.feeds, self._keeper.now()
        pause = _LONGEST_PAUSE
        with self._changed:
            for name in self._states.keys() - feeds.keys():
                del self._states[name]
            self._asked &= feeds.keys()
        for name, feed in feeds.items():
            with self._changed:
                state = self._states.get(name)
                if state is None or state.fingerprint != feed.fingerprint:
                    state = self._states[name] = FeedState(feed.fingerprint)
                latest = now + feed.refresh_seconds * (1 + feed.jitter)
                if state.next_refresh_at > latest:  # the interval is shorter now, or the clock was set back
                    state = self._states[name] = replace(state, next_refresh_at=latest)
                if name in tasks:
                    continue
                due = 0.0 if name in self._asked else state.next_refresh_at - now
                if due > 0:
                    pause = min(pause, due)
                    continue
                self._asked.discard(name)
                self._begun[name] = self._begun.get(name, 0) + 1
            tasks[name] = asyncio.create_task(self._one(feed, state, refresh, slots))
            tasks[name].add_done_callback(partial(self._end, tasks, name))
        with self._changed:
            self._changed.notify_all()
        return pause

    def _end(self, tasks: dict[str, asyncio.Task[None]], name: str, _: asyncio.Task[None]) -> None:
        del tasks[name]
        with self._changed:
            self._ended[name] = self._begun[name]
            self._changed.notify_all()
        self._awake.set()

    async def _one(self, feed: Feed, state: FeedState, refresh: Refresh, slots: asyncio.Semaphore) -> None:
        """One refresh of one feed, and the state to remember."""
        async with slots:
            began = time.perf_counter()
            attempt = replace(state, last_attempt_at=self._keeper.now())
            try:
                outcome = await refresh(feed, attempt)
            except SupersededError:
                return
            except SluiceError as error:
                self._failed(feed, attempt, str(error))
            except Exception as error:  # whatever it was, the others go on
                log.exception("feed %s could not be refreshed", feed.name)
                self._failed(
                    feed, attempt, f"something went wrong inside Sluice ({type(error).__name__}): see the log"
                )
            else:
                self._succeeded(feed, outcome, time.perf_counter() - began)

    def _succeeded(self, feed: Feed, outcome: Outcome, seconds: float) -> None:
        now = self._keeper.now()
        due = now + feed.refresh_seconds * (1 + feed.jitter * self._draw())
        self._remember(
            feed,
            replace(outcome.state, last_success_at=now, error=None, failures=0, next_refresh_at=due),
        )
        facts = {"feed": feed.name, "total": outcome.total, "seconds": round(seconds, 3)}
        if outcome.changed:
            text = f"feed {feed.name}: {outcome.added} added, {outcome.removed} removed, {outcome.total} in total"
            self._publish(
                "feed.refreshed", text, facts | {"added": outcome.added, "removed": outcome.removed}
            )
        else:
            self._publish(
                "feed.unchanged", f"feed {feed.name} has not changed: {outcome.total} in total", facts
            )

    def _failed(self, feed: Feed, state: FeedState, reason: str) -> None:
        failures = state.failures + 1
        delay = min(feed.refresh_seconds, RETRY_SECONDS * 2 ** min(failures - 1, 20))
        due = self._keeper.now() + delay * (1 + feed.jitter * self._draw())
        self._remember(feed, replace(state, error=reason, failures=failures, next_refresh_at=due))
        text = f"feed {feed.name} was not refreshed, and keeps its entries: {reason}"
        facts = {"feed": feed.name, "reason": reason, "failures": failures}
        self._publish("feed.failed", text, facts, level="warning")

    def _remember(self, feed: Feed, state: FeedState) -> None:
        with self._changed:
            known = self._states.get(feed.name)
            if known is not None and known.fingerprint == feed.fingerprint:  # else it is another's by now
                self._states[feed.name] = state
                if self._path:
                    memory.save(self._path, self._states)

    def _publish(self, kind: str, text: str, facts: Mapping[str, object], level: str = "info") -> None:
        if self._events is not None:
            self._events.publish(kind, text, level=level, **facts)

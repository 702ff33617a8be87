"""Checks every backend when it is due, and makes the reconciler follow the results.

One thread has an event loop in which probes wait side by side; another tells the reconciler, which may take its time
over a ring or wait for a compiler, while probes go on.
"""

import asyncio
import contextlib
import logging
import random
import resource
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from lb.events import Events
from lb.health import memory
from lb.health.book import Book
from lb.health.dial import DataPath, Dialer
from lb.health.passive import Counts, PassiveWatch, nothing_seen
from lb.health.probes import Probe, ask
from lb.health.target import Key, Target, targets
from lb.model import Service
from lb.model.health import Passive

log = logging.getLogger("sluice.health")

JITTER = 0.1
"""Share of the interval, either way: backends added together are not checked together for ever."""
RETRY_SECONDS = 1.0


class Follower(Protocol):
    """What puts the health of backends in force: the reconciler."""

    def follow_health(self) -> None:
        """Read every standing again, and put it in force. SluiceError."""


class Checker:
    """Safe to call from several threads. `book` may be asked before `start`: it knows what the last run knew."""

    def __init__(
        self,
        *,
        events: Events | None = None,
        path: Path | None = None,
        data_path: DataPath | None = None,
        passive: Counts = nothing_seen,
        probe: Probe = ask,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._events, self._path = events or Events(), path
        self._dialer, self._probe, self._draw = Dialer(data_path), probe, draw
        self.book = Book(self._events, memory.load(path) if path else {})
        self.rounds = 0
        """Checks that have ended, of all backends."""
        self.missed = 0
        """How often a check was due and did not begin, because the loop or the machine was too slow."""
        self._passive = PassiveWatch(passive)
        self._watches: dict[str, tuple[Passive, asyncio.Task[None]]] = {}
        self._tasks: dict[Key, tuple[Target, asyncio.Task[None]]] = {}
        self._services: tuple[Service, ...] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._teller: threading.Thread | None = None
        self._wake = threading.Condition()
        self._dirty = self._stopping = False

    def start(self, services: Iterable[Service], follower: Follower) -> None:
        """Start checking these services, and notifying."""
        _allow_many_sockets()
        self._services = tuple(services)
        self.book.follow(self._services)
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="health", daemon=True)
        self._thread.start()
        ready.wait()
        self._teller = threading.Thread(target=self._tell, args=(follower,), name="standing", daemon=True)
        self._teller.start()

    def stop(self) -> None:
        """End the threads; what is known is kept for the next run."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(loop.stop)
        for thread in (self._thread, self._teller):
            if thread:
                thread.join()
        self._save()

    def follow(self, services: Iterable[Service]) -> None:
        """Set the services. Does not wait."""
        self._services = tuple(services)
        if self.book.follow(self._services):
            self._poke()
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._fit_tasks)

    def _poke(self) -> None:
        """Wake the notifying thread."""
        with self._wake:
            self._dirty = True
            self._wake.notify()

    def _run(self, ready: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        self._loop = loop
        try:
            loop.call_soon(self._fit_tasks)
            loop.call_soon(ready.set)
            loop.run_forever()
            tasks = [task for _, task in (*self._tasks.values(), *self._watches.values())]
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        finally:
            loop.close()

    def _fit_tasks(self) -> None:
        """A task for each checked backend; one whose check has changed is restarted."""
        wanted = {target.key: target for target in targets(self._services)}
        loop = asyncio.get_running_loop()
        for key, (target, task) in list(self._tasks.items()):
            if wanted.get(key) != target:
                task.cancel()
                del self._tasks[key]
        for key, target in wanted.items():
            if key not in self._tasks:
                self._tasks[key] = target, loop.create_task(self._check(target))
        self._fit_watches(loop)

    def _fit_watches(self, loop: asyncio.AbstractEventLoop) -> None:
        wanted = {
            service.name: service.health_check.passive
            for service in self._services
            if service.health_check and service.health_check.passive
        }
        for name, (passive, task) in list(self._watches.items()):
            if wanted.get(name) != passive:
                task.cancel()
                del self._watches[name]
                self._passive.forget(name)
        for name, passive in wanted.items():
            if name not in self._watches:
                self._watches[name] = passive, loop.create_task(self._watch(name, passive))

    async def _watch(self, service: str, passive: Passive) -> None:
        """Once per window, evaluate passive signals."""
        while True:
            try:
                for key, (retries, unreachables) in self._passive.look(service, passive).items():
                    self.book.note_passive(key, retries, unreachables)
            except Exception:
                log.exception("what clients' packets tell of service %s cannot be read", service)
            await asyncio.sleep(passive.window_seconds)

    async def _check(self, target: Target) -> None:
        """Check repeatedly, starting at a random point of the first interval."""
        loop, interval = asyncio.get_running_loop(), target.check.interval_seconds
        due = loop.time() + self._draw() * interval
        while True:
            await asyncio.sleep(due - loop.time())
            if (late := int((loop.time() - due) / interval)) > 0:
                self.missed += late
                due = loop.time()
            try:
                outcome = await self._probe(target, self._dialer)
            except Exception:  # a fault of ours must not end the checks of a backend
                log.exception("the check of %s of service %s failed", target.backend, target.service)
            else:
                self.rounds += 1
                if self.book.note(target.key, outcome, passive=self._passive.against(target.key)):
                    self._poke()
            due += interval * (1 + JITTER * (2 * self._draw() - 1))

    def _tell(self, follower: Follower) -> None:
        due: float | None = None
        while True:
            with self._wake:
                pause = None if due is None else max(0.0, due - time.monotonic())
                if not (self._dirty or self._stopping):
                    self._wake.wait(pause)
                if self._stopping:
                    return
                dirty, self._dirty = self._dirty, False
            changed, due = self.book.advance()
            if not (dirty or changed):
                continue
            self._save()
            try:
                follower.follow_health()
            except Exception as error:  # whatever it was, it must be told again
                log.warning("what checks have found is not in force: %s", error)
                with self._wake:
                    self._wake.wait_for(lambda: self._stopping, RETRY_SECONDS)
                    self._dirty = True

    def _save(self) -> None:
        if self._path is not None:
            memory.save(self._path, self.book.known())


def _allow_many_sockets() -> None:
    """A probe is a socket; the usual soft limit of 1,024 files is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

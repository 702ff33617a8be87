"""Changes that wait for the writer's lock: whoever gets it makes those of all who wait, in one batch.

So concurrent callers share the fixed cost of a change: a plan, a transaction, a pass over the maps.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from lb.events import Events
from lb.model import Config
from lb.reconcile.desired import Desired
from lb.reconcile.guard import NOBODY, Guard
from lb.reconcile.terms import PLAIN, Terms
from lb.store import Store

log = logging.getLogger("sluice.reconcile")


@dataclass(slots=True, eq=False)
class Asked:
    """A change that somebody waits for, and its outcome: the revision made, or the error.

    context: the caller's, in which the event about it is published.
    """

    edit: Callable[[Config], Config]
    actor: str
    summary: str
    guard: Guard = NOBODY
    terms: Terms = PLAIN
    may_compile: bool = False
    context: Context = field(default_factory=copy_context)
    made: Desired | None = None
    error: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has an outcome."""
        return self.made is not None or self.error is not None

    def may_join(self, before: Config) -> bool:
        """Whether it may be made together with others: it wants neither moves nor a bound nor confirmation."""
        bounded = before.settings.max_moved_percent is not None and not self.guard.force
        return self.terms == PLAIN and not self.may_compile and not bounded


@dataclass(slots=True)
class Step:
    """One change of a batch. before and after: the same object if there is nothing to do; error: why it failed."""

    asked: Asked
    before: Config
    after: Config
    warnings: tuple[str, ...] = ()
    error: Exception | None = None
    revision: int = 0
    """The revision that it became; 0: none."""

    @property
    def is_change(self) -> bool:
        """Whether there is something to do."""
        return self.after is not self.before

    def tell(self, events: Events, seconds: float) -> None:
        """Publish that it was made; seconds: how long the whole batch took."""
        asked = self.asked
        asked.context.run(
            events.publish,
            "config.changed",
            f"revision {self.revision} by {asked.actor}: {asked.summary}",
            revision=self.revision,
            actor=asked.actor,
            summary=asked.summary,
            apply_seconds=seconds,
        )


def keep(store: Store, stored: Config, changes: Sequence[Step], now: float) -> None:
    """Store a revision for each, all of them or none. stored: what the newest one says."""
    with store.together():
        for step in changes:
            step.revision = store.commit(
                step.after,
                before=stored,
                actor=step.asked.actor,
                summary=step.asked.summary,
                now=now,
                confirm_within=step.asked.terms.confirm_within,
                is_rollback=step.asked.terms.is_rollback,
            )
            stored = step.after


class Together:
    """The queue of waiting changes. `make` gets changes in their order, with the lock held.

    It sets the outcome of some of them, at least of the first; if it raises, none was made, and nothing was changed.
    """

    def __init__(self, lock: AbstractContextManager[bool], make: Callable[[Sequence[Asked]], None]) -> None:
        self._lock, self._make = lock, make
        self._waiting: dict[Asked, None] = {}

    def __call__(self, asked: Asked) -> Desired:
        """Returns when it is made, by whichever thread; raises why it is not."""
        self._waiting[asked] = None
        try:
            with self._lock:
                if not asked.is_over:
                    # This one first: a thread that re-enters the lock finds the state unchanged by others.
                    self._serve([asked, *(one for one in list(self._waiting) if one is not asked)])
        finally:
            del self._waiting[asked]
        if asked.error is not None:
            raise asked.error
        assert asked.made is not None
        return asked.made

    def _serve(self, waiting: list[Asked]) -> None:
        some = [one for one in waiting if not one.is_over]
        if len(some) > 1:
            try:
                self._make(some)
            except Exception as error:  # one of them is at fault: making each by itself shows which
                log.debug("%d changes could not be made together: %r", len(some), error)
            else:
                return
        for one in some:
            if one.is_over:
                continue
            try:
                self._make([one])
            except Exception as error:
                one.error = error

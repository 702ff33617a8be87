"""The change that waits to be confirmed: its deadline, and the rollback if nobody confirms it."""

from collections.abc import Callable
from dataclasses import replace

from lb.errors import ConflictError
from lb.model import Config
from lb.model.restore import restored, same_document
from lb.reconcile.observed import PendingStatus
from lb.store import Pending, Store


class Confirmation:
    """For one writer. The deadline is in the store, so it outlives a killed daemon.

    It is kept by the machine's wall clock: setting that back delays it by no more than the time originally given.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock
        self.pending = store.pending()
        """What waits."""

    def reload(self) -> None:
        """Read it from the store again."""
        self.pending = self._store.pending()

    def end(self) -> None:
        """End the wait: nothing is pending."""
        if self.pending is not None:
            self._store.confirm()
            self.pending = None

    def left(self) -> float | None:
        """Seconds until it is rolled back, negative once overdue; None: nothing waits."""
        if self.pending is None:
            return None
        left = self.pending.deadline - self._clock()
        if left > self.pending.within:
            self.pending = replace(self.pending, deadline=self._clock() + self.pending.within)
            left = float(self.pending.within)
        return left

    @property
    def is_due(self) -> bool:
        """Whether it was not confirmed in time."""
        left = self.left()
        return left is not None and left <= 0

    def check(self, before: Config, after: Config) -> None:
        """ConflictError if something waits, and a change concerns more than entries of other owners."""
        left = self.left()
        if self.pending is None or left is None or same_document(before, after):
            return
        raise ConflictError(
            f"revision {self.pending.revision} waits to be confirmed for {max(0.0, left):.0f} s more: "
            'keep it with "sluice confirm" (POST /v1/config/confirm), or undo it with "sluice rollback"'
        )

    def confirm(self, revision: int | None) -> Pending:
        """Confirm what waits; ConflictError if nothing does, if it is another revision, or if it is overdue."""
        pending = self.pending
        if pending is None:
            raise ConflictError(
                'nothing waits to be confirmed: "sluice revisions" shows what was changed and rolled back'
            )
        if revision not in (None, pending.revision):
            raise ConflictError(
                f"it is revision {pending.revision} that waits to be confirmed, not {revision}: "
                'look at it with "sluice status"'
            )
        if self.is_due:
            raise ConflictError(
                f"revision {pending.revision} was not confirmed in time, and is being rolled back: apply it again"
            )
        self.end()
        return pending

    def back(self, present: Config) -> Config:
        """The present state after a rollback of what waits."""
        assert self.pending is not None
        base = self.pending.base
        then = self._store.config_at(base) if base else Config()
        return restored(present, then, self._clock())

    def status(self) -> PendingStatus | None:
        """As it is shown."""
        left = self.left()
        if self.pending is None or left is None:
            return None
        return PendingStatus(self.pending.revision, self.pending.base, max(0.0, left))

    def words(self) -> str:
        """The summary of the rollback at the deadline."""
        assert self.pending is not None
        at = f"revision {self.pending.base}" if self.pending.base else "the empty state"
        return f"revision {self.pending.revision} was not confirmed in time: back to {at}"

"""Earlier revisions: their content, rollback to them, and rollback of what nobody confirms."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from lb.errors import ConflictError, NotFoundError, SluiceError
from lb.model import Config
from lb.model.restore import restored, same_document
from lb.reconcile.confirm import Confirmation
from lb.reconcile.desired import Desired
from lb.reconcile.guard import Guard
from lb.reconcile.observed import PendingStatus
from lb.reconcile.terms import Terms
from lb.store import RevisionInfo, Store

if TYPE_CHECKING:
    from lb.reconcile.loop import Reconciler

_ACTOR = "confirm"
"""The actor, in the history, of rollbacks of what nobody confirms."""


class History:
    """Reads the store; changes go through `Reconciler.change`. Safe to call from several threads."""

    def __init__(
        self,
        reconciler: "Reconciler",
        store: Store,
        confirmation: Confirmation,
        lock: AbstractContextManager[bool],
    ) -> None:
        self._reconciler, self._store = reconciler, store
        self._confirmation, self._lock = confirmation, lock

    def revisions(self, limit: int = 100, before: int | None = None) -> list[RevisionInfo]:
        """Lines of the history, newest first."""
        return self._store.revisions(limit, before)

    def config_at(self, revision: int) -> Config:
        """What a revision says; NotFoundError if it is unknown, or no longer kept."""
        return self._store.config_at(revision)

    def back_to(self, revision: int | None) -> Callable[[Config], Config]:
        """An edit that makes the present state what a revision says, except for entries of other owners.

        None: what was before the one that waits to be confirmed, else the newest that differs. NotFoundError;
        ConflictError: the newest edit is a rollback itself, and what it took back is not put in force by None.
        """

        def edit(present: Config) -> Config:
            if revision is not None:
                return restored(present, self.config_at(revision), self._reconciler.now())
            if self._confirmation.pending is not None:
                return self._confirmation.back(present)
            return self._before(present)

        return edit

    def _before(self, present: Config) -> Config:
        """The newest earlier state whose document differs."""
        now = self._reconciler.now()
        at = self._store.last_edit()
        while at is not None and (earlier := self._store.revisions(1, before=at)):
            config = restored(present, self.config_at(earlier[0].revision), now)
            if not same_document(present, config):
                self._check_not_again(earlier[0].revision)
                return config
            at = self._store.last_edit(before=at)
        raise NotFoundError(
            'there is no earlier revision that differs: "sluice revisions" lists the existing ones'
        )

    def _check_not_again(self, earlier: int) -> None:
        """ConflictError if the newest edit is a rollback, which going back to that revision would undo."""
        newest = self._store.last_edit()
        if newest is None or not self._store.is_rollback(newest):
            return
        edit = self._store.last_edit(before=earlier + 1)
        kept = self._store.revisions(1, before=edit + 1) if edit is not None else []
        named = edit if kept and kept[0].revision == edit else earlier  # an edit, and not the ban after it
        raise ConflictError(
            f"the newest change, revision {newest}, is itself a rollback: going back once more would put revision "
            f'{named} in force again; if that is wanted, "sluice rollback {named}" (POST /v1/config/rollback with '
            f'{{"revision": {named}}}) does it'
        )

    @property
    def pending(self) -> PendingStatus | None:
        """What waits to be confirmed."""
        with self._lock:
            return self._confirmation.status()

    def confirm(self, revision: int | None, *, actor: str) -> int:
        """Keep what waits to be confirmed (this revision, if one is named); ConflictError if that cannot be."""
        with self._lock:
            kept = self._confirmation.confirm(revision).revision
        self._reconciler.events.publish(
            "config.confirmed", f"revision {kept} was confirmed by {actor}", revision=kept, actor=actor
        )
        return kept

    def roll_back_if_due(self) -> None:
        """Roll back what was not confirmed in time."""
        if not self._confirmation.is_due:
            return
        text = self._confirmation.words()
        done = self._reconciler.change(
            self._confirmation.back,
            actor=_ACTOR,
            summary=text,
            guard=Guard(force=True),
            terms=Terms(is_rollback=True),
        )
        self._tell(text, done.revision)

    def begin(self, desired: Desired, stored: Config) -> tuple[Desired, Config]:
        """What to start with, and what the newest revision says: an overdue change does not get into the maps.

        So a start rolls back even a change with which nothing can start.
        """
        if not self._confirmation.is_due:
            return desired, stored
        text, now = self._confirmation.words(), self._reconciler.now()
        try:
            config = self._confirmation.back(desired.config)
            if config == stored:
                self._confirmation.end()
                return desired, stored
            revision = self._store.commit(
                config, before=stored, actor=_ACTOR, summary=text, now=now, is_rollback=True
            )
        except SluiceError as error:
            self._reconciler.events.publish("failure", f"{text}; that failed: {error}", level="error")
            return desired, stored
        self._confirmation.reload()
        self._tell(text, revision)
        return replace(desired, revision=revision, config=config), config

    def _tell(self, text: str, revision: int) -> None:
        self._reconciler.events.publish("config.rolled-back", text, level="warning", revision=revision)

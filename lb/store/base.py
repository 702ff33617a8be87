"""The protocol of a store of desired state, independent of its medium."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from lb.model import Config


@dataclass(frozen=True, slots=True)
class RevisionInfo:
    """One line of the history. created_at is in seconds since the epoch; actor says who, summary what."""

    revision: int
    created_at: float
    actor: str
    summary: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A revision that waits to be confirmed: base (0: nothing at all) comes back at the deadline, unless it is.

    deadline: in seconds since the epoch; within: the seconds that were given.
    """

    revision: int
    base: int
    deadline: float
    within: int


class Store(Protocol):
    """Holds revisions of the desired state. Every method raises StoreError when the store cannot be used."""

    def load(self) -> tuple[int, Config]:
        """The newest revision and what it says; 0 and an empty Config if there is none."""

    def commit(
        self,
        config: Config,
        *,
        before: Config,
        actor: str,
        summary: str,
        now: float,
        confirm_within: int | None = None,
        is_rollback: bool = False,
    ) -> int:
        """Store a new revision, and return its number: larger than every one before, including discarded ones.

        before: what the newest revision says. All of it is stored, even through a power failure, or nothing.
        confirm_within: seconds for which the revision is pending; is_rollback: it goes back to an earlier state,
        and what is pending no longer is.
        """

    def together(self) -> AbstractContextManager[None]:
        """Writes inside are stored atomically: all of them, even through a power failure, or none."""

    def pending(self) -> Pending | None:
        """What waits to be confirmed. Its base is kept meanwhile, however old."""

    def confirm(self) -> None:
        """End the wait: nothing is pending."""

    def last_edit(self, before: int | None = None) -> int | None:
        """The newest revision (before one, if it is given) that changes more than entries of other owners."""

    def is_rollback(self, revision: int) -> bool:
        """Whether a revision was stored as a rollback."""

    def discard(self, revision: int) -> None:
        """Discard the newest revision, because it could not be applied; ValueError if it is not the newest."""

    def revisions(self, limit: int = 100, before: int | None = None) -> list[RevisionInfo]:
        """Up to limit lines of the history, the newest first; those before one revision if it is given."""

    def config_at(self, revision: int) -> Config:
        """What a revision says; NotFoundError if it is unknown, or so old that it is no longer kept."""

    def problem(self) -> str | None:
        """Why changes cannot be stored at present, in a sentence; None if they can."""

    def close(self) -> None:
        """Close the store; it cannot be used afterwards. A second call does nothing."""

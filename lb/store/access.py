"""Keeps tokens and the audit in one SQLite file, apart from the desired state: damage to one spares the other."""

import hmac
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import RLock

from lb.errors import ConflictError, NotFoundError, StoreError
from lb.model.access import Role
from lb.store.file import FAULTS, MEMORY, connect, translated
from lb.store.place import Place
from lb.store.schema import ACCESS, AUDIT_KEPT

TOKEN_PREFIX = "sluice_"
"""So that scanners of published code recognise one."""
TOKEN_BYTES = 32
TOKENS_MAX = 1000
_PRUNE_EACH = 1000
_CHOSEN = "(:actor IS NULL OR actor = :actor) AND (:refused IS NULL OR (status >= 400) = :refused)"
_ID_MAX = (1 << 63) - 1
_REMEDY = "put it back, or restart the daemon, which creates a new one, without tokens"


@dataclass(frozen=True, slots=True)
class Token:
    """A token, but for what is secret. Times in seconds since the epoch; expires_at None: never."""

    name: str
    role: Role
    created_at: float
    created_by: str
    expires_at: float | None = None
    digest: bytes = field(default=b"", repr=False)

    def is_over(self, now: float) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A line of the audit. revision_before and revision_after: of a change of the desired state; id 0: not yet kept."""

    time: float
    actor: str
    role: str | None
    origin: str
    method: str
    path: str
    status: int
    detail: str = ""
    revision_before: int | None = None
    revision_after: int | None = None
    id: int = 0


class AccessStore:
    """Safe to call from several threads. Every method raises StoreError when the file cannot be used.

    A token is 256 random bits, so its digest is a plain SHA-256: a slow hash makes guessing dear where what is guessed
    is a person's choice, and here there is nothing to guess in 2^256.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._lock = RLock()
        self._db: sqlite3.Connection | None = connect(path, ACCESS)
        self._place = Place(None if str(path) == MEMORY else Path(path), _REMEDY)
        self._refused: str | None = None
        """Why the last line or token could not be kept."""
        self._tokens = self._load()

    def create(
        self, name: str, role: Role, *, created_by: str, now: float, expires_at: float | None = None
    ) -> tuple[Token, str]:
        """A new token, and what its bearer shows, which nobody can tell later. ConflictError: the name is taken."""
        text = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        token = Token(name, role, now, created_by, expires_at, _digest(text))
        with self._writing() as db:
            if name in self._tokens:
                raise ConflictError(
                    f'there is a token "{name}" already: choose another name, or revoke that one first'
                )
            if len(self._tokens) >= TOKENS_MAX:
                raise ConflictError(f"there are {TOKENS_MAX} tokens, the most allowed: revoke some first")
            db.execute(
                "INSERT INTO tokens (name, digest, role, created_at, created_by, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
                (name, token.digest, role.value, now, created_by, expires_at),
            )
            self._tokens = {**self._tokens, name: token}
        return token, text

    def revoke(self, name: str) -> None:
        """Nobody gets in with it any more. NotFoundError: there is none of that name."""
        with self._writing() as db:
            self.token(name)
            db.execute("DELETE FROM tokens WHERE name = ?", (name,))
            self._tokens = {known: token for known, token in self._tokens.items() if known != name}

    def tokens(self) -> list[Token]:
        """All of them, by name; those that are over too."""
        return [self._tokens[name] for name in sorted(self._tokens)]

    def token(self, name: str) -> Token:
        """The token of that name; NotFoundError."""
        try:
            return self._tokens[name]
        except KeyError:
            raise NotFoundError(
                f'there is no token "{name}": "sluice token list" lists the existing ones'
            ) from None

    def match(self, text: str) -> Token | None:
        """The token that somebody shows, be it over or not; None if it is none.

        Takes as long whichever it is, and if it is none: all are compared, each in constant time.
        """
        digest, found = _digest(text), None
        for token in self._tokens.values():
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found

    def record(self, line: AuditRecord) -> int:
        """Append a line to the audit; its number."""
        with self._writing() as db:
            cursor = db.execute(
                "INSERT INTO audit (time, actor, role, origin, method, path, status, detail, revision_before, "
                "revision_after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(line.time, line.actor, line.role, line.origin, line.method, line.path, line.status),
                    *(line.detail, line.revision_before, line.revision_after),
                ),
            )
            number = int(cursor.lastrowid or 0)
            if number % _PRUNE_EACH == 0:
                db.execute("DELETE FROM audit WHERE id <= ?", (number - AUDIT_KEPT,))
        return number

    def audit(
        self,
        *,
        limit: int = 100,
        before: int | None = None,
        actor: str | None = None,
        refused: bool | None = None,
    ) -> list[AuditRecord]:
        """Up to limit lines, the newest first; those before a number, of one actor, refused or not."""
        with self._using() as db:
            rows = db.execute(
                "SELECT time, actor, role, origin, method, path, status, detail, revision_before, revision_after, id "
                f"FROM audit WHERE id < :before AND {_CHOSEN} ORDER BY id DESC LIMIT :limit",
                {
                    "before": _ID_MAX if before is None else min(before, _ID_MAX),
                    "actor": actor,
                    "refused": refused,
                    "limit": limit,
                },
            )
            return [AuditRecord(*row) for row in rows]

    def count(self, *, actor: str | None = None, refused: bool | None = None) -> int:
        """How many lines there are, chosen as by audit."""
        with self._using() as db:
            chosen = {"actor": actor, "refused": refused}
            (found,) = db.execute(f"SELECT count(*) FROM audit WHERE {_CHOSEN}", chosen).fetchone()
            return int(found)

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _load(self) -> dict[str, Token]:
        with self._using() as db:
            rows = db.execute(
                "SELECT name, role, created_at, created_by, expires_at, digest FROM tokens ORDER BY name"
            )
            return {name: Token(name, Role(role), *rest) for name, role, *rest in rows}

    def problem(self) -> str | None:
        """Why neither tokens nor the audit can be kept; None if they can. What was refused once is tried again."""
        with self._lock:
            if self._refused is not None and self._place.problem() is None:
                with suppress(StoreError), self._writing() as db:
                    db.execute(f"PRAGMA user_version = {ACCESS.version}")  # writes what is there already
            return self._place.problem() or self._refused

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._using() as db:
                self._place.check()
                yield db
        except StoreError as error:
            self._refused = str(error)
            raise
        self._refused = None

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._db is None:
                raise StoreError(f"{self._path} was closed: open it again")
            try:
                yield self._db
            except FAULTS as error:
                raise translated(error, self._path, ACCESS) from error


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogateescape")).digest()

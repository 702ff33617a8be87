"""Every error Sluice raises on purpose. A leaf: it imports nothing of Sluice.

    SluiceError
    ├── InvalidError            the request is well formed but cannot be accepted (names the fields)
    ├── MalformedError          the bytes are not the format they claim to be
    ├── NotFoundError           the named thing does not exist
    ├── ConflictError           it clashes with something that exists
    │   └── BudgetError         it would move more than is allowed
    ├── PreconditionError       the state is no longer the one the caller had seen
    ├── TooLargeError           the request is over a stated limit
    ├── CapacityError           a map is full
    ├── StoreError              the state file cannot be read or written
    │   └── DamagedError        what it holds is not what was written
    ├── AuthenticationError     the caller is not identified
    ├── ForbiddenError          the caller may not do this
    ├── TooManyError            the caller sends too many requests, or holds too many answers open
    ├── TooSlowError            a request arrives too slowly
    ├── FeedError               a feed could not be fetched, or what came is refused
    ├── SetupError              this machine lacks something Sluice needs
    └── DataPlaneError          the kernel refused, or the data plane is not there
        ├── InterfaceError      the interface does not exist, or went away
        ├── LargeFramesError    the interface accepts only a multi-buffer program
        ├── ForeignProgramError another XDP program holds the hook
        ├── NotYetError         it is being made, and will be ready in seconds
        ├── CompileError        the XDP program did not compile or load
        └── KnownAnswerError    the compiled program answers a known packet wrongly

The message of each is one sentence that says what is wrong and what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class SluiceError(Exception):
    """The root: raised only as one of its subclasses."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field.

    pointer: a JSON pointer (RFC 6901) into the request, "" for the whole; detail: the fault and the remedy.
    line: where the request was a text file, the line (from 1).
    """

    pointer: str
    detail: str
    line: int | None = None


class InvalidError(SluiceError):
    """Raised when a well-formed request holds values that cannot be accepted; nothing was changed."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        where = f"line {first.line}" if first.line is not None else first.pointer
        more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
        super().__init__(f"{where}: {first.detail}{more}" if where else f"{first.detail}{more}")

    @classmethod
    def one(cls, pointer: str, detail: str, line: int | None = None) -> "InvalidError":
        """The common case of a single fault."""
        return cls([FieldError(pointer, detail, line)])


class MalformedError(SluiceError):
    """Raised when a body or file is not the JSON, YAML or UTF-8 it claims to be."""


class NotFoundError(SluiceError):
    """Raised when the service, backend, entry, revision or path that was named does not exist."""


class ConflictError(SluiceError):
    """Raised when a change clashes with what exists: a name or a VIP that is taken.

    errors: of several things that were asked for, what is wrong with which.
    """

    def __init__(self, message: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class BudgetError(ConflictError):
    """Raised when a change would move more of a service than is allowed; nothing was changed. moves: what it would."""

    def __init__(self, message: str, moves: Sequence[Any]) -> None:
        super().__init__(message)
        self.moves = tuple(moves)


class PreconditionError(SluiceError):
    """Raised when If-Match (or an expected revision) does not fit the present state."""


class TooLargeError(SluiceError):
    """Raised when a request is larger than the limit that the message states."""


class CapacityError(SluiceError):
    """Raised before anything is changed when the wanted state does not fit a map; the message names the setting."""


class StoreError(SluiceError):
    """Raised when the state file cannot be opened, read or written."""


class DamagedError(StoreError):
    """Raised when a state file, or a row of it, is not as it was written; nothing of it was changed."""


class AuthenticationError(SluiceError):
    """Raised when a request has no credentials, or malformed, unknown or expired ones.

    error: RFC 6750's word for it, None where there were no credentials.
    """

    def __init__(self, message: str, error: str | None = None) -> None:
        super().__init__(message)
        self.error = error


class ForbiddenError(SluiceError):
    """Raised when the caller is known, but may not do this."""


class TooManyError(SluiceError):
    """Raised when a caller sends more requests, or holds more answers open, than the settings allow."""

    def __init__(self, message: str, retry_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class TooSlowError(SluiceError):
    """Raised when a request arrives too slowly, and would be held open for ever."""


class FeedError(SluiceError):
    """Raised when a feed cannot be fetched or parsed, or would change what it must not; its last entries stay."""


class SetupError(SluiceError):
    """Raised at start when the machine lacks bcc, kernel headers, bpffs or a privilege."""


class DataPlaneError(SluiceError):
    """Raised when the kernel refuses an operation or the data plane is not attached."""


class InterfaceError(DataPlaneError):
    """Raised when a named network interface does not exist, or vanished while in use."""


class LargeFramesError(DataPlaneError):
    """Raised when an interface's driver accepts only a multi-buffer program, and this is not one."""


class ForeignProgramError(DataPlaneError):
    """Raised when another XDP program is attached to the interface; it is replaced only on request."""


class NotYetError(DataPlaneError):
    """Raised while what was requested is still being made; retry in a moment."""


class CompileError(DataPlaneError):
    """Raised when the XDP program does not compile, or the verifier refuses it; holds the compiler's words."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class KnownAnswerError(DataPlaneError):
    """Raised when a compiled program fails the known-answer gate; it is not put in force, and the old one stays."""

"""Who may do what: roles, to whom the settings give them, and how much each caller may ask for."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lb.model.fields import OneLine, Strict, faults

_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_KINDS = ("CN", "O", "OU", "DNS", "URI", "email", "IP")
_ID_MAX = (1 << 32) - 2


class Role(StrEnum):
    """What a caller may do. Each may do what the one before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, other: "Role") -> bool:
        """Whether it may do all that the other may."""
        return _ORDER.index(self) >= _ORDER.index(other)


_ORDER = tuple(Role)


def _account(value: object) -> object:
    """A number, or a name as in /etc/passwd."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("it is neither a number nor a name: write 1000 or alice")
    if isinstance(value, int) and not 0 <= value <= _ID_MAX:
        raise ValueError(f"it is not an account number: 0 to {_ID_MAX}")
    if isinstance(value, str) and not _ACCOUNT.fullmatch(value):
        raise ValueError("it is not an account name: a letter, then letters, digits, _ . and -")
    return value


Account = Annotated[int | str, BeforeValidator(_account)]


class UnixGrant(Strict):
    """A role on the unix socket, for one user or for the members of one group."""

    user: Account | None = Field(None, description="name or number of a user", examples=["grafana"])
    group: Account | None = Field(None, description="in place of user: name or number of a group")
    role: Role = Field(description="what it may do")

    @model_validator(mode="after")
    def _check(self) -> "UnixGrant":
        if (self.user is None) == (self.group is None):
            says = "is needed" if self.user is None else "exclude each other"
            faults([(("user",), f"one of user and group {says}: give exactly one of them")])
        return self


def _certificate_name(text: str) -> str:
    kind, separator, value = text.partition(":")
    if kind not in _KINDS or not separator or not value:
        raise ValueError(f"write KIND:VALUE, such as CN:alice; the kinds are {', '.join(_KINDS)}")
    return text


class CertificateGrant(Strict):
    """A role for client certificates that bear a name, in their subject or as an alternative name."""

    name: Annotated[OneLine, Field(max_length=512), AfterValidator(_certificate_name)] = Field(
        description=f"KIND:VALUE, compared as it stands; the kinds: {', '.join(_KINDS)}",
        examples=["CN:alice", "DNS:ci.example.net"],
    )
    role: Role = Field(description="what it may do")


class Limits(Strict):
    """How much one caller may ask for; root, and the daemon's own user, on the unix socket are exempt."""

    requests_per_second: float = Field(
        1000,
        gt=0,
        le=1_000_000,
        strict=True,
        description="requests per second, per caller, in the long run",
    )
    request_burst: int = Field(
        2000, ge=1, le=10_000_000, strict=True, description="requests at once, per caller"
    )
    streams_per_caller: int = Field(
        16, ge=1, le=100_000, strict=True, description="streaming answers (events, captures), per caller"
    )
    streams: int = Field(
        512,
        ge=1,
        le=100_000,
        strict=True,
        description="streaming answers, of all callers together, including root",
    )


class Access(Strict):
    """The section `access` of the settings."""

    unix: tuple[UnixGrant, ...] = Field(
        (),
        max_length=256,
        description="roles on the unix socket: the first match counts; without one, the socket's group is admin",
    )
    certificates: tuple[CertificateGrant, ...] = Field(
        (), max_length=1024, description="roles of client certificates: the first match counts"
    )
    loopback: Role | None = Field(
        Role.ADMIN,
        description="role of callers without a token on a loopback address without TLS; null: none",
    )
    hosts: tuple[Annotated[OneLine, Field(min_length=1, max_length=255), AfterValidator(str.lower)], ...] = (
        Field(
            (),
            max_length=64,
            description="host names, without port, that a loopback listener accepts beside its own: "
            "those of a proxy in front",
            examples=[["sluice.example.net"]],
        )
    )
    limits: Limits = Field(default_factory=Limits, description="limits per caller")

"""The documents of /tokens, /audit and /whoami."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lb.model.access import Role
from lb.model.service import Name
from lb.model.times import SECONDS_MAX, format_moment
from lb.store.access import AuditRecord, Token

DAYS_90 = 90 * 86400


class TokenInput(BaseModel):
    """A token that is to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(
        description="its name: stands for its bearer in the history and the audit", examples=["ci"]
    )
    role: Role = Field(description="what its bearer may do")
    expires_in_seconds: Annotated[int, Field(ge=1, le=SECONDS_MAX, strict=True)] | None = Field(
        DAYS_90, description="how long it is valid; null: until it is revoked"
    )


class TokenView(BaseModel):
    """A token, without what its bearer shows, which is not kept."""

    name: str
    role: Role
    created_at: str = Field(description="RFC 3339")
    created_by: str = Field(description="who created it")
    expires_at: str | None = Field(description="RFC 3339; null: never")
    expired: bool = Field(description="whether it has expired")

    @classmethod
    def of(cls, token: Token, now: float) -> "TokenView":
        """The view of one."""
        return cls.model_validate(_view(token, now))


class NewToken(TokenView):
    """A token that was just made."""

    token: str = Field(description="the secret for Authorization: Bearer; it is never shown again")

    @classmethod
    def made(cls, token: Token, text: str, now: float) -> "NewToken":
        """The view of it."""
        return cls.model_validate({**_view(token, now), "token": text})


def _view(token: Token, now: float) -> dict[str, object]:
    return {
        "name": token.name,
        "role": token.role,
        "created_at": format_moment(token.created_at),
        "created_by": token.created_by,
        "expires_at": None if token.expires_at is None else format_moment(token.expires_at),
        "expired": token.is_over(now),
    }


class WhoAmI(BaseModel):
    """Who asks."""

    name: str = Field(description='"uid 0", "token NAME", "certificate CN:NAME", or an address')
    role: Role = Field(description="what it may do")
    by: str = Field(description="how this was determined: unix, token, certificate, loopback or inside")
    expires_at: str | None = Field(description="when the token expires, RFC 3339; null: never, or no token")


class AuditLine(BaseModel):
    """One write, or one refusal."""

    id: int = Field(description="increases over time")
    time: str = Field(description="RFC 3339")
    actor: str = Field(description="the caller; unknown without proof")
    role: Role | None = Field(description="the caller's role")
    origin: str = Field(description="from where: an address and port, or the process at the unix socket")
    method: str
    path: str = Field(description="with its query")
    status: int = Field(description="what was answered")
    detail: str = Field(description="why it was refused")
    revision_before: int | None = Field(description="of the desired state, if it was to be changed")
    revision_after: int | None = Field(
        description="the revision that the change made; the same if it changed nothing"
    )

    @classmethod
    def of(cls, record: AuditRecord) -> "AuditLine":
        """The line of a record."""
        told = {name: getattr(record, name) for name in cls.model_fields if name != "time"}
        return cls.model_validate({**told, "time": format_moment(round(record.time, 3))})

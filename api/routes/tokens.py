"""/tokens: who may use the API over TCP. For admins."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import ValidationError

from api.access_schemas import NewToken, TokenInput, TokenView
from api.bodies import Media
from api.deps import AccessDep, CallerDep, JsonDep, ReconcilerDep
from api.openapi import ACCESS, BODY, documented, takes
from api.schemas import Collection
from lb.errors import InvalidError
from lb.model.fields import field_errors

router = APIRouter(prefix="/v1", tags=[ACCESS])

TokenName = Annotated[str, Path(description="name of the token", examples=["ci"])]
_EXAMPLE = {"name": "ci", "role": "operator", "expires_in_seconds": 2592000}


@router.get("/tokens", summary="All tokens", responses=documented())
def list_tokens(access: AccessDep, reconciler: ReconcilerDep) -> Collection[TokenView]:
    """By name; including expired ones, until they are revoked."""
    now = reconciler.now()
    items = [TokenView.of(token, now) for token in access.tokens.tokens()]
    return Collection(items=items, total=len(items), next=None)


@router.post(
    "/tokens",
    status_code=201,
    summary="Create a token",
    responses=documented(*BODY, 409, 503),
    openapi_extra=takes({Media.JSON: TokenInput}, _EXAMPLE),
)
def create_token(
    body: JsonDep, access: AccessDep, caller: CallerDep, reconciler: ReconcilerDep, response: Response
) -> NewToken:
    """The answer has the secret, only this once: the daemon keeps only a digest of it."""
    try:
        wanted = TokenInput.model_validate(body.json())
    except ValidationError as error:
        raise InvalidError(field_errors(error)) from None
    now = reconciler.now()
    ends = None if wanted.expires_in_seconds is None else now + wanted.expires_in_seconds
    token, text = access.tokens.create(
        wanted.name, wanted.role, created_by=caller.name, now=now, expires_at=ends
    )
    reconciler.events.publish(
        "token.created", f"token {token.name}, {token.role}, made by {caller.name}", name=token.name
    )
    response.headers["Location"] = f"/v1/tokens/{token.name}"
    response.headers["Cache-Control"] = "no-store"
    return NewToken.made(token, text, now)


@router.get("/tokens/{name}", summary="One token", responses=documented(404))
def get_token(name: TokenName, access: AccessDep, reconciler: ReconcilerDep) -> TokenView:
    """Its role, and how long it is valid."""
    return TokenView.of(access.tokens.token(name), reconciler.now())


@router.delete("/tokens/{name}", status_code=204, summary="Revoke a token", responses=documented(404, 503))
def revoke_token(name: TokenName, access: AccessDep, caller: CallerDep, reconciler: ReconcilerDep) -> None:
    """Nobody gets in with it from now on; its streaming answers are ended too."""
    access.tokens.revoke(name)
    reconciler.events.publish("token.revoked", f"token {name} revoked by {caller.name}", name=name)

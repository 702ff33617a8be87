"""/audit: who wrote what, and who was refused. For admins."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.access_schemas import AuditLine
from api.deps import AccessDep, LimitDep
from api.openapi import ACCESS, documented
from api.schemas import Collection

router = APIRouter(prefix="/v1", tags=[ACCESS])


@router.get("/audit", summary="Who wrote what, and who was refused", responses=documented(422, 503))
def get_audit(
    access: AccessDep,
    *,
    after: Annotated[int | None, Query(ge=1, description="the `next` of the previous page")] = None,
    limit: LimitDep = 100,
    actor: Annotated[
        str | None, Query(description="only actions of this caller", examples=["token ci"])
    ] = None,
    refused: Annotated[
        bool | None, Query(description="true: only refusals; false: only accepted writes")
    ] = None,
) -> Collection[AuditLine]:
    """Newest first. Lines are only ever added; beyond 500,000 the oldest are removed.

    Changes that nobody requested over the API (feeds, bans, the first configuration) are in /config/revisions.
    """
    found = access.tokens.audit(limit=limit + 1, before=after, actor=actor, refused=refused)
    following = str(found[limit - 1].id) if len(found) > limit else None
    total = access.tokens.count(actor=actor, refused=refused)
    return Collection(items=[AuditLine.of(line) for line in found[:limit]], total=total, next=following)

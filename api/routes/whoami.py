"""/whoami: who the caller is, and what it may do."""

from fastapi import APIRouter

from api.access_schemas import WhoAmI
from api.deps import CallerDep
from api.openapi import ACCESS, documented
from lb.model.times import format_moment

router = APIRouter(prefix="/v1", tags=[ACCESS])


@router.get("/whoami", summary="Who am I", responses=documented())
async def get_whoami(caller: CallerDep) -> WhoAmI:
    """Who the daemon takes the caller for, and its role: viewers read, operators change lists, rules and backends."""
    ends = None if caller.expires_at is None else format_moment(caller.expires_at)
    return WhoAmI.model_validate(
        {"name": caller.name, "role": caller.role, "by": caller.how, "expires_at": ends}
    )

"""/operations/{id}: what goes on after its request was answered."""

from fastapi import APIRouter

from api.deps import FeedsDep, OperationDep, ReadDep, ReconcilerDep
from api.openapi import OBSERVED, documented
from api.operations import REFRESH, drain_operation, refresh_operation
from api.schemas import Operation, RefreshOperation

router = APIRouter(prefix="/v1", tags=[OBSERVED])


@router.get("/operations/{operation_id}", summary="How far an operation is", responses=documented(404))
def get_operation(
    operation_id: OperationDep, read: ReadDep, reconciler: ReconcilerDep, feeds: FeedsDep
) -> Operation | RefreshOperation:
    """A drain is `running` while its backend holds flows, then `done`. Once a second is often enough.

    The refresh of a feed is `running`, then `done` or `failed`.
    """
    if operation_id.startswith(REFRESH):
        return refresh_operation(operation_id, read.config, feeds)
    return drain_operation(operation_id, read.config, reconciler)

"""/operations/{id}: work that goes on after its request was answered."""

from fastapi import APIRouter

from api.deps import FeedsDep, OperationDep, ReconcilerDep
from api.openapi import OBSERVED, documented
from api.operations import REFRESH, drain_operation, refresh_operation
from api.schemas import Operation, RefreshOperation

router = APIRouter(prefix="/v1", tags=[OBSERVED])


@router.get("/operations/{operation_id}", summary="How far an operation is", responses=documented(404))
def get_operation(
    operation_id: OperationDep, reconciler: ReconcilerDep, feeds: FeedsDep
) -> Operation | RefreshOperation:
    """A drain is `running` while its backend has flows, then `done`. Polling once a second is often enough.

    The refresh of a feed is `running`, then `done` or `failed`.
    """
    config = reconciler.desired.config
    if operation_id.startswith(REFRESH):
        return refresh_operation(operation_id, config, feeds)
    return drain_operation(operation_id, config, reconciler)

"""/operations/{id}: what goes on after its request was answered."""

from fastapi import APIRouter

from api.deps import OperationDep, ReadDep, ReconcilerDep
from api.openapi import OBSERVED, documented
from api.operations import drain_operation
from api.schemas import Operation

router = APIRouter(prefix="/v1", tags=[OBSERVED])


@router.get("/operations/{operation_id}", summary="How far an operation is", responses=documented(404))
def get_operation(operation_id: OperationDep, read: ReadDep, reconciler: ReconcilerDep) -> Operation:
    """A drain is `running` while its backend holds flows, then `done`. Once a second is often enough."""
    return drain_operation(operation_id, read.config, reconciler)

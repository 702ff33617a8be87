"""/healthz and /readyz: for service managers and load balancers in front."""

from fastapi import APIRouter, Response

from api.deps import ReconcilerDep
from api.observed_schemas import Alive, Ready
from api.openapi import OBSERVED, documented
from api.problems import NOT_READY, problem

router = APIRouter(tags=[OBSERVED])


@router.get("/healthz", summary="Is the process alive", responses=documented())
async def healthz() -> Alive:
    """Answers as long as the process lives; says nothing about the data plane."""
    return Alive()


@router.get("/readyz", summary="Is the data plane in step", response_model=Ready, responses=documented(503))
def readyz(reconciler: ReconcilerDep) -> Ready | Response:
    """200 while every interface is attached and the maps hold the desired state; otherwise 503 with the reasons."""
    reasons = reconciler.readiness()
    if reasons:
        return problem(NOT_READY, "; ".join(reasons), reasons=reasons)
    return Ready(revision=reconciler.desired.revision)

"""/dataplane: programs, maps and pins."""

from fastapi import APIRouter

from api.deps import ReconcilerDep
from api.openapi import OBSERVED, documented
from lb.reconcile.inventory import Inventory

router = APIRouter(prefix="/v1", tags=[OBSERVED])


@router.get("/dataplane", summary="Programs, maps and pins", responses=documented())
def get_dataplane(reconciler: ReconcilerDep) -> Inventory:
    """Of each interface: XDP mode, pins, and the programs loaded for it, with their id, tag, features, size and times.

    Of each map: its kind, entries, capacity, bytes and pin. Entries are counted for the answer: ask now and then.
    """
    return reconciler.inventory()

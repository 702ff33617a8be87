"""/doctor: what is wrong, and what fixes it; /backend-setup: how to prepare a backend."""

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import AddressDep, NameDep, ReconcilerDep
from api.openapi import OBSERVED, documented
from api.schemas import Collection
from lb.doctor.finding import Report
from lb.doctor.preparation import Preparation
from lb.reconcile.preparation import preparations

router = APIRouter(prefix="/v1", tags=[OBSERVED])

SecondsQuery = Annotated[float, Query(ge=0, le=60, description="how long to watch what becomes of packets")]


@router.get("/doctor", summary="What is wrong, and what fixes it", responses=documented())
def get_doctor(reconciler: ReconcilerDep, seconds: SecondsQuery = 1.0) -> Report:
    """Checks the machine, interfaces, tables, VIPs and packets, and tests up to 256 backends with real packets.

    Findings that fail come first, then warnings, then what is as it should be. It changes nothing.
    """
    return reconciler.doctor.look(seconds=seconds)


@router.get(
    "/services/{name}/doctor", summary="What is wrong with a service's backends", responses=documented(404)
)
def get_service_doctor(name: NameDep, reconciler: ReconcilerDep) -> Report:
    """Tests each backend of the service with real packets, along the path of clients' packets."""
    return reconciler.doctor.look(name)


@router.get(
    "/services/{name}/backends/{address}/doctor",
    summary="What is wrong with a backend",
    responses=documented(404, 422),
)
def get_backend_doctor(name: NameDep, address: AddressDep, reconciler: ReconcilerDep) -> Report:
    """Tests one backend of the service."""
    return reconciler.doctor.look(name, str(address))


@router.get(
    "/services/{name}/backend-setup",
    summary="Commands that prepare the backends of a service",
    responses=documented(404, 422),
)
def get_backend_setup(
    name: NameDep,
    reconciler: ReconcilerDep,
    address: Annotated[
        IPv4Address | IPv6Address | None, Query(description="only this backend", examples=["10.0.0.11"])
    ] = None,
    undo: Annotated[bool, Query(description="undo it")] = False,
) -> Collection[Preparation]:
    """Commands and a script for the backends of IPv4, and of IPv6. Nothing is sent to them."""
    wanted = None if address is None else str(address)
    items = preparations(reconciler.desired.config, name, wanted, undo=undo)
    return Collection(items=items, total=len(items), next=None)

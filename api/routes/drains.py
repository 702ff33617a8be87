"""/services/{name}/drain: several backends of a service in one step."""

from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter

from api.bodies import Media
from api.deps import JsonDep, NameDep, WriteDep
from api.etags import etag_of
from api.inputs import validated
from api.openapi import BODY, DESIRED, WRITE, documented, takes
from api.operations import drain_id, drain_operation
from api.schemas import DrainRequest, Drains
from lb.errors import FieldError, InvalidError
from lb.model import AdminState, Config, Service

router = APIRouter(prefix="/v1/services/{name}/drain", tags=[DESIRED])

_REQUEST: TypeAdapter[DrainRequest] = TypeAdapter(DrainRequest)
_EXAMPLE = {"addresses": ["10.0.0.11", "10.0.0.12"]}


@router.post(
    "",
    summary="Take no new flows at several backends, keep existing ones",
    status_code=202,
    responses=documented(404, *BODY, *WRITE),
    openapi_extra=takes({Media.JSON: DrainRequest}, _EXAMPLE),
)
def drain_backends(name: NameDep, body: JsonDep, write: WriteDep) -> Drains:
    """All of them, or none. An operation for each says how many flows are left."""
    wanted = validated(_REQUEST, body.json())

    def edit(config: Config) -> Config:
        service = config.service(name)
        write.check(etag_of([_document(b) for b in service.backends]))
        return config.with_service(_draining(service, wanted))

    config = write.change(edit)
    operations = [
        drain_operation(drain_id(name, address), config, write.reconciler)
        for address in dict.fromkeys(wanted.addresses)
    ]
    return Drains(items=operations, total=len(operations))


def _document(backend: Any) -> dict[str, Any]:
    found: dict[str, Any] = backend.model_dump(mode="json")
    return found


def _draining(service: Service, wanted: DrainRequest) -> Service:
    """With these backends draining; InvalidError names each that the service does not have."""
    unknown = [
        FieldError(f"/addresses/{at}", f'service "{service.name}" has no backend {address}: leave it out')
        for at, address in enumerate(wanted.addresses)
        if service.backend(address) is None
    ]
    if unknown:
        raise InvalidError(unknown)
    backends = tuple(
        b.model_copy(update={"admin_state": AdminState.DRAINING}) if b.address in wanted.addresses else b
        for b in service.backends
    )
    return service.model_copy(update={"backends": backends})

"""/services/{name}/backends: the backends of a service, all at once or one at a time."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from pydantic import TypeAdapter

from api.bodies import Media
from api.deps import AddressDep, JsonDep, NameDep, ReadDep, WriteDep
from api.etags import etag_of
from api.exchange import Write
from api.inputs import items_of, object_of, validated
from api.openapi import BODY, DESIRED, WRITE, documented, takes
from api.operations import drain_id, drain_operation
from api.pages import PAGE_MOST, AfterDep, LimitDep, page
from api.schemas import Backends, BackendSet, Operation
from lb.errors import InvalidError, NotFoundError
from lb.model import AdminState, Backend, Config, Service
from lb.model.merge_patch import merge_patch

router = APIRouter(prefix="/v1/services/{name}/backends", tags=[DESIRED])

_BACKEND = TypeAdapter(Backend)
_BACKENDS = TypeAdapter(tuple[Backend, ...])
_SERVICE = TypeAdapter(Service)
_EXAMPLE = {"address": "10.0.0.11", "weight": 2, "admin_state": "enabled"}

AnyAddress = IPv4Address | IPv6Address


def _document(backend: Backend) -> dict[str, Any]:
    return backend.model_dump(mode="json")


def _etag_of_all(service: Service) -> str:
    return etag_of([_document(b) for b in service.backends])


def _backend(service: Service, address: AnyAddress) -> Backend:
    """The backend with that address; NotFoundError."""
    backend = service.backend(address)
    if backend is None:
        raise NotFoundError(
            f'service "{service.name}" has no backend {address}: '
            f'"sluice backend list {service.name}" shows those it has'
        )
    return backend


def _kept_address(backend: Backend, address: AnyAddress) -> Backend:
    """Itself, if it has the address of its path; InvalidError otherwise."""
    if backend.address != address:
        raise InvalidError.one(
            "/address", f"the path names {address}: leave the address out, or write the same"
        )
    return backend


def _with_backends(service: Service, backends: tuple[Backend, ...], begins: str, at: str) -> Service:
    """The service with this set; InvalidError, whose pointers have at in the place of what begins them."""
    try:
        return validated(_SERVICE, {**dict(service), "backends": backends})
    except InvalidError as error:
        raise InvalidError(
            [
                replace(
                    e, pointer=at + e.pointer.removeprefix(begins) if e.pointer.startswith(begins) else at
                )
                for e in error.errors
            ]
        ) from None


def _with_backend(service: Service, backend: Backend) -> Service:
    """The service with one backend added, or put in the place of that of its address; InvalidError."""
    backends = {b.address: b for b in service.backends} | {backend.address: backend}
    index = list(backends).index(backend.address)
    return _with_backends(service, tuple(backends.values()), f"/backends/{index}", "")


@router.get("", summary="The backends of a service", response_model=Backends, responses=documented(404, 422))
def list_backends(
    name: NameDep,
    read: ReadDep,
    *,
    state: Annotated[AdminState | None, Query(description="only backends in this state")] = None,
    after: AfterDep = None,
    limit: LimitDep = PAGE_MOST,
) -> Backends | Response:
    """The set, in the order it was given. The ETag is that of all of the service's backends."""
    service = read.config.service(name)
    found = [backend for backend in service.backends if state in (None, backend.admin_state)]
    items, following = page(found, lambda backend: str(backend.address), after, limit)
    return read.answer(_etag_of_all(service), Backends(items=items, total=len(found), next=following))


@router.put(
    "",
    summary="Replace the backends of a service",
    responses=documented(404, *BODY, *WRITE),
    openapi_extra=takes({Media.JSON: list[Backend] | BackendSet}, [_EXAMPLE]),
)
def put_backends(name: NameDep, body: JsonDep, write: WriteDep) -> Backends:
    """The whole set in one step: no packet sees half of it. Takes an array, or what GET gives."""
    items, at = items_of(body.json())
    backends = validated(_BACKENDS, items, at)

    def edit(config: Config) -> Config:
        service = config.service(name)
        write.check(_etag_of_all(service))
        return config.with_service(_with_backends(service, backends, "/backends", at))

    write.change(edit)
    etag = etag_of([_document(b) for b in backends])
    return write.answer(etag, Backends(items=list(backends), total=len(backends)))


@router.get("/{address}", summary="One backend", response_model=Backend, responses=documented(404, 422))
def get_backend(name: NameDep, address: AddressDep, read: ReadDep) -> Backend | Response:
    """The desired backend; the service's /status has its observed state."""
    backend = _backend(read.config.service(name), address)
    etag = etag_of(_document(backend))
    return read.answer(etag, backend)


@router.put(
    "/{address}",
    summary="Create or replace a backend",
    responses=documented(404, *BODY, *WRITE) | {201: {"description": "created", "model": Backend}},
    openapi_extra=takes({Media.JSON: Backend}, _EXAMPLE),
)
def put_backend(name: NameDep, address: AddressDep, body: JsonDep, write: WriteDep) -> Backend:
    """The whole backend: what is left out takes its default. The body's address may be left out."""
    backend = _kept_address(validated(_BACKEND, {"address": str(address), **object_of(body.json())}), address)
    existed = False

    def edit(config: Config) -> Config:
        nonlocal existed
        service = config.service(name)
        present = service.backend(address)
        existed = present is not None
        write.check(etag_of(_document(present)) if present else None)
        return config.with_service(_with_backend(service, backend))

    write.change(edit)
    if not existed:
        write.created(f"/v1/services/{name}/backends/{address}")
    return write.answer(etag_of(_document(backend)), backend)


@router.patch(
    "/{address}",
    summary="Change some fields of a backend",
    responses=documented(404, *BODY, *WRITE),
    openapi_extra=takes({Media.JSON: dict[str, Any]}, {"weight": 3}),
)
def patch_backend(name: NameDep, address: AddressDep, body: JsonDep, write: WriteDep) -> Backend:
    """A JSON merge patch (RFC 7396): null puts a field back to its default."""
    patch = object_of(body.json())

    def patched(present: Backend) -> Backend:
        return _kept_address(validated(_BACKEND, merge_patch(_document(present), patch)), address)

    return _answer(write, _change(write, name, address, patched), name, address)


@router.delete(
    "/{address}",
    summary="Remove a backend",
    status_code=204,
    response_class=Response,
    responses=documented(404, 422, *WRITE),
)
def delete_backend(name: NameDep, address: AddressDep, write: WriteDep) -> None:
    """Its flows move to other backends at once; drain it first to let them end."""

    def edit(config: Config) -> Config:
        service = config.service(name)
        write.check(etag_of(_document(_backend(service, address))))
        rest = tuple(b for b in service.backends if b.address != address)
        return config.with_service(service.model_copy(update={"backends": rest}))

    write.change(edit)


@router.post(
    "/{address}/drain",
    summary="Take no new flows, keep existing ones",
    status_code=202,
    responses=documented(404, 422, *WRITE),
)
def drain_backend(name: NameDep, address: AddressDep, write: WriteDep) -> Operation:
    """The operation at Location says how many flows are left."""
    config = _change(write, name, address, _with_state(AdminState.DRAINING))
    operation = drain_id(name, address)
    write.response.headers["Location"] = f"/v1/operations/{quote(operation)}"
    return drain_operation(operation, config, write.reconciler)


@router.post(
    "/{address}/enable", summary="Take new flows", status_code=200, responses=documented(404, 422, *WRITE)
)
def enable_backend(name: NameDep, address: AddressDep, write: WriteDep) -> Backend:
    """The backend takes its share of new flows again."""
    return _answer(write, _change(write, name, address, _with_state(AdminState.ENABLED)), name, address)


@router.post(
    "/{address}/disable", summary="Take nothing", status_code=200, responses=documented(404, 422, *WRITE)
)
def disable_backend(name: NameDep, address: AddressDep, write: WriteDep) -> Backend:
    """The backend's flows move to other backends at once."""
    return _answer(write, _change(write, name, address, _with_state(AdminState.DISABLED)), name, address)


def _with_state(state: AdminState) -> Callable[[Backend], Backend]:
    return lambda backend: backend.model_copy(update={"admin_state": state})


def _change(write: Write, name: str, address: AnyAddress, changed: Callable[[Backend], Backend]) -> Config:
    """Change one backend that is there; the config made."""

    def edit(config: Config) -> Config:
        service = config.service(name)
        present = _backend(service, address)
        write.check(etag_of(_document(present)))
        return config.with_service(_with_backend(service, changed(present)))

    return write.change(edit)


def _answer(write: Write, config: Config, name: str, address: AnyAddress) -> Backend:
    """The backend as it now is, with its tag."""
    backend = _backend(config.service(name), address)
    return write.answer(etag_of(_document(backend)), backend)

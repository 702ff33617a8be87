"""/services: the services themselves, each with its backends inside."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import TypeAdapter

from api.bodies import Media
from api.deps import JsonDep, NameDep, ReadDep, WriteDep
from api.etags import etag_of
from api.inputs import object_of, validated
from api.openapi import BODY, DESIRED, WRITE, documented, takes
from api.schemas import Services
from lb.errors import ConflictError, InvalidError
from lb.model import Config, Service
from lb.model.merge_patch import merge_patch

router = APIRouter(prefix="/v1/services", tags=[DESIRED])

_SERVICE = TypeAdapter(Service)
_EXAMPLE = {
    "name": "web",
    "vip": "192.0.2.10",
    "port": 80,
    "protocol": "tcp",
    "mode": "ipip",
    "backends": [{"address": "10.0.0.11"}, {"address": "10.0.0.12", "weight": 2}],
}


_QUIC_EXAMPLE = {
    "vip": "2001:db8:5::/64",
    "port": 443,
    "protocol": "udp",
    "mode": "gue",
    "affinity": "source",
    "udp_migration": True,
    "quic": True,
    "backends": [{"address": "2001:db8:1::11", "quic_id": 1}, {"address": "2001:db8:1::12", "quic_id": 2}],
}


def document_of(service: Service) -> dict[str, Any]:
    """The service as JSON."""
    return service.model_dump(mode="json")


def _etag(config: Config, name: str) -> str | None:
    """The tag of a service, None if there is none of that name."""
    service = config.services.get(name)
    return None if service is None else etag_of(document_of(service))


def _etag_of_all(config: Config) -> str:
    return etag_of([document_of(s) for s in config.services.values()])


def _kept_name(service: Service, name: str) -> Service:
    """Itself, if it has the name of its path; InvalidError otherwise."""
    if service.name != name:
        raise InvalidError.one("/name", f'the path names "{name}": leave the name out, or write the same')
    return service


@router.get("", summary="All services", response_model=Services, responses=documented())
def list_services(read: ReadDep) -> Services | Response:
    """Every service, in the order they were added."""
    services = list(read.config.services.values())
    etag = _etag_of_all(read.config)
    return read.answer(etag, Services(items=services, total=len(services)))


@router.post(
    "",
    summary="Add a service",
    status_code=201,
    responses=documented(*BODY, *WRITE),
    openapi_extra=takes({Media.JSON: Service}, _EXAMPLE),
)
def add_service(body: JsonDep, write: WriteDep) -> Service:
    """409 if the name or the VIP is taken. If-Match means the collection's ETag."""
    service = validated(_SERVICE, body.json())

    def edit(config: Config) -> Config:
        write.check(_etag_of_all(config))
        if service.name in config.services:
            raise ConflictError(
                f'there is a service "{service.name}" already: PUT or PATCH it, or take another name'
            )
        return config.with_service(service)

    write.change(edit)
    write.created(f"/v1/services/{service.name}")
    return write.answer(etag_of(document_of(service)), service)


@router.get("/{name}", summary="One service", response_model=Service, responses=documented(404))
def get_service(name: NameDep, read: ReadDep) -> Service | Response:
    """The service as the operator wants it; how it is stands under /status."""
    service = read.config.service(name)
    etag = etag_of(document_of(service))
    return read.answer(etag, service)


@router.put(
    "/{name}",
    summary="Create or replace a service",
    responses=documented(*BODY, *WRITE) | {201: {"description": "created", "model": Service}},
    openapi_extra=takes({Media.JSON: Service}, _QUIC_EXAMPLE),
)
def put_service(name: NameDep, body: JsonDep, write: WriteDep) -> Service:
    """The whole service: what is left out takes its default. Its name may be left out."""
    service = _kept_name(validated(_SERVICE, {"name": name, **object_of(body.json())}), name)
    existed = False

    def edit(config: Config) -> Config:
        nonlocal existed
        existed = name in config.services
        write.check(_etag(config, name))
        return config.with_service(service)

    write.change(edit)
    if not existed:
        write.created(f"/v1/services/{name}")
    return write.answer(etag_of(document_of(service)), service)


@router.patch(
    "/{name}",
    summary="Change some fields of a service",
    responses=documented(404, *BODY, *WRITE),
    openapi_extra=takes({Media.JSON: dict[str, Any]}, {"affinity": "source"}),
)
def patch_service(name: NameDep, body: JsonDep, write: WriteDep) -> Service:
    """A JSON merge patch (RFC 7396): null puts a field back to its default, an array is replaced whole."""
    patch = object_of(body.json())

    def edit(config: Config) -> Config:
        present = document_of(config.service(name))
        write.check(etag_of(present))
        return config.with_service(_kept_name(validated(_SERVICE, merge_patch(present, patch)), name))

    service = write.change(edit).service(name)
    return write.answer(etag_of(document_of(service)), service)


@router.delete(
    "/{name}",
    summary="Remove a service",
    status_code=204,
    response_class=Response,
    responses=documented(404, *WRITE),
)
def delete_service(name: NameDep, write: WriteDep) -> None:
    """Its packets then go to the kernel, as those of any address that is no VIP."""

    def edit(config: Config) -> Config:
        write.check(etag_of(document_of(config.service(name))))
        return config.without_service(name)

    write.change(edit)

"""/services: the services themselves, each with its backends inside."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import TypeAdapter

from api.bodies import Media
from api.bulk import Added
from api.deps import AddressText, JsonDep, NameDep, PrefixText, ReadDep, WriteDep, address_of, prefix_of
from api.etags import etag_of
from api.inputs import object_of, validated
from api.openapi import BODY, DESIRED, WRITE, documented, takes
from api.pages import PAGE_MOST, AfterDep, LabelsDep, LimitDep, has_labels, page
from api.schemas import Services, ServiceSet
from lb.errors import ConflictError, InvalidError
from lb.model import AdminState, Config, Mode, Prefix, Protocol, Service
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


@router.get("", summary="All services", response_model=Services, responses=documented(422))
def list_services(
    read: ReadDep,
    *,
    label: LabelsDep = None,
    vip: Annotated[
        PrefixText | None,
        Query(
            description="only those with this VIP, or whose VIP prefix contains it", examples=["192.0.2.10"]
        ),
    ] = None,
    protocol: Annotated[Protocol | None, Query(description="only those of this protocol")] = None,
    mode: Annotated[Mode | None, Query(description="only those of this mode")] = None,
    backend: Annotated[
        AddressText | None, Query(description="only those with this backend", examples=["10.0.0.11"])
    ] = None,
    state: Annotated[AdminState | None, Query(description="only those with a backend in this state")] = None,
    after: AfterDep = None,
    limit: LimitDep = PAGE_MOST,
) -> Services | Response:
    """Services that match all filters, in the order they were added. The ETag is that of all services."""
    at = None if vip is None else prefix_of("query", "vip", vip)
    address = None if backend is None else address_of("query", "backend", backend)
    found = [
        service
        for service in read.config.services.values()
        if has_labels(service.labels, label)
        and (at is None or _is_in(at, service))
        and protocol in (None, service.protocol)
        and mode in (None, service.mode)
        and (address is None or service.backend(address) is not None)
        and (state is None or any(b.admin_state is state for b in service.backends))
    ]
    items, following = page(found, lambda service: service.name, after, limit)
    return read.answer(_etag_of_all(read.config), Services(items=items, total=len(found), next=following))


def _is_in(asked: Prefix, service: Service) -> bool:
    """Whether an address or prefix lies in what the service takes."""
    return Prefix.parse(str(service.vip)).contains(asked)


@router.post(
    "",
    summary="Add a service, or several",
    status_code=201,
    response_model=Service | Services,
    responses=documented(*BODY, *WRITE),
    openapi_extra=takes({Media.JSON: Service | list[Service] | ServiceSet}, _EXAMPLE),
)
def add_service(body: JsonDep, write: WriteDep) -> Service | Services:
    """One, an array or `{"items": […]}`: all or none, with what is wrong with each. 409 if a name or a VIP is taken.

    If-Match means the collection's ETag.
    """
    wanted = Added.read(Service, body.json())

    def add(config: Config, service: Service) -> Config:
        if service.name in config.services:
            raise ConflictError(
                f'there is a service "{service.name}" already: change it ("sluice service set {service.name}", '
                "PUT or PATCH), or take another name"
            )
        return config.with_service(service)

    def edit(config: Config) -> Config:
        write.check(_etag_of_all(config))
        return wanted.added(config, add)

    config = write.change(edit)
    if not wanted.is_single:
        items = list(wanted.values)
        return write.answer(_etag_of_all(config), Services(items=items, total=len(items)))
    (service,) = wanted.values
    write.created(f"/v1/services/{service.name}")
    return write.answer(etag_of(document_of(service)), service)


@router.get("/{name}", summary="One service", response_model=Service, responses=documented(404))
def get_service(name: NameDep, read: ReadDep) -> Service | Response:
    """The desired service; /status has its observed state."""
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
    """Its packets then go to the kernel, like those of any address that is not a VIP."""

    def edit(config: Config) -> Config:
        write.check(etag_of(document_of(config.service(name))))
        return config.without_service(name)

    write.change(edit)

"""FastAPI dependencies of the handlers: the reconciler, a read, a write, and the parts of the request."""

from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request, Response
from fastapi.dependencies.models import Dependant
from pydantic import TypeAdapter, ValidationError, WithJsonSchema

from api.access.control import AccessControl
from api.access.identity import CALLER_KEY, Caller
from api.bodies import LIST_LIMITS, Body, Media, body_of
from api.envelope import REVISION_KEY
from api.etags import Preconditions
from api.exchange import Read, Write, callers_of
from api.followers import Followers
from api.problems import parameter_error
from lb.feeds.schedule import Feeds
from lb.model import Prefix
from lb.model.address import Address
from lb.reconcile.guard import Guard
from lb.reconcile.loop import Reconciler

_TAG = '(W/)?"[^"]*"'
Tags = Annotated[
    list[str],
    WithJsonSchema({"type": "string", "pattern": rf"^(\*|{_TAG}(, ?{_TAG})*)$", "examples": ['"1f0c9a"']}),
]
AddressText = Annotated[
    str, WithJsonSchema({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})
]
PrefixText = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"})]
"""How parameters appear in the OpenAPI document."""

# Dependencies are coroutines even where they await nothing: plain functions would each cost a thread hop.


async def _reconciler(request: Request) -> Reconciler:
    reconciler: Reconciler = request.app.state.reconciler
    return reconciler


ReconcilerDep = Annotated[Reconciler, Depends(_reconciler)]


def _preconditions(if_match: list[str] | None, if_none_match: list[str] | None) -> Preconditions:
    """Several headers of one name are one list."""
    headers = (None if values is None else ", ".join(values) for values in (if_match, if_none_match))
    try:
        return Preconditions.parse(*headers)
    except ValueError as error:
        raise parameter_error("header", *error.args) from None


async def _read(
    request: Request,
    response: Response,
    reconciler: ReconcilerDep,
    if_none_match: Annotated[
        Tags | None, Header(description="ETags that the caller has: 304 if one is still current")
    ] = None,
) -> Read:
    desired = reconciler.desired
    request.scope["state"][REVISION_KEY] = desired.revision
    return Read(desired.config, _preconditions(None, if_none_match), response)


async def _guard(
    request: Request,
    force: Annotated[
        bool, Query(description="proceed even if it drops an address in use, or moves more than is allowed")
    ] = False,
    sluice_caller_address: Annotated[
        AddressText | None,
        Header(description="the address that the session of a caller on this host comes from"),
    ] = None,
) -> Guard:
    try:
        return Guard(callers_of(request, sluice_caller_address), force)
    except ValueError:
        says = "it is not an IPv4 or IPv6 address: leave it out, or write one"
        raise parameter_error("header", "Sluice-Caller-Address", says) from None


async def _write(
    request: Request,
    response: Response,
    reconciler: ReconcilerDep,
    if_match: Annotated[Tags | None, Header(description="write only if the ETag is one of these")] = None,
    if_none_match: Annotated[
        Tags | None, Header(description="* creates only: writes if nothing is there yet")
    ] = None,
    *,
    guard: Annotated[Guard, Depends(_guard)],
) -> AsyncIterator[Write]:
    """A dependency after the body: a slow sender keeps nobody else waiting."""
    _refuse_unknown(request)
    control: AccessControl = request.app.state.access
    async with control.turns.one():
        yield Write(request, response, reconciler, _preconditions(if_match, if_none_match), guard)


def _refuse_unknown(request: Request) -> None:
    """Whoever writes `?dry_run=true` where that is not known must not find the change made."""
    if not request.query_params:
        return
    known = set(_query_of(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise parameter_error("query", name, f"this operation has no such parameter: it has {listed}")


def _query_of(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_of(inner)


def hold_stream(request: Request) -> None:
    """The answer is a stream. TooManyError: there are too many already."""
    control: AccessControl = request.app.state.access
    control.hold_stream(request.scope)


async def _hold(request: Request) -> None:
    hold_stream(request)


HoldDep = Depends(_hold)
"""Of operations whose answer goes on."""


async def _access(request: Request) -> AccessControl:
    control: AccessControl = request.app.state.access
    return control


async def _caller(request: Request) -> Caller:
    caller: Caller = request.scope["state"][CALLER_KEY]
    return caller


AccessDep = Annotated[AccessControl, Depends(_access)]
CallerDep = Annotated[Caller, Depends(_caller)]
ReadDep = Annotated[Read, Depends(_read)]
WriteDep = Annotated[Write, Depends(_write, scope="function")]

JsonDep = Annotated[Body, Depends(body_of(Media.JSON))]
JsonOrTextDep = Annotated[Body, Depends(body_of(Media.JSON, Media.TEXT, limits=LIST_LIMITS))]
JsonOrPcapDep = Annotated[Body, Depends(body_of(Media.JSON, Media.PCAP))]
JsonOrYamlDep = Annotated[Body, Depends(body_of(Media.JSON, Media.YAML))]

_ADDRESS: TypeAdapter[IPv4Address | IPv6Address] = TypeAdapter(Address)


async def _feeds(request: Request) -> Feeds:
    feeds: Feeds = request.app.state.feeds
    return feeds


async def _followers(request: Request) -> Followers:
    followers: Followers = request.app.state.followers
    return followers


FollowersDep = Annotated[Followers, Depends(_followers)]
FeedsDep = Annotated[Feeds, Depends(_feeds)]
FeedNameDep = Annotated[str, Path(description="name of the feed", examples=["drop"])]
NameDep = Annotated[str, Path(description="name of the service", examples=["web"])]
OperationDep = Annotated[str, Path(description="as given in Location", examples=["drain~web~10.0.0.11"])]


def address_of(where: str, name: str, text: str) -> IPv4Address | IPv6Address:
    """The address that a parameter is; a refusal that names it."""
    try:
        return _ADDRESS.validate_python(text)
    except ValidationError as error:
        raise parameter_error(where, name, error.errors()[0]["msg"]) from None


async def _address(
    address: Annotated[AddressText, Path(description="address of the backend", examples=["10.0.0.11"])],
) -> IPv4Address | IPv6Address:
    return address_of("path", "address", address)


AddressDep = Annotated[IPv4Address | IPv6Address, Depends(_address)]


def prefix_of(where: str, name: str, text: str) -> Prefix:
    """The prefix that a parameter is; a refusal that names it."""
    try:
        return Prefix.parse(text)
    except ValueError as error:
        raise parameter_error(where, name, str(error)) from None


async def _prefix_in_path(
    prefix: Annotated[
        PrefixText,
        Path(
            description="the prefix, its slash plain or as %2F; a bare address means /32 or /128",
            examples=["203.0.113.0%2F24"],
        ),
    ],
) -> Prefix:
    return prefix_of("path", "prefix", prefix)


PrefixDep = Annotated[Prefix, Depends(_prefix_in_path)]


async def _after(
    after: Annotated[
        PrefixText | None, Query(description="the `next` of the previous page", examples=["203.0.113.0/24"])
    ] = None,
) -> Prefix | None:
    return None if after is None else prefix_of("query", "after", after)


async def _overlaps(
    overlaps: Annotated[
        str | None,
        Query(
            description="only what contains this address or prefix, or lies in it", examples=["203.0.113.7"]
        ),
    ] = None,
) -> Prefix | None:
    return None if overlaps is None else prefix_of("query", "overlaps", overlaps)


DryRunDep = Annotated[bool, Query(description="only show what would change, and move")]
MaxMovedDep = Annotated[
    float | None,
    Query(
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="refuse if more of any service's ring or live flows would move; default: as in the settings",
    ),
]
AcceptDep = Annotated[str, Header(description="the formats that the caller accepts, by preference")]
AfterDep = Annotated[Prefix | None, Depends(_after)]
OverlapsDep = Annotated[Prefix | None, Depends(_overlaps)]
LimitDep = Annotated[int, Query(ge=1, le=10000, description="entries per page, at most")]

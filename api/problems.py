"""Errors as RFC 9457 problem documents: one table from exception to status, and the handlers that use it."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from http.client import responses
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from lb.errors import (
    AuthenticationError,
    BudgetError,
    CapacityError,
    ConflictError,
    DataPlaneError,
    FeedError,
    FieldError,
    ForbiddenError,
    InvalidError,
    KnownAnswerError,
    MalformedError,
    NotFoundError,
    PreconditionError,
    SetupError,
    SluiceError,
    StoreError,
    TooLargeError,
    TooManyError,
    TooSlowError,
)
from lb.events import REQUEST_ID

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:sluice:problem:"


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of problems: name ends its type URI, title says it in words."""

    status: int
    name: str
    title: str

    @property
    def type(self) -> str:
        """The URI in the problem's `type`; a name, not an address."""
        return TYPE_PREFIX + self.name


MALFORMED = Kind(400, "malformed", "The request cannot be read")
INVALID = Kind(422, "invalid", "The request holds values that cannot be accepted")
NOT_READY = Kind(503, "data-plane", "The data plane is not in service")
INTERNAL = Kind(500, "internal", "Something went wrong inside Sluice")

FEED = Kind(502, "feed", "The feed was refused, and keeps its entries")

KINDS: Mapping[type[SluiceError], Kind] = {
    MalformedError: MALFORMED,
    AuthenticationError: Kind(401, "unauthenticated", "The caller is not identified"),
    ForbiddenError: Kind(403, "forbidden", "The caller may not do this"),
    NotFoundError: Kind(404, "not-found", "Not found"),
    BudgetError: Kind(409, "budget", "It would move more than is allowed"),
    TooSlowError: Kind(408, "timeout", "The request arrives too slowly"),
    ConflictError: Kind(409, "conflict", "It clashes with what exists"),
    PreconditionError: Kind(412, "precondition", "The state is no longer the one you have seen"),
    TooLargeError: Kind(413, "too-large", "The request is too large"),
    InvalidError: INVALID,
    TooManyError: Kind(429, "too-many-requests", "Too many requests"),
    FeedError: FEED,
    StoreError: Kind(503, "store", "The state cannot be read or written"),
    SetupError: Kind(503, "setup", "This machine lacks something Sluice needs"),
    DataPlaneError: NOT_READY,
    KnownAnswerError: Kind(503, "known-answer", "The new program was refused, and the old one stays"),
    CapacityError: Kind(507, "capacity", "A table is full"),
    SluiceError: INTERNAL,
}
"""Every error Sluice raises on purpose; a subclass without a line of its own takes that of its parent."""

HTTP_KINDS: Mapping[int, Kind] = {
    **{kind.status: kind for kind in KINDS.values() if kind.status < 500},
    405: Kind(405, "method-not-allowed", "The resource has no such method"),
    415: Kind(415, "media-type", "The body has a type that is not accepted here"),
    FEED.status: FEED,
}
"""Statuses that the framework raises by itself."""


def kind_of_error(error: SluiceError) -> Kind:
    """The row of the table for an error."""
    return next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)


def kind_of_status(status: int) -> Kind:
    """The row for a bare HTTP status; a generic one where there is none."""
    if status in HTTP_KINDS:
        return HTTP_KINDS[status]
    phrase = responses.get(status, "Error")
    return Kind(status, phrase.lower().replace(" ", "-"), phrase)


def problem(kind: Kind, detail: str, headers: Mapping[str, str] | None = None, **extra: Any) -> Response:
    """The answer; extra members (`errors`, `reasons`) are left out where they are None."""
    document = {"type": kind.type, "title": kind.title, "status": kind.status, "detail": detail}
    extra["request_id"] = REQUEST_ID.get()
    document |= {name: value for name, value in extra.items() if value is not None}
    # ASCII only, so that a lone surrogate quoted from the request can still be sent.
    return Response(json.dumps(document), kind.status, headers, media_type=MEDIA_TYPE)


def field_errors(errors: Iterable[FieldError]) -> list[dict[str, Any]]:
    """The `errors` member: pointer and detail of each fault, and its line where the request was lines."""
    return [
        {"pointer": e.pointer, "detail": e.detail} | ({} if e.line is None else {"line": e.line})
        for e in errors
    ]


def problem_of(error: SluiceError) -> Response:
    """The answer to any error of lb/errors.py."""
    found = error.errors if isinstance(error, InvalidError | ConflictError) else ()
    errors = field_errors(found) or None
    disruption = [asdict(move) for move in error.moves] if isinstance(error, BudgetError) else None
    headers = {}
    if isinstance(error, AuthenticationError):
        said = f', error="{error.error}"' if error.error else ""
        headers["WWW-Authenticate"] = f'Bearer realm="sluice"{said}'
    if isinstance(error, TooManyError):
        headers["Retry-After"] = str(math.ceil(max(1.0, error.retry_seconds)))
    return problem(kind_of_error(error), str(error), headers, errors=errors, disruption=disruption)


def parameter_error(where: str, name: str, detail: str) -> RequestValidationError:
    """A fault in a parameter: where is "path", "query" or "header"."""
    return RequestValidationError([{"loc": (where, name), "msg": detail}])


async def _on_sluice_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SluiceError)
    return problem_of(error)


async def _on_parameter_errors(_request: Request, error: Exception) -> Response:
    """Bodies are read by api/bodies.py, so what the framework refuses is a parameter of the path or query."""
    assert isinstance(error, RequestValidationError)
    errors = []
    for fault in error.errors():
        name = str(fault["loc"][-1])
        says = fault["msg"].removeprefix("Value error, ")
        errors.append({"pointer": "", "parameter": name, "detail": f"{name}: {says}"})
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return problem(INVALID, f"{errors[0]['detail']}{more}", errors=errors)


_HTTP_DETAILS = {
    404: "there is nothing at {path}: /openapi.json lists what there is",
    405: "{path} does not support {method}: the Allow header lists what it supports",
}


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail, headers = error.detail, error.headers
    if detail == responses.get(error.status_code) and error.status_code in _HTTP_DETAILS:
        # The framework's own words say no more than the status.
        detail = _HTTP_DETAILS[error.status_code].format(path=request.url.path, method=request.method)
    if error.status_code == 405:
        headers = {"Allow": ", ".join(_methods(request))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    return problem(kind_of_status(error.status_code), detail, headers)


def _methods(request: Request) -> list[str]:
    """What the resource takes, by the OpenAPI document: the router knows of one route at a time."""
    template = getattr(request.scope.get("route"), "path_format", "")
    taken = [method.upper() for method in request.app.openapi()["paths"].get(template, {"get": {}})]
    return [*taken, *(["HEAD"] if "GET" in taken else []), "OPTIONS"]


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document. The unforeseen are caught by api/envelope.py."""
    app.add_exception_handler(SluiceError, _on_sluice_error)
    app.add_exception_handler(RequestValidationError, _on_parameter_errors)
    app.add_exception_handler(HTTPException, _on_http_exception)

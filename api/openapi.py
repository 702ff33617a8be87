"""The OpenAPI document: what each operation takes, and every way in which it can be refused."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from api import problems, words
from api.bodies import Media
from api.envelope import REQUEST_ID_HEADER, REVISION_HEADER
from api.schemas import Problem

_REF = "#/components/schemas/{model}"
DESIRED = "desired"
"""The tag of resources that have verbs and ETags."""
OBSERVED = "observed"
"""The tag of what can only be read."""

ACCESS = "access"
"""The tag of who may use the API."""

BODY = (400, 408, 413, 415, 422)
"""How a body is refused."""
CALLERS = (401, 403, 429)
"""How a caller is refused, whatever it asks."""
WRITE = (409, 412, 422, 503, 507)
"""How a change is refused, whatever it is."""


_EXAMPLES = {
    Media.TEXT: "203.0.113.0/24\n198.51.100.7  # a comment\n",
    Media.YAML: "blocklist:\n  - prefix: 203.0.113.0/24\n    reason: port scan\n",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation: these problems, those that any may be refused with, and 500."""
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}}
    return {
        status: {"description": problems.kind_of_status(status).title, "content": content}
        for status in sorted({*statuses, *CALLERS, 500})
    }


def answers(kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The `content` of an answer that FastAPI does not make: what is answered, by media type."""
    return {
        media: {"schema": TypeAdapter(kind).json_schema(ref_template=_REF)} for media, kind in kinds.items()
    }


def takes(bodies: Mapping[Media, Any], example: Any = None, *, required: bool = True) -> dict[str, Any]:
    """The `openapi_extra` of an operation: a body of one of these types, and an example of the first."""
    content = answers({media.value: kind for media, kind in bodies.items()})
    for media, described in content.items():
        if (text := _EXAMPLES.get(Media(media))) is not None:
            described["example"] = text
    if example is not None:
        content[next(iter(bodies)).value]["example"] = example
    return {"requestBody": {"required": required, "content": content}}


def document_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """What FastAPI calls for the document; made once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
                separate_input_output_schemas=app.separate_input_output_schemas,
            )
            _complete(document)
            app.openapi_schema = document
        return app.openapi_schema

    return openapi


def _complete(document: dict[str, Any]) -> None:
    """Put in what FastAPI cannot know: the schemas of problems and request bodies, and common headers."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _lift(problem := TypeAdapter(Problem).json_schema(ref_template=_REF), schemas)
    schemas["Problem"] = problem
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["headers"] = {
        "Revision": {"description": "the revision the answer was made from", "schema": {"type": "integer"}},
        "ETag": {
            "description": "names this state of the resource, for If-Match",
            "schema": {"type": "string"},
        },
        "RequestId": {
            "description": "the caller's ID of the request, or a new one: problems, events and the log have it",
            "schema": {"type": "string"},
        },
        "Location": {
            "description": "where the new resource is, if there is one",
            "schema": {"type": "string"},
        },
    }
    for path in document["paths"].values():
        for verb, operation in path.items():
            _complete_operation(verb, operation, schemas)
    words.describe(schemas)


def _complete_operation(verb: str, operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    parameters, responses = operation.get("parameters", ()), operation["responses"]
    for parameter in parameters:
        _say_what_is_sent(parameter)
    for media in operation.get("requestBody", {}).get("content", {}).values():
        _lift(media["schema"], schemas)
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]  # FastAPI's guess, where no parameter can be wrong
    is_desired = DESIRED in operation.get("tags", ())
    if verb == "get" and is_desired:
        responses["304"] = {"description": "the caller has this very version"}
        responses |= {str(status): refusal for status, refusal in documented(422).items()}
    for status, response in responses.items():
        for media in response.get("content", {}).values():
            _lift(media["schema"], schemas)
        headers = response.setdefault("headers", {})
        headers[REVISION_HEADER] = {"$ref": "#/components/headers/Revision"}
        headers[REQUEST_ID_HEADER] = {"$ref": "#/components/headers/RequestId"}
        if is_desired and status in {"200", "201", "304"}:
            headers["ETag"] = {"$ref": "#/components/headers/ETag"}
        if status in {"201", "202"}:
            headers["Location"] = {"$ref": "#/components/headers/Location"}


def _say_what_is_sent(parameter: dict[str, Any]) -> None:
    """A parameter may be left out, but never be null; its description stands beside its schema, not in it too."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema |= kinds[0]
    schema.pop("description", None)


def _lift(schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Move what a schema defines for itself to where all find it."""
    schemas.update(schema.pop("$defs", {}))

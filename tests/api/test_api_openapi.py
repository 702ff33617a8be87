"""The OpenAPI document: complete, true to its word, and every refusal documented."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from api_stack import fill, running_stack
from fastapi.testclient import TestClient

from api.envelope import REVISION_HEADER
from api.words import WORDS
from lb.model import Settings

JsonDocument = dict[str, Any]
PLACES = {"{name}": "web", "{address}": "10.0.0.11", "{prefix}": "203.0.113.0%2F24", "{revision}": "1"}
PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


@pytest.fixture(scope="module")
def standing() -> Iterator[TestClient]:
    """A client of an API that has one of everything, and is only read."""
    with running_stack() as stack:
        yield fill(stack.client)


@pytest.fixture(scope="module")
def document(standing: TestClient) -> JsonDocument:
    """The OpenAPI document."""
    document: JsonDocument = standing.get("/openapi.json").json()
    return document


def operations(document: JsonDocument) -> Iterator[tuple[str, str, JsonDocument]]:
    """Method, path template and description of each operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_defaults_can_be_written(document: JsonDocument) -> None:
    """What the settings' schema gives as defaults is taken as input, and changes nothing."""
    fields = document["components"]["schemas"]["Settings"]["properties"]

    assert (
        Settings.model_validate({k: v["default"] for k, v in fields.items() if "default" in v}) == Settings()
    )


def test_the_paths_are_those_of_this_version(document: JsonDocument) -> None:
    """Paths and verbs, as the README's table has them."""
    found = {path: set(methods) for path, methods in document["paths"].items()}

    entries = {"get", "post", "put", "delete"}
    assert found == {
        "/v1/services": {"get", "post"},
        "/v1/services/{name}": {"get", "put", "patch", "delete"},
        "/v1/services/{name}/status": {"get"},
        "/v1/services/{name}/drain": {"post"},
        "/v1/services/{name}/doctor": {"get"},
        "/v1/services/{name}/backend-setup": {"get"},
        "/v1/services/{name}/backends/{address}/doctor": {"get"},
        "/v1/doctor": {"get"},
        "/v1/services/{name}/backends": {"get", "put"},
        "/v1/services/{name}/backends/{address}": {"get", "put", "patch", "delete"},
        "/v1/services/{name}/backends/{address}/drain": {"post"},
        "/v1/services/{name}/backends/{address}/enable": {"post"},
        "/v1/services/{name}/backends/{address}/disable": {"post"},
        "/v1/blocklist": entries,
        "/v1/blocklist/{prefix}": entries - {"post"},
        "/v1/allowlist": entries,
        "/v1/allowlist/{prefix}": entries - {"post"},
        "/v1/rules": {"get", "post"},
        "/v1/rules/{name}": {"get", "put", "patch", "delete"},
        "/v1/rules/{name}/promote": {"post"},
        "/v1/rules/{name}/status": {"get"},
        "/v1/feeds": {"get"},
        "/v1/feeds/{name}": {"get", "put", "delete"},
        "/v1/feeds/{name}/refresh": {"post"},
        "/v1/config": {"get", "put"},
        "/v1/config/revisions": {"get"},
        "/v1/config/revisions/{revision}": {"get"},
        "/v1/config/revisions/{revision}/diff": {"get"},
        "/v1/config/rollback": {"post"},
        "/v1/config/confirm": {"post"},
        "/v1/status": {"get"},
        "/v1/stats": {"get"},
        "/v1/verdicts": {"get"},
        "/v1/flows": {"get"},
        "/v1/dataplane": {"get"},
        "/v1/explain": {"post"},
        "/v1/events": {"get"},
        "/v1/capture": {"get"},
        "/v1/top": {"get"},
        "/v1/whoami": {"get"},
        "/v1/tokens": {"get", "post"},
        "/v1/tokens/{name}": {"get", "delete"},
        "/v1/audit": {"get"},
        "/v1/operations/{operation_id}": {"get"},
        "/healthz": {"get"},
        "/readyz": {"get"},
        "/metrics": {"get"},
    }


def test_every_operation_documents_its_problems(document: JsonDocument) -> None:
    """Refusals are problem documents; writes document theirs, bodies theirs, and what has a name its 404."""
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        refusals = {s: r for s, r in operation["responses"].items() if s >= "400"}
        assert "500" in refusals, where
        for response in refusals.values():
            assert response["content"] == PROBLEM, where
            assert response["description"], where
        if method != "get" and operation["tags"] == ["desired"]:
            assert refusals.keys() >= {"409", "412", "503", "507"}, where
        if "requestBody" in operation:
            assert refusals.keys() >= {"400", "413", "415", "422"}, where
        assert refusals.keys() >= {"401", "403", "429"}, where
        if "{" in path and (method in {"get", "patch", "delete"} or "backends" in path):
            assert "404" in refusals, where
        if "{address}" in path or "{prefix}" in path:
            assert "422" in refusals, where


def test_every_operation_is_described(document: JsonDocument) -> None:
    """Each has a summary, a description, a tag, and a name of its own; each parameter says what it is."""
    names = [operation["operationId"] for _, _, operation in operations(document)]

    assert len(set(names)) == len(names)
    for method, path, operation in operations(document):
        assert operation["summary"] and operation["description"], (method, path)
        assert operation["tags"][0] in {"desired", "observed", "access"}
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (method, path, parameter["name"])


def test_every_field_says_what_it_is(document: JsonDocument) -> None:
    """Each field of each model has a description: its own, or that of api/words.py."""
    silent = [
        f"{model}.{name}"
        for model, schema in document["components"]["schemas"].items()
        for name, one in schema.get("properties", {}).items()
        if not one.get("description")
    ]

    assert silent == []


def test_every_word_is_needed(document: JsonDocument) -> None:
    """What api/words.py says is said of a field that there is."""
    models = document["components"]["schemas"]
    fields = {name for schema in models.values() for name in schema.get("properties", {})}
    fields |= {f"{m}.{name}" for m, schema in models.items() for name in schema.get("properties", {})}

    assert WORDS.keys() <= fields


def test_every_success_has_a_model_and_a_revision(document: JsonDocument) -> None:
    """What is answered has a schema; every answer bears the revision header; desired resources an ETag."""
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            assert REVISION_HEADER in response["headers"], (method, path, status)
            if status in {"200", "201", "202"}:
                schemas = [media["schema"] for media in response["content"].values()]
                assert schemas and all(schemas), (method, path, status)
            if status in {"200", "201"} and "desired" in operation["tags"]:
                assert "ETag" in response["headers"], (method, path)


def test_every_reference_leads_somewhere(document: JsonDocument) -> None:
    """No $ref is broken, and no schema keeps definitions to itself."""

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            assert "$defs" not in node
            for key, value in node.items():
                yield from [value] if key == "$ref" else references(value)
        elif isinstance(node, list):
            for item in node:
                yield from references(item)

    found = set(references(document))
    assert "#/components/schemas/Problem" in found
    for reference in found:
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert node


def test_the_examples_of_bodies_are_accepted(document: JsonDocument) -> None:
    """Each example in the document can be sent as it stands, to an API that has what the path names."""
    tried = 0
    for method, path, operation in operations(document):
        for media, content in operation.get("requestBody", {}).get("content", {}).items():
            if "example" not in content:
                continue
            target = path
            for place, value in PLACES.items():
                target = target.replace(place, value)
            with running_stack() as stack:
                if path != "/v1/services":
                    fill(stack.client)
                example = content["example"]
                sent = example if isinstance(example, str) else json.dumps(example)
                answer = stack.client.request(method, target, content=sent, headers={"Content-Type": media})
            assert answer.is_success, (method, path, answer.text)
            tried += 1
    assert tried >= 12


def test_answers_have_the_keys_that_their_models_have(standing: TestClient, document: JsonDocument) -> None:
    """What a GET answers fits its model: the required keys are there, and no others than it names."""
    checked = 0
    for method, path, operation in operations(document):
        content = operation["responses"].get("200", {}).get("content", {}).get("application/json")
        if method != "get" or "operation_id" in path or content is None:
            continue
        schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        target = path
        for place, value in PLACES.items():
            target = target.replace(
                place, "198.51.100.1" if "allowlist" in path and place == "{prefix}" else value
            )
        answer = standing.get(target)
        assert answer.status_code == 200, target
        assert set(schema.get("required", ())) <= answer.json().keys() <= schema["properties"].keys(), target
        checked += 1
    assert checked >= 15


def test_no_page_is_served_that_loads_from_elsewhere(standing: TestClient) -> None:
    """The framework's documentation pages, which fetch scripts from other hosts, are off."""
    assert standing.get("/docs").status_code == 404
    assert standing.get("/redoc").status_code == 404

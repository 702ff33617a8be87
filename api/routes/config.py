"""/config: the whole desired state as one document."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from api.bodies import Media
from api.deps import (
    AcceptDep,
    DryRunDep,
    JsonOrYamlDep,
    MaxMovedDep,
    ReadDep,
    ReconcilerDep,
    WriteDep,
)
from api.etags import etag_of
from api.exchange import Write
from api.inputs import object_of
from api.negotiate import prefers_yaml
from api.openapi import BODY, DESIRED, WRITE, documented, takes
from api.schemas import ConfigChange, ConfigDocument
from lb.model import Config
from lb.model.diff import diff
from lb.model.document import parse, to_document, to_yaml
from lb.model.entries import OPERATOR
from lb.reconcile.terms import Terms

router = APIRouter(prefix="/v1/config")

_EXAMPLE = {
    "services": [
        {
            "name": "web",
            "vip": "192.0.2.10",
            "port": 80,
            "protocol": "tcp",
            "backends": [{"address": "10.0.0.11"}],
        }
    ],
    "blocklist": [{"prefix": "203.0.113.0/24", "reason": "port scan"}],
}
_YAML: dict[int | str, dict[str, Any]] = {
    200: {"content": {Media.YAML.value: {"schema": {"type": "string"}}}},
}


def etag_of_config(config: Config, now: float) -> str:
    """Of what the document holds, without making it: it may have a million entries."""
    lists = (config.allowlist, config.blocklist)
    return etag_of(
        [
            [service.model_dump(mode="json") for service in config.services.values()],
            [feed.model_dump(mode="json") for feed in config.feeds.values()],
            config.settings.model_dump(mode="json"),
            sorted(rule.model_dump_json() for rule in config.rules.values()),
            *(entries.layer(OPERATOR).without_expired(now).digest.hex() for entries in lists),
        ]
    )


@router.get(
    "",
    tags=[DESIRED],
    summary="The configuration",
    response_model=ConfigDocument,
    responses=documented() | _YAML,
)
def get_config(read: ReadDep, reconciler: ReconcilerDep, accept: AcceptDep = "") -> Response:
    """The document in the form of PUT, JSON or (by Accept) YAML. Entries of feeds are not part of it."""
    now = reconciler.now()
    etag = etag_of_config(read.config, now)
    headers = {"ETag": etag, "Vary": "Accept"}
    if read.preconditions.not_modified(etag):
        return Response(status_code=304, headers=headers)
    document = to_document(read.config, now=now)
    if prefers_yaml(accept):
        return Response(to_yaml(document), headers=headers, media_type=Media.YAML)
    return JSONResponse(document, headers=headers)


@router.put(
    "",
    tags=[DESIRED],
    summary="Replace the configuration",
    responses=documented(*BODY, *WRITE),
    openapi_extra=takes({Media.JSON: ConfigDocument, Media.YAML: str}, _EXAMPLE),
)
def put_config(
    body: JsonOrYamlDep,
    write: WriteDep,
    dry_run: DryRunDep = False,
    max_moved_percent: MaxMovedDep = None,
    confirm_within_seconds: Annotated[
        int | None,
        Query(ge=1, le=86400, description="roll back after this time, unless it is confirmed; 1 s to a day"),
    ] = None,
) -> ConfigChange:
    """The whole desired state, in one step: what is left out is removed, except entries of feeds.

    Answers with what changed and what moved, or with `dry_run` what would.
    """
    if body.media is Media.JSON and not body.data.lstrip().startswith(b"{"):
        object_of(body.json())  # what is no JSON would be read as YAML
    now = write.reconciler.now()
    terms = Terms(max_moved_percent, tell_moves=True, confirm_within=confirm_within_seconds)
    return whole(write, lambda config: parse(body.data, now=now, have=config), terms, dry_run=dry_run)


def whole(write: Write, edit: Callable[[Config], Config], terms: Terms, *, dry_run: bool) -> ConfigChange:
    """Make an edit of all that the document holds, or only see what it would come to."""
    now = write.reconciler.now()
    steps: list[tuple[Config, Config]] = []

    def checked(config: Config) -> Config:
        if write.is_conditional:
            write.check(etag_of_config(config, now))
        steps.append((config, edit(config)))
        return steps[-1][1]

    if dry_run:
        found = write.reconciler.check(checked, guard=write.guard, terms=terms)
        write.warn(found.warnings)
        return ConfigChange.of(diff(found.before, found.after, now=now), found.moves, None)
    done = write.make(checked, terms)
    pending = write.reconciler.history.pending if terms.confirm_within else None
    change = ConfigChange.of(diff(*steps[-1], now=now), done.moves, pending)
    return write.answer(etag_of_config(done.config, now), change)

"""/config: the whole desired state as one document, and its history."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from api.bodies import Media
from api.deps import AcceptDep, JsonOrYamlDep, LimitDep, ReadDep, ReconcilerDep, WriteDep
from api.etags import etag_of
from api.inputs import object_of
from api.negotiate import prefers_yaml
from api.openapi import BODY, DESIRED, OBSERVED, WRITE, documented, takes
from api.schemas import ConfigDocument, Revision, Revisions
from lb.model import Config
from lb.model.diff import Diff, diff
from lb.model.document import parse, to_document, to_yaml
from lb.model.entries import OPERATOR
from lb.model.times import format_moment

router = APIRouter(prefix="/v1/config")

_ALL = 1 << 31
"""More than the store keeps."""
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


def _etag(config: Config, now: float) -> str:
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
    """The document that PUT takes, JSON or (by Accept) YAML. What feeds hold is no part of it."""
    now = reconciler.now()
    etag = _etag(read.config, now)
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
    dry_run: Annotated[bool, Query(description="only say what would change")] = False,
) -> Diff:
    """The whole of what is wanted, in one step: what is left out is removed, but for what feeds hold.

    Answers with what changed, or with `dry_run` with what would.
    """
    if body.media is Media.JSON and not body.data.lstrip().startswith(b"{"):
        object_of(body.json())  # what is no JSON would be read as YAML
    now = write.reconciler.now()
    steps: list[tuple[Config, Config]] = []

    def edit(config: Config) -> Config:
        if write.is_conditional:
            write.check(_etag(config, now))
        steps.append((config, parse(body.data, now=now, have=config)))
        return steps[-1][1]

    if dry_run:
        before, after, warnings = write.reconciler.check(edit, guard=write.guard)
        write.warn(warnings)
        return diff(before, after, now=now)
    config = write.change(edit)
    return write.answer(_etag(config, now), diff(*steps[-1], now=now))


@router.get("/revisions", tags=[OBSERVED], summary="The history", responses=documented(422))
def list_revisions(
    reconciler: ReconcilerDep,
    after: Annotated[int | None, Query(ge=1, description="the `next` of the page before")] = None,
    limit: LimitDep = 1000,
) -> Revisions:
    """Who changed what and when, the newest first."""
    every = reconciler.revisions(_ALL)
    older = [info for info in every if after is None or info.revision < after]
    following = str(older[limit - 1].revision) if len(older) > limit else None
    items = [
        Revision(
            revision=info.revision,
            created_at=format_moment(info.created_at),
            actor=info.actor,
            summary=info.summary,
        )
        for info in older[:limit]
    ]
    return Revisions(items=items, total=len(every), next=following)

"""/config/revisions, /config/rollback and /config/confirm: earlier revisions, and how to get back to them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter

from api.access.identity import actor_of
from api.bodies import Media
from api.deps import AcceptDep, DryRunDep, JsonDep, LimitDep, MaxMovedDep, ReconcilerDep, WriteDep
from api.inputs import validated
from api.negotiate import prefers_yaml
from api.openapi import BODY, DESIRED, OBSERVED, WRITE, documented, takes
from api.routes.config import etag_of_config, whole
from api.schemas import ConfigChange, ConfigDocument, Confirmed, Revision, Revisions, RollbackRequest
from lb.model.diff import Diff, diff
from lb.model.document import to_document, to_yaml
from lb.model.times import format_moment
from lb.reconcile.terms import Terms

router = APIRouter(prefix="/v1/config")

_REQUEST: TypeAdapter[RollbackRequest] = TypeAdapter(RollbackRequest)
_ALL = 1 << 31
"""More than the store keeps."""
RevisionDep = Annotated[int, Path(ge=1, description="a revision in the history", examples=[1])]


@router.get("/revisions", tags=[OBSERVED], summary="The history", responses=documented(422, 503))
def list_revisions(
    reconciler: ReconcilerDep,
    after: Annotated[int | None, Query(ge=1, description="the `next` of the previous page")] = None,
    limit: LimitDep = 1000,
) -> Revisions:
    """Show who changed what and when, newest first."""
    every = reconciler.history.revisions(_ALL)
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


@router.get(
    "/revisions/{revision}",
    tags=[OBSERVED],
    summary="The configuration of a revision",
    response_model=ConfigDocument,
    responses={
        **documented(404, 422, 503),
        200: {"content": {Media.YAML.value: {"schema": {"type": "string"}}}},
    },
)
def get_revision(revision: RevisionDep, reconciler: ReconcilerDep, accept: AcceptDep = "") -> Response:
    """The document in the form of PUT /config, JSON or (by Accept) YAML. Expired entries are left out."""
    document = to_document(reconciler.history.config_at(revision), now=reconciler.now())
    if prefers_yaml(accept):
        return Response(to_yaml(document), headers={"Vary": "Accept"}, media_type=Media.YAML)
    return JSONResponse(document, headers={"Vary": "Accept"})


@router.get(
    "/revisions/{revision}/diff",
    tags=[OBSERVED],
    summary="What differs between revisions",
    responses=documented(404, 422, 503),
)
def get_difference(
    revision: RevisionDep,
    reconciler: ReconcilerDep,
    since: Annotated[
        int | None, Query(ge=1, description="the revision to compare with; default: the present state")
    ] = None,
) -> Diff:
    """How the state that `since` names becomes that of this revision, including entries of other owners."""
    have = reconciler.desired.config if since is None else reconciler.history.config_at(since)
    return diff(have, reconciler.history.config_at(revision), now=reconciler.now())


@router.post(
    "/rollback",
    tags=[DESIRED],
    summary="Go back to a revision",
    responses=documented(404, *BODY, *WRITE),
    openapi_extra=takes({Media.JSON: RollbackRequest}, {"revision": 1}, required=False),
)
def roll_back(
    body: JsonDep,
    write: WriteDep,
    dry_run: DryRunDep = False,
    max_moved_percent: MaxMovedDep = None,
) -> ConfigChange:
    """Makes a new revision with the document of the given one.

    Without a revision, goes back to the newest that differs; a change that waits to be confirmed is rolled back. 409
    if the newest change is a rollback, which that would undo: give the revision.
    Entries of other owners stay, and expired entries stay expired. Answers with what changed and what moved.
    """
    wanted = validated(_REQUEST, body.json()) if body.data.strip() else RollbackRequest()
    edit = write.reconciler.history.back_to(wanted.revision)
    terms = Terms(max_moved_percent, tell_moves=True, is_rollback=True)
    return whole(write, edit, terms, dry_run=dry_run)


@router.post(
    "/confirm", tags=[DESIRED], summary="Confirm the change that waits", responses=documented(422, *WRITE)
)
def confirm(
    write: WriteDep,
    revision: Annotated[
        int | None, Query(ge=1, description="only if this is the one that waits; default: any")
    ] = None,
) -> Confirmed:
    """A change that was made with `confirm_within_seconds` becomes permanent. 409 if none waits."""
    config, now = write.reconciler.desired.config, write.reconciler.now()
    if write.is_conditional:
        write.check(etag_of_config(config, now))
    kept = write.reconciler.history.confirm(revision, actor=actor_of(write.request.scope))
    return write.answer(etag_of_config(config, now), Confirmed(revision=kept))

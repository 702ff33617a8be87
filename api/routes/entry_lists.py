"""The routes of a prefix list, made once for the blocklist and once for the allowlist."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse

from api.bodies import Media
from api.deps import (
    AfterDep,
    JsonDep,
    JsonOrTextDep,
    LimitDep,
    OverlapsDep,
    PrefixDep,
    ReadDep,
    ReconcilerDep,
    WriteDep,
)
from api.entries import Outcome, cleared, put, put_all, refuse_foreign, take
from api.entry_schemas import Changed
from api.exchange import Write
from api.inputs import object_of
from api.list_bodies import Wanted, prefixes_of, read_added, read_kept, read_whole
from api.list_kinds import ListKind, ListQuery
from api.openapi import BODY, DESIRED, WRITE, answers, documented, takes
from lb.errors import NotFoundError
from lb.model import Config
from lb.model.entry_export import exported
from lb.model.layers import Layer
from lb.model.owner import EVERYONE, OPERATOR, Owner

_EXAMPLE = {"prefix": "203.0.113.0/24", "reason": "port scan", "ttl_seconds": 3600}

WhoseDep = Annotated[
    str,
    Query(
        description='the owner: "operator", "fail2ban", "feed:NAME"; * is everyone', examples=["feed:spam"]
    ),
]
ExportDep = Annotated[
    Literal["plain", "json"] | None,
    Query(
        description="everything at once, in the form of POST: dropped prefixes as lines, or each owner's entries"
    ),
]
OnlyDep = Annotated[Owner | None, Query(description="only entries of this owner", examples=["fail2ban"])]


def router_of(kind: ListKind) -> APIRouter:
    """The routes of one list."""
    router = APIRouter(prefix=f"/v1/{kind.name}", tags=[DESIRED])
    _add_routes_of_all(router, kind)
    _add_routes_of_one(router, kind)
    return router


def _apply(kind: ListKind, write: Write, wanted: Wanted, now: float) -> tuple[Config, Outcome]:
    """Change the list; the list's own tag is checked."""
    outcomes: list[Outcome] = []

    def edit(config: Config) -> Config:
        present = kind.of(config)
        if write.is_conditional:  # a digest of a million entries is not made for nothing
            write.check(kind.etag_of_all(present, now))
        for owner in wanted.layers:
            refuse_foreign(config, owner)
        outcomes.append(put_all(present, wanted.layers, now, whole=wanted.whole))
        return kind.put(config, outcomes[-1].result)

    return write.change(edit), outcomes[-1]


def _changed(outcome: Outcome) -> Changed:
    return Changed(
        added=outcome.added, replaced=outcome.replaced, removed=outcome.removed, total=outcome.total
    )


def _add_routes_of_all(router: APIRouter, kind: ListKind) -> None:
    query_dep = Depends(kind.query)

    @router.get(
        "",
        summary=f"The {kind.name}, a page at a time",
        response_model=kind.page,
        responses=documented(422) | {200: {"content": answers({Media.TEXT: str})}},
    )
    def list_entries(
        read: ReadDep,
        reconciler: ReconcilerDep,
        after: AfterDep,
        overlaps: OverlapsDep,
        *,
        limit: LimitDep = 1000,
        owner: OnlyDep = None,
        export: ExportDep = None,
    ) -> Any:
        """In order of address and length. The ETag is that of all that is asked for, hits left out."""
        entries, now = kind.of(read.config).only(owner).overlapping(overlaps), reconciler.now()
        if export is not None:
            media = Media.TEXT if export == "plain" else Media.JSON
            return StreamingResponse(exported(entries, now, export), media_type=media)
        etag = kind.etag_of_all(entries, now)
        if read.preconditions.not_modified(etag):
            return read.answer(etag, None)
        found = entries.page(now, after, limit + 1)
        following = str(found[limit - 1].prefix) if len(found) > limit else None
        items = kind.shown(found[:limit], reconciler, owner)
        return read.answer(etag, kind.page(items=items, total=entries.count(now), next=following))

    @router.post(
        "",
        summary=f"Add to the {kind.name}",
        status_code=201,
        response_model=kind.entry | kind.added | Changed,
        responses=documented(*BODY, *WRITE),
        openapi_extra=takes({Media.JSON: kind.one_or_many, Media.TEXT: str}, _EXAMPLE),
    )
    def add_entries(body: JsonOrTextDep, write: WriteDep, query: ListQuery = query_dep) -> Any:
        """Add one entry, an array or `{"items": […]}`, or lines of text: all or, if one is wrong, none.

        An existing entry is replaced. The answer to one entry is the entry, to several all of them, to text what it
        changed. With `feed`, the lines replace all entries of the feed. If-Match refers to the list's ETag.
        """
        now = write.reconciler.now()
        wanted = read_added(kind, body, query, now)
        config, outcome = _apply(kind, write, wanted, now)
        entries = kind.of(config)
        changed = _changed(outcome)
        if wanted.is_text:
            return write.answer(kind.etag_of_all(entries, now), changed)
        found = [entry for p in prefixes_of(wanted.layers) if (entry := entries.get(p, now))]
        items = kind.shown(found, write.reconciler)
        if wanted.is_single:
            write.created(kind.location(found[0].prefix))
            return write.answer(kind.etag(found[0]), items[0])
        return write.answer(kind.etag_of_all(entries, now), kind.added(items=items, changed=changed))

    @router.put(
        "",
        summary=f"Replace an owner's {kind.name}",
        responses=documented(*BODY, *WRITE),
        openapi_extra=takes({Media.JSON: kind.many, Media.TEXT: str}, [_EXAMPLE]),
    )
    def put_entries(body: JsonOrTextDep, write: WriteDep, query: ListQuery = query_dep) -> Changed:
        """These become all entries of the operator (or of that `owner`); other owners keep theirs.

        An entry that asks for the same as before keeps its age and its deadline.
        """
        now = write.reconciler.now()
        config, outcome = _apply(kind, write, read_whole(kind, body, query, now), now)
        return write.answer(kind.etag_of_all(kind.of(config), now), _changed(outcome))

    @router.delete(
        "",
        summary=f"Clear the {kind.name}",
        status_code=204,
        response_class=Response,
        responses=documented(422, *WRITE),
    )
    def clear_entries(write: WriteDep, owner: WhoseDep = OPERATOR) -> None:
        """Remove all entries of the operator, or of that `owner`; with `owner=*`, all except declared feeds'."""

        def edit(config: Config) -> Config:
            present = kind.of(config)
            if write.is_conditional:
                write.check(kind.etag_of_all(present, write.reconciler.now()))
            refuse_foreign(config, owner, removes=True)
            return kind.put(config, cleared(config, present, owner))

        write.change(edit)


def _add_routes_of_one(router: APIRouter, kind: ListKind) -> None:
    # :path, for a slash that was sent as %2F is a slash again when routes are matched.
    path = "/{prefix:path}"

    @router.get(path, summary="One entry", response_model=kind.detail, responses=documented(404, 422))
    def get_entry(prefix: PrefixDep, read: ReadDep, reconciler: ReconcilerDep) -> Any:
        """The entry of that very prefix, what each owner says, the packets decided. Hits are not part of the ETag."""
        entry = kind.of(read.config).get(prefix, reconciler.now())
        if entry is None:
            raise NotFoundError(
                f'{prefix} is not on the {kind.name}: "sluice {kind.name} list" shows what is there'
            )
        return read.answer(kind.etag(entry), kind.detailed(entry, reconciler))

    @router.put(
        path,
        summary="Create or replace an entry",
        response_model=kind.detail,
        responses=documented(*BODY, *WRITE) | {201: {"description": "created", "model": kind.detail}},
        openapi_extra=takes({Media.JSON: kind.item}, _EXAMPLE),
    )
    def put_entry(prefix: PrefixDep, body: JsonDep, write: WriteDep, owner: OnlyDep = None) -> Any:
        """An owner's entry for that prefix; what is left out takes its default. A TTL starts again."""
        now = write.reconciler.now()
        whose, attributes = read_kept(kind, object_of(body.json()), prefix, owner or OPERATOR, now)
        layer = Layer.of([(prefix, attributes)])
        existed = False

        def edit(config: Config) -> Config:
            nonlocal existed
            present = kind.of(config)
            before = present.get(prefix, now)
            existed = before is not None
            write.check(None if before is None else kind.etag(before))
            refuse_foreign(config, whose)
            return kind.put(config, put(present, whose, layer, now).result)

        entry = kind.of(write.change(edit)).get(prefix, now)
        assert entry is not None
        if not existed:
            write.created(kind.location(prefix))
        return write.answer(kind.etag(entry), kind.detailed(entry, write.reconciler))

    @router.delete(
        path,
        summary="Remove an entry",
        status_code=204,
        response_class=Response,
        responses=documented(404, 422, *WRITE),
    )
    def delete_entry(prefix: PrefixDep, write: WriteDep, owner: WhoseDep = OPERATOR) -> None:
        """Remove the entry of the operator (or of that `owner`, with `*` everyone's); 409 if only others have one."""
        now = write.reconciler.now()

        def edit(config: Config) -> Config:
            present = kind.of(config)
            before = present.get(prefix, now)
            if before is not None:
                write.check(kind.etag(before))
            for name in before.owners if owner == EVERYONE and before else [owner]:
                refuse_foreign(config, name, removes=True)
            return kind.put(config, take(present, prefix, owner, now, kind.name))

        write.change(edit)

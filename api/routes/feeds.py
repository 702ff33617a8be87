"""/feeds: lists of prefixes that others publish, and their observed state."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import TypeAdapter

from api.bodies import Media
from api.deps import FeedNameDep, FeedsDep, JsonDep, ReadDep, ReconcilerDep, WriteDep
from api.etags import etag_of
from api.feeds import shown
from api.inputs import object_of, validated
from api.openapi import BODY, DESIRED, OBSERVED, WRITE, documented, takes
from api.operations import refresh_id, refresh_operation
from api.pages import PAGE_MOST, AfterDep, LimitDep, page
from api.schemas import FeedsView, FeedView, RefreshOperation
from lb.errors import FeedError, InvalidError
from lb.model import Config, Feed

router = APIRouter(prefix="/v1/feeds", tags=[DESIRED])

_FEED = TypeAdapter(Feed)
_EXAMPLE = {"url": "https://lists.example.net/drop.txt", "refresh_seconds": 3600, "reason": "known bad"}
_SHOWN_ONLY = "observed"


def _etag(feed: Feed) -> str:
    return etag_of(feed.model_dump(mode="json"))


@router.get("", summary="All feeds", response_model=FeedsView, responses=documented(422))
def list_feeds(
    read: ReadDep,
    reconciler: ReconcilerDep,
    feeds: FeedsDep,
    *,
    after: AfterDep = None,
    limit: LimitDep = PAGE_MOST,
) -> Any:
    """In the order they were added, with the observed state of each, which is not part of the ETag."""
    every = list(read.config.feeds.values())
    found, following = page(every, lambda feed: feed.name, after, limit)
    etag = etag_of([feed.model_dump(mode="json") for feed in every])
    items = shown(found, read.config, reconciler, feeds)
    return read.answer(etag, FeedsView(items=items, total=len(every), next=following))


@router.get("/{name}", summary="One feed", response_model=FeedView, responses=documented(404))
def get_feed(name: FeedNameDep, read: ReadDep, reconciler: ReconcilerDep, feeds: FeedsDep) -> Any:
    """The feed, and its observed state, which is not part of the ETag."""
    feed = read.config.feed(name)
    return read.answer(_etag(feed), shown([feed], read.config, reconciler, feeds)[0])


@router.put(
    "/{name}",
    summary="Create or replace a feed",
    response_model=FeedView,
    responses=documented(*BODY, *WRITE) | {201: {"description": "created", "model": FeedView}},
    openapi_extra=takes({Media.JSON: Feed}, _EXAMPLE),
)
def put_feed(name: FeedNameDep, body: JsonDep, write: WriteDep, feeds: FeedsDep) -> Any:
    """The whole feed: what is left out takes its default. It is then fetched at once, after the answer."""
    said = {key: value for key, value in object_of(body.json()).items() if key != _SHOWN_ONLY}
    feed = validated(_FEED, {"name": name, **said})
    if feed.name != name:
        raise InvalidError.one("/name", f'the path names "{name}": leave the name out, or write the same')
    existed = False

    def edit(config: Config) -> Config:
        nonlocal existed
        before = config.feeds.get(name)
        existed = before is not None
        write.check(None if before is None else _etag(before))
        return config.with_feeds({**config.feeds, name: feed})

    config = write.change(edit)
    if not existed:
        write.created(f"/v1/feeds/{name}")
    return write.answer(_etag(feed), shown([feed], config, write.reconciler, feeds)[0])


@router.delete(
    "/{name}",
    summary="Remove a feed",
    status_code=204,
    response_class=Response,
    responses=documented(404, *WRITE),
)
def delete_feed(name: FeedNameDep, write: WriteDep) -> None:
    """Its entries are removed from the blocklist too."""

    def edit(config: Config) -> Config:
        write.check(_etag(config.feed(name)))
        return config.with_feeds({n: feed for n, feed in config.feeds.items() if n != name})

    write.change(edit)


@router.post(
    "/{name}/refresh",
    tags=[OBSERVED],
    summary="Refresh a feed now",
    response_model=FeedView | RefreshOperation,
    responses=documented(404, 422, 502)
    | {202: {"description": "still running: see the operation", "model": RefreshOperation}},
)
def refresh_feed(
    name: FeedNameDep,
    reconciler: ReconcilerDep,
    feeds: FeedsDep,
    response: Response,
    wait_seconds: Annotated[
        float, Query(ge=0, le=30, description="how long to wait for it to finish; 0: not at all")
    ] = 10,
) -> Any:
    """Fetch it now, whether it is due or not. 200 when it is done, 502 if it was refused, 202 if it takes longer."""
    reconciler.desired.config.feed(name)
    number = feeds.refresh(name)
    if not wait_seconds or not feeds.wait(name, number, wait_seconds):
        response.status_code = 202
        operation = refresh_id(name, number)
        response.headers["Location"] = f"/v1/operations/{operation}"
        return refresh_operation(operation, reconciler.desired.config, feeds)
    config = reconciler.desired.config
    feed, error = config.feed(name), feeds.state(name).error
    if error is not None:
        raise FeedError(f"feed {name} was not refreshed, and keeps its entries: {error}")
    return shown([feed], config, reconciler, feeds)[0]

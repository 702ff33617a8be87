"""/events: what happened, as a page or as it happens (server-sent events, WHATWG HTML 9.2)."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import WithJsonSchema

from api.deps import AcceptDep, FollowersDep, ReconcilerDep, hold_stream
from api.followers import GATHER_SECONDS, Followers
from api.observed_schemas import EventsPage
from api.openapi import OBSERVED, documented
from api.problems import parameter_error
from api.streams import SSE, streaming
from lb.events import Event, Events, matcher
from lb.model.times import parse_duration

router = APIRouter(prefix="/v1", tags=[OBSERVED])

EventNumber = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^[0-9]{0,18}$"})]

HEARTBEAT_SECONDS = 15.0
READ_MOST = 500
"""Events that are put into words before what was put is sent: a slow reader costs no memory."""


@router.get(
    "/events",
    summary="What happened",
    response_model=EventsPage,
    responses=documented(422, 429) | {200: {"content": {SSE: {"schema": {"type": "string"}}}}},
)
async def get_events(
    *,
    request: Request,
    reconciler: ReconcilerDep,
    followers: FollowersDep,
    accept: AcceptDep = "*/*",
    last_event_id: Annotated[
        EventNumber | None, Header(description="the number of the last event received: continue after it")
    ] = None,
    kind: Annotated[
        list[str] | None,
        Query(description="only these kinds, and those below them: feed includes feed.failed"),
    ] = None,
    level: Annotated[
        Literal["info", "warning", "error"] | None, Query(description="only this level and worse")
    ] = None,
    after: Annotated[int | None, Query(ge=0, description="as Last-Event-ID; 0: from the oldest kept")] = None,
    since: Annotated[
        str | None,
        Query(description="only since that long ago: seconds, or a text such as 10m", examples=["10m"]),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10000, description="events per page, at most")] = 1000,
    follow: Annotated[bool | None, Query(description="stream new events; default: as Accept says")] = None,
) -> Response:
    """The last 10,000, oldest first. With Accept: text/event-stream (or follow=true) the answer is a stream.

    The stream begins with the next event, or after Last-Event-ID, and has an event `lost` if some that the reader
    missed are no longer kept. After every 15 s without an event there is a comment.
    """
    events, matches = reconciler.events, _matcher(kind or [], level, since)
    place = _place(last_event_id, after)
    if follow if follow is not None else _prefers_stream(accept):
        hold_stream(request)
        last = place if place is not None else (0 if since else events.last)
        return await streaming(_stream(events, followers, last, matches), SSE)
    part = events.read(place or 0)
    found = [event for event in part.events if matches(event)]
    page = found[:limit]
    document = {
        "items": [event.document() for event in page],
        "total": len(found),
        "next": page[-1].id if len(page) < len(found) else None,
        "last": page[-1].id if len(page) < len(found) else part.last,
    }
    return Response(json.dumps(document), media_type="application/json")


def _prefers_stream(accept: str) -> bool:
    return any(item.partition(";")[0].strip().lower() == SSE for item in accept.split(","))


def _place(last_event_id: str | None, after: int | None) -> int | None:
    if last_event_id is None or last_event_id == "":
        return after
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19):
        raise parameter_error(
            "header", "Last-Event-ID", "it is not an event's number: send the value of an event's id: line"
        )
    return int(last_event_id)


def _matcher(kinds: list[str], level: str | None, since: str | None) -> Callable[[Event], bool]:
    chosen = matcher(kinds, level)
    if since is None:
        return chosen
    try:
        earliest = time.time() - parse_duration(since)
    except ValueError as error:
        raise parameter_error("query", "since", str(error)) from None
    return lambda event: event.time >= earliest and chosen(event)


async def _stream(
    events: Events, followers: Followers, last: int, matches: Callable[[Event], bool]
) -> AsyncGenerator[str, None]:
    """The lines of the stream. Whoever reads slowly is waited for here, and finds what is still kept then."""
    with followers.room() as room:
        yield f"id: {last}\n\n"
        while True:
            is_last = events.is_closed
            part = events.read(last, READ_MOST)
            text = "" if part.lost == 0 else _lost(part.lost)
            text += "".join(map(followers.text, filter(matches, part.events)))
            last = part.last
            if text:
                yield text
            if len(part.events) == READ_MOST:
                continue
            if is_last:
                return
            if part.events:
                await asyncio.sleep(GATHER_SECONDS)
            elif not await room.wait(HEARTBEAT_SECONDS):
                yield f": nothing new\nid: {last}\n\n"


def _lost(number: int | None) -> str:
    """No event of the list: it has a name of its own, and no number. None: an earlier run's, nobody knows how many."""
    return f"event: lost\ndata: {json.dumps({'lost': number})}\n\n"

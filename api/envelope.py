"""What every answer has, whoever made it: its revision, a count, and a problem where a handler failed."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import INTERNAL, problem

REVISION_HEADER = "Sluice-Revision"
REVISION_KEY = "sluice.revision"
"""Where in scope["state"] a handler leaves the revision that its answer was made from."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestLabels:
    """What a request is counted by; route is the template, never the path, so that the series stay few."""

    method: str
    route: str
    status: int


@dataclass(slots=True)
class RequestCounts:
    """Requests answered, by label. Written by the event loop alone; `copy` is for other threads."""

    totals: Counter[RequestLabels] = field(default_factory=Counter)

    def copy(self) -> dict[RequestLabels, int]:
        """As they are now."""
        return dict(self.totals)


class Envelope:
    """ASGI middleware; revision is asked for the present one where no handler has left its own."""

    def __init__(self, app: ASGIApp, *, revision: Callable[[], int], counts: RequestCounts) -> None:
        self._app = app
        self._revision = revision
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; lifespan events go through untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        status = 0

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                revision = state[REVISION_KEY] if REVISION_KEY in state else self._revision()
                MutableHeaders(scope=message)[REVISION_HEADER] = str(revision)
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except ClientDisconnect:
            log.info("%s %s: the client hung up before its request was read", scope["method"], scope["path"])
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if status:
                raise  # half an answer is out: only cutting the connection tells the client
            failed = problem(INTERNAL, "an error that Sluice did not foresee: its log says more")
            await failed(scope, receive, send_counted)
        if status:
            route = getattr(scope.get("route"), "path_format", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._counts.totals[RequestLabels(method, route, status)] += 1

"""Middleware for every answer: its revision, its request's ID, a count, and a problem if a handler failed.

HEAD is answered here too, as GET without its body.
"""

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import access_log
from api.access.identity import actor_of
from api.observations import Observations
from api.problems import INTERNAL, problem
from lb.events import REQUEST_ID

REVISION_HEADER = "Sluice-Revision"
REVISION_KEY = "sluice.revision"
"""Where in scope["state"] a handler leaves the revision that its answer was made from."""
REQUEST_ID_HEADER = "X-Request-Id"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

log = logging.getLogger("sluice.api")


class Envelope:
    """ASGI middleware; revision is asked for the present one where no handler has left its own."""

    def __init__(self, app: ASGIApp, *, revision: Callable[[], int], observations: Observations) -> None:
        self._app = app
        self._revision = revision
        self._observations = observations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; lifespan events go through untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with _request_id(scope) as request_id:
            await self._answer(scope, receive, send, request_id)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        state = scope.setdefault("state", {})
        method = scope["method"]
        if method == "HEAD":
            scope["method"], send = "GET", _without_body(send)
        began, took, status = time.perf_counter(), 0.0, 0

        async def send_counted(message: Message) -> None:
            nonlocal status, took
            if message["type"] == "http.response.start":
                status, took = message["status"], time.perf_counter() - began
                revision = state[REVISION_KEY] if REVISION_KEY in state else self._revision()
                headers = MutableHeaders(scope=message)
                headers[REVISION_HEADER] = str(revision)
                headers[REQUEST_ID_HEADER] = request_id
                self._tell(scope, method, status, took)
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except ClientDisconnect:
            log.info("%s %s: the client hung up before its request was read", method, ascii(scope["path"]))
        except Exception:
            log.exception("%s %s failed", method, ascii(scope["path"]))
            if status:
                raise  # half an answer is out: only cutting the connection tells the client
            failed = problem(INTERNAL, "an unexpected error: the daemon's log says more")
            await failed(scope, receive, send_counted)

    def _tell(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        """Count and log an answer as it begins: one that goes on for hours is not slow."""
        route = getattr(scope.get("route"), "path_format", "unmatched")
        self._observations.answered(method if method in _METHODS else "other", route, status, seconds)
        access_log.told(actor_of(scope), method, scope["path"], status, seconds)


@contextmanager
def _request_id(scope: Scope) -> Iterator[str]:
    """The caller's id if it is one that can stand in a log, else one of ours; it is known wherever this is answered."""
    told = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    request_id = told if _SANE_ID.fullmatch(told) else secrets.token_hex(8)
    token = REQUEST_ID.set(request_id)
    try:
        yield request_id
    finally:
        REQUEST_ID.reset(token)


def _without_body(send: Send) -> Send:
    """The same answer, but for its body; one that would go on ends with its head."""
    is_over = False

    async def send_head(message: Message) -> None:
        nonlocal is_over
        if message["type"] == "http.response.start":
            await send(message)
        elif not is_over:
            is_over = True
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_head

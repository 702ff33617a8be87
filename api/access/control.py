"""ASGI middleware: identifies the caller, refuses what it may not do, and audits the rest."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import browsers
from api.access.audit import Audit
from api.access.identity import CALLER_KEY, LOOPBACK, Caller, Identifier, name_of, origin_of
from api.access.limits import Quotas, Turns
from api.access.permissions import SAFE_METHODS, is_open, needed
from api.problems import MEDIA_TYPE, problem_of
from lb.errors import AuthenticationError, ForbiddenError, SluiceError, TooSlowError
from lb.model.access import Access, Role
from lb.reconcile.loop import Reconciler
from lb.store.access import AccessStore

REVISIONS_KEY = "sluice.revisions"
"""Where in scope["state"] a write leaves the revision before and the one that it made."""
STREAMS_KEY = "sluice.streams"
"""Where in scope["state"] the number of streams that a request holds is counted."""
SILENCE_SECONDS = 20.0
"""How long a body may stall."""
GRACE_SECONDS, LEAST_BYTES_PER_SECOND = 30.0, 512
"""After this long, a body must have come at this rate."""
RECHECK_SECONDS = 2.0
"""How often to check whether the reader of a stream still may read it."""
_DETAIL_BYTES = 65536


@dataclass(slots=True)
class AccessControl:
    """What one daemon knows of its callers."""

    identifier: Identifier
    tokens: AccessStore
    quotas: Quotas
    audit: Audit
    grants: Callable[[], Access]
    is_guarding: bool = True
    """False: every caller may do everything, because the app is not served by one of our listeners."""
    turns: Turns = field(default_factory=Turns)

    def hold_stream(self, scope: Scope) -> None:
        """The answer to this request is a stream. TooManyError: there are too many already."""
        caller: Caller = scope["state"][CALLER_KEY]
        self.quotas.hold(caller.name, is_exempt=caller.is_exempt)
        scope["state"][STREAMS_KEY] = scope["state"].get(STREAMS_KEY, 0) + 1


def control_of(
    reconciler: Reconciler,
    tokens: AccessStore | None = None,
    *,
    socket_group: int = -1,
    monotonic: Callable[[], float] = time.monotonic,
) -> AccessControl:
    """The control of one daemon. Without tokens nobody is refused: for an app used within this process."""
    store = tokens or AccessStore(":memory:")

    def grants() -> Access:
        return reconciler.desired.config.settings.access

    def failed(text: str) -> None:
        reconciler.events.publish("failure", text, level="error")

    return AccessControl(
        Identifier(store, grants, os.geteuid(), socket_group, reconciler.now),
        store,
        Quotas(lambda: grants().limits, monotonic),
        Audit(store, clock=reconciler.now, monotonic=monotonic, failed=failed),
        grants,
        tokens is not None,
    )


class AccessMiddleware:
    """Runs before the router, so that no route added later can be forgotten."""

    def __init__(self, app: ASGIApp, control: AccessControl) -> None:
        self._app, self._control = app, control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or is_open(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        audited = self._audited(scope, send)
        try:
            self._admit(scope)
        except SluiceError as error:
            answer = problem_of(error)
            if scope["method"] not in SAFE_METHODS:
                answer.headers["Connection"] = "close"  # a body that nobody reads may be without end
            await answer(scope, receive, audited)
            return
        caller: Caller = state[CALLER_KEY]
        ended = asyncio.Event()
        try:
            heard = receive if caller.is_exempt else self._while_allowed(scope, _in_time(receive), ended)
            await self._app(scope, heard, audited)
        finally:
            if held := state.get(STREAMS_KEY, 0):
                self._control.quotas.let_go(caller.name, held)
        if ended.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _while_allowed(
        self, scope: Scope, receive: Receive, ended: asyncio.Event
    ) -> Callable[[], Awaitable[Message]]:
        """receive, except that the reader of a stream counts as disconnected once it may no longer read it.

        So revoking a token, its expiry, and withdrawing a role end the streams that were opened with it.
        """

        async def receive_while_allowed() -> Message:
            message = asyncio.ensure_future(receive())
            try:
                while not (await asyncio.wait({message}, timeout=RECHECK_SECONDS))[0]:
                    if STREAMS_KEY in scope["state"] and not self._may(scope):
                        ended.set()
                        return {"type": "http.disconnect"}
                return message.result()
            finally:
                message.cancel()

        return receive_while_allowed

    def _may(self, scope: Scope) -> bool:
        try:
            role = self._control.identifier.identify(scope).role
        except AuthenticationError:
            return False
        return role is not None and role.covers(needed(scope["method"], scope["path"]))

    def _admit(self, scope: Scope) -> None:
        """Put the caller into the scope; raises if it may not do this."""
        control = self._control
        if not control.is_guarding and not _shows_token(scope):
            name = name_of(scope)
            scope["state"][CALLER_KEY] = Caller(name, Role.ADMIN, "inside", name, is_exempt=True)
            return
        try:
            caller = control.identifier.identify(scope)
        except AuthenticationError:
            control.quotas.ask_unknown((scope.get("client") or ("",))[0])
            raise
        scope["state"][CALLER_KEY] = caller
        if not caller.is_exempt:
            control.quotas.ask(caller.name)
        if caller.how in (LOOPBACK, "certificate"):
            browsers.check(scope, names=control.grants().hosts if caller.how == LOOPBACK else None)
        least = needed(scope["method"], scope["path"])
        if caller.role is None:
            raise ForbiddenError(
                f"{caller.name} may not use this API: an admin can give it a role in settings.access"
            )
        if not caller.role.covers(least):
            raise ForbiddenError(
                f"{caller.name} is {caller.role}, and {scope['method']} {ascii(scope['path'])[1:-1]} needs the role "
                f"{least}"
            )

    def _audited(self, scope: Scope, send: Send) -> Send:
        """send, except that writes and refusals are audited before the answer goes out."""
        head: Message | None = None
        said = bytearray()

        async def send_audited(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                if not _is_of_note(scope, message["status"]):
                    await send(message)
                    return
                head = message
                if message["status"] >= 400 and _is_problem(message):
                    return  # its body says why
                await self._note(scope, message["status"], "")
                await send(message)
                head = None
                return
            if head is None:
                await send(message)
                return
            said.extend(message.get("body", b"")[:_DETAIL_BYTES])
            await self._note(scope, head["status"], _detail_of(bytes(said)))
            await send(head)
            head = None
            await send(message)

        return send_audited

    async def _note(self, scope: Scope, status: int, detail: str) -> None:
        state = scope["state"]
        caller: Caller | None = state.get(CALLER_KEY)
        before, after = state.get(REVISIONS_KEY, (None, None))
        query = scope["query_string"].decode("latin-1")
        await self._control.audit.line(
            actor=caller.name if caller else "unknown",
            role=str(caller.role) if caller and caller.role else None,
            origin=caller.origin if caller else origin_of(scope),
            method=scope["method"],
            path=scope["path"] + (f"?{query}" if query else ""),
            status=status,
            detail=detail,
            revision_before=before,
            revision_after=after,
        )


def _shows_token(scope: Scope) -> bool:
    return any(name == b"authorization" for name, _ in scope["headers"])


def _is_of_note(scope: Scope, status: int) -> bool:
    """Whether to audit: writes, whatever their outcome, and refused reads; but not reads of what does not exist."""
    if scope["method"] in SAFE_METHODS or scope["path"] == "/v1/explain":
        return status in (401, 403, 429)
    return True


def _is_problem(message: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(MEDIA_TYPE.encode())
        for name, value in message["headers"]
    )


def _detail_of(body: bytes) -> str:
    try:
        document: Any = json.loads(body)
        return str(document["detail"])
    except (ValueError, KeyError, TypeError):
        return ""


def _too_slow() -> TooSlowError:
    return TooSlowError(f"the body arrives too slowly: send {LEAST_BYTES_PER_SECOND} bytes a second or more")


def _in_time(receive: Receive) -> Callable[[], Awaitable[Message]]:
    """receive, except that a body that stalls, or comes too slowly, ends the request."""
    began = time.monotonic()
    octets = 0
    is_whole = False

    async def receive_in_time() -> Message:
        nonlocal octets, is_whole
        if is_whole:  # what comes now is that the caller hung up
            return await receive()
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = await receive()
        except TimeoutError:
            raise _too_slow() from None
        octets += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        took = time.monotonic() - began
        if not is_whole and took > GRACE_SECONDS and octets < took * LEAST_BYTES_PER_SECOND:
            raise _too_slow()
        return message

    return receive_in_time

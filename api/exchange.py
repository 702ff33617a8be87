"""One request and its answer: `Read` shows one revision of the desired state, `Write` makes the next."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request, Response

from api.envelope import REVISION_KEY
from api.etags import Preconditions
from lb.model import Config
from lb.reconcile.loop import Reconciler

PEER_KEY = "sluice.peer"
"""Where in the request's scope the server puts {"uid", "gid", "pid"} of a unix socket's client."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Read:
    """A look at one revision, which the answer then names."""

    config: Config
    preconditions: Preconditions
    response: Response

    def answer(self, etag: str, document: T) -> T | Response:
        """The document with its tag, or a 304 if the caller has this very version."""
        if self.preconditions.not_modified(etag):
            return Response(status_code=304, headers={"ETag": etag})
        self.response.headers["ETag"] = etag
        return document


@dataclass(frozen=True, slots=True)
class Write:
    """A change of the desired state in the name of one request."""

    request: Request
    response: Response
    reconciler: Reconciler
    preconditions: Preconditions

    def change(self, edit: Callable[[Config], Config]) -> Config:
        """Reconciler.change with the request's actor and summary; the answer then names the revision made."""
        summary = f"{self.request.method} {self.request.url.path}"
        desired = self.reconciler.change(edit, actor=actor_of(self.request), summary=summary)
        self.request.scope["state"][REVISION_KEY] = desired.revision
        return desired.config

    @property
    def is_conditional(self) -> bool:
        """Whether the request sets any precondition."""
        return self.preconditions != Preconditions(None, None)

    def check(self, etag: str | None) -> None:
        """Called inside the edit, where nothing can come between: PreconditionError unless the tag fits."""
        self.preconditions.check(etag)

    def answer(self, etag: str, document: T) -> T:
        """The document with its tag."""
        self.response.headers["ETag"] = etag
        return document

    def created(self, location: str) -> None:
        """Make the answer a 201 that says where the new thing is."""
        self.response.status_code = 201
        self.response.headers["Location"] = location


def actor_of(request: Request) -> str:
    """Who asks, for the history: "uid 0" on a unix socket, else the client's address."""
    peer = request.scope.get(PEER_KEY)
    if peer is not None:
        return f"uid {peer['uid']}"
    return request.client.host if request.client else "local"

"""One request and its answer: `Read` shows one revision of the desired state, `Write` makes the next."""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeVar, cast

from fastapi import Request, Response
from pydantic import BaseModel

from api.access.control import REVISIONS_KEY
from api.access.identity import PEER_KEY, actor_of
from api.bodies import Media
from api.envelope import REVISION_KEY
from api.etags import Preconditions
from lb.model import Config
from lb.model.address import AnyAddress
from lb.reconcile.desired import Desired
from lb.reconcile.guard import NOBODY, Guard
from lb.reconcile.loop import Reconciler
from lb.reconcile.terms import PLAIN, Terms

WARNING_HEADER = "Sluice-Warning"
"""A warning for the caller about something that was done nevertheless."""

T = TypeVar("T")
Document = TypeVar("Document", bound=BaseModel)


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
    guard: Guard = NOBODY

    def change(self, edit: Callable[[Config], Config]) -> Config:
        """Reconciler.change with the request's actor and summary; the answer then names the revision made.

        And has its warnings, a header each.
        """
        return self.make(edit).config

    def make(self, edit: Callable[[Config], Config], terms: Terms = PLAIN) -> Desired:
        """The same on terms; what was made."""
        summary = f"{self.request.method} {self.request.url.path}"
        actor = actor_of(self.request.scope)
        desired = self.reconciler.change(edit, actor=actor, summary=summary, guard=self.guard, terms=terms)
        self.request.scope["state"][REVISIONS_KEY] = (desired.since, desired.revision)
        self.warn(desired.warnings)
        self.request.scope["state"][REVISION_KEY] = desired.revision
        return desired

    def warn(self, warnings: Iterable[str]) -> None:
        """Tell whoever asked, in a header each."""
        for warning in warnings:
            self.response.headers.append(WARNING_HEADER, warning)

    @property
    def is_conditional(self) -> bool:
        """Whether the request sets any precondition."""
        return self.preconditions != Preconditions(None, None)

    def check(self, etag: str | None) -> None:
        """Called inside the edit, where nothing can slip in between: PreconditionError unless the tag matches."""
        self.preconditions.check(etag)

    def answer(self, etag: str, document: Document) -> Document:
        """The document with its tag.

        It is serialised directly, without a second validation, which would take as long as the change.
        """
        self.response.headers["ETag"] = etag
        return cast(Document, written_out(document, self.request, self.response))

    def created(self, location: str) -> None:
        """Make the answer a 201 that says where the new thing is."""
        self.response.status_code = 201
        self.response.headers["Location"] = location


def written_out(document: BaseModel, request: Request, response: Response) -> Response:
    """The answer with a document; response: its headers and status so far."""
    status = response.status_code or request.scope["route"].status_code or 200
    answer = Response(document.model_dump_json(), status, media_type=Media.JSON)
    answer.raw_headers += response.raw_headers
    return answer


def callers_of(request: Request, told: str | None) -> tuple[AnyAddress, ...]:
    """The addresses that the caller comes from: its own, unless that is this host's, and the one it reports.

    told: the session's address as reported by a caller on this host (the CLI). ValueError: it is not an address.
    """
    found = [] if told is None else [_address(told)]
    if request.scope.get(PEER_KEY) is None and request.client is not None:
        with contextlib.suppress(ValueError):
            found.append(_address(request.client.host))
    return tuple(found)


def _address(text: str) -> AnyAddress:
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address

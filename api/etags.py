"""Entity tags and the preconditions that a request sets by them (RFC 9110, section 13)."""

import json
import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from lb.errors import PreconditionError

_TAG = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_LIST = re.compile(rf"{_TAG.pattern}([ \t]*,[ \t]*({_TAG.pattern})?)*")
_ANY = ("*",)


def etag_of(document: Any) -> str:
    """The strong tag of a JSON document: equal documents, however written, have equal tags."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return etag_from_digest(blake2b(canonical.encode(), digest_size=12).hexdigest())


def etag_from_digest(digest: str) -> str:
    """The tag of something that has a digest of its own."""
    return f'"{digest}"'


def _tags(header: str | None) -> tuple[str, ...] | None:
    """The tags of an If-Match or If-None-Match header, ("*",) for the star, None where there is no header."""
    if header is None:
        return None
    if header.strip() == "*":
        return _ANY
    if not _LIST.fullmatch(header.strip()):
        raise ValueError("it is not an ETag: send the value of the ETag header, with its quotes, or *")
    return tuple(m[0] for m in _TAG.finditer(header))


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What the request's If-Match and If-None-Match ask; None where the header is absent."""

    if_match: tuple[str, ...] | None
    if_none_match: tuple[str, ...] | None

    @classmethod
    def parse(cls, if_match: str | None, if_none_match: str | None) -> "Preconditions":
        """From the two headers. ValueError: one is neither the star nor tags; args are its name and what is wrong."""
        found = []
        for name, header in (("If-Match", if_match), ("If-None-Match", if_none_match)):
            try:
                found.append(_tags(header))
            except ValueError as error:
                raise ValueError(name, str(error)) from None
        return cls(*found)

    def check(self, etag: str | None) -> None:
        """Before a write: PreconditionError unless the present tag fits; None where nothing is there yet.

        If-Match compares strongly, If-None-Match weakly, as RFC 9110 wants.
        """
        if self.if_match is not None:
            if etag is None:
                raise PreconditionError(
                    "If-Match does not fit: nothing is here yet; leave it out to create it"
                )
            if self.if_match != _ANY and etag not in self.if_match:
                raise PreconditionError(
                    f"If-Match does not fit: the ETag is now {etag}; read the resource and change it again"
                )
        if self._named_by_if_none_match(etag):
            raise PreconditionError(
                f"If-None-Match does not fit: it exists, with ETag {etag}; leave the header out to replace it"
            )

    def not_modified(self, etag: str) -> bool:
        """For a read: whether the caller has this very version, so that 304 will do."""
        return self._named_by_if_none_match(etag)

    def _named_by_if_none_match(self, etag: str | None) -> bool:
        if self.if_none_match is None or etag is None:
            return False
        return self.if_none_match == _ANY or etag in (tag.removeprefix("W/") for tag in self.if_none_match)

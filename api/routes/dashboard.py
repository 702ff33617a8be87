"""The page at /: files of api/dashboard/, read once, with the headers that keep everything else out of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from fastapi import APIRouter, Header, Response
from starlette.exceptions import HTTPException

from api.etags import Preconditions, etag_from_digest

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[1] / "dashboard"
PAGE = "index.html"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
"""Said here, for those of the system are what somebody has made of them."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Nothing from another host, nothing inline, no text that is taken for HTML, and no page around this one."""
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        # Asked for again each time, and then mostly a 304: page and API are always of one version.
        "Cache-Control": "no-cache",
    }
)


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    type: str
    etag: str


@cache
def _files() -> Mapping[str, _File]:
    """By the path below the folder. Only what is found here can be asked for, so no path leads out of it."""
    return {
        str(path.relative_to(FOLDER)): _read(path) for path in sorted(FOLDER.rglob("*")) if path.is_file()
    }


def _read(path: Path) -> _File:
    body = path.read_bytes()
    kind = _TYPES[path.suffix]
    return _File(
        body,
        f"{kind}; charset=utf-8" if kind.startswith("text/") else kind,
        etag_from_digest(blake2b(body, digest_size=12).hexdigest()),
    )


IfNoneMatch = Annotated[str | None, Header()]


@router.api_route("/", methods=["GET", "HEAD"])
async def get_page(if_none_match: IfNoneMatch = None) -> Response:
    """The page."""
    return _answer(_files()[PAGE], if_none_match)


@router.api_route("/dashboard/{path:path}", methods=["GET", "HEAD"])
async def get_file(path: str, if_none_match: IfNoneMatch = None) -> Response:
    """One of its files."""
    file = _files().get(path)
    if file is None or path == PAGE:
        raise HTTPException(404)
    return _answer(file, if_none_match)


def _answer(file: _File, if_none_match: str | None) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    if Preconditions.parse(None, if_none_match).not_modified(file.etag):
        return Response(status_code=304, headers=headers)
    # A Content-Type header instead of media_type: Starlette would add a second charset.
    return Response(file.body, headers={**headers, "Content-Type": file.type})

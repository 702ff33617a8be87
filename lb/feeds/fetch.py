"""Fetches the bytes of a feed, by http(s) or from a file: within limits of time and size, and only if they are new.

No proxy of the environment is used: it would connect in our place, to an address that nobody checked.
"""

import asyncio
import os
import ssl
import stat
from dataclasses import dataclass
from io import FileIO
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from lb.errors import FeedError
from lb.feeds.addresses import addresses_of
from lb.feeds.unpack import RAW_MAX, Unpacker, too_large

if TYPE_CHECKING:
    import httpx

SECONDS_MAX = 60.0
"""Seconds that a feed may take in all, names and redirects included."""
SILENCE_MAX = 15.0
"""Seconds without a byte."""
CONNECT_MAX = 5.0
"""Seconds for one address of several."""
REDIRECTS_MAX = 5
KEY_MAX = 512
_REDIRECTS = (301, 302, 303, 307, 308)
_USER_AGENT = "sluice"


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server said of the version that is held, to ask for a newer one only (RFC 9110, section 13)."""

    etag: str | None = None
    last_modified: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The request headers they make."""
        said = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in said.items() if value}


NOTHING_HELD = Validators()


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came, unpacked, and what the server says of this version."""

    data: bytes
    validators: Validators = NOTHING_HELD


async def fetch(
    url: str,
    *,
    held: Validators = NOTHING_HELD,
    headers: dict[str, str] | None = None,
    allow_private: bool = False,
    redirects: int = REDIRECTS_MAX,
    seconds: float = SECONDS_MAX,
) -> Fetched | None:
    """What is at a URL, or None if it is what is held. FeedError says why it cannot be had."""
    try:
        async with asyncio.timeout(seconds):
            return await _followed(url, {**held.headers, **(headers or {})}, allow_private, redirects)
    except TimeoutError:
        raise FeedError(
            f"{_shown(url)} took over {seconds:.0f} s: see that it is reachable and quick"
        ) from None


async def _followed(url: str, headers: dict[str, str], allow_private: bool, redirects: int) -> Fetched | None:
    import httpx  # takes 100 ms

    secure = ssl.create_default_context()
    wait = httpx.Timeout(SILENCE_MAX, connect=CONNECT_MAX)
    async with httpx.AsyncClient(verify=secure, trust_env=False, timeout=wait) as client:
        for _ in range(redirects + 1):
            try:
                target, found = await _ask(client, url, headers, allow_private)
            except (httpx.InvalidURL, UnicodeError) as error:
                raise FeedError(
                    f"{_shown(url)} has an impossible host name ({error}): check the URL"
                ) from error
            except httpx.TransportError as error:
                said = str(error) or type(error).__name__
                raise FeedError(
                    f"{_shown(url)} cannot be read to its end ({said}): see that it is reachable"
                ) from error
            if target is None:
                return found
            url = _redirected(url, target)
    if not redirects:
        raise FeedError(
            "it answers with a redirect, which is not followed with a key: give the URL it leads to"
        )
    raise FeedError(f"it leads through more than {redirects} redirects: give the URL of the list itself")


async def _ask(
    client: "httpx.AsyncClient", url: str, headers: dict[str, str], allow_private: bool
) -> tuple[str | None, Fetched | None]:
    """Where a redirect leads to; else None, and what came (None: what is held is the newest)."""
    import httpx

    there = httpx.URL(url)
    port = there.port or (443 if there.scheme == "https" else 80)
    addresses = await addresses_of(there.host, port, allow_private=allow_private)
    for last, address in zip([*[False] * (len(addresses) - 1), True], addresses, strict=True):
        request = client.build_request(
            "GET",
            there.copy_with(host=address),
            headers={
                "Host": there.netloc.decode(),
                "User-Agent": _USER_AGENT,
                "Accept-Encoding": "gzip",
                **headers,
            },
            # The connection goes to the address that was checked, TLS still to the name.
            extensions={"sni_hostname": there.host, "timeout": client.timeout.as_dict()},
        )
        try:
            answer = await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if last:
                raise
            continue
        try:
            return await _read(url, answer, conditional=request.headers)
        finally:
            await answer.aclose()
    raise AssertionError("a host without addresses is not found")


async def _read(
    url: str, answer: "httpx.Response", conditional: "httpx.Headers"
) -> tuple[str | None, Fetched | None]:
    status = answer.status_code
    if status in _REDIRECTS and "location" in answer.headers:
        return answer.headers["location"], None
    if status == 304 and ("if-none-match" in conditional or "if-modified-since" in conditional):
        return None, None
    if status != 200:
        raise FeedError(
            f"{_shown(url)} answers {status} {answer.reason_phrase}: check the URL".replace(" :", ":")
        )
    packing = answer.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "gzip", "x-gzip", ""):
        raise FeedError(f'it comes in the encoding "{packing[:20]}": only gzip is understood')
    announced = answer.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > RAW_MAX:
        raise too_large(RAW_MAX)
    unpacker = Unpacker(packed="gzip" in packing)
    async for piece in answer.aiter_raw():
        unpacker.add(piece)
    validators = Validators(answer.headers.get("etag"), answer.headers.get("last-modified"))
    return None, Fetched(unpacker.finish(), validators)


def _redirected(url: str, target: str) -> str:
    there = urljoin(url, target)
    try:
        parts = urlsplit(there)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise FeedError(
            f"{_shown(url)} leads to {_shown(there)}, which is not followed: give the URL of the list"
        )
    if url.startswith("https:") and parts.scheme == "http":
        raise FeedError(
            f"{_shown(url)} leads from https to http, which is not followed: give the URL of the list"
        )
    return there


def _shown(url: str) -> str:
    """A URL without its query, where keys may stand."""
    bare = url.partition("?")[0].partition("#")[0]
    return "".join(c if c.isprintable() else "?" for c in bare[:120])


def read_file(path: str, limit: int = RAW_MAX) -> bytes:
    """The bytes of a file, unpacked; FeedError says why it cannot be read."""
    try:
        with _opened(path, "a list") as file:
            found = os.fstat(file.fileno())
            if found.st_size > limit:
                raise too_large(limit)
            unpacker = Unpacker(raw_max=limit)
            while piece := file.read(1 << 20):
                unpacker.add(piece)
    except OSError as error:
        raise FeedError(
            f"{path} cannot be read ({error.strerror}): check that it exists for the daemon"
        ) from error
    return unpacker.finish()


def _opened(path: str, what: str) -> FileIO:
    """A regular file, to read; FeedError: it is none. A pipe would wait for a writer, for ever."""
    file = FileIO(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise FeedError(f"{path} is not a regular file: give the path of {what}")


def read_key(path: str) -> str:
    """The API key that a file holds; FeedError if it cannot be read, or others can."""
    try:
        with _opened(path, "a file with the key") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IROTH:
                raise FeedError(f"{path} holds a key and can be read by everyone: chmod o-r {path}")
            key = file.read(KEY_MAX + 1).strip()
    except OSError as error:
        raise FeedError(
            f"{path} cannot be read ({error.strerror}): check that it exists for the daemon"
        ) from error
    if not key or len(key) > KEY_MAX or not all(33 <= byte <= 126 for byte in key):
        raise FeedError(f"{path} does not hold a key: write the bouncer's key into it, on one line")
    return key.decode()

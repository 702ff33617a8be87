"""Reads request bodies: what media type, how many bytes, and what they say."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fastapi import Request
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from lb.errors import MalformedError, TooLargeError

MIB = 1 << 20


class Media(StrEnum):
    """The kinds of body there are, by the media type that stands for each."""

    JSON = "application/json"
    YAML = "application/yaml"
    TEXT = "text/plain"
    PCAP = "application/vnd.tcpdump.pcap"


LIMITS = {Media.JSON: 16 * MIB, Media.YAML: 16 * MIB, Media.TEXT: 64 * MIB, Media.PCAP: 64 * MIB}
"""Bytes of a body, at most."""
LIST_LIMITS = {**LIMITS, Media.JSON: LIMITS[Media.TEXT]}
"""The same where a whole list is sent."""
_ALIASES = {
    "": Media.JSON,
    "application/x-yaml": Media.YAML,
    "text/yaml": Media.YAML,
    "text/x-yaml": Media.YAML,
    "application/x-pcap": Media.PCAP,
    "application/x-pcapng": Media.PCAP,
}


@dataclass(frozen=True, slots=True)
class Body:
    """A body as it came."""

    media: Media
    data: bytes

    def json(self) -> Any:
        """The JSON it holds; MalformedError says where it is broken. NaN and lone surrogates are refused."""
        if not self.data.strip():
            raise MalformedError("the body is empty: send a JSON document")
        try:
            return from_json(self.data, allow_inf_nan=False)
        except ValueError as error:
            raise MalformedError(f"the body is not JSON: {error}") from None


def _media_of(content_type: str, taken: tuple[Media, ...]) -> Media:
    name = content_type.partition(";")[0].strip().lower()
    if name.startswith("application/") and name.endswith("+json"):
        name = Media.JSON
    for media in taken:
        if media == _ALIASES.get(name, name):
            return media
    raise HTTPException(
        415,
        f'Content-Type "{name}" is not accepted here: send {" or ".join(taken)}',
        {"Accept": ", ".join(taken)},
    )


def body_of(*taken: Media, limits: Mapping[Media, int] = LIMITS) -> Callable[[Request], Awaitable[Body]]:
    """A dependency that reads a body of one of these types.

    It raises a 415 for any other type, and TooLargeError as soon as more bytes are there, or announced,
    than the limit.
    """

    async def read(request: Request) -> Body:
        media = _media_of(request.headers.get("content-type", ""), taken)
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(415, "a compressed body is not accepted: send it without Content-Encoding")
        limit = limits[media]
        too_large = TooLargeError(
            f"the body is over {limit // MIB} MiB, the limit for {media}: send less, or in several requests"
        )
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            raise too_large
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                raise too_large
        return Body(media, bytes(data))

    return read

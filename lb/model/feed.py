"""A feed: a list of prefixes that somebody publishes, where and how often to fetch it, and how far to trust it."""

import re
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from lb.model.entries import FEED_PREFIX, Action
from lb.model.entry_input import REASON_MAX
from lb.model.fields import OneLine, Strict, faults
from lb.model.service import Fault, Name

REFRESH_MIN, REFRESH_MAX = 60, 30 * 86400
"""Seconds between two refreshes: none is asked every moment, and none is forgotten."""
URL_MAX = 2048
_UNSAFE = re.compile(r"[\s\x00-\x20\x7f\\<>\"{}|^`]|[^\x00-\x7f]")


class FeedFormat(StrEnum):
    """How a feed is written; auto looks at what came."""

    AUTO = "auto"
    PLAIN = "plain"
    NETSET = "netset"
    CSV = "csv"
    SPAMHAUS_DROP = "spamhaus-drop"
    SPAMHAUS_JSON = "spamhaus-json"
    CROWDSEC = "crowdsec"


def _url(text: str) -> str:
    if _UNSAFE.search(text):
        raise ValueError("it holds a blank or a character that no URL has: percent-encode it")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"it is not a URL ({error}): write https://lists.example.net/drop.txt") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is not an http or https URL: write https://lists.example.net/drop.txt")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "it holds a user or password, which everyone who reads the feed would see: leave it out"
        )
    if parts.fragment:
        raise ValueError("it has a fragment, which is never sent: leave out what follows #")
    return text


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("it is not an absolute path: begin it with /, as the daemon sees it")
    return text


Url = Annotated[str, Field(max_length=URL_MAX), AfterValidator(_url)]
Path = Annotated[OneLine, Field(max_length=4096), AfterValidator(_path)]


class Feed(Strict):
    """One feed. Its entries are the blocklist's layer of its owner."""

    name: Name = Field(description="unique name", examples=["drop"])
    url: Url | None = Field(
        None, description="http or https, of the list itself", examples=["https://lists.example.net/drop.txt"]
    )
    file: Path | None = Field(None, description="in place of url: an absolute path on the daemon's machine")
    format: FeedFormat = Field(FeedFormat.AUTO, description="the list's format; auto detects it")
    action: Action = Field(Action.DROP, description="count: its packets are counted, and pass")
    refresh_seconds: int = Field(
        3600, ge=REFRESH_MIN, le=REFRESH_MAX, strict=True, description="seconds from one refresh to the next"
    )
    jitter: float = Field(
        0.1,
        ge=0,
        le=1,
        strict=True,
        description="share of refresh_seconds by which a refresh may be delayed, at random",
    )
    max_change: float = Field(
        0.5,
        ge=0,
        le=1000,
        strict=True,
        description="share of the entries that one refresh may add, or remove",
    )
    allow_private_url: bool = Field(
        False, strict=True, description="the URL may lead to a private, loopback or link-local address"
    )
    allow_protected: bool = Field(
        False,
        strict=True,
        description="the feed may block backends, VIPs, private address space and the default route",
    )
    api_key_file: Path | None = Field(
        None, description="crowdsec: a file with the bouncer's API key, which others cannot read"
    )
    reason: OneLine = Field("", max_length=REASON_MAX, description="reason of every entry, on one line")

    @model_validator(mode="after")
    def _check(self) -> "Feed":
        found: list[Fault] = []
        if (self.url is None) == (self.file is None):
            says = "is needed" if self.url is None else "exclude each other"
            found.append((("url",), f"one of url and file {says}: give exactly one of them"))
        if self.format is FeedFormat.CROWDSEC:
            if self.url is None:
                found.append((("url",), "a crowdsec feed comes from its local API: give its url"))
            if self.api_key_file is None:
                found.append(
                    (("api_key_file",), "a crowdsec feed needs it: create a key with cscli bouncers add")
                )
        elif self.api_key_file is not None:
            found.append((("api_key_file",), "only a crowdsec feed has a key: leave it out"))
        faults(found)
        return self

    @property
    def owner(self) -> str:
        """Whose its entries are, in the blocklist."""
        return FEED_PREFIX + self.name

    @property
    def fingerprint(self) -> str:
        """Names what the entries depend on: two feeds with the same one hold the same."""
        apart = {"refresh_seconds", "jitter", "max_change"}
        return blake2b(self.model_dump_json(exclude=apart).encode(), digest_size=12).hexdigest()

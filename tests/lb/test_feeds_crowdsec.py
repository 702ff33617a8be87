"""Feeds of CrowdSec: the decisions stream, which tells only what has changed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from feed_house import START, House
from feed_server import FeedServer, Handler, Page

from lb.events import Event
from lb.model import Prefix


class LocalApi:
    """Speaks the decisions stream: all there is at startup, and after that what changed since it was last asked."""

    def __init__(self, key: str) -> None:
        self.key, self.bans = key, dict[str, str]()
        self._told: dict[str, str] = {}

    def __call__(self, handler: Handler) -> None:
        if handler.headers.get("X-Api-Key") != self.key:
            Page(b'{"message":"access forbidden"}', status=403)(handler)
            return
        startup = "startup=true" in handler.path
        new = {v: d for v, d in self.bans.items() if startup or v not in self._told}
        gone = {v: d for v, d in self._told.items() if v not in self.bans and not startup}
        self._told = dict(self.bans)
        document = {"new": self._decisions(new), "deleted": self._decisions(gone)}
        Page(json.dumps(document).encode(), headers={"Content-Type": "application/json"})(handler)

    @staticmethod
    def _decisions(bans: dict[str, str]) -> list[dict[str, Any]] | None:
        return [
            {
                "value": value,
                "scope": "Range" if "/" in value else "Ip",
                "type": "ban",
                "duration": duration,
                "scenario": "crowdsecurity/ssh-bf",
                "origin": "crowdsec",
            }
            for value, duration in bans.items()
        ] or None


@pytest.fixture
def local_api(server: FeedServer, tmp_path: Path) -> LocalApi:
    """A CrowdSec local API with two bans."""
    api = LocalApi("s3cret")
    api.bans = {"203.0.113.7": "1h", "198.51.100.0/24": "3h59m59.5s"}
    server.pages["/v1/decisions/stream"] = api
    (tmp_path / "key").write_text("s3cret\n")
    (tmp_path / "key").chmod(0o600)
    return api


def crowdsec(house: House, **said: Any) -> Event:
    """Add the feed of the local API."""
    key = str(house.folder / "key")
    url = house.server.url("")
    return house.add(url=url, format="crowdsec", api_key_file=key, refresh_seconds=60, **said)


def test_crowdsec(house: House, server: FeedServer, local_api: LocalApi) -> None:
    """Bans come and go with the stream, and end by themselves, never before their time."""
    event = crowdsec(house)
    assert (event.kind, event.facts["added"]) == ("feed.refreshed", 2)
    said = house.entries()
    assert sorted(said) == ["198.51.100.0/24", "203.0.113.7/32"]
    assert 3600 <= (said["203.0.113.7/32"].expires_at or 0) - START <= 3600 * 1.05 + 1

    del local_api.bans["198.51.100.0/24"]
    local_api.bans["2001:db8::/32"] = "4h"
    event = house.advance(60)
    assert (event.facts["added"], event.facts["removed"]) == (1, 1)
    assert sorted(house.entries()) == ["2001:db8::/32", "203.0.113.7/32"]

    assert house.advance(60).kind == "feed.unchanged"
    assert [path.partition("?")[2] for path, _ in server.asked] == [
        "startup=true",
        "startup=false",
        "startup=false",
    ]
    house.now += 3600
    assert sorted(house.entries()) == ["2001:db8::/32"]


def test_crowdsec_goes_on_while_bans_end(house: House, server: FeedServer, local_api: LocalApi) -> None:
    """A ban that is over is no reason to ask for all again; one that somebody took out is."""
    local_api.bans = {"203.0.113.1": "30s", "203.0.113.2": "4h", "203.0.113.3": "4h"}
    crowdsec(house)

    house.advance(60)
    assert sorted(house.entries()) == ["203.0.113.2/32", "203.0.113.3/32"]
    assert server.asked[-1][0].endswith("startup=false")

    gone = [Prefix.parse("203.0.113.2")]
    house.edit(
        lambda c: replace(
            c, blocklist=c.blocklist.with_layer("feed:drop", c.blocklist.layer("feed:drop").without(gone))
        )
    )
    del local_api.bans["203.0.113.1"]
    house.advance(60)
    assert server.asked[-1][0].endswith("startup=true")
    assert sorted(house.entries()) == ["203.0.113.2/32", "203.0.113.3/32"]


def test_crowdsec_after_a_restart(house: House, server: FeedServer, local_api: LocalApi) -> None:
    """After a restart all decisions are asked for, and those that are the same keep age and end."""
    crowdsec(house)
    before = house.entries()
    revision = house.revision
    local_api.bans["203.0.113.7"] = "59m30s"

    house.restart()
    event = house.advance(60)

    assert server.asked[-1][0].endswith("startup=true")
    assert event.kind == "feed.unchanged"
    assert (house.entries(), house.revision) == (before, revision)


def test_crowdsec_after_a_failure(house: House, server: FeedServer, local_api: LocalApi) -> None:
    """What was lost with an answer that could not be taken is asked for again."""
    crowdsec(house)
    server.pages["/v1/decisions/stream"] = Page(b'{"new":')
    assert house.advance(60).kind == "feed.failed"
    assert len(house.entries()) == 2

    local_api.bans["2001:db8::/32"] = "4h"
    server.pages["/v1/decisions/stream"] = local_api
    event = house.advance(60)

    assert server.asked[-1][0].endswith("startup=true")
    assert (event.kind, event.facts["added"]) == ("feed.refreshed", 1)


def test_crowdsec_key(house: House, server: FeedServer, local_api: LocalApi) -> None:
    """A wrong key is refused by the API, one that all can read is not sent; a redirect is not followed with it."""
    key = house.folder / "key"
    key.chmod(0o644)
    assert "can be read by everyone" in str(crowdsec(house).facts["reason"])
    assert not server.asked

    key.write_text("wrong")
    key.chmod(0o600)
    assert "answers 403" in str(house.refresh().facts["reason"])

    server.pages["/v1/decisions/stream"] = Page(status=302, headers={"Location": "http://127.0.0.1:1/"})
    assert "not followed with a key" in str(house.refresh().facts["reason"])


def test_crowdsec_is_guarded(house: House, server: FeedServer, local_api: LocalApi) -> None:
    """A decision that would block what is protected is refused; a whole answer that lost most of its bans too."""
    local_api.bans = {f"203.0.113.{n}": "4h" for n in range(200)}
    crowdsec(house)
    local_api.bans["10.0.0.1"] = "4h"
    assert "its entry 10.0.0.1/32 would block private address space" in str(house.advance(60).facts["reason"])

    local_api.bans = {"203.0.113.1": "4h"}
    assert "would take out 199 entries where 200 are held" in str(house.advance(60).facts["reason"])
    assert len(house.entries()) == 200

    local_api.bans = {f"203.0.113.{n}": "4h" for n in range(100)}
    assert house.advance(120).facts["removed"] == 100

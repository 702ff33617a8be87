"""Services, their order, rules, feeds and settings as rows: a revision holds those that it changes."""

import json
import sqlite3
from collections.abc import Iterator

from pydantic import TypeAdapter

from lb.model import Config, Feed, Rule, Service, Settings

_SERVICE = "service/"
_RULE = "rule/"
_ORDER = "services"
_SETTINGS = "settings"
_FEEDS = "feeds"
_FEED_LIST = TypeAdapter(list[Feed])


def write_parts(db: sqlite3.Connection, revision: int, before: Config, after: Config) -> None:
    """Rows for what differs."""
    db.executemany(
        "INSERT INTO parts (name, revision, body) VALUES (?, ?, ?)",
        [(name, revision, body) for name, body in _changes(before, after)],
    )


def _changes(before: Config, after: Config) -> Iterator[tuple[str, str | None]]:
    for name, service in after.services.items():
        old = before.services.get(name)
        if old is not service and old != service:
            yield _SERVICE + name, service.model_dump_json()
    for name in before.services.keys() - after.services.keys():
        yield _SERVICE + name, None
    if list(before.services) != list(after.services):
        yield _ORDER, json.dumps(list(after.services))
    for name, rule in after.rules.items():
        known = before.rules.get(name)
        if known is not rule and known != rule:
            yield _RULE + name, rule.model_dump_json()
    for name in before.rules.keys() - after.rules.keys():
        yield _RULE + name, None
    if before.settings != after.settings:
        yield _SETTINGS, after.settings.model_dump_json()
    feeds = list(after.feeds.values())
    if list(before.feeds.values()) != feeds:
        yield _FEEDS, _FEED_LIST.dump_json(feeds).decode()


def read_parts(db: sqlite3.Connection, revision: int) -> Config:
    """All but the prefix lists, as a revision has it, services in their order; ValueError or KeyError: damaged."""
    rows = db.execute(  # SQLite takes body from the row that has the greatest revision
        "SELECT name, body, max(revision) FROM parts WHERE revision <= ? GROUP BY name", (revision,)
    )
    bodies = {name: body for name, body, _ in rows if body is not None}
    settings = Settings.model_validate_json(bodies.get(_SETTINGS, "{}"))
    order = json.loads(bodies.get(_ORDER, "[]"))
    rules = {
        name.removeprefix(_RULE): Rule.model_validate_json(body)
        for name, body in bodies.items()
        if name.startswith(_RULE)
    }
    services = {name: Service.model_validate_json(bodies[_SERVICE + name]) for name in order}
    feeds = {feed.name: feed for feed in _FEED_LIST.validate_json(bodies.get(_FEEDS, "[]"))}
    return Config(services=services, rules=rules, settings=settings, feeds=feeds)


def forget_parts(db: sqlite3.Connection, oldest_kept: int) -> None:
    """Delete the rows that no revision from that one on reads."""
    db.execute(
        "DELETE FROM parts WHERE revision < :oldest AND EXISTS (SELECT 1 FROM parts AS later WHERE "
        "later.name = parts.name AND later.revision > parts.revision AND later.revision <= :oldest)",
        {"oldest": oldest_kept},
    )
    db.execute("DELETE FROM parts WHERE revision <= ? AND body IS NULL", (oldest_kept,))

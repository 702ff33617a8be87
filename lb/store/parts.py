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


def write_parts(db: sqlite3.Connection, revision: int, before: Config, after: Config) -> int:
    """Rows for what differs; by what they change sum_of_parts, which would read all rows that there are."""
    rows = [(name, revision, body) for name, body in _changes(before, after)]
    db.executemany(
        "INSERT INTO parts (name, revision, body, checksum) VALUES (?1, ?2, ?3, row_checksum(?1, ?2, ?3))",
        rows,
    )
    return sum(_checksum(db, name, revision) - _checksum(db, name, revision - 1) for name, _, _ in rows)


def _checksum(db: sqlite3.Connection, name: str, revision: int) -> int:
    """Of the row that a revision reads; 0 where there is none."""
    row = db.execute(
        "SELECT checksum, body IS NULL FROM parts WHERE name = ? AND revision <= ? ORDER BY revision DESC LIMIT 1",
        (name, revision),
    ).fetchone()
    return 0 if row is None or row[1] else int(row[0])


def sum_of_parts(db: sqlite3.Connection, revision: int) -> int:
    """Of the checksums of the rows that a revision is read from."""
    (found,) = db.execute(
        "SELECT coalesce(sum(checksum), 0) FROM (SELECT checksum, body, max(revision) FROM parts "
        "WHERE revision <= ? GROUP BY name) WHERE body IS NOT NULL",
        (revision,),
    ).fetchone()
    return int(found)


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


def read_parts(db: sqlite3.Connection, revision: int, expected: int | None) -> Config:
    """All but the prefix lists, as a revision has it, services in their order; ValueError or KeyError: damaged.

    expected: what sum_of_parts was when it was written, if that is known.
    """
    rows = db.execute(  # SQLite takes body from the row that has the greatest revision
        "SELECT name, body, checksum, checksum IS row_checksum(name, revision, body), max(revision) FROM parts "
        "WHERE revision <= ? GROUP BY name",
        (revision,),
    ).fetchall()  # a statement that is not at its end would keep a closed file locked
    bodies = {}
    total = 0
    for name, body, checksum, is_sound, _ in rows:
        if not is_sound:
            raise ValueError(f"the checksum of {name!r} does not fit")
        if body is not None:
            bodies[name] = body
            total += checksum
    if expected not in (None, total):
        raise ValueError("there are not all the rows that there were")
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

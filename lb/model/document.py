"""The configuration document: the whole desired state as people write, store and export it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from lb.errors import FieldError, InvalidError
from lb.model.clashes import clashes
from lb.model.config import Config, Settings
from lb.model.delta import settled
from lb.model.entries import OPERATOR, PrefixList
from lb.model.entry_input import FAULTS_SHOWN, AllowlistInput, BlocklistInput, read_entries
from lb.model.entry_view import entry_documents
from lb.model.feed import Feed
from lb.model.fields import field_errors, like, pointer
from lb.model.nat import blocked_pools, pool_faults, source_faults
from lb.model.rule import Rule
from lb.model.rule_match import in_order, service_faults
from lb.model.service import Service
from lb.model.source import read

T = TypeVar("T")

LISTS: Mapping[str, type[AllowlistInput]] = {"allowlist": AllowlistInput, "blocklist": BlocklistInput}
KEYS = ("services", *LISTS, "rules", "feeds", "settings")
_SERVICES = TypeAdapter(list[Service])
_RULES = TypeAdapter(list[Rule])
_SETTINGS = TypeAdapter(Settings)
_FEEDS = TypeAdapter(list[Feed])


def parse(text: bytes, *, now: float, have: Config) -> Config:
    """The desired state that a YAML or JSON document asks for; see from_mapping.

    MalformedError says where it is neither. InvalidError names each fault by pointer and line.
    """
    source = read(text)
    try:
        return from_mapping(source.document, now=now, have=have)
    except InvalidError as error:
        raise InvalidError([replace(e, line=source.line(e.pointer)) for e in error.errors]) from None


def from_mapping(document: object, *, now: float, have: Config) -> Config:
    """The desired state that a document asks for, now being seconds since the epoch.

    A key that is left out, or null, means an empty section: the document is the whole. Its entries are the
    operator's; what feeds hold stays as it is in have. An entry that asks for the same as before keeps its
    creation time and deadline; one whose expires_at has passed is left out. InvalidError names each fault.
    """
    if not isinstance(document, Mapping):
        raise InvalidError.one("", f"the document is a mapping with the keys {', '.join(KEYS)}")
    found: list[FieldError] = []
    for key in document:
        if key not in KEYS:
            found.append(
                FieldError(
                    pointer(key),
                    f'"{key}" is not known here{like(str(key), KEYS)}: the keys are {", ".join(KEYS)}',
                )
            )
    services = _checked(found, _SERVICES, "/services", _section(document, "services", []))
    if services is not None:
        found += _between(services)
    rules = _checked(found, _RULES, "/rules", _section(document, "rules", []))
    if services is not None and rules is not None:
        found += _of_rules(rules, {service.name: service for service in services})
    feeds = _checked(found, _FEEDS, "/feeds", _section(document, "feeds", []))
    if feeds is not None:
        found += _twice("feeds", (feed.name for feed in feeds))
    settings = _checked(found, _SETTINGS, "/settings", _section(document, "settings", {}))
    if services is not None and settings is not None:
        found += _of_nat(settings, services)
    lists = {name: _entries(found, name, _section(document, name, []), now, have) for name in LISTS}
    if settings is not None:
        found += [
            FieldError(pointer("settings", "nat_pools", *path), detail)
            for path, detail in blocked_pools(
                settings.nat_pools,
                (lists["blocklist"], lists["allowlist"]),
                have.settings.nat_pools,
                (have.blocklist, have.allowlist),
                now,
            )
        ]
    if found or services is None or rules is None or feeds is None or settings is None:
        raise InvalidError(found[:FAULTS_SHOWN])
    want = replace(
        have,
        services={s.name: _known(s, have.services.get(s.name)) for s in services},
        settings=settings,
        blocklist=lists["blocklist"],
        allowlist=lists["allowlist"],
    )
    want = want.with_rules({r.name: _known(r, have.rules.get(r.name)) for r in rules})
    return want.with_feeds({feed.name: feed for feed in feeds})


def to_document(config: Config, *, now: float) -> dict[str, Any]:
    """The canonical document of a desired state: of the entries the operator's that have not expired.

    from_mapping makes the same desired state of it. An entry shows what is not the default; its TTL stands
    for the deadline.
    """
    lists = {name: entry_documents(getattr(config, name).layer(OPERATOR), now) for name in LISTS}
    return {
        "services": [service.model_dump(mode="json") for service in config.services.values()],
        **lists,
        "rules": [rule.model_dump(mode="json") for rule in in_order(config.rules.values())],
        "feeds": [feed.model_dump(mode="json") for feed in config.feeds.values()],
        "settings": config.settings.model_dump(mode="json"),
    }


def to_yaml(document: Mapping[str, Any]) -> str:
    """The document as YAML, an entry of a list on one line."""
    parts = []
    for key, value in document.items():
        if key in LISTS and value:  # PyYAML would take seconds for a long list; JSON is YAML
            parts.append(
                f"{key}:\n" + "".join(f"- {json.dumps(entry, ensure_ascii=False)}\n" for entry in value)
            )
        else:
            parts.append(
                yaml.dump({key: value}, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
            )
    return "".join(parts)


def _section(document: Mapping[Any, Any], key: str, empty: object) -> object:
    value = document.get(key)
    return empty if value is None else value


def _checked(found: list[FieldError], kind: TypeAdapter[T], at: str, value: object) -> T | None:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        found += field_errors(error, at)
        return None


def _twice(what: str, names: Iterable[str]) -> list[FieldError]:
    """Names that are given to more than one; what: "services"."""
    seen: set[str] = set()
    found = []
    for place, name in enumerate(names):
        if name in seen:
            found.append(FieldError(f"/{what}/{place}/name", f'two {what} are called "{name}": rename one'))
        seen.add(name)
    return found


def _of_rules(rules: list[Rule], services: Mapping[str, Service]) -> list[FieldError]:
    """What is wrong with rules that are each right by themselves."""
    return _twice("rules", (rule.name for rule in rules)) + [
        FieldError(pointer("rules", place, *path), detail)
        for place, rule in enumerate(rules)
        for path, detail in service_faults(rule, services)
    ]


def _between(services: list[Service]) -> list[FieldError]:
    """What is wrong with services that are each right by themselves."""
    if found := _twice("services", (service.name for service in services)):
        return found
    places = {service.name: place for place, service in enumerate(services)}
    return [
        FieldError(pointer("services", places[clash.service.name], *clash.path), clash.detail)
        for clash in clashes(services)
    ]


def _of_nat(settings: Settings, services: list[Service]) -> list[FieldError]:
    """Pools that meet a VIP or a backend, and backends without a pool."""
    return [
        *(
            FieldError(pointer("settings", "nat_pools", *path), detail)
            for path, detail in pool_faults(settings.nat_pools, services)
        ),
        *(
            FieldError(pointer("services", place, *path), detail)
            for place, service in enumerate(services)
            for path, detail in source_faults(settings.nat_pools, service)
        ),
    ]


def _entries(found: list[FieldError], name: str, items: object, now: float, have: Config) -> PrefixList:
    present: PrefixList = getattr(have, name)
    if not isinstance(items, list):
        found.append(FieldError(pointer(name), "it should be a list of entries"))
        return present
    try:
        wanted = read_entries(LISTS[name], items, now=now, at=pointer(name), drop_expired=True)
    except InvalidError as error:
        found += error.errors
        return present
    before = present.layer(OPERATOR)
    after = settled(before.without_expired(now), wanted)
    return present if after is before else present.with_layer(OPERATOR, after)


def _known(wanted: T, before: T | None) -> T:
    """The very object that was there, where it is equal: what is the same is then seen at a glance."""
    return before if before is not None and before == wanted else wanted

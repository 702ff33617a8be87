"""The desired state for readers, and which parts of a new one are unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from lb.model import Config
from lb.reconcile.disruption import ServiceMove
from lb.reconcile.maps import Plans

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Desired:
    """A revision and what it says. Immutable: readers take it once and see one state.

    warnings: what whoever asked for it should know, a sentence each; moves: what it moved, if they wanted to know;
    since: the revision that it was made from. Only they are told.
    """

    revision: int
    config: Config
    warnings: tuple[str, ...] = ()
    moves: tuple[ServiceMove, ...] = ()
    since: int = 0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change that was planned and not made: the present config, and the one that it would make."""

    before: Config
    after: Config
    warnings: tuple[str, ...]
    moves: tuple[ServiceMove, ...]


def keeping(present: Config, wanted: Config) -> Config:
    """What is wanted, with the very objects of the present where they are equal; the present itself if all are.

    So that what comes after can tell by identity what has changed.
    """
    kept = replace(
        wanted,
        services=_keeping(present.services, wanted.services),
        rules=present.rules if wanted.rules == present.rules else wanted.rules,
        feeds=_keeping(present.feeds, wanted.feeds),
        blocklist=present.blocklist if wanted.blocklist == present.blocklist else wanted.blocklist,
        allowlist=present.allowlist if wanted.allowlist == present.allowlist else wanted.allowlist,
    )
    if kept.blocklist is not present.blocklist or kept.allowlist is not present.allowlist:
        return kept  # a million prefixes need not be compared again
    return present if kept == present else kept


def _keeping(present: Mapping[str, T], wanted: Mapping[str, T]) -> Mapping[str, T]:
    """The same of one part; the present part itself if all of it is kept, in the same order."""
    if wanted is present:
        return present
    kept = {
        name: had if (had := present.get(name)) is one or had == one else one for name, one in wanted.items()
    }
    same = list(kept) == list(present) and all(one is present[name] for name, one in kept.items())
    return present if same else kept


def without_expired(config: Config, plans: Plans) -> Config:
    """A config with its lists as planned, from which what is over may have gone; itself if nothing has."""
    deny, allow = plans.deny.wanted, plans.allow.wanted
    if deny is None or allow is None or (deny is config.blocklist and allow is config.allowlist):
        return config
    return replace(config, blocklist=deny, allowlist=allow)

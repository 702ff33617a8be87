"""The desired state as readers take it, and what of a new one is the same."""

from dataclasses import dataclass, replace

from lb.model import Config
from lb.reconcile.disruption import ServiceMove
from lb.reconcile.maps import Plans


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
    services = {
        name: old if (old := present.services.get(name)) is service or old == service else service
        for name, service in wanted.services.items()
    }
    feeds = {
        n: present.feeds[n] if present.feeds.get(n) == feed else feed for n, feed in wanted.feeds.items()
    }
    kept = replace(
        wanted,
        services=services,
        rules=present.rules if wanted.rules == present.rules else wanted.rules,
        feeds=feeds,
        blocklist=present.blocklist if wanted.blocklist == present.blocklist else wanted.blocklist,
        allowlist=present.allowlist if wanted.allowlist == present.allowlist else wanted.allowlist,
    )
    return present if kept == present else kept


def without_expired(config: Config, plans: Plans) -> Config:
    """A config with its lists as planned, from which what is over may have gone; itself if nothing has."""
    deny, allow = plans.deny.wanted, plans.allow.wanted
    if deny is None or allow is None or (deny is config.blocklist and allow is config.allowlist):
        return config
    return replace(config, blocklist=deny, allowlist=allow)

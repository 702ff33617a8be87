"""Rollback: the operator's part of an earlier desired state, put over the present one."""

from dataclasses import replace

from lb.model.config import Config
from lb.model.delta import settled
from lb.model.entries import FEED_PREFIX, OPERATOR, PrefixList
from lb.model.owner import RULE_PREFIX

LISTS = ("blocklist", "allowlist")


def same_document(one: Config, other: Config) -> bool:
    """Whether two states are the same but for entries of other owners than the operator."""
    return all(
        getattr(one, name) is getattr(other, name) or getattr(one, name) == getattr(other, name)
        for name in ("services", "settings", "rules", "feeds")
    ) and all(getattr(one, name).layer(OPERATOR) == getattr(other, name).layer(OPERATOR) for name in LISTS)


def restored(present: Config, then: Config, now: float) -> Config:
    """The present state with all that the document of then holds, as applying that document would make it.

    Entries whose time is over stay over. What other owners hold stays as it is; but a feed that comes back has what
    it then had, until it is refreshed, and a rule whom it had banned, unless their time is over.
    """
    config = replace(present, services=then.services, settings=then.settings)
    config = config.with_rules(then.rules).with_feeds(then.feeds)
    lists = {name: _restored(getattr(config, name), getattr(then, name), now) for name in LISTS}
    blocklist = lists["blocklist"]
    back = [RULE_PREFIX + name for name in then.rules.keys() - present.rules.keys()]
    back += [FEED_PREFIX + name for name in then.feeds.keys() - present.feeds.keys()]
    for owner in back:
        if owner not in blocklist.layers:
            blocklist = blocklist.with_layer(owner, then.blocklist.layer(owner).without_expired(now))
    return replace(config, blocklist=blocklist, allowlist=lists["allowlist"])


def _restored(present: PrefixList, then: PrefixList, now: float) -> PrefixList:
    before = present.layer(OPERATOR)
    after = settled(before.without_expired(now), then.layer(OPERATOR).without_expired(now))
    return present if after is before else present.with_layer(OPERATOR, after)

"""Keeps a change of the lists from locking out its caller, or what the balancer itself needs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lb.dataplane.protocol import NextHop
from lb.errors import ConflictError
from lb.model import Config, Prefix, Rule, Service
from lb.model.address import AnyAddress
from lb.model.delta import compare
from lb.model.protect import REMEDY, Protected, check
from lb.model.rule import RuleAction
from lb.model.rule_fields import TCP
from lb.reconcile.used import Around, Used, of_services, once

_MANY = 256
"""Up to this many changed prefixes are looked up one by one."""


@dataclass(frozen=True, slots=True)
class Guard:
    """For one change: its callers' addresses, and whether it may lock out anything."""

    callers: tuple[AnyAddress, ...] = ()
    force: bool = False

    def check(
        self, before: Config, after: Config, used: Used, hops: Mapping[bytes, NextHop], now: float
    ) -> tuple[str, ...]:
        """Warnings; ConflictError if an address in use would be dropped. now: seconds since the epoch."""
        if self.force:
            return ()
        if after.rules is not before.rules:
            everyone = [*self._callers(), *used.around(after, hops).everyone]
            _check_rules(before, after, Around(once(everyone)), now)
        if not after.blocklist.layers:
            return ()
        new = list(of_services(_differing(after, before)))
        known = {one.address for one in of_services(_differing(before, after))}
        added = {one.address for one in new} - known
        some = [one for one in new if one.address in added]
        if before.blocklist is not after.blocklist or before.allowlist is not after.allowlist:
            around, prefixes = used.around(after, hops), _changed(before, after)
            of_lists = around.everyone if prefixes is None else around.within_any(prefixes)
            some = [*self._callers(), *of_lists, *some]
        concerned = once(some)
        return tuple(check(before, after, concerned, [one.address in added for one in concerned], now))

    def _callers(self) -> Iterator[Protected]:
        for address in self.callers:
            if not address.is_loopback:  # which no packet on a wire has
                yield Protected(
                    address,
                    "the address that you call from",
                    "everything you send, including this connection,",
                )


def _changed(before: Config, after: Config) -> list[Prefix] | None:
    """The prefixes that the lists treat differently: only addresses in them are affected. None: too many."""
    found: list[Prefix] = []
    for old, new in ((before.blocklist, after.blocklist), (before.allowlist, after.allowlist)):
        for owner in old.layers.keys() | new.layers.keys():
            mine, theirs = old.layer(owner), new.layer(owner)
            if mine is theirs:
                continue
            if abs(len(mine) - len(theirs)) > _MANY:
                return None
            delta = compare(mine, theirs)
            if len(delta) + len(found) > _MANY:
                return None
            parts = (delta.added, delta.altered, delta.gone)
            found += [
                Prefix.from_key(key) for part in parts for keys in part.values() for key in keys.tolist()
            ]
    return found


def _check_rules(before: Config, after: Config, around: Around, now: float) -> None:
    """ConflictError if a new or changed rule drops everything (or all TCP) that an address in use sends."""
    fresh = [
        rule for name, rule in after.rules.items() if before.rules.get(name) != rule and _drops_all(rule)
    ]
    for rule in fresh:
        for one, prefix in around.within(rule.source):
            if next(after.allowlist.covering(prefix, now), None) is None:
                raise ConflictError(
                    f'rule "{rule.name}" drops what {rule.source or "anybody"} sends, which covers {one.address}, '
                    f"{one.role}: {one.cut} would be dropped; {REMEDY}"
                )


def _drops_all(rule: Rule) -> bool:
    """Whether a rule looks at nothing but the source."""
    narrower = ("destination", "service", "source_ports", "ports", "tcp_flags", "length", "fragments")
    if rule.action is not RuleAction.DROP or rule.count_only or rule.protocol not in (None, TCP):
        return False
    return all(getattr(rule, name) is None for name in narrower)


NOBODY = Guard()
"""For changes without a caller."""


def _differing(config: Config, other: Config) -> list[Service]:
    """The services of a config that are not the same in another."""
    return [s for name, s in config.services.items() if other.services.get(name) is not s]

"""Rules to tables: each value of a field has a class, each class a set of the rules that match it. Pure.

xdp/README.md, "Rules", says what the tables mean; xdp/types.h how they lie.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from lb.dataplane.layout import layout
from lb.dataplane.tables import U16, U64, Array
from lb.errors import CapacityError
from lb.model import Config, Limit, Prefix, Rule, Service
from lb.model.rule import Fragments, LimitPer, LimitUnit, RuleAction
from lb.model.rule_fields import NUMBER_MAX, TCP, NumberSet
from lb.model.rule_match import Match, in_order
from lb.reconcile.prefix_keys import in_nested_order
from lb.reconcile.rule_tables import (
    CELLS,
    CELLS_AT,
    CLASSES,
    DESTINATION,
    KIND,
    KINDS,
    LENGTH,
    PORT,
    RULES_MAX,
    SOURCE,
    SOURCE_PORT,
    TRIE_OF,
    TRIES,
    Bank,
    RulePlan,
)

_C = layout().constants
SECOND = 1_000_000_000 << _C["LIMIT_TICK_SHIFT"]
"""Ticks in a second."""
RULE_FEATURES = frozenset(name for name in layout().features if name.startswith(("HAVE_RULE", "HAVE_LIMIT")))
"""All that rules can need of the program, but for bans."""
_ACTIONS = {action: _C[f"RULE_{action.name}"] for action in RuleAction}
_UNITS = {
    LimitUnit.PACKETS: _C["LIMIT_PACKETS"],
    LimitUnit.BYTES: _C["LIMIT_BYTES"],
    LimitUnit.NEW_FLOWS: _C["LIMIT_FLOWS"],
}
_U32_MAX = (1 << 32) - 1
_TCP_KINDS, _FIRST, _LATER = _C["RULE_KIND_TCP"], _C["RULE_KIND_FIRST"], _C["RULE_KIND_LATER"]
_WORD = 64

Bits = npt.NDArray[np.bool_]
"""Rules by kinds of packets: what wants what."""


def plan_rules(config: Config, before: RulePlan) -> RulePlan:
    """The tables of a config's rules; the plan before if nothing has changed.

    CapacityError: more rules, or more classes of values, than the tables have room for.
    """
    matches = before.matches
    if config.rules is not before.wanted or _services_changed(config.services, before):
        matches = {name: Match.of(rule, config.services) for name, rule in config.rules.items()}
    if config.rules is before.wanted and matches == before.matches:
        return before
    if not config.rules:
        return RulePlan(owners=np.zeros_like(before.owners), wanted=config.rules)
    order = tuple(in_order(config.rules.values()))
    _check_room(order)
    numbers, owners = _number([rule.name for rule in order], before.owners)
    wants = [matches[rule.name] for rule in order]
    sources, source_sets = _prefix_classes(SOURCE, [match.source for match in wants])
    targets, target_sets = _prefix_classes(DESTINATION, [match.destination for match in wants])
    cells = np.zeros(CELLS, np.uint16)
    columns: dict[int, Callable[[Match], NumberSet | None]] = {
        SOURCE_PORT: lambda match: match.source_ports,
        PORT: lambda match: match.ports,
        LENGTH: lambda match: match.length,
    }
    sets = {SOURCE: source_sets, DESTINATION: target_sets}
    for field, numbers_of in columns.items():
        at = CELLS_AT[field]
        cells[at : at + NUMBER_MAX + 1], sets[field] = _number_classes(
            field, [numbers_of(match) for match in wants]
        )
    cells[CELLS_AT[KIND] :], sets[KIND] = _kind_classes(wants)
    actions = np.zeros(RULES_MAX, layout().structs["rule_action"])
    for position, rule in enumerate(order):
        actions[position] = _action(rule, numbers[rule.name])
    return RulePlan(
        owners=owners,
        bank=Bank(tuple(_rows(sets[field]) for field in sorted(sets)), cells, actions),
        prefixes={name: (sources | targets).get(name, {}) for name in TRIES},
        order=order,
        numbers=numbers,
        matches=matches,
        features=_features(order, wants),
        wanted=config.rules,
    )


def _features(rules: Sequence[Rule], matches: Sequence[Match]) -> frozenset[str]:
    """What of the program these rules need."""
    limits = [rule.limit for rule in rules if rule.limit is not None]
    needed = {
        "HAVE_RULES": True,
        "HAVE_RULE_SOURCE": any(match.source is not None for match in matches),
        "HAVE_RULE_DESTINATION": any(match.destination is not None for match in matches),
        "HAVE_RULE_SOURCE_PORT": any(match.source_ports is not None for match in matches),
        "HAVE_RULE_PORT": any(match.ports is not None for match in matches),
        "HAVE_RULE_LENGTH": any(match.length is not None for match in matches),
        "HAVE_RULE_ALLOW": any(rule.action is RuleAction.ALLOW for rule in rules),
        "HAVE_LIMIT": bool(limits),
        "HAVE_LIMIT_SOURCE": any(limit.per is LimitPer.SOURCE for limit in limits),
        "HAVE_LIMIT_FLOWS": any(limit.unit is LimitUnit.NEW_FLOWS for limit in limits),
        "HAVE_BANS": any(rule.bans for rule in rules),
    }
    return frozenset(name for name, is_needed in needed.items() if is_needed)


def _services_changed(services: Mapping[str, Service], before: RulePlan) -> bool:
    """Whether what a rule's service stands for is another than it was."""
    return any(
        rule.service is not None and Match.of(rule, services) != before.matches[rule.name]
        for rule in before.order
    )


def _check_room(order: Sequence[Rule]) -> None:
    if len(order) > RULES_MAX:
        raise CapacityError(
            f"{len(order)} rules are too many: there is room for {RULES_MAX}; put addresses on the blocklist, and "
            "several ports into one rule"
        )


def rule_identity(name: str) -> int:
    """Whose a number is: kept beside the counters."""
    return int.from_bytes(blake2b(f"rule\0{name}".encode(), digest_size=8).digest(), "little") or 1


def _number(names: Sequence[str], before: U64) -> tuple[dict[str, int], U64]:
    """A number for each: the one it had, else one that nobody had before, else one that is given up now."""
    held = {identity: number for number, identity in enumerate(before.tolist()) if identity}
    identities = {name: rule_identity(name) for name in names}
    numbers = {name: held[identity] for name, identity in identities.items() if identity in held}
    taken = set(numbers.values())
    free = [number for number in range(RULES_MAX) if not before[number]]
    free += [number for number in range(RULES_MAX) if before[number] and number not in taken]
    fresh = iter(free)
    owners = np.zeros_like(before)
    for name in names:
        if name not in numbers:
            numbers[name] = next(fresh)
        owners[numbers[name]] = identities[name]
    return numbers, owners


def _prefix_classes(
    field: int, prefixes: Sequence[Prefix | None]
) -> tuple[dict[str, dict[Prefix, int]], list[int]]:
    """The class of each prefix by table, and the rules of each class. Class 0: no prefix holds the address."""
    own: dict[Prefix | None, int] = {None: 0}
    for position, prefix in enumerate(prefixes):
        own[prefix] = own.get(prefix, 0) | 1 << position
    sets = [own.pop(None)]
    tables: dict[str, dict[Prefix, int]] = {TRIE_OF[field, 4]: {}, TRIE_OF[field, 6]: {}}
    around: list[tuple[Prefix, int]] = []
    for prefix in in_nested_order(prefix for prefix in own if prefix is not None):
        while around and not around[-1][0].contains(prefix):
            around.pop()
        outer = around[-1][1] if around else 0
        around.append((prefix, len(sets)))
        tables[TRIE_OF[field, prefix.family]][prefix] = len(sets)
        sets.append(sets[outer] | own[prefix])
    return tables, sets


def _number_classes(field: int, wanted: Sequence[NumberSet | None]) -> tuple[U16, list[int]]:
    """The class of each number from 0 to 65535, and the rules of each class. Class 0: who asks nothing.

    Between two numbers at which some rule's range begins or has ended, all numbers are alike.
    """
    turns: dict[int, int] = {0: 0}
    everyone = 0
    for position, numbers in enumerate(wanted):
        if numbers is None:
            everyone |= 1 << position
            continue
        for edge in (edge for low, high in numbers.ranges for edge in (low, high + 1)):
            turns[edge] = turns.get(edge, 0) ^ 1 << position
    turns.pop(NUMBER_MAX + 1, None)
    starts = sorted(turns)
    known, classes, now = {everyone: 0}, [], everyone
    for start in starts:
        now ^= turns[start]
        classes.append(known.setdefault(now, len(known)))
    _check_classes(field, len(known))
    return np.repeat(np.array(classes, np.uint16), np.diff([*starts, NUMBER_MAX + 1])), list(known)


def _kind_classes(matches: Sequence[Match]) -> tuple[U16, list[int]]:
    """The class of each kind of packet, and the rules of each class."""
    rows: dict[tuple[object, ...], Bits] = {}
    by_rule = np.zeros((len(matches), KINDS), bool)
    for position, match in enumerate(matches):
        asked = match.protocol, match.tcp_flags, match.fragments
        if asked not in rows:
            rows[asked] = _kinds(match)
        by_rule[position] = rows[asked]
    packed = np.packbits(by_rule, axis=0, bitorder="little").T
    known: dict[bytes, int] = {}
    classes = [known.setdefault(row.tobytes(), len(known)) for row in packed]
    return np.array(classes, np.uint16), [int.from_bytes(row, "little") for row in known]


def _kinds(match: Match) -> Bits:
    """Which kinds of packets fit. A kind: a fragment or none, and a protocol's number or TCP with these flags."""
    number = np.arange(KINDS) % _FIRST
    fits = np.ones(KINDS, bool)
    if match.fragments is Fragments.ONLY:
        fits[:_FIRST] = False
    elif match.fragments is Fragments.NONE:
        fits[_FIRST:] = False
    if match.protocol is not None:
        fits &= (number == match.protocol) | ((number >= _TCP_KINDS) & (match.protocol == TCP))
    if match.tcp_flags is not None:
        fits &= (number >= _TCP_KINDS) & (number & match.tcp_flags.mask == match.tcp_flags.value)
    return fits


def _check_classes(field: int, count: int) -> None:
    if count > CLASSES:
        what = {SOURCE_PORT: "source ports", PORT: "ports", LENGTH: "lengths"}[field]
        raise CapacityError(
            f"the rules tell {count} kinds of {what} apart, but {CLASSES} are allowed: use fewer or equal ranges"
        )


def _rows(sets: Sequence[int]) -> Array:
    """Struct rule_set for each class; sets: a bit for each rule's position."""
    rows = np.zeros(len(sets), layout().structs["rule_set"])
    packed = b"".join(rules.to_bytes(RULES_MAX // 8, "little") for rules in sets)
    rows["word"] = np.frombuffer(packed, "<u8").reshape(len(sets), -1)
    for word in range(RULES_MAX // _WORD):
        rows["some"] |= (rows["word"][:, word] != 0).astype(np.uint64) << np.uint64(word)
    return rows


def _action(rule: Rule, number: int) -> Any:
    """Struct rule_action, of one rule."""
    row = np.zeros((), layout().structs["rule_action"])
    row["number"], row["action"] = number, _ACTIONS[rule.action]
    row["flags"] = rule.count_only * _C["RULE_COUNT_ONLY"] | rule.bans * _C["RULE_BANS"]
    if rule.limit is not None:
        _fill_limit(row, rule.limit)
    return row


def _fill_limit(row: Any, limit: Limit) -> None:
    cost = max(1, (SECOND + limit.rate // 2) // limit.rate)
    row["cost"], row["burst"] = cost, cost * limit.at_once
    row["heavy"] = min(_U32_MAX, max(1, min(limit.rate, limit.at_once) // 2))
    row["unit"] = _UNITS[limit.unit]
    by_source = limit.per is LimitPer.SOURCE
    row["length4"] = limit.ipv4_length if by_source else _C["LIMIT_TOTAL"]
    row["length6"] = limit.ipv6_length if by_source else _C["LIMIT_TOTAL"]

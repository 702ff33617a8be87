"""Rules as tables: memory says of every packet what the rules say, before, during and after every change."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import QUICK, rules, services
from rule_reading import Packet, asked, met, packets
from service_samples import named, service
from twin_memory import memory
from watched import WatchedTable, watch_arrays

from lb.dataplane.layout import layout
from lb.dataplane.tables import Tables
from lb.dataplane.twin import SMALL, TwinDataPlane
from lb.errors import CapacityError
from lb.model import Config, Rule
from lb.model.rule_match import Match
from lb.reconcile.apply_rules import RuleMemory
from lb.reconcile.rule_tables import RulePlan
from lb.reconcile.rules import SECOND, plan_rules

C = layout().constants
TINY = replace(SMALL, flow_slots=64, backends=64, rings=2, deny_hosts=64, limit_slots=64, syn_tests=64)


def rule(name: str, action: str = "drop", **more: Any) -> Rule:
    return Rule.model_validate({"name": name, "action": action, **more})


def of(*some: Rule, **more: Any) -> Config:
    """A config with these rules."""
    return Config(rules={each.name: each for each in some}, **more)


class Rules:
    """Rules in memory."""

    def __init__(self, twin: TwinDataPlane | None = None, tables: Tables | None = None) -> None:
        self.twin = twin or TwinDataPlane(TINY)
        self.tables = tables or self.twin.tables
        self.memory = RuleMemory(self.tables)
        self.plan = RulePlan(owners=self.twin.tables.arrays.rule_owners.copy())

    def put(self, config: Config) -> RulePlan:
        """One change."""
        plan = plan_rules(config, self.plan)
        self.memory.put(plan)
        self.plan = plan
        return plan

    def names(self, packet: Packet) -> list[str]:
        """The rules that memory has for a packet, in order."""
        by_number = {number: name for name, number in self.plan.numbers.items()}
        return [by_number[number] for number in asked(self.twin.tables, packet)]


@st.composite
def states(draw: st.DrawFn) -> Config:
    """A service or two and up to seven rules, some about the services."""
    some = [draw(services(place)) for place in range(draw(st.integers(0, 2)))]
    named_rules = draw(st.lists(st.integers(0, 9), max_size=7, unique=True))
    return of(*(draw(rules(f"r{n}", tuple(some))) for n in named_rules), services=named(*some))


def expected(config: Config, packet: Packet) -> list[str]:
    wanted = {name: Match.of(each, config.services) for name, each in config.rules.items()}
    return met(list(config.rules.values()), wanted, packet)


@QUICK
@given(st.lists(states(), min_size=1, max_size=4), st.lists(packets(), min_size=1, max_size=30))
def test_what_rows_have_in_common_is_what_the_rules_want(steps: list[Config], some: list[Packet]) -> None:
    """Through a row of changes, memory has for every packet just the rules that match it, in their order."""
    held = Rules()

    for config in steps:
        held.put(config)
        for packet in some:
            assert held.names(packet) == expected(config, packet)


@contextmanager
def looking(twin: TwinDataPlane, look: Callable[[], None]) -> Iterator[Tables]:
    """The twin's memory with a look after each write."""
    tries = ("rule_sources4", "rule_sources6", "rule_targets4", "rule_targets6")
    arrays = watch_arrays(
        twin.tables.arrays,
        look,
        elements={"rule_sets": 64, "rule_actions": 256, "rule_cells": 65536},
    )
    watched: dict[str, Any] = {name: WatchedTable(getattr(twin.tables, name), look) for name in tries}
    yield replace(twin.tables, arrays=arrays, **watched)


@QUICK
@given(st.lists(states(), min_size=2, max_size=3), st.lists(packets(), min_size=1, max_size=3))
def test_a_packet_meets_the_old_rules_or_the_new(steps: list[Config], some: list[Packet]) -> None:
    """Between any two writes of a change each packet meets all of the old rules or all of the new: never a mixture."""
    twin = TwinDataPlane(TINY)
    either: list[list[list[int]]] = []

    def look() -> None:
        for packet, both in zip(some, either, strict=True):
            assert asked(twin.tables, packet) in both

    with looking(twin, look) as tables:
        held = Rules(twin, tables)
        before = Config()
        for config in steps:
            old, new = held.plan, plan_rules(config, held.plan)
            either[:] = [
                [
                    [plan.numbers[name] for name in expected(state, packet)]
                    for plan, state in ((old, before), (new, config))
                ]
                for packet in some
            ]
            held.memory.put(new)
            held.plan, before = new, config


def test_a_restart_writes_nothing() -> None:
    """Another owner of the memory finds the rules as they are wanted, and gives them the numbers they had."""
    held = Rules()
    config = of(rule("a", source="10.0.0.0/8"), rule("b", "count", ports=53), rule("c", length="1-99"))
    held.put(of(rule("b", "count", ports=53)))
    first = held.put(config)
    before = memory(held.twin)

    again = Rules(held.twin).put(config)

    assert memory(held.twin) == before
    assert again.numbers == first.numbers
    assert again.owners.tolist() == first.owners.tolist()


def test_the_tries_keep_only_what_is_needed() -> None:
    """Prefixes of rules that are gone go; with the last rule everything is as it was in the beginning."""
    held = Rules()
    held.put(of(rule("a", source="10.0.0.0/8"), rule("b", destination="2001:db8::/32")))
    held.put(of(rule("b", destination="2001:db8::/32")))

    assert [len(getattr(held.tables, name).read()[0]) for name in ("rule_sources4", "rule_targets6")] == [
        0,
        1,
    ]
    held.put(Config())
    assert len(held.tables.rule_targets6.read()[0]) == 0
    assert held.memory.is_empty
    assert held.memory.usage() == {"rules": (0, 1024)}


class Refusing:
    """A table that refuses the next write or removal."""

    def __init__(self, table: Any) -> None:
        self._table, self.capacity, self.refuses = table, table.capacity, ""

    def read(self) -> Any:
        return self._table.read()

    def write(self, keys: Any, values: Any) -> None:
        if self.refuses == "write":
            raise OSError("no memory")
        self._table.write(keys, values)

    def delete(self, keys: Any) -> None:
        if self.refuses == "delete":
            raise OSError("no memory")
        self._table.delete(keys)


@pytest.mark.parametrize("refuses", ["write", "delete"])
@pytest.mark.parametrize("table", ["rule_sources4", "rule_targets4"])
def test_a_change_that_is_refused_can_be_taken_back(table: str, refuses: str) -> None:
    """Wherever the kernel refuses, the old rules put once more are in force as they were, and nothing is left over."""
    twin = TwinDataPlane(TINY)
    trie = Refusing(getattr(twin.tables, table))
    before = of(
        rule("a", source="10.0.0.0/8"), rule("b", "count", destination="192.0.2.0/24"), rule("c", ports=80)
    )
    after = of(
        rule("a", source="10.1.0.0/16"), rule("d", destination="192.0.2.9"), rule("e", source="10.9.0.0/16")
    )
    packet = Packet(4, 0x0A010000, 0xC0000209, 6, port=80)
    held = Rules(twin, replace(twin.tables, **{table: trie}))
    numbers = held.put(before).numbers
    twin.tables.rule_counters.add(numbers["a"], 3, 300)
    trie.refuses = refuses
    with pytest.raises(OSError, match="no memory"):
        held.put(after)
    trie.refuses = ""

    again = Rules(twin)
    again.put(before)

    assert again.plan.numbers == numbers
    assert again.names(packet) == ["a", "c", "b"]
    assert [len(twin.tables.rule_sources4.read()[0]), len(twin.tables.rule_targets4.read()[0])] == [1, 1]
    assert twin.tables.rule_counters.read_some([numbers["a"]])["packets"].tolist() == [3]


def test_numbers_stay_whose_they_are() -> None:
    """A rule keeps its number and counts, whatever its place; a number that is given anew starts at zero."""
    held = Rules()
    first = held.put(of(rule("a"), rule("m"), rule("z"))).numbers
    for name in first:
        held.tables.rule_counters.add(first[name], 7, 700)

    held.put(of(rule("m", priority=1), rule("z", "allow")))
    third = held.put(of(rule("m"), rule("new"), rule("z"))).numbers

    assert (third["m"], third["z"], third["new"]) == (first["m"], first["z"], first["a"])
    counts = held.tables.rule_counters.read_some([third["m"], third["z"], third["new"]])
    assert counts["packets"].tolist() == [7, 7, 0]


def test_all_rules_can_be_others_at_once() -> None:
    """A thousand rules are replaced by a thousand others in one change."""
    held = Rules()
    held.put(of(*(rule(f"a{n}", source=f"10.{n // 256}.{n % 256}.0/24") for n in range(1024))))
    held.put(of(*(rule(f"b{n}", source=f"10.{n // 256}.{n % 256}.0/24") for n in range(1024))))

    assert held.names(Packet(4, 0x0A03FF07, 1, 6)) == ["b1023"]
    assert sorted(held.plan.numbers.values()) == list(range(1024))


def action(more: dict[str, Any], name: str = "limit") -> Any:
    """Struct rule_action of one rule."""
    return Rules().put(of(rule("a", name, **more))).bank.actions[0]


@pytest.mark.parametrize(
    ("limit", "cost", "burst", "heavy", "unit"),
    [
        ({"rate": 1}, SECOND, 1, 1, "PACKETS"),
        ({"rate": 1000, "burst": 10}, SECOND // 1000, 10, 5, "PACKETS"),
        ({"rate": 3, "burst": 100}, round(SECOND / 3), 100, 1, "PACKETS"),
        ({"rate": 1000, "unit": "bytes"}, SECOND // 1000, 65535, 500, "BYTES"),
        ({"rate": 10**12, "unit": "bytes"}, 1, 10**12, 2**32 - 1, "BYTES"),
        ({"rate": 50, "unit": "new-flows"}, SECOND // 50, 50, 25, "FLOWS"),
    ],
)
def test_a_limit_in_ticks(limit: dict[str, Any], cost: int, burst: int, heavy: int, unit: str) -> None:
    """A unit's cost is what the rate leaves for it; the burst the cost of its units; heavy half of the lesser."""
    row = action({"limit": limit})

    assert (int(row["cost"]), int(row["burst"]), int(row["heavy"])) == (cost, cost * burst, heavy)
    assert (int(row["unit"]), int(row["action"])) == (C[f"LIMIT_{unit}"], C["RULE_LIMIT"])
    assert (int(row["length4"]), int(row["length6"])) == (32, 64)


@pytest.mark.parametrize(
    ("name", "more", "flags"),
    [
        ("drop", {}, 0),
        ("drop", {"count_only": True}, C["RULE_COUNT_ONLY"]),
        ("limit", {"limit": {"rate": 1}, "ban_seconds": 60}, C["RULE_BANS"]),
        ("limit", {"limit": {"rate": 1}, "ban_seconds": 60, "count_only": True}, C["RULE_COUNT_ONLY"]),
        ("allow", {}, 0),
        ("count", {}, 0),
    ],
)
def test_what_an_action_says(name: str, more: dict[str, Any], flags: int) -> None:
    """The action's number and flags; who is only counted is not banned."""
    row = action(more, name)

    assert (int(row["action"]), int(row["flags"])) == (C[f"RULE_{name.upper()}"], flags)


def test_a_shared_limit_has_one_bucket() -> None:
    """Per rule: no length of a source's prefix."""
    row = action({"limit": {"rate": 5, "per": "rule"}})

    assert (int(row["length4"]), int(row["length6"])) == (C["LIMIT_TOTAL"], C["LIMIT_TOTAL"])


def test_a_limit_that_changes_begins_anew() -> None:
    """What buckets say counts in ticks of the old limit: it is forgotten; of limits that stay it is kept."""
    held = Rules()
    stays = rule("s", "limit", limit={"rate": 9})
    numbers = held.put(of(rule("a", "limit", limit={"rate": 9}), stays)).numbers
    arrays = held.tables.arrays
    arrays.limit_totals["paid_until"][list(numbers.values())] = 77
    for way, name in enumerate(numbers):
        arrays.limit_buckets[5, way] = (1 << 16 | numbers[name], 77)

    held.put(of(rule("a", "limit", limit={"rate": 9}, reason="why"), stays))
    assert arrays.limit_totals["paid_until"][numbers["a"]] == 77
    held.put(of(rule("a", "limit", limit={"rate": 8}), stays))

    by_name = {name: (arrays.limit_buckets["key"][5] & 0xFFFF == n).any() for name, n in numbers.items()}
    assert arrays.limit_totals["paid_until"][[numbers["a"], numbers["s"]]].tolist() == [0, 77]
    assert by_name["s"]
    assert np.count_nonzero(arrays.limit_buckets["key"]) == 1


MANY_PORTS = [
    rule(f"q{n}", ports=",".join(f"{port}-{port + 250}" for port in range(0, 65000, 520 + 3 * n)))
    for n in range(60)
]
"""Of 60 rules, at nearly every turn of one, others hold."""


TOO_MANY = [
    ([rule(f"r{n}") for n in range(1025)], "1025 rules are too many"),
    (MANY_PORTS, "kinds of ports apart, but 4096 are allowed"),
]


@pytest.mark.parametrize(("some", "words"), TOO_MANY)
def test_rules_that_do_not_fit_are_refused(some: list[Rule], words: str) -> None:
    """Too many rules, too many classes of values: said before anything is written."""
    held = Rules()

    with pytest.raises(CapacityError, match=words):
        held.put(of(*some))


def test_as_many_rules_as_fit() -> None:
    """The most rules are taken, and the last of them is met: those that drop before those that count."""
    most = [rule(f"c{n}", "count", ports=53) for n in range(64)]
    most += [rule(f"d{n}", source=f"10.0.{n // 256}.{n % 256}") for n in range(960)]
    held = Rules()
    held.put(of(*most))

    assert held.names(Packet(4, 0x0A0003BF, 1, 17, port=53)) == ["d959", *sorted(f"c{n}" for n in range(64))]


@pytest.mark.parametrize(
    ("more", "features"),
    [
        ({"action": "drop"}, set()),
        ({"action": "allow"}, {"RULE_ALLOW"}),
        ({"source": "::/0"}, {"RULE_SOURCE"}),
        ({"destination": "::/0"}, {"RULE_DESTINATION"}),
        ({"service": "web"}, {"RULE_DESTINATION", "RULE_PORT"}),
        ({"service": "any"}, {"RULE_DESTINATION"}),
        ({"ports": 1}, {"RULE_PORT"}),
        ({"source_ports": 1}, {"RULE_SOURCE_PORT"}),
        ({"length": 60}, {"RULE_LENGTH"}),
        ({"protocol": "tcp", "tcp_flags": "syn", "fragments": "none"}, set()),
        ({"action": "limit", "limit": {"rate": 1, "per": "rule"}}, {"LIMIT"}),
        ({"action": "limit", "limit": {"rate": 1}}, {"LIMIT", "LIMIT_SOURCE"}),
        (
            {"action": "limit", "limit": {"rate": 1, "unit": "new-flows"}, "ban_seconds": 1},
            {"LIMIT", "LIMIT_SOURCE", "LIMIT_FLOWS", "BANS"},
        ),
    ],
)
def test_features_of_a_rule(more: dict[str, Any], features: set[str]) -> None:
    """The program gets what the rules need; each name is one that config.h has."""
    there = named(service("web"), service("any", vip="10.200.1.9", port="any"))
    plan = Rules().put(of(rule(**{"name": "a", **more}), services=there))

    assert plan.features == {f"HAVE_{name}" for name in ("RULES", *features)}
    assert plan.features <= layout().features.keys()


def test_a_service_that_moves_takes_its_rules_along() -> None:
    """Another VIP: the rule means it; a change that it does not notice makes no new plan."""
    held = Rules()
    first = held.put(of(rule("a", service="web"), services=named(service("web", vip="10.200.1.1"))))
    same = replace(of(), rules=first.wanted, services=named(service("web", "10.0.0.1", vip="10.200.1.1")))
    moved = replace(same, services=named(service("web", vip="10.200.1.2")))

    assert plan_rules(same, first) is first
    held.put(moved)
    assert held.names(Packet(4, 1, 0x0AC80102, 6, port=80)) == ["a"]
    assert held.names(Packet(4, 1, 0x0AC80101, 6, port=80)) == []

"""Blocklist and allowlist written into memory, found again by a restart, and refused before anything is written."""

from dataclasses import replace

import pytest
from twin_memory import memory
from watched import WatchedTable, watch_arrays

from lb.dataplane.tables import Tables
from lb.dataplane.twin import SMALL, TwinDataPlane
from lb.errors import CapacityError
from lb.model import Action, Prefix
from lb.model.entries import OPERATOR, PrefixList
from lb.model.layers import Attributes, Layer
from lb.reconcile.apply_lists import ListMemory
from lb.reconcile.lists import ListPlan, plan_list, rules_of
from lb.reconcile.numbering import ALLOW, DENY


def blocked(*texts: str, count_only: bool = False) -> PrefixList:
    attributes = Attributes(Action.COUNT if count_only else Action.DROP)
    return PrefixList().with_layer(OPERATOR, Layer.of([(Prefix.parse(text), attributes) for text in texts]))


class Lists:
    """The two lists in memory."""

    def __init__(self, twin: TwinDataPlane | None = None, tables: Tables | None = None) -> None:
        self.twin = twin or TwinDataPlane()
        self.memory = ListMemory(tables or self.twin.tables)
        arrays = self.twin.tables.arrays
        self.deny = ListPlan(owners=arrays.deny_owners.copy())
        self.allow = ListPlan(owners=arrays.allow_owners.copy())

    def put(self, deny: PrefixList, allow: PrefixList) -> None:
        """One change."""
        wanted_deny, wanted_allow = (
            plan_list(deny, self.deny, DENY, 0.0),
            plan_list(allow, self.allow, ALLOW, 0.0),
        )
        self.memory.prepare(wanted_deny, wanted_allow)
        self.memory.put()
        self.deny, self.allow = wanted_deny, wanted_allow

    def number(self, text: str) -> int:
        """The rule number of a blocked prefix."""
        prefix = Prefix.parse(text)
        return rules_of(self.deny, prefix.family, [prefix.key])[0]


LISTS = [
    (blocked("10.0.0.0/8", "2001:db8::/32", "10.1.2.3"), blocked("10.1.0.0/16", "2001:db8:1::/48")),
    (blocked("10.0.0.0/8", "::/0", "10.1.2.4"), blocked("10.1.0.0/16", "2001:db8:2::/48", "0.0.0.0/0")),
    (blocked("10.0.0.0/9", count_only=True), blocked()),
    (blocked(), blocked("10.1.2.3")),
]


def tries(twin: TwinDataPlane) -> dict[str, dict[bytes, bytes]]:
    return {name: memory(twin)[name] for name in ("deny6", "allow4", "allow6")}  # type: ignore[misc]


def test_lists_in_memory_are_the_lists_wanted() -> None:
    """After each of a row of changes memory is what a fresh one is with the same list."""
    lists = Lists()
    for deny, allow in LISTS:
        lists.put(deny, allow)
        fresh = Lists()
        fresh.deny, fresh.allow = ListPlan(owners=lists.deny.owners), ListPlan(owners=lists.allow.owners)
        fresh.put(deny, allow)
        assert tries(lists.twin) == tries(fresh.twin)
        assert (lists.twin.tables.arrays.deny_owners == lists.deny.owners).all()
        assert lists.memory.usage() == fresh.memory.usage()


def test_a_restart_writes_no_list_anew() -> None:
    """A new owner of the memory finds both lists as they are wanted."""
    lists = Lists()
    lists.put(*LISTS[0])
    before = memory(lists.twin)
    again = Lists(lists.twin)

    again.put(*LISTS[0])

    assert memory(lists.twin) == before
    assert again.number("10.1.2.3") == lists.number("10.1.2.3")


def test_who_is_allowed_before_and_after_is_never_blocked() -> None:
    """While a blocked net and its exception change together, the exception is in the table whenever the net is."""
    twin = TwinDataPlane()
    looks: list[bool] = []

    def look() -> None:
        at = int.from_bytes(bytes([10, 1, 2, 3]), "big")
        is_blocked = twin.tables.arrays.deny4_cells[at >> 8] != 0
        keys, _ = twin.tables.allow4.read()
        is_allowed = any(
            at >> (32 - length) == int(address) >> (32 - length)
            for length, address in zip(keys["length"].tolist(), keys["address"].tolist(), strict=True)
        )
        looks.append(is_blocked)
        assert is_allowed or not is_blocked

    tables = replace(
        twin.tables,
        arrays=watch_arrays(twin.tables.arrays, look, elements={"deny4_cells": 1}),
        allow4=WatchedTable(twin.tables.allow4, look),
    )
    lists = Lists(twin, tables)

    lists.put(blocked("10.1.2.0/24"), blocked("10.1.0.0/16"))
    lists.put(blocked("10.1.2.0/23"), blocked("10.1.2.0/28"))
    lists.put(blocked(), blocked())

    assert {True, False} == set(looks)


def test_a_number_that_is_used_again_counts_from_zero() -> None:
    """Hits of an entry that is gone are not those of the next; hits of one that stays are kept."""
    lists = Lists()
    lists.put(blocked("10.0.0.1", "10.0.0.2"), blocked())
    gone, stays = lists.number("10.0.0.1"), lists.number("10.0.0.2")
    counters = lists.twin.tables.deny_counters
    counters.add(gone, 5, 500)
    counters.add(stays, 6, 600)

    lists.put(blocked("10.0.0.2"), blocked())
    lists.put(blocked("10.0.0.2", "10.0.0.3"), blocked())

    assert lists.number("10.0.0.3") == gone
    assert counters.read_some([gone, stays])["packets"].tolist() == [0, 6]


MANY = [f"10.0.{n}.1" for n in range(5)]
SIXTEEN_TWICE = [f"10.0.{n}.{host}" for n in range(2) for host in range(16)]
TOO_MANY = [
    (blocked(*MANY), blocked(), "--deny-hosts"),
    (blocked(*SIXTEEN_TWICE), blocked(), "--deny-dense"),
    (blocked(*(f"2001:db8:{n}::/48" for n in range(1, 5))), blocked(), "--deny-ipv6"),
    (blocked(), blocked(*MANY), "--allow"),
    (blocked(), blocked(*(f"2001:db8:{n}::/48" for n in range(1, 6))), "--allow"),
    (blocked(), blocked(*(f"10.9.0.{n}" for n in range(4))), "--allow"),
]


@pytest.mark.parametrize(("deny", "allow", "option"), TOO_MANY)
def test_lists_that_do_not_fit_are_refused_before_anything_is_written(
    deny: PrefixList, allow: PrefixList, option: str
) -> None:
    """Each table that is too small, old and new together, is named by its option, and memory stays as it was."""
    lists = Lists(TwinDataPlane(replace(SMALL, deny_hosts=4, deny_dense=1, deny_ipv6=4, allow=4)))
    lists.put(blocked("192.0.2.1", "2001:db8::/48"), blocked("192.0.2.1"))
    before = memory(lists.twin)

    with pytest.raises(CapacityError, match=option):
        lists.put(deny, allow)

    assert memory(lists.twin) == before
    lists.put(blocked("192.0.2.2"), blocked("192.0.2.2"))
    assert lists.number("192.0.2.2") != 0

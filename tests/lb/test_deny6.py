"""The IPv6 blocklist in memory, against a plain longest-prefix match, and as a reader sees it while it changes."""

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from lb.dataplane.deny6 import Deny6
from lb.dataplane.layout import layout
from lb.dataplane.tables import Array, dtype_of
from lb.dataplane.twin import TwinTable
from lb.errors import CapacityError

_C = layout().constants
CELLS, CAPACITY = 65536, 300

Prefix = tuple[int, int]
"""Network and length."""
Rules = dict[Prefix, int]


class House:
    """A blocklist, and the packet path's look at it."""

    def __init__(self) -> None:
        self.cells = np.zeros(CELLS, np.uint8)
        self.hosts, self.trie = TwinTable("deny6_hosts", CAPACITY), TwinTable("deny6_trie", CAPACITY)
        self.table = self.opened()

    def opened(self) -> Deny6:
        """The list as a daemon finds it that starts over this memory."""
        return Deny6(self.cells, self.hosts, self.trie, CAPACITY)

    def lookup(self, address: int) -> int:
        """The rule that a packet from an address finds, as deny6_rule() of xdp/deny6.h does it."""
        first = int.from_bytes(address.to_bytes(16, "big")[:4], "little")
        kinds = int(self.cells[first * _C["DENY6_MIX"] % (1 << 32) >> 16])
        best = 0
        if kinds & _C["DENY6_HOST"] and (found := exact(self.hosts, address, 128)):
            return found
        if kinds & _C["DENY6_OTHER"]:
            lengths = range(128, -1, -1)
            best = next((found for n in lengths if (found := exact(self.trie, cut(address, n), n))), 0)
        if (
            kinds & _C["DENY6_NET64"]
            and best >> 16 < 64
            and (found := exact(self.hosts, cut(address, 64), 64))
        ):
            return found
        return best & 0xFFFF

    def there(self) -> Rules:
        """What the two maps hold, whatever the filter says."""
        entries = (*self.hosts._entries.items(), *self.trie._entries.items())
        return {
            (int.from_bytes(key[4:], "big"), int.from_bytes(key[:4], "little")): int.from_bytes(
                value[:2], "little"
            )
            for key, value in entries
        }


def exact(table: TwinTable, network: int, length: int) -> int:
    """What a map has for exactly this prefix, or 0."""
    value = table._entries.get(keys([(network, length)])[0].tobytes())
    return int.from_bytes(value, "little") if value else 0


def keys(prefixes: Iterable[Prefix]) -> Array:
    """As struct prefix6_key."""
    rows = list(prefixes)
    array = np.zeros(len(rows), dtype_of("prefix6_key"))
    for row, (network, length) in zip(array, rows, strict=True):
        row["length"], row["address"] = length, np.frombuffer(network.to_bytes(16, "big"), "<u4")
    return array


def put(table: Deny6, rules: Rules) -> None:
    """Write them."""
    table.write(keys(rules), np.array(list(rules.values()), "<u4"))


def replace(table: Deny6, old: Rules, new: Rules) -> None:
    """From one set to another as the control plane does it: first what is wanted, then away with the rest."""
    put(table, {prefix: number for prefix, number in new.items() if old.get(prefix) != number})
    table.delete(keys(old.keys() - new.keys()))


def match(rules: Rules, address: int) -> int:
    """The rule of the longest prefix that holds an address, the plain way."""
    return next((rules[p] for n in range(128, -1, -1) if (p := (cut(address, n), n)) in rules), 0)


def cut(address: int, length: int) -> int:
    """The network of that length."""
    return address >> (128 - length) << (128 - length)


def edges(prefixes: Iterable[Prefix]) -> set[int]:
    """The first and last address of each prefix, and those just outside."""
    found = set()
    for network, length in prefixes:
        last = network + (1 << (128 - length)) - 1
        found |= {network, last, max(network - 1, 0), min(last + 1, (1 << 128) - 1)}
    return found


def held(table: Deny6) -> dict[bytes, int]:
    """What a table says it holds."""
    found, values = table.read()
    return {key.tobytes(): int(value) for key, value in zip(found, values, strict=True)}


def named(rules: Rules) -> dict[bytes, int]:
    """The same of a model."""
    return {key.tobytes(): number for key, number in zip(keys(rules), rules.values(), strict=True)}


def random_prefix(random: Random) -> Prefix:
    """Of any length, within few nets, so that prefixes nest and meet."""
    address = random.choice((0x20010DB8, 0x20010DB9, 0x2A000000)) << 96
    address |= random.choice((0, random.getrandbits(96), random.getrandbits(3) << 64, random.getrandbits(3)))
    length = random.choice((random.randrange(129), random.randrange(24, 66), 32, 48, 64, 128))
    return cut(address, length), length


def random_rules(random: Random, count: int) -> Rules:
    """So many at most."""
    return {random_prefix(random): random.randrange(1, 0x8000) for _ in range(count)}


few_rules = st.builds(
    lambda seed, count: random_rules(Random(seed), count), st.integers(0), st.integers(0, 40)
)


class Changes(RuleBasedStateMachine):
    """The list added to, taken from, replaced and opened anew in any order, beside a plain dict."""

    def __init__(self) -> None:
        super().__init__()
        self.house, self.rules = House(), Rules()
        self.gone: list[Prefix] = []

    @rule(new=few_rules)
    def add(self, new: Rules) -> None:
        """Put in, some with another number than before."""
        if len(self.rules | new) <= CAPACITY:
            put(self.house.table, new)
            self.rules |= new

    @rule(seed=st.integers(0), few=st.booleans())
    def remove(self, seed: int, few: bool) -> None:
        """Take out half, or one or two; and a prefix that is not there."""
        random = Random(seed)
        self.gone = random.sample(
            sorted(self.rules), min(2, len(self.rules)) if few else len(self.rules) // 2
        )
        stranger = {random_prefix(random)} - self.rules.keys()
        self.house.table.delete(keys([*self.gone, *stranger]))
        self.rules = {prefix: number for prefix, number in self.rules.items() if prefix not in self.gone}

    @rule(new=few_rules)
    def exchange(self, new: Rules) -> None:
        """Another list altogether."""
        if len(self.rules | new) <= CAPACITY:
            replace(self.house.table, self.rules, new)
            self.gone, self.rules = list(self.rules), new

    @rule(scribbled=st.booleans())
    def restart(self, scribbled: bool) -> None:
        """A new owner of the memory, who reads it; a filter that says too much is put right."""
        if scribbled:
            self.house.cells[:] |= np.uint8(7)
        self.house.table = self.house.opened()
        self.house.table.read()

    @invariant()
    def lookups_find_the_longest(self) -> None:
        """At the edges of what is there and of what just went."""
        for address in sorted(edges([*list(self.rules)[-30:], *self.gone[:10]])):
            assert self.house.lookup(address) == match(self.rules, address), hex(address)

    @invariant()
    def filter_is_that_of_a_list_made_at_once(self) -> None:
        """What went has left nothing behind in it, and what is there is in it once however often it was put in."""
        other = House()
        put(other.table, self.rules)
        assert (self.house.cells == other.cells).all()

    @invariant()
    def memory_holds_the_rules(self) -> None:
        """All that another reader of the memory finds."""
        copy = House()
        copy.hosts, copy.trie = self.house.hosts, self.house.trie
        assert held(copy.opened()) == named(self.rules)


def test_any_sequence_of_changes_equals_a_plain_dict() -> None:
    """After each change, each lookup finds what a plain search finds, and the filter is no wider than need be."""
    some = settings(deadline=None, max_examples=20, stateful_step_count=12)
    run_state_machine_as_test(Changes, settings=some)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 63, 64, 65, 127, 128])
def test_each_length_by_itself(length: int) -> None:
    """One prefix of a length covers its addresses and no others; taken away, it leaves the filter empty."""
    house = House()
    rules = {(cut(0x20010DB8_80000001_80000001_80000001, length), length): 77}

    put(house.table, rules)

    for address in edges(rules):
        assert house.lookup(address) == match(rules, address)
    assert np.count_nonzero(house.cells) == (1 if length >= 32 else CELLS)
    house.table.delete(keys(rules))
    assert not house.cells.any()


def test_an_emptied_list_leaves_nothing_in_memory() -> None:
    """Hash, trie and filter are as at first once the last prefix is gone."""
    house, rules = House(), random_rules(Random(1), 250)
    put(house.table, rules)

    house.table.delete(keys(rules))

    assert not house.cells.any()
    assert [len(table.read()[0]) for table in (house.hosts, house.trie, house.table)] == [0, 0, 0]


def test_beyond_capacity_nothing_is_written() -> None:
    """CapacityError over both maps together, and memory is as it was; another number for what is there fits."""
    house = House()
    rules = {(n << 64, 64 if n % 2 else 66): 1 for n in range(CAPACITY)}
    put(house.table, rules)
    before = held(house.table), house.cells.copy()

    with pytest.raises(CapacityError):
        put(house.table, {(1 << 127, 1): 1})

    assert held(house.table) == before[0]
    assert (house.cells == before[1]).all()
    put(house.table, dict.fromkeys(rules, 2))
    assert held(house.table) == named(dict.fromkeys(rules, 2))


class Stepwise(np.ndarray):
    """An array that is written one element at a time, with a look after each that changes."""

    look: Callable[[], None] | None = None

    def __array_finalize__(self, source: Any) -> None:
        self.look = None

    def __setitem__(self, key: Any, value: Any) -> None:
        places = np.arange(self.size)[key]
        for place, each in zip(places, np.broadcast_to(value, places.shape), strict=True):
            if self[place] != each:
                super().__setitem__(place, each)
                if self.look:
                    self.look()


class StepwiseTable(TwinTable):
    """A table that is written one entry at a time, with a look after each."""

    look: Callable[[], None] = staticmethod(lambda: None)

    def write(self, keys: Array, values: Array) -> None:
        for at in range(len(keys)):
            super().write(keys[at : at + 1], values[at : at + 1])
            self.look()

    def delete(self, keys: Array) -> None:
        for at in range(len(keys)):
            super().delete(keys[at : at + 1])
            self.look()


@pytest.mark.parametrize("seed", range(4))
def test_what_both_lists_hold_is_found_at_every_moment(seed: int) -> None:
    """While one list takes another's place, no write in between lets through an address that both block;
    and what the maps hold is never hidden by the filter."""
    random = Random(seed)
    # Each address in a cell of its own, which says another kind before and after.
    addresses = [0x2A00 << 112 | n << 96 | random.getrandbits(96) for n in range(40)]
    old, new = (
        {(cut(a, n), n): n for a in addresses for n in [random.choice((128, 64, random.randrange(32, 129)))]}
        for _ in range(2)
    )
    house, looks = House(), 0
    house.cells = house.cells.view(Stepwise)
    house.hosts, house.trie = StepwiseTable("deny6_hosts", CAPACITY), StepwiseTable("deny6_trie", CAPACITY)
    house.table = house.opened()
    put(house.table, old)

    def look() -> None:
        nonlocal looks
        looks += 1
        there = house.there()
        for address in addresses:
            assert house.lookup(address) == match(there, address) != 0, hex(address)

    house.cells.look = house.hosts.look = house.trie.look = look  # type: ignore[attr-defined]
    replace(house.table, old, new)

    assert looks > len(addresses)
    for address in sorted(edges([*old, *new])):
        assert house.lookup(address) == match(new, address)

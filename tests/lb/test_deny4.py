"""The IPv4 blocklist in memory, against a plain longest-prefix match, and as a reader sees it while it changes."""

from collections.abc import Iterable, Iterator
from random import Random

import numpy as np
import pytest
from watched import watch_arrays

from lb.dataplane.deny4 import Deny4, pack
from lb.dataplane.layout import layout
from lb.dataplane.tables import ARRAY_NAMES, Arrays, array_bytes, arrays_over
from lb.errors import CapacityError
from lb.settings import TableSizes

LONGER, DENSE = layout().constants["DENY_LONGER"], layout().constants["DENY_DENSE"]
PARTS = ("deny4_cells", "deny4_runs", "deny4_lines", "deny4_dense")

Rules = dict[tuple[int, int], int]
"""Rule numbers by (network, length)."""


def make_arrays(*, hosts: int = 4096, dense: int = 16) -> Arrays:
    """Fresh memory, the blocklist's as large as told and the rest as small as can be."""
    sizes = TableSizes(
        flow_slots=4, services=1, service_ports=1, backends=1, rings=1, deny_hosts=hosts, deny_dense=dense
    )
    return arrays_over({name: bytearray(array_bytes(name, sizes)) for name in ARRAY_NAMES}, sizes)


def packed(rules: Rules) -> np.ndarray:
    """Rules as `update` takes them."""
    items = sorted(rules.items())
    keys = np.array([network << 8 | length for (network, length), _ in items], np.uint64)
    return pack(keys, np.array([rule for _, rule in items], np.uint16))


def prefix(text: str) -> tuple[int, int]:
    """ "10.0.0.0/8" as network and length."""
    address, length = text.split("/")
    return int.from_bytes(bytes(map(int, address.split("."))), "big"), int(length)


def match(rules: Rules, address: int) -> int:
    """The rule of the longest prefix that holds an address, the plain way."""
    for length in range(32, -1, -1):
        rule = rules.get((address >> (32 - length) << (32 - length), length))
        if rule is not None:
            return rule
    return 0


def steps(arrays: Arrays, address: int) -> Iterator[int | None]:
    """A packet's lookup as deny4_rule() of xdp/admit.h does it, pausing (None) after each load; last, the rule."""
    cell = int(arrays.deny4_cells[address >> 8])
    yield None
    if not cell & LONGER:
        yield cell
        return
    line_at = (int(arrays.deny4_runs[address >> 16]) & 0xFFFFFF) + (cell & ~LONGER)
    yield None
    line = arrays.deny4_lines[line_at].tolist()
    yield None
    if line[1] >> 24 == DENSE:
        yield int(arrays.deny4_dense[line[1] & 0xFFFFFF, address & 255])
        return
    best, rule = 0, line[0]
    for word in line[1:]:
        bits = word & 255
        if not bits:
            break
        if bits > best and not ((word >> 8 ^ address) & 255) >> (8 - bits):
            best, rule = bits, word >> 16
    yield rule


def lookup(arrays: Arrays, address: int) -> int:
    """The rule a packet from an address finds."""
    *_, rule = steps(arrays, address)
    return rule or 0


def edges(prefixes: Iterable[tuple[int, int]]) -> list[int]:
    """The first and last address of each prefix, and those just outside."""
    found = set()
    for network, length in prefixes:
        last = network + (1 << (32 - length)) - 1
        found |= {network, last, max(network - 1, 0), min(last + 1, 0xFFFFFFFF)}
    return sorted(found)


def check(arrays: Arrays, rules: Rules, also: Iterable[tuple[int, int]] = ()) -> None:
    """Every address of interest finds what the plain match says."""
    for address in edges([*rules, *also]):
        assert lookup(arrays, address) == match(rules, address), hex(address)


def snapshot(arrays: Arrays) -> dict[str, bytes]:
    """The blocklist's memory."""
    return {name: getattr(arrays, name).tobytes() for name in PARTS}


def random_prefix(random: Random, *, crowded: bool, shortest: int = 0) -> tuple[int, int]:
    """Mostly within a few /24s (crowded) or a few /16s, of any length from the shortest on."""
    address = random.randrange(1 << 32)
    if random.random() < 0.9:
        base = random.choice([10 << 24, 10 << 24 | 1 << 16, 203 << 24, 255 << 24 | 255 << 16])
        address = (
            base
            | (random.randrange(4) << 8 if crowded else random.randrange(256) << 8)
            | random.randrange(256)
        )
    length = random.choices(
        [random.randrange(9), random.randrange(9, 25), random.randrange(25, 33), 32], [1, 6, 10, 10]
    )[0]
    length = max(length, shortest)
    return address >> (32 - length) << (32 - length), length


def change_some(random: Random, rules: Rules, count: int, *, crowded: bool, shortest: int = 0) -> Rules:
    """Another set of rules: some gone, some renumbered, some new."""
    after = dict(rules)
    for _ in range(count):
        known = random.choice(list(after)) if after else None
        match random.randrange(4):
            case 0 if known:
                del after[known]
            case 1 if known:
                after[known] = random.randrange(1, 0x8000)
            case _:
                after[random_prefix(random, crowded=crowded, shortest=shortest)] = random.randrange(1, 0x8000)
    return after


@pytest.mark.parametrize("crowded", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_lookups_equal_longest_prefix_match(seed: int, crowded: bool) -> None:
    """Through a long row of changes, small ones and large ones, each lookup finds the longest prefix's rule."""
    random = Random(seed)
    arrays, rules = make_arrays(), Rules()
    deny = Deny4(arrays)
    for _ in range(30):
        after = change_some(random, rules, random.choice([1, 1, 3, 20, 200]), crowded=crowded)
        deny.update(packed(after))
        check(arrays, after, rules)
        assert len(deny) == len(after)
        rules = after


def test_every_address_of_a_dense_24() -> None:
    """A /24 with more longer prefixes than a line holds is right at each address, and so is its return to a line."""
    random = Random(7)
    network, length = prefix("198.51.100.0/24")
    arrays, deny_rules = make_arrays(), {(network, length): 9, prefix("198.51.0.0/16"): 8}
    deny = Deny4(arrays)
    for count in (14, 15, 16, 60, 200, 15, 3, 0):
        rules = dict(deny_rules)
        while len(rules) < count + 2:
            bits = random.randrange(25, 33)
            rules[network | random.randrange(256) >> (32 - bits) << (32 - bits), bits] = random.randrange(
                1, 0x8000
            )
        deny.update(packed(rules))
        for address in range(network - 1, network + 257):
            assert lookup(arrays, address) == match(rules, address)
        assert deny.usage()["deny4_dense"][0] == (1 if count > 15 else 0)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 15, 16, 23, 24, 25, 31, 32])
def test_each_length_by_itself(length: int) -> None:
    """One prefix of a length covers its addresses and no others, and leaves nothing when it goes."""
    arrays = make_arrays()
    deny = Deny4(arrays)
    network = 0xCB007165 >> (32 - length) << (32 - length)
    deny.update(packed({(network, length): 77}))
    check(arrays, {(network, length): 77})

    deny.update(packed({}))
    assert not arrays.deny4_cells.any()
    assert lookup(arrays, network) == 0


def test_a_change_beside_a_covering_prefix_stays_within_its_bounds() -> None:
    """Two neighbouring /24s changed at once, under a /23 that ends between them: the second is not covered."""
    arrays = make_arrays()
    deny = Deny4(arrays)
    cover = {prefix("10.0.0.0/23"): 5}
    deny.update(packed(cover))

    after = {**cover, prefix("10.0.1.0/24"): 6, prefix("10.0.2.0/25"): 7}
    deny.update(packed(after))

    check(arrays, after)


def test_a_new_owner_of_right_memory_writes_nothing() -> None:
    """Memory that holds the wanted entries already is adopted as it is, to the byte; then changes go on from there."""
    random = Random(11)
    arrays, rules = make_arrays(), Rules()
    deny = Deny4(arrays)
    for _ in range(5):
        rules = change_some(random, rules, 150, crowded=bool(random.randrange(2)))
        deny.update(packed(rules))
    deny.update(packed(rules))
    before = snapshot(arrays)

    adopted = Deny4(arrays)
    assert adopted.usage() == deny.usage()
    adopted.update(packed(rules))

    assert snapshot(arrays) == before
    after = change_some(random, rules, 50, crowded=True)
    adopted.update(packed(after))
    check(arrays, after, rules)


def test_a_new_owner_of_other_memory_makes_it_right() -> None:
    """Whatever memory held, the first update makes it what is wanted, and gives back what is left over."""
    random = Random(12)
    arrays = make_arrays()
    old = change_some(random, {}, 300, crowded=True)
    Deny4(arrays).update(packed(old))

    deny, new = Deny4(arrays), change_some(random, {}, 300, crowded=False)
    deny.update(packed(new))
    check(arrays, new, old)

    deny.update(packed({}))
    assert not arrays.deny4_cells.any()
    assert deny.usage() == {"deny4_lines": (0, 4096), "deny4_dense": (0, 16)}


def host_rules(count: int, *, net: str = "10.0.0.0/8", rule: int = 3) -> Rules:
    """That many /32s, each in a /24 of its own, four in a /16."""
    network = prefix(net)[0]
    return {(network | n // 4 << 16 | n % 4 << 8 | 1, 32): rule for n in range(count)}


def dense_rules(count: int, *, rule: int = 4) -> Rules:
    """That many /24s with sixteen hosts each."""
    network = prefix("192.0.0.0/16")[0]
    return {(network | n << 8 | host, 32): rule for n in range(count) for host in range(16)}


@pytest.mark.parametrize(
    ("wanted", "option"),
    [
        ({**host_rules(9), prefix("9.0.0.0/24"): 1}, "--deny-hosts"),
        ({**dense_rules(3), prefix("9.0.0.0/24"): 1}, "--deny-dense"),
        ({**dense_rules(1), **host_rules(8), prefix("9.0.0.0/24"): 1}, "--deny-hosts"),
        ({**host_rules(200), prefix("9.0.0.0/24"): 1}, "--deny-hosts"),
    ],
)
def test_what_does_not_fit_changes_nothing(wanted: Rules, option: str) -> None:
    """CapacityError names the option, leaves memory as it was to the byte, and takes no room for good."""
    arrays = make_arrays(hosts=8, dense=2)
    deny = Deny4(arrays)
    rules = {**host_rules(3), prefix("172.16.0.0/12"): 6}
    deny.update(packed(rules))
    before, usage = snapshot(arrays), deny.usage()

    for _ in range(5):
        with pytest.raises(CapacityError, match=option):
            deny.update(packed(wanted))

    assert snapshot(arrays) == before
    assert deny.usage() == usage
    after = {**host_rules(4), prefix("172.16.0.0/12"): 7}
    deny.update(packed(after))
    check(arrays, after, rules)


def test_room_of_removed_prefixes_comes_back() -> None:
    """A table filled and emptied again and again, with prefixes elsewhere each time, never runs out."""
    arrays = make_arrays(hosts=64, dense=2)
    deny = Deny4(arrays)
    for turn in range(6):
        rules = {**host_rules(48, net=f"{20 + turn}.0.0.0/8"), **dense_rules(2, rule=turn + 1)}
        deny.update(packed(rules))
        check(arrays, rules)
        deny.update(packed({}))
        assert deny.usage() == {"deny4_lines": (0, 64), "deny4_dense": (0, 2)}


class Readers:
    """Packets at each address of interest, some of which began their lookup before the change."""

    def __init__(self, arrays: Arrays, before: Rules, after: Rules, addresses: list[int]) -> None:
        self._arrays = arrays
        self._answers = {a: {match(before, a), match(after, a)} for a in addresses}
        self._begun = [(a, self._advanced(a, loads)) for a in addresses for loads in (1, 2, 3)]
        self.writes = 0

    def _advanced(self, address: int, loads: int) -> list[int | None] | Iterator[int | None]:
        lookup = steps(self._arrays, address)
        for _ in range(loads):
            step = next(lookup)
            if step is not None:
                return [step]
        return lookup

    def look(self) -> None:
        """A fresh lookup at every address."""
        self.writes += 1
        for address, answers in self._answers.items():
            assert lookup(self._arrays, address) in answers, hex(address)

    def finish(self) -> None:
        """The lookups that began before the change come to their end after it."""
        for address, rest in self._begun:
            *_, rule = rest
            assert (rule or 0) in self._answers[address], hex(address)


@pytest.mark.parametrize("seed", range(6))
def test_no_packet_sees_half_a_change(seed: int) -> None:
    """Between any two single writes every lookup finds the old or the new rule; so does one begun before the change."""
    random = Random(100 + seed)
    arrays, rules = make_arrays(hosts=512), Rules()
    readers: list[Readers] = []

    def look() -> None:
        readers[-1].look()

    deny = Deny4(watch_arrays(arrays, look, elements=dict.fromkeys(PARTS, 1)))
    for count in (12, 1, 4, 30, 2, 150, 3, 1, 8):
        after = change_some(random, rules, count, crowded=seed % 2 == 0, shortest=20)
        changed = [key for key in {*rules, *after} if rules.get(key) != after.get(key)]
        interest = random.sample(edges(changed), min(16, len(edges(changed))))
        interest += random.sample(edges(after), min(6, len(edges(after))))
        readers.append(Readers(arrays, rules, after, interest))
        deny.update(packed(after))
        readers[-1].finish()
        check(arrays, after, changed)
        rules = after
    assert sum(reader.writes for reader in readers) > 100


def test_room_that_a_change_frees_is_not_used_by_it() -> None:
    """Lines and blocks that held the old answer stand until a later change: a slow packet may still read them."""
    arrays = make_arrays(hosts=16, dense=4)
    deny = Deny4(arrays)
    deny.update(packed({**host_rules(4, rule=3), **dense_rules(1, rule=4)}))
    old_lines = [int(arrays.deny4_runs[10 << 8]) & 0xFFFFFF, int(arrays.deny4_runs[192 << 8]) & 0xFFFFFF]
    held = [arrays.deny4_lines[at].tobytes() for at in old_lines]

    deny.update(packed({**host_rules(4, net="11.0.0.0/8", rule=5), **dense_rules(1, rule=6)}))

    assert [arrays.deny4_lines[at].tobytes() for at in old_lines] == held
    assert arrays.deny4_dense[0].max() == 4

"""Tables of another size take over: flows find their backends, counts and numbers stay whose they were."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import numpy as np
import pytest
from service_samples import addresses, service

from lb.dataplane.former import Former
from lb.dataplane.layout import layout
from lb.dataplane.nat_hash import kept_reply_hashes, request_hashes
from lb.dataplane.twin import SMALL, TwinDataPlane
from lb.model import Config, Prefix, Settings
from lb.model.layers import Attributes
from lb.reconcile.carry import Carry
from lb.reconcile.carry_nat import NatCarry
from lb.reconcile.loop import Reconciler
from lb.settings import NAT_BLOCK, TableSizes
from lb.store import SqliteStore

_C = layout().constants
ESTABLISHED = _C["FLOW_ESTABLISHED"]
OTHERS = service("others", *addresses(20, net="10.9"), port=81)
WEB = service("web", *addresses(5))
SIX = service("six", "fd00::1", "fd00::2", "10.0.0.9", vip="fc00:1::2")


class House:
    """A store, and daemons over it with tables of different sizes, one after the other."""

    def __init__(self, sizes: TableSizes) -> None:
        self.store = SqliteStore(":memory:")
        self._start(TwinDataPlane(sizes))

    def _start(self, twin: TwinDataPlane) -> None:
        self.twin = twin
        self.control = Reconciler(self.store, twin, clock=lambda: 1_000_000.0)
        self.control.start()

    def change(self, edit: Callable[[Config], Config]) -> None:
        self.control.change(edit, actor="test", summary="test")

    def restart(self, sizes: TableSizes) -> None:
        """Another daemon, whose tables are others."""
        self.control.stop()
        twin = TwinDataPlane(sizes)
        twin.take_over_from(self.twin)
        self._start(twin)

    def remember(self, hashed: int, name: str, address: str, class_bits: int = ESTABLISHED) -> None:
        """A flow, as the packet path writes it."""
        plan = self.control._plans.services.by_name[name]
        place = plan.place(next(b.address for b in plan.service.backends if str(b.address) == address).packed)
        assert place is not None
        bucket = self.twin.tables.arrays.flows[hashed & (len(self.twin.tables.arrays.flows) - 1)]
        way = int(np.flatnonzero(bucket["tag_backend"] == 0)[0])
        state = self.twin.clock_seconds() << 32 | plan.number << 16 | class_bits
        bucket[way] = (hashed >> 16 | 1) << 16 | place, state

    def where(self, hashed: int) -> tuple[str, str] | None:
        """The service and the backend that a packet of a flow finds."""
        for tag_backend, state in self.twin.tables.arrays.flows[
            hashed & (len(self.twin.tables.arrays.flows) - 1)
        ].tolist():
            if tag_backend >> 16 == hashed >> 16 | 1:
                plans = self.control._plans.services.by_name
                name, plan = next((n, p) for n, p in plans.items() if p.number == state >> 16 & 0xFFFF)
                row = self.twin.tables.arrays.backends[plan.start + (tag_backend & 0xFFFF)]
                return name, row["address"].tobytes()[: 4 if row["family"] == 4 else 16].hex()
        return None

    def live(self) -> int:
        """All flows that are live."""
        return sum(status.flows for status in self.control.status().services)


def sized(slots: int) -> TableSizes:
    return replace(SMALL, flow_slots=slots)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (4096, 4096),
        (4096, 1 << 14),
        (1 << 14, 4096),
        (1 << 16, 1 << 20),
        (1 << 19, 1 << 20),
        (1 << 20, 1 << 18),
    ],
)
def test_every_flow_finds_its_backend(before: int, after: int) -> None:
    """Whatever is known of a flow's hash: it is found where its packets look, at the backend that it had, and it is
    one live flow, though services and backends have other numbers and places now."""
    house = House(sized(before))
    house.change(lambda config: config.with_services([OTHERS, WEB, SIX]))
    backends = [("web", "10.0.0.1"), ("web", "10.0.0.4"), ("six", "fd00::2"), ("others", "10.9.0.20")]
    hashes = np.random.default_rng(7).integers(0, 2**64, 200, np.uint64).tolist()
    for at, hashed in enumerate(hashes):
        house.remember(hashed, *backends[at % len(backends)])
    found = [house.where(hashed) for hashed in hashes]
    assert None not in found
    house.store.commit(
        Config().with_services([service("new", "10.1.1.1", port=99), SIX, WEB, OTHERS]),
        before=house.control.desired.config,
        actor="test",
        summary="while no daemon ran",
        now=0.0,
    )

    house.restart(replace(sized(after), services=64))

    assert [house.where(hashed) for hashed in hashes] == found
    assert house.live() == len(hashes)
    house.restart(sized(after))
    assert [house.where(hashed) for hashed in hashes] == found
    assert house.live() == len(hashes)


def test_a_flow_that_has_ended_is_taken_over_by_none_of_its_slots() -> None:
    """A larger table had it in several, until a packet told which is its own; the others end with that one."""
    house = House(sized(4096))
    house.change(lambda config: config.with_services([WEB]))
    hashed = 0xABC00_12345_6789A
    house.remember(hashed, "web", "10.0.0.1")
    house.restart(sized(1 << 14))
    table = house.twin.tables.arrays.flows
    assert np.count_nonzero(table["tag_backend"]) == 4
    own, silent_since = hashed & (len(table) - 1), house.twin.clock_seconds() - 6
    service = int(table["state"][own, 0]) & 0xFFFF0000
    table["state"][own, 0] = silent_since << 32 | service | ESTABLISHED | _C["FLOW_CLOSED"]
    assert house.live() == 0

    for slots in (4096, 1 << 16):
        house.restart(sized(slots))
        assert house.live() == 0


def test_who_matters_most_stays_where_room_is_short() -> None:
    """Of a bucket's flows the established ones are taken over first, then those seen last."""
    house = House(sized(64))
    house.change(lambda config: config.with_service(WEB))
    small = house.twin.tables.arrays.flows
    state = house.twin.clock_seconds() << 32 | house.control._plans.services.by_name["web"].number << 16
    for bucket in range(4):  # all of one bucket afterwards
        for way in range(4):
            established = ESTABLISHED if way == bucket else _C["FLOW_PROBATION"]
            small[bucket * 4, way] = (
                (bucket * 4 + way + 1 << 18 | 1) << 16,
                state - (bucket << 32) | established,
            )

    house.restart(sized(4 * 4))

    kept = house.twin.tables.arrays.flows.ravel()
    assert sorted(
        (kept["tag_backend"][kept["state"] & np.uint64(ESTABLISHED) != 0] >> np.uint64(34)).tolist()
    ) == [bucket * 4 + bucket + 1 for bucket in range(4)]


def test_backends_that_went_take_no_flow_along() -> None:
    """A flow of a backend that is no more is left to the ring."""
    house = House(sized(4096))
    house.change(lambda config: config.with_service(WEB))
    house.remember(1 << 40, "web", "10.0.0.5")
    house.store.commit(
        Config().with_service(service("web", *addresses(4))),
        before=house.control.desired.config,
        actor="test",
        summary="while no daemon ran",
        now=0.0,
    )

    house.restart(sized(8192))

    assert house.where(1 << 40) is None


def test_what_came_meanwhile_is_added_and_changes_nothing() -> None:
    """The second look, once packets come by the new tables, brings what the first has not seen, and no more."""
    house = House(sized(4096))
    house.change(lambda config: config.with_service(WEB))
    house.remember(1 << 40, "web", "10.0.0.1")
    old = house.twin
    house.restart(sized(8192))
    flows = house.twin.tables.arrays.flows
    flows[0, 0]["state"] += np.uint64(5 << 32)  # it has had a packet since
    newer = flows[0, 0].copy()
    old.tables.arrays.flows[3, 0] = (9 << 30 | 1) << 16 | 2, old.tables.arrays.flows[0, 0]["state"]

    house.twin.take_over_from(old)
    former = house.twin.former()
    assert former is not None
    carry = Carry(former, house.twin.tables, house.twin.flow_key)
    carry.flows_of(house.control._plans.services.by_name.values(), in_force=True)

    assert flows[0, 0] == newer
    assert np.count_nonzero(flows["tag_backend"]) == 4  # one bit of their hashes is not known
    assert house.live() == 2


def test_counts_and_numbers_stay_whose_they_were() -> None:
    """Packets of services, of backends that stay and of those that went, of entries and of verdicts: all are kept."""
    house = House(SMALL)
    house.change(lambda config: config.with_services([OTHERS, WEB]))
    entry = (Prefix.parse("198.51.100.7"), Attributes())
    layer = Config().blocklist.layer("operator").with_entries([entry])
    house.change(lambda config: replace(config, blocklist=config.blocklist.with_layer("operator", layer)))
    plans, tables = house.control._plans, house.twin.tables
    web = plans.services.by_name["web"]
    for place in range(5):
        tables.backend_counters.add(web.start + place, 10 + place, 1000)
    tables.service_counters.add(web.number, 3, 300)
    number = int(np.flatnonzero(tables.arrays.deny_owners)[0])
    tables.deny_counters.add(number, 7, 700)
    tables.verdict_counters.add(1, 42, 4200)
    house.store.commit(
        house.control.desired.config.with_service(service("web", *addresses(5)[1:])),
        before=house.control.desired.config,
        actor="test",
        summary="while no daemon ran",
        now=0.0,
    )

    house.restart(replace(SMALL, services=128, backends=8192))

    counted = house.control.counters()
    assert counted.services["web"].packets == 10 + 11 + 12 + 13 + 14 + 3
    assert [counted.backends["web", a].packets for a in addresses(5)[1:]] == [11, 12, 13, 14]
    assert counted.owners["operator"].packets == 7
    assert next(v for v in counted.verdicts.values() if v.packets).packets == 42


def opened(house: House, at: int, port: int, *, kept: bool = False) -> tuple[int, int]:
    """A connection of NAT, as the packet path writes it: its slot, and the hash that its client's packets have."""
    arrays, plan = house.twin.tables.arrays, house.control._plans.services.by_name["kept" if kept else "nat"]
    nat = house.control._plans.nat
    slot = (nat.kept[0] if kept else nat.blocks[IPv4Address("192.0.2.1").packed]) * NAT_BLOCK + port
    forward, reply = arrays.nat_forward[slot : slot + 1], arrays.nat_reply[slot : slot + 1]
    forward["client"][0, 0], forward["vip"][0, 0], forward["ports"] = (
        at,
        9,
        4 << 40 | 6 << 32 | 80 << 16 | at & 0xFFFF,
    )
    forward["service"], forward["place"], reply["backend"][0, 0], reply["client"][0, 0] = (
        plan.number,
        0,
        7,
        at,
    )
    now = house.twin.clock_seconds() << 32
    forward["state"], reply["state"], reply["live"], reply["families"] = now | 3, now | 1, 6 << 16 | 80, 0x44
    (hashed,) = request_hashes(forward, house.twin.flow_key)
    words = [(int(hashed), int(hashed) >> 24 << 24 | slot)]
    if kept:
        (reply_hash,) = kept_reply_hashes(forward, reply, house.twin.flow_key)
        words.append((int(reply_hash), int(reply_hash) >> 24 << 24 | slot))
    forward["word"], reply["live"] = words[0][1], words[-1][1] >> 24 << 24 | 6 << 16 | 80
    for value, word in words:
        bucket = arrays.nat_index[value & (len(arrays.nat_index) - 1)]
        bucket[np.flatnonzero(bucket == 0)[0]] = word
    return slot, int(hashed)


def found(house: House, hashed: int) -> list[tuple[int, int]]:
    """Slot, and the client's address in it, to which the index leads packets of a hash."""
    arrays, tag = house.twin.tables.arrays, hashed >> 24
    own = hashed & (len(arrays.nat_index) - 1)
    words = [*arrays.nat_index[own], *arrays.nat_index[own ^ (tag | 1) & (len(arrays.nat_index) - 1)]]
    slots = [int(word) & 0xFFFFFF for word in words if int(word) >> 24 == tag]
    return [(slot, int(arrays.nat_forward["client"][slot, 0])) for slot in slots]


def translating(keep: bool) -> list[Any]:
    """Services of mode nat: one by the pool, perhaps one that keeps the source."""
    kept = service("kept", "10.0.0.8", mode="nat", vip="10.200.1.8", nat_source="keep")
    return [service("nat", "10.0.0.7", mode="nat", vip="10.200.1.9"), *([kept] if keep else [])]


def blocks(count: int) -> TableSizes:
    return replace(SMALL, nat_slots=count * NAT_BLOCK)


@pytest.mark.parametrize(("before", "after"), [(8, 2), (8, 3), (2, 2), (2, 64)])
def test_connections_of_nat_stay_in_more_or_fewer_slots(before: int, after: int) -> None:
    """Packets find each where they look, with its port outside, though its address may have another block."""
    house = House(blocks(before))
    many = Settings(nat_pools=tuple(f"192.0.2.{n}" for n in range(before - 1, 0, -1)))
    house.change(lambda config: replace(config, settings=many).with_services(translating(keep=True)))
    house.change(lambda config: replace(config, settings=Settings(nat_pools=("192.0.2.1",))))
    flows = [opened(house, at, 2000 + at) for at in range(300)]
    kept = [opened(house, at, 2000 + at, kept=True) for at in range(1000, 1100)]

    house.restart(blocks(after))

    block = house.control._plans.nat.blocks[IPv4Address("192.0.2.1").packed]
    assert block < after
    for at, (slot, hashed) in enumerate(flows):
        assert found(house, hashed) == [(block * NAT_BLOCK + slot % NAT_BLOCK, at)]
    for at, (_, hashed) in enumerate(kept, 1000):
        ((slot, client),) = found(house, hashed)
        assert (slot // NAT_BLOCK in house.control._plans.nat.kept, client) == (True, at)
    assert house.twin.lost == 0
    assert house.live() == 400


def test_what_finds_no_room_is_told() -> None:
    """Of connections that keep their source, those seen last find the room there is; how many found none is said."""
    house, smaller = House(blocks(4)), TwinDataPlane(blocks(1))
    house.change(lambda config: config.with_services(translating(keep=True)[1:]))
    first, second = house.control._plans.nat.kept
    connections = [opened(house, at, at, kept=True) for at in (1, 2, 3)]
    old, new = house.twin.tables.arrays, smaller.tables.arrays
    old.nat_forward["state"][[slot for slot, _ in connections]] += np.uint64([0, 1, 2]) << np.uint64(32)
    for table in (old.nat_forward, old.nat_reply):
        own, other = (slice(block * NAT_BLOCK, (block + 1) * NAT_BLOCK) for block in (first, second))
        table[other], table[own] = table[own].copy(), 0
    old.nat_forward["word"][own][10:20] = 1  # the block with more in it is the one that stays
    new.nat_forward["word"][3:] = 1
    number = house.control._plans.services.by_name["kept"].number
    carry = NatCarry(Former.of(house.twin.tables), new, smaller.flow_key)

    carry.pools()
    new.nat_lists["block"][2, 0], new.nat_lists["head"][2] = 0, 1 << 32 | 1 << 16 | 65535
    carry.connections({number << 16: number << 16})

    assert carry.lost == 1
    assert sorted(new.nat_forward["client"][1:3, 0].tolist()) == [2, 3]


def test_what_packets_show_of_connections_until_the_swap() -> None:
    """The second look adds those that opened meanwhile, and joins what either tables have seen of the others; whoever
    has a port by then keeps it."""
    house, larger = House(blocks(2)), TwinDataPlane(blocks(4))
    pool = Settings(nat_pools=("192.0.2.1",))
    house.change(lambda config: replace(config, settings=pool).with_services(translating(keep=False)))
    number = house.control._plans.services.by_name["nat"].number
    old, new = house.twin.tables.arrays, larger.tables.arrays
    (slot, _), (taken, _) = opened(house, 1, 2001), opened(house, 2, 2002)
    old.nat_forward["word"][taken] = 0  # not yet
    old.nat_reply["state"][slot] = 0
    carry = NatCarry(Former.of(house.twin.tables), new, larger.flow_key)
    carry.pools()
    carry.connections({number << 16: number << 16})
    assert np.flatnonzero(new.nat_forward["word"]).tolist() == [slot]

    late, later = (
        old.nat_forward["state"][slot] + np.uint64(5 << 32),
        old.nat_forward["state"][slot] + np.uint64(9 << 32),
    )
    old.nat_reply["state"][slot] = late & np.uint64(0xFFFFFFFF00000000) | np.uint64(_C["NAT_SYN"])
    new.nat_forward["state"][slot] = later | np.uint64(_C["NAT_FIN"])
    old.nat_forward["word"][taken] = 1 << 24 | taken
    newcomer, _ = opened(house, 3, 2003)
    new.nat_forward["word"][taken], new.nat_forward["ports"][taken] = 7 << 24 | taken, 77
    carry.connections({number << 16: number << 16})

    assert np.flatnonzero(new.nat_forward["word"]).tolist() == [slot, taken, newcomer]
    assert new.nat_forward["state"][slot] == later | np.uint64(_C["NAT_FIN"])
    assert new.nat_reply["state"][slot] == old.nat_reply["state"][slot]
    assert int(new.nat_forward["ports"][taken]) == 77
    assert int(new.nat_reply["live"][taken]) == 0


def test_connections_of_nat_stay() -> None:
    """Slots, and with them the ports that connections have outside, stay theirs, whatever number and place their
    backend has now; those of a backend that is no more are not taken over."""
    house = House(SMALL)
    nat, shorter = (service("nat", *addresses(n), mode="nat", vip="10.200.1.9") for n in (9, 8))
    pool = Settings(nat_pools=("192.0.2.1",))
    house.change(lambda config: replace(config, settings=pool).with_services([OTHERS, nat]))
    plan = house.control._plans.services.by_name["nat"]
    arrays = house.twin.tables.arrays
    block = int(np.flatnonzero(arrays.nat_pools["family"])[0])
    tag, slots = 0xABCDEF0123, [block * 65536 + port for port in (5000, 6000)]
    for at, slot in enumerate(slots):
        place = plan.at[plan.service.backends[(0, 8)[at]].address.packed]
        arrays.nat_forward[slot]["word"], arrays.nat_forward[slot]["state"] = tag << 24 | slot, 1
        arrays.nat_forward[slot]["service"], arrays.nat_forward[slot]["place"] = plan.number, place
        arrays.nat_reply[slot]["live"] = tag << 24 | 6 << 16 | 80
        arrays.nat_index[7, at] = tag << 24 | slot
    house.store.commit(
        replace(Config(), settings=pool).with_services([shorter]),
        before=house.control.desired.config,
        actor="test",
        summary="while no daemon ran",
        now=0.0,
    )

    house.restart(replace(SMALL, services=128, flow_slots=8192))

    now, then = house.twin.tables.arrays, house.control._plans.services.by_name["nat"]
    assert np.flatnonzero(now.nat_pools["family"]).tolist() == [block]
    assert np.flatnonzero(now.nat_forward["word"]).tolist() == slots[:1]
    row = now.nat_forward[slots[0]]
    assert (row["service"], row["place"]) == (then.number, then.at[then.service.backends[0].address.packed])
    assert (now.nat_reply[slots[0]]["live"] ^ arrays.nat_reply[slots[0]]["live"]) & 0xFFFFFF == 0
    assert (now.nat_index[np.nonzero(now.nat_index)] & 0xFFFFFF).tolist() == slots[:1]


def test_next_hops_that_were_good_are_remembered() -> None:
    """A start tells the data plane the MACs in the tables in force, its own or others'."""
    house = House(SMALL)
    house.change(lambda config: config.with_service(WEB))
    expected = {b.address.packed: b"\x02\x10" + b.address.packed for b in WEB.backends}

    house.restart(replace(SMALL, services=128))

    assert house.twin.remembered == expected

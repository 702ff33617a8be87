"""Tables of another size take over: flows find their backends, counts and numbers stay whose they were."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from service_samples import addresses, service

from lb.dataplane.layout import layout
from lb.dataplane.twin import SMALL, TwinDataPlane
from lb.model import Config, Prefix, Settings
from lb.model.layers import Attributes
from lb.reconcile.carry import Carry
from lb.reconcile.loop import Reconciler
from lb.settings import TableSizes
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
    carry = Carry(former, house.twin.tables)
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
        arrays.nat_forward[slot]["word"] = tag << 24 | slot
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
    assert now.nat_reply[slots[0]] == arrays.nat_reply[slots[0]]
    assert now.nat_index[np.nonzero(now.nat_index)].tolist() == [tag << 24 | slots[0]]


def test_next_hops_that_were_good_are_remembered() -> None:
    """A start tells the data plane the MACs in the tables in force, its own or others'."""
    house = House(SMALL)
    house.change(lambda config: config.with_service(WEB))
    expected = {b.address.packed: b"\x02\x10" + b.address.packed for b in WEB.backends}

    house.restart(replace(SMALL, services=128))

    assert house.twin.remembered == expected

"""Live flows are those that a look at every slot by itself would count, whatever the table holds."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lb.dataplane.layout import layout
from lb.dataplane.twin import TwinDataPlane
from lb.model import Settings
from lb.reconcile.flows import FlowCounts, LiveFlows, forget_moved

_C = layout().constants
NOW, UDP_IDLE, TCP_IDLE = 100_000, 7, 90
SETTINGS = Settings(udp_idle_seconds=UDP_IDLE, tcp_idle_seconds=TCP_IDLE)
CLASSES = [
    _C["FLOW_PROBATION"],
    _C["FLOW_PROBATION"] | _C["FLOW_OPENED"],
    _C["FLOW_ESTABLISHED"],
    _C["FLOW_ESTABLISHED"] | _C["FLOW_CLOSED"],
    _C["FLOW_PROBATION"] | _C["FLOW_UDP"],
    _C["FLOW_ESTABLISHED"] | _C["FLOW_UDP"],
]

Slot = tuple[int, int, int, int]
"""Service, place, class, age in seconds: below zero where another CPU's clock is ahead."""
slots_strategy = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2, 300, 65535]),
        st.sampled_from([0, 1, 7, 4000]),
        st.sampled_from(CLASSES),
        st.sampled_from([-1, 0, 4, 5, 6, 7, 8, 90, 91, 5000]),
    ),
    max_size=60,
)


def is_live(kind: int, age: int) -> bool:
    """As the documents say it: silent for no longer than its protocol's idle time, or 5 s once it is closed."""
    longest = UDP_IDLE if kind & _C["FLOW_UDP"] else TCP_IDLE
    return age <= (min(longest, 5) if kind & _C["FLOW_CLOSED"] else longest)


def live(slots: list[Slot]) -> LiveFlows:
    """A table that holds these, an empty slot after each, and one that was emptied."""
    flows = TwinDataPlane().tables.arrays.flows
    table = flows.reshape(-1)
    for n, (service, place, kind, age) in enumerate(slots):
        table["tag_backend"][2 * n] = (0xABC001 + n) << 16 | place
        table["state"][2 * n] = (NOW - age) << 32 | service << 16 | kind
    table["state"][2 * len(slots)] = NOW << 32 | 1 << 16 | _C["FLOW_ESTABLISHED"]
    return LiveFlows.of(flows, NOW, SETTINGS)


@given(slots_strategy)
def test_counts_are_those_of_every_slot_by_itself(slots: list[Slot]) -> None:
    """By service and backend, for services that use the same places, with numbers near and far apart."""
    expected: FlowCounts = dict(Counter(slot[:2] for slot in slots if is_live(*slot[2:])))

    found = live(slots)

    assert found.by_backend() == expected
    for pair in {slot[:2] for slot in slots} | {(1, 0)}:
        assert found.of_backend(*pair) == expected.get(pair, 0)


def test_a_full_table_is_counted_exactly() -> None:
    """A million slots, of 400 services over the same 50 places, a third of them idle."""
    rng = np.random.default_rng(6)
    flows = np.zeros((1 << 18, 4), layout().structs["flow"])
    table, count = flows.reshape(-1), 1 << 20
    services, places = rng.integers(0, 400, count), rng.integers(0, 50, count)
    ages = rng.choice([0, TCP_IDLE, TCP_IDLE + 1], count)
    table["tag_backend"] = np.arange(1, count + 1).astype(np.uint64) << np.uint64(16) | places.astype(
        np.uint64
    )
    table["state"] = (NOW - ages).astype(np.uint64) << np.uint64(32) | services.astype(
        np.uint64
    ) << np.uint64(16)
    table["state"] |= np.uint64(_C["FLOW_ESTABLISHED"])

    found = LiveFlows.of(flows, NOW, SETTINGS).by_backend()

    expected = np.zeros((400, 50), np.int64)
    np.add.at(expected, (services[ages <= TCP_IDLE], places[ages <= TCP_IDLE]), 1)
    assert found == {(s, p): n for (s, p), n in np.ndenumerate(expected) if n}


def test_copies_of_a_flow_that_has_ended_are_not_live() -> None:
    """Of a flow that was taken over into two slots: one counts until its next packet tells which is its own. Then that
    one counts alone, and none once the flow has ended; the other is let go before its own may be another flow's."""
    flows = TwinDataPlane().tables.arrays.flows
    table = flows.reshape(-1)
    opened = _C["FLOW_ESTABLISHED"]
    table["tag_backend"][[0, 9]] = 0xABC001 << 16 | 7
    table["tag_backend"][5] = 0xABC002 << 16 | 7
    table["state"][[0, 5, 9]] = (NOW - 50) << 32 | 1 << 16 | opened | _C["FLOW_COPY"]

    def count(now: int) -> int:
        return LiveFlows.of(flows, now, SETTINGS).of_backend(1, 7)

    assert count(NOW) == 2
    table["state"][9] = NOW << 32 | 1 << 16 | opened
    assert count(NOW) == 2
    table["state"][9] = NOW << 32 | 1 << 16 | opened | _C["FLOW_CLOSED"]
    assert [count(NOW + 5), count(NOW + 6)] == [2, 1]

    assert forget_moved(flows)
    assert np.flatnonzero(table["tag_backend"]).tolist() == [5, 9]
    table["tag_backend"][9] = 0xABC003 << 16 | 1
    assert count(NOW + 6) == 1
    table["tag_backend"][5] = 0
    assert not forget_moved(flows)

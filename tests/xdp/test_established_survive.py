"""Ten million new flows, then another ring: established flows stay where they were."""

from collections.abc import Iterator
from threading import Thread

import numpy as np
import pytest
from feeder import Feeder, flow_tuple
from frames import from_tuple, outer_addresses, ring_choice, service, tcp
from rig import Rig

from lb.dataplane.layout import layout

pytestmark = [pytest.mark.root, pytest.mark.slow]

ESTABLISHED = 100_000
NEWCOMERS = 10_000_000
BASE, FLOOD = 10 << 24, 100 << 24
_PROMOTED = layout().constants["FLOW_ESTABLISHED"]


@pytest.fixture(scope="module")
def feeders() -> Iterator[list[Feeder]]:
    """Two programs that make flows, for two CPUs."""
    made = [Feeder(), Feeder()]
    yield made
    for feeder in made:
        feeder.close()


def established(rig: Rig) -> set[int]:
    """Tags, with their backends' places, of all flows that were promoted."""
    used = rig.flows[(rig.flows["state"] & np.uint64(_PROMOTED)) != 0]
    return set(used["tag_backend"].tolist())


def test_established_flows_survive_a_flood_and_a_ring_change(large_rig: Rig, feeders: list[Feeder]) -> None:
    """100,000 established flows, ten million that only open, twice as many backends: at least 99.9 % of the first
    keep their backend, by the flow table and by the frames themselves."""
    rig, feeder = large_rig, feeders[0]
    before = [f"10.0.2.{n}" for n in range(1, 11)]
    after = service(backends=[*before, *(f"10.0.3.{n}" for n in range(1, 11))])
    rig.apply(services=[service(backends=before)])
    syn, ack = bytes(tcp(flags="S")), bytes(tcp(flags="A"))
    for frame in (syn, ack):
        feeder.run(rig.program, frame, BASE, ESTABLISHED)
    held = established(rig)
    assert len(held) >= 0.999 * ESTABLISHED
    sample = range(0, ESTABLISHED, 5)
    frames = [from_tuple(ack, *flow_tuple(BASE, n)) for n in sample]
    chosen = [outer_addresses(out)[1] for out in rig.burst(frames)]

    feeder.run(rig.program, syn, FLOOD, NEWCOMERS)
    rig.apply(services=[after])

    assert len(established(rig) & held) >= 0.999 * len(held)
    now = [outer_addresses(out)[1] for out in rig.burst(frames)]
    kept = sum(a == b for a, b in zip(now, chosen, strict=True))
    assert kept >= 0.999 * len(frames)
    # Without the table about half would have moved; and newcomers do follow the new ring.
    by_ring = [ring_choice(after, *flow_tuple(BASE, n), 80) for n in sample[:2000]]
    assert sum(a != b for a, b in zip(by_ring, chosen[:2000], strict=True)) > 600
    fresh = [flow_tuple(FLOOD + NEWCOMERS, n) for n in range(200)]
    opened = rig.burst(from_tuple(syn, *one) for one in fresh)
    assert [outer_addresses(out)[1] for out in opened] == [ring_choice(after, *one, 80) for one in fresh]
    assert rig.reconciler.counters().flow_table.evictions > NEWCOMERS // 2


def test_cpus_never_mix_entries(rig: Rig, feeders: list[Feeder]) -> None:
    """Two CPUs push the same 50,000 flows through 4,096 slots at once. The ring never changes, so every entry that is
    left, whoever wrote it, must name the backend that the ring names for that very flow."""
    document = service(backends=[f"10.0.2.{n}" for n in range(1, 31)])
    rig.apply(services=[document])
    syn, ack = bytes(tcp(flags="S")), bytes(tcp(flags="A"))

    def push(feeder: Feeder) -> None:
        for frame in (syn, ack, syn, ack):
            feeder.run(rig.program, frame, BASE, 50_000)

    threads = [Thread(target=push, args=(feeder,)) for feeder in feeders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert rig.flows["tag_backend"].all(axis=1).mean() > 0.99
    last = range(40_000, 50_000)
    outs = rig.burst(from_tuple(ack, *flow_tuple(BASE, n)) for n in last)
    expected = [ring_choice(document, *flow_tuple(BASE, n), 80) for n in last]
    assert [outer_addresses(out)[1] for out in outs] == expected

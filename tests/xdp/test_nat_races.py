"""Two CPUs at once: the packets of a new flow, on both, make one entry and leave alike."""

import os
import threading
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from feeder import Feeder, able_to_run_at_once
from frames import service, tcp
from nat_frames import POOL4, POOLS
from rig import Rig

from lb.dataplane.layout import layout
from lb.reconcile.nat_flows import forget_nat

pytestmark = pytest.mark.root

FLOWS, ROUNDS_MOST, RACES = 20_000, 20, 300
OPENED, GONE = 200_000, 200
BASE = int(ip_address("10.32.0.0"))
SLOT = layout().constants["NAT_SLOT_MASK"]
CPUS = sorted(os.sched_getaffinity(0))[:2]


def feed_at_once(rig: Rig, feeders: tuple[Feeder, Feeder], frame: bytes) -> None:
    """The same flows in one order, by each on a CPU of its own. Who is behind finds them made, and so catches up."""
    ready, raised = threading.Barrier(len(feeders)), []

    def work(cpu: int, feeder: Feeder) -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread alone
        ready.wait()
        try:
            feeder.run(rig.program, frame, BASE, FLOWS)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work, args=each) for each in zip(CPUS, feeders, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []


@pytest.mark.skipif(len(CPUS) < 2, reason="one CPU races with nobody")
@pytest.mark.parametrize("keep", [False, True])
def test_one_entry_of_a_flow(nat_rig: Rig, keep: bool) -> None:
    """After hundreds of races each flow has one entry and its index words, and left both CPUs from one port."""
    more: dict[str, Any] = {"nat_source": "keep"} if keep else {}
    nat_rig.apply(settings=POOLS, services=[service(mode="nat", backends=["10.0.0.11"], **more)])
    feeders, arrays = (Feeder(), Feeder()), nat_rig.plane.tables.arrays
    raced = 0
    try:
        for _ in range(ROUNDS_MOST):
            nat_rig.plane.tables.nat_counters.clear([0])
            nat_rig.forget_nat()
            with able_to_run_at_once(feeders):
                feed_at_once(nat_rig, feeders, bytes(tcp()))

            tally = nat_rig.plane.tables.nat_counters.read()[0]
            raced += int(tally["raced"])
            slots = np.flatnonzero(arrays.nat_forward["word"])
            clients = arrays.nat_forward["client"][slots, 0].astype("<u4").byteswap().astype(np.int64) - BASE
            assert sorted(clients.tolist()) == list(range(FLOWS))
            assert int(tally["opened"]) == FLOWS
            assert np.flatnonzero(arrays.nat_reply["live"]).tolist() == slots.tolist()
            index = arrays.nat_index[arrays.nat_index != 0]
            assert sorted((index & np.uint64(SLOT)).tolist()) == sorted([*slots.tolist()] * (1 + keep))
            one, other = (feeder.left(FLOWS - 1) for feeder in feeders)
            assert one == other
            if not keep:
                by_client = dict(zip(clients.tolist(), slots.tolist(), strict=True))
                assert one == [(ip_address(POOL4).packed, by_client[n] & 0xFFFF) for n in range(FLOWS - 1)]
            if raced >= RACES:
                break
    finally:
        for feeder in feeders:
            feeder.close()

    assert raced >= RACES


def test_entries_are_freed_while_flows_open(nat_rig: Rig) -> None:
    """Freeing goes through the index beside packets that change it, and takes what it is told and no more."""
    pools = {"nat_pools": ["10.9.1.0/30"]}
    nat_rig.apply(settings=pools, services=[service(mode="nat", backends=["10.0.0.11"])])
    arrays, feeder, freed = nat_rig.plane.tables.arrays, Feeder(), 0
    nobody = nat_rig.plan("web").number + 1
    for n in range(GONE):
        nat_rig.run(tcp(sport=1 + n))
    doomed = np.flatnonzero(arrays.nat_forward["word"])
    feeding = threading.Thread(target=lambda: feeder.run(nat_rig.program, bytes(tcp()), BASE, OPENED))

    feeding.start()
    try:
        for slot in doomed:
            if feeding.is_alive():
                arrays.nat_forward["service"][slot] = nobody
                forget_nat(arrays, [nobody], [])
                freed += 1
    finally:
        feeding.join()
        feeder.close()

    entries = np.count_nonzero(arrays.nat_forward["word"])
    assert np.count_nonzero(arrays.nat_index) == entries == OPENED + GONE - freed

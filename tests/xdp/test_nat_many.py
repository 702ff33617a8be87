"""A million flows of NAT at once: no two have one tuple, and each is found again. Checked exactly, on the memory."""

from ipaddress import ip_address

import numpy as np
import pytest
from feeder import Feeder
from frames import service, tcp
from rig import Rig

from lb.dataplane.layout import layout

pytestmark = [pytest.mark.root, pytest.mark.slow]

MANY = 1_000_000
BASE = int(ip_address("10.32.0.0"))
POOL = ["10.9.1.0/28", "10.9.2.1"]
"""Seventeen addresses."""
SLOT_BITS = np.uint64(layout().constants["NAT_SLOT_BITS"])
SLOT = np.uint64(layout().constants["NAT_SLOT_MASK"])


def test_a_million_flows(large_nat_rig: Rig) -> None:
    """Every SYN is sent out; each flow has an entry, a pool port and an index word that no other has."""
    rig = large_nat_rig
    rig.apply(settings={"nat_pools": POOL}, services=[service(mode="nat", backends=["10.0.0.11"])])
    feeder, arrays = Feeder(), rig.plane.tables.arrays
    try:
        feeder.run(rig.program, bytes(tcp()), BASE, MANY)
        forward, reply = arrays.nat_forward.copy(), arrays.nat_reply.copy()
        index = arrays.nat_index.reshape(-1)
        words = index[index != 0].copy()

        slots = np.flatnonzero(forward["word"])
        rows, back = forward[slots], reply[slots]
        clients = rows["client"][:, 0].astype("<u4").byteswap().astype(np.int64) - BASE
        assert sorted(clients.tolist()) == list(range(MANY))
        assert (slots & 0xFFFF >= 1024).all()
        assert len(np.unique(slots >> 16)) >= 16
        assert (arrays.nat_pools["family"][np.unique(slots >> 16)] == 4).all()
        assert (rows["word"] & SLOT == slots.astype(np.uint64)).all()
        assert sorted(words.tolist()) == sorted(rows["word"].tolist())
        assert (back["live"] >> SLOT_BITS == rows["word"] >> SLOT_BITS).all()
        assert (back["client"][:, 0] == rows["client"][:, 0]).all()
        opened = rig.plane.tables.nat_counters.read()[0]
        assert (int(opened["opened"]), opened["no_port"].tolist(), int(opened["raced"])) == (MANY, [0] * 3, 0)

        feeder.run(rig.program, bytes(tcp(flags="A")), BASE, MANY)

        assert (arrays.nat_forward["word"] == forward["word"]).all()
        assert int(rig.plane.tables.nat_counters.read()[0]["opened"]) == MANY
    finally:
        feeder.close()

"""Mode nat: what a document may not say, and which blocks pool addresses have."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lb.dataplane.twin import SMALL, TwinDataPlane
from lb.errors import CapacityError, InvalidError
from lb.model import Config, Settings
from lb.model.document import from_mapping, to_document
from lb.model.entries import OPERATOR
from lb.model.layers import Attributes, Layer
from lb.model.prefix import Prefix
from lb.reconcile.nat import NatMemory, NatPlan, address_word, plan_nat
from lb.reconcile.nat_flows import live_nat_flows, sweep

NOW = 1_900_000_000.0


def web(**more: Any) -> dict[str, Any]:
    """A service of mode nat with an IPv4 backend."""
    base = {"name": "web", "vip": "192.0.2.10", "port": 80, "protocol": "tcp", "mode": "nat"}
    return {**base, "backends": [{"address": "10.0.0.11"}], **more}


def config(pools: list[str], *services: dict[str, Any], **more: Any) -> Config:
    """The desired state of a document with these pools."""
    document = {"services": list(services), "settings": {"nat_pools": pools}, **more}
    return from_mapping(document, now=NOW, have=Config())


@pytest.mark.parametrize(
    ("pools", "service", "more", "pointer", "says"),
    [
        (["192.0.2.10"], web(), {}, "/settings/nat_pools/0", "overlaps 192.0.2.10, the VIP"),
        (["10.0.0.0/28"], web(), {}, "/settings/nat_pools/0", "overlaps 10.0.0.11, a backend"),
        (
            ["10.9.0.1", "10.9.0.2"],
            web(),
            {"blocklist": [{"prefix": "10.9.0.2/31"}]},
            "/settings/nat_pools/1",
            "overlaps 10.9.0.2/31 of the blocklist",
        ),
        ([], web(), {}, "/services/0/backends/0/address", "nat_pools has no IPv4 address"),
        (["fd00::9"], web(), {}, "/services/0/backends/0/address", "nat_pools has no IPv4 address"),
        (["10.9.0.1", "10.9.0.0/30"], web(), {}, "/settings/nat_pools/1", "overlap: name each address once"),
        (["10.9.0.0/16"], web(), {}, "/settings/nat_pools/0", "more than 254 addresses"),
        (
            ["10.9.0.1"],
            web(mode="ipip", backends=[{"address": "10.0.0.11", "port": 8080}]),
            {},
            "/services/0/backends/0/port",
            "mode ipip leaves the port as it is",
        ),
        (
            ["10.9.0.1"],
            web(mode="l2", nat_source="keep"),
            {},
            "/services/0/nat_source",
            "always keeps the source",
        ),
        (
            ["10.9.0.1"],
            web(nat_source="keep", backends=[{"address": "fd00::11"}]),
            {},
            "/services/0/backends/0/address",
            "with nat_source keep both are of one family",
        ),
    ],
)
def test_refused(
    pools: list[str], service: dict[str, Any], more: dict[str, Any], pointer: str, says: str
) -> None:
    """Each fault names its field, and says what is wrong."""
    with pytest.raises(InvalidError) as caught:
        config(pools, service, **more)

    assert [(e.pointer, says in e.detail) for e in caught.value.errors] == [(pointer, True)]


@pytest.mark.parametrize(
    "lists",
    [
        {"blocklist": [{"prefix": "10.9.0.0/24", "action": "count"}]},
        {"blocklist": [{"prefix": "10.9.0.0/24"}], "allowlist": [{"prefix": "10.9.0.1"}]},
        {"blocklist": [{"prefix": "10.9.0.0/24"}, {"prefix": "10.9.0.1", "action": "count"}]},
    ],
    ids=["counted", "allowed", "counted within"],
)
def test_a_pool_that_is_not_dropped(lists: dict[str, Any]) -> None:
    """An entry that drops nothing of a pool is no fault: a block may be put so, and its export is to be read."""
    assert config(["10.9.0.1"], web(), **lists).settings.nat_pools


def test_a_pool_that_was_blocked_by_force() -> None:
    """What is in force can be applied as it was exported; another pool, or another block, is refused as ever."""
    block = Layer.of([(Prefix.parse("10.9.0.0/30"), Attributes(created_at=NOW))])
    before = config(["10.9.0.1"], web())
    forced = replace(before, blocklist=before.blocklist.with_layer(OPERATOR, block))
    document = to_document(forced, now=NOW)

    assert from_mapping(document, now=NOW, have=forced) == forced
    for other in (
        {"settings": {"nat_pools": ["10.9.0.1", "10.9.0.2"]}},
        {"blocklist": [*document["blocklist"], {"prefix": "10.9.0.1"}]},
    ):
        with pytest.raises(InvalidError, match="of the blocklist"):
            from_mapping(document | other, now=NOW, have=forced)


def test_addresses_keep_their_blocks() -> None:
    """Whatever comes and goes beside it, an address keeps its block; too many are refused by the setting's name."""
    sizes = SMALL  # two blocks
    first = plan_nat(config(["10.9.0.1"], web()), NatPlan(), sizes)
    both = plan_nat(config(["10.9.0.2", "10.9.0.1"], web()), first, sizes)
    one = b"\x0a\x09\x00\x01"

    assert both.blocks[one] == first.blocks[one]
    assert sorted(both.blocks.values()) == [0, 1]
    with pytest.raises(CapacityError, match="--nat-slots 196608"):
        plan_nat(config(["10.9.0.0/31", "10.9.0.2"], web()), both, sizes)


def test_memory_is_adopted() -> None:
    """What was put is found again by another daemon, and addresses that go take their words along."""
    twin = TwinDataPlane()
    arrays = twin.tables.arrays
    memory = NatMemory(arrays)
    plan = plan_nat(config(["10.9.0.1", "10.9.0.2"], web()), NatPlan(), SMALL)
    memory.put(plan)

    assert NatMemory(arrays).adopt().blocks == plan.blocks
    line, word = address_word(b"\x0a\x09\x00\x01", 1 + plan.blocks[b"\x0a\x09\x00\x01"])
    assert word in arrays.nat_addresses[line].tolist()

    memory.put(plan_nat(config(["10.9.0.2"], web()), plan, SMALL))

    assert word not in arrays.nat_addresses[line].tolist()
    assert int(arrays.nat_lists["head"][0]) >> 32 == 1


@pytest.mark.parametrize(
    ("forward", "reply", "tcp", "age", "freed"),
    [
        (1, 0, True, 30, 0),
        (1, 0, True, 31, 1),
        (3, 1, True, 7440, 0),
        (3, 1, True, 7441, 1),
        (7, 7, True, 60, 0),
        (7, 7, True, 61, 1),
        (3, 9, True, 61, 1),
        (1, 0, False, 31, 1),
        (1, 1, False, 120, 0),
        (1, 1, False, 121, 1),
    ],
)
def test_entries_live_by_their_state(forward: int, reply: int, tcp: bool, age: int, freed: int) -> None:
    """An entry that is over is freed with its index word; another stays, and counts unless it is closing."""
    twin = TwinDataPlane()
    arrays = twin.tables.arrays
    NatMemory(arrays).put(plan_nat(config(["10.9.0.1"], web()), NatPlan(), SMALL))
    now, slot = 1_000_000, 2000
    word = np.uint64(0xABCDE << 24 | slot)
    arrays.nat_forward["word"][slot] = arrays.nat_index[5, 3] = word
    arrays.nat_forward["ports"][slot] = (6 if tcp else 17) << 32 | 1 << 16
    arrays.nat_forward["state"][slot] = (now - age) << 32 | forward
    arrays.nat_reply["state"][slot] = (now - age) << 32 | reply if reply else 0
    arrays.nat_reply["live"][slot] = 1
    closing = (tcp and (forward | reply) & 8) or (tcp and forward & reply & 4)

    alive = live_nat_flows(arrays, Settings(), now)
    count = sweep(arrays, [0], 60_000, Settings(), now).all

    assert count == freed
    assert alive == ({} if freed or closing else {(0, 0): 1})
    left = (arrays.nat_forward["word"][slot], arrays.nat_reply["live"][slot], arrays.nat_index[5, 3])
    assert [int(value) != 0 for value in left] == [not freed] * 3

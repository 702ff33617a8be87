"""The addresses of NAT in the maps: which block of slots each has, and which ports new flows get.

An address keeps its block for as long as it is in the pool, so flows go on while others come and go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import Arrays
from lb.errors import CapacityError
from lb.model import Config, Mode, NatSource
from lb.model.nat import pool_addresses
from lb.reconcile.nat_flows import forget_blocks
from lb.settings import NAT_BLOCK, TableSizes

_C = layout().constants
_KEEP, _OF_KEEP = _C["NAT_LIST_KEEP"], _C["NAT_OF_KEEP"]
_MASK = (1 << 64) - 1
_MIX = 0xFF51AFD7ED558CCD
_START = 0xC4CEB9FE1A85EC53


@dataclass(frozen=True)
class NatPlan:
    """Packed addresses by block; the blocks of flows that keep their source, and whose backends those are."""

    blocks: Mapping[bytes, int] = field(default_factory=dict)
    kept: tuple[int, ...] = ()
    keepers: frozenset[bytes] = frozenset()
    ports: tuple[int, int] = (0, 0)

    @property
    def in_use(self) -> list[int]:
        """All blocks that flows may have."""
        return sorted({*self.blocks.values(), *self.kept})

    def leaving(self, after: "NatPlan") -> set[int]:
        """Blocks whose address, and with it their flows, another plan lets go."""
        moved = {block for address, block in self.blocks.items() if after.blocks.get(address) != block}
        return moved | set(self.kept) - set(after.kept)


def plan_nat(config: Config, before: NatPlan, sizes: TableSizes) -> NatPlan:
    """A block for each address of the pool. CapacityError names the setting."""
    wanted = [address.packed for address in pool_addresses(config.settings.nat_pools)]
    keepers = frozenset(
        backend.address.packed
        for service in config.services.values()
        if service.mode is Mode.NAT and service.nat_source is NatSource.KEEP
        for backend in service.backends
    )
    room = sizes.nat_slots // NAT_BLOCK
    if len(wanted) + bool(keepers) > room:
        more = " and one for nat_source keep" if keepers else ""
        raise CapacityError(
            f"nat_pools holds {len(wanted)} addresses{more}, and there is room for {room}: "
            f"start with --nat-slots {NAT_BLOCK * (len(wanted) + bool(keepers))} or more"
        )
    blocks = {address: before.blocks[address] for address in wanted if address in before.blocks}
    taken = {*blocks.values(), *before.kept}
    free = [block for block in range(room) if block not in taken]
    # One that is being left is used again only where there is no other.
    left = set(before.blocks.values())
    free.sort(key=lambda block: (block in left, block))
    kept = list(before.kept) if keepers else []
    if not keepers:
        free += before.kept
    for address in wanted:
        if address not in blocks:
            blocks[address] = free.pop(0) if free else kept.pop()
    if keepers:  # half of what the pool leaves, and never less than there was
        share = max(1, (len(free) + len(kept)) // 2)
        kept += free[: max(0, share - len(kept))]
    ports = config.settings.nat_ports
    return NatPlan(blocks, tuple(kept), keepers, (ports.low, ports.high))


class NatMemory:
    """Keeps them as planned. One writer."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def adopt(self) -> NatPlan:
        """What memory holds."""
        pools, kept = self._arrays.nat_pools, self._arrays.nat_lists[_KEEP]
        used = np.flatnonzero(pools["family"])
        blocks = {
            pools["address"][block].tobytes()[: 4 if pools["family"][block] == 4 else 16]: block
            for block in used.tolist()
        }
        count = int(kept["head"]) >> 32
        return NatPlan(blocks, tuple(kept["block"][:count].tolist()))

    def put(self, plan: NatPlan) -> None:
        """What comes is complete before packets may find it, and what goes takes its flows along."""
        arrays, before = self._arrays, self.adopt()
        gone = before.leaving(plan)
        lists = {0: [], 1: [], _KEEP: list(plan.kept)}
        for address, block in plan.blocks.items():
            lists[0 if len(address) == 4 else 1].append(block)
        came = {
            address: block for address, block in plan.blocks.items() if before.blocks.get(address) != block
        }
        if gone:
            for number, blocks in lists.items():
                self._put_list(number, [block for block in blocks if block not in gone], plan.ports)
            arrays.nat_pools["family"][sorted(gone)] = 0
            forget_blocks(arrays, gone)
        for address, block in came.items():
            arrays.nat_pools["address"][block] = np.frombuffer(address.ljust(16, b"\0"), "<u4")
            arrays.nat_pools["family"][block] = 4 if len(address) == 4 else 6
        self._put_addresses(plan)
        for number, blocks in lists.items():
            self._put_list(number, blocks, plan.ports)

    def _put_list(self, number: int, blocks: list[int], ports: tuple[int, int]) -> None:
        row = self._arrays.nat_lists[number : number + 1]
        first, last = ports if number != _KEEP else (1, 65535)
        head = np.uint64(len(blocks) << 32 | first << 16 | last) if blocks else np.uint64(0)
        if len(blocks) < int(row["head"][0]) >> 32:
            row["head"] = head
        row["block"][0, : len(blocks)] = blocks
        row["head"] = head

    def _put_addresses(self, plan: NatPlan) -> None:
        """Each word by itself: those that stay are found all the time."""
        lines = self._arrays.nat_addresses
        wanted: dict[int, list[int]] = {}
        of_pool = ((address, 1 + block) for address, block in plan.blocks.items())
        of_keep = ((address, _OF_KEEP) for address in plan.keepers)
        for address, cell in (*of_pool, *of_keep):
            line, word = address_word(address, cell)
            wanted.setdefault(line, []).append(word)
        for words in wanted.values():
            if len(words) > lines.shape[1]:
                raise CapacityError("too many addresses of NAT: use fewer backends of nat_source keep")
        for line in range(len(lines)):
            words, held = wanted.get(line, []), lines[line].tolist()
            if not words and not any(held):
                continue
            free = [way for way, word in enumerate(held) if word not in words]
            for way, word in zip(free, [word for word in words if word not in held], strict=False):
                lines[line, way] = word
                free = free[1:]
            lines[line, free] = 0


def address_word(address: bytes, cell: int) -> tuple[int, int]:
    """Where nat_look_up of xdp/nat_enter.h looks for an address, and the word it looks for."""
    low, high = int.from_bytes(address[:8], "little"), int.from_bytes(address[8:], "little")
    if len(address) == 4:
        high = 4
    hashed = _fold(_fold(_START, low), high)
    return hashed >> 55, hashed & ~0xFF | cell


def _fold(h: int, word: int) -> int:
    h = (h ^ word) * _MIX & _MASK
    return h ^ h >> 32

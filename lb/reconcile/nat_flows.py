"""NAT's entries in memory: which have expired, which are live, and how one is freed. Numpy over mapped memory.

Packets come all the while. An entry's index words go first, so that no further packet finds it; one that has been found
meanwhile shows in its state, and is put back. Only then is its slot free for another.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import Array, Arrays, Ints, where_used
from lb.model import Settings
from lb.settings import NAT_BLOCK

_C = layout().constants
_SYN, _ACK, _FIN, _RST = (np.uint64(_C[f"NAT_{name}"]) for name in ("SYN", "ACK", "FIN", "RST"))
_SLOT, _SLOT_BITS = np.uint64(_C["NAT_SLOT_MASK"]), np.uint64(_C["NAT_SLOT_BITS"])
_TCP, _UDP = 6, 17
_FREEING = threading.Lock()
"""Whoever frees entries is alone in it."""
PRESSURE = 0.75
"""Of a family's ports, from which on what is not open lives a quarter as long."""


@dataclass(frozen=True)
class Entries:
    """Entries in use, as they stood at one moment. slots: ascending; the others beside them."""

    slots: Ints
    forward: Array
    """Words of state."""
    reply: Array
    service: Array
    place: Array
    protocol: Array

    @property
    def closing(self) -> Array:
        """TCP: FIN both ways, or RST either way."""
        either, both = self.forward | self.reply, self.forward & self.reply
        closing: Array = (self.protocol == _TCP) & ((either & _RST != 0) | (both & _FIN != 0))
        return closing

    @property
    def is_open(self) -> Array:
        """TCP: opened both ways and not closing; else: with a reply."""
        replied = self.reply & _SYN != 0
        known = np.where(self.protocol == _TCP, self.forward & _ACK != 0, True)
        opened: Array = replied & known & ~self.closing
        return opened

    def age(self, now_s: int) -> Ints:
        """Seconds since a packet of either direction."""
        seen = np.maximum(self.forward, self.reply) >> np.uint64(32)
        return now_s - seen.astype(np.int64)

    def life(self, settings: Settings, *, pressed: bool = False) -> Array:
        """Seconds that each lives without a packet."""
        idle = np.select(
            [self.protocol == _TCP, self.protocol == _UDP],
            [settings.nat_tcp_idle_seconds, settings.nat_udp_idle_seconds],
            settings.nat_icmp_idle_seconds,
        )
        short = np.where(self.closing, settings.nat_closing_seconds, settings.nat_opening_seconds)
        return np.where(self.is_open, idle, short / 4 if pressed else short)


def entries(arrays: Arrays, blocks: Iterable[int]) -> Entries:
    """Those of some blocks."""
    forward, reply = arrays.nat_forward, arrays.nat_reply
    found = [
        where_used(forward["word"][block * NAT_BLOCK : (block + 1) * NAT_BLOCK]) + block * NAT_BLOCK
        for block in sorted(blocks)
    ]
    slots = np.concatenate(found) if found else np.zeros(0, np.int64)
    rows = forward[slots]
    return Entries(
        slots,
        rows["state"],
        reply["state"][slots],
        rows["service"],
        rows["place"],
        (rows["ports"] >> np.uint64(32)) & np.uint64(0xFF),
    )


class Freed(NamedTuple):
    """How many entries were freed, and of them, before their time for want of ports."""

    all: int
    early: int


def sweep(
    arrays: Arrays,
    blocks: Iterable[int],
    usable: int,
    settings: Settings,
    now_s: int,
    *,
    disabled: frozenset[int] = frozenset(),
) -> Freed:
    """Free what is over in blocks that are used alike. usable: slots that they have.

    disabled: service << 16 | place of backends that take no packets.
    """
    some = entries(arrays, blocks)
    if not len(some.slots):
        return Freed(0, 0)
    age, is_pressed = some.age(now_s), len(some.slots) > PRESSURE * usable
    over = age > some.life(settings, pressed=is_pressed)
    early = over & (age <= some.life(settings))
    useless = _misdirected(arrays, some)
    if disabled:
        pairs = some.service.astype(np.int64) << 16 | some.place
        useless |= np.isin(pairs, np.array([*disabled], np.int64))
    over, early = over | useless, early & ~useless
    # A state of 0 is of an entry that is being made just now.
    over &= some.forward != 0
    if not over.any():
        return Freed(0, 0)
    freed = _free(arrays, some.slots[over], some.forward[over], some.reply[over])
    return Freed(len(freed), int(np.count_nonzero(np.isin(freed, some.slots[early]))))


def _misdirected(arrays: Arrays, some: Entries) -> Array:
    """Which entries' requests go to another port of the backend by now, and nothing from there is their reply."""
    live, ports = arrays.nat_reply["live"][some.slots], arrays.nat_forward["ports"][some.slots]
    rows = arrays.service_owners["backends"][some.service].astype(np.int64) + some.place
    wanted = arrays.backends["port"][np.minimum(rows, len(arrays.backends) - 1)]
    came, served = (_network_order(word) for word in (ports >> np.uint64(16), live))
    misdirected: Array = (live != 0) & (np.where(wanted, wanted, came) != served)
    return misdirected


def _network_order(words: Array) -> Array:
    """The ports in the low 16 bits, as they lie in memory."""
    return words.astype("<u2").view(">u2")


def _free(arrays: Arrays, slots: Ints, forward: Array | None = None, reply: Array | None = None) -> Ints:
    """Free these, which it returns; with states: only those whose states are still the same once nobody finds them."""
    with _FREEING:
        index = arrays.nat_index.reshape(-1)
        wanted = np.zeros(len(arrays.nat_forward), bool)
        wanted[slots] = True
        held = where_used(index)
        words = index[held]
        at = (words & _SLOT).astype(np.int64)
        mine = wanted[np.minimum(at, len(wanted) - 1)]
        places, words, at = held[mine], words[mine], at[mine]
        index[places] = 0
        if forward is not None and reply is not None:
            came = (arrays.nat_forward["state"][slots] != forward) | (
                arrays.nat_reply["state"][slots] != reply
            )
            if came.any():
                wanted[slots[came]] = False
                back = np.flatnonzero(~wanted[at])
                back = back[(index[places[back]] == 0) & _lead_somewhere(arrays, words[back], at[back])]
                index[places[back]] = words[back]
                slots = slots[~came]
        arrays.nat_reply["live"][slots] = 0
        arrays.nat_forward["state"][slots] = 0
        arrays.nat_forward["word"][slots] = 0
    return slots


def _lead_somewhere(arrays: Arrays, words: Array, slots: Ints) -> Array:
    """Which words of the index are still of the entry at their slot, as its request's or, with keep, its reply's."""
    tags = words >> _SLOT_BITS
    found: Array = (arrays.nat_forward["word"][slots] >> _SLOT_BITS == tags) | (
        arrays.nat_reply["live"][slots] >> _SLOT_BITS == tags
    )
    return found


def is_used(arrays: Arrays) -> bool:
    """Whether there may be entries at all."""
    return bool(arrays.nat_lists["head"].any())


def blocks_in_use(arrays: Arrays) -> list[int]:
    """Those that newcomers are given slots of."""
    lists = arrays.nat_lists
    return [
        block
        for row in range(len(lists))
        for block in lists["block"][row, : int(lists["head"][row]) >> 32].tolist()
    ]


def forget_blocks(arrays: Arrays, blocks: Iterable[int]) -> None:
    """All entries of blocks whose address is gone."""
    some = entries(arrays, blocks)
    if len(some.slots):
        _free(arrays, some.slots)


def forget_nat(arrays: Arrays, numbers: Iterable[int], pairs: Iterable[tuple[int, int]]) -> None:
    """Entries of these services, and of these (service, place)."""
    if not is_used(arrays):
        return
    some = entries(arrays, blocks_in_use(arrays))
    listed = np.array([number << 16 | place for number, place in pairs], np.int64)
    gone = np.isin(some.service, np.array([*numbers], np.int64)) | np.isin(
        some.service.astype(np.int64) << 16 | some.place, listed
    )
    if gone.any():
        _free(arrays, some.slots[gone])


def live_nat_flows(
    arrays: Arrays, settings: Settings, now_s: int, blocks: Iterable[int] | None = None
) -> dict[tuple[int, int], int]:
    """Flows that are neither over nor closing, by (service number, place). blocks: only those of these."""
    if not is_used(arrays):
        return {}
    some = entries(arrays, blocks_in_use(arrays) if blocks is None else blocks)
    alive = (some.age(now_s) <= some.life(settings)) & ~some.closing
    keys, counts = np.unique((some.service.astype(np.int64) << 16 | some.place)[alive], return_counts=True)
    return {
        (key >> 16, key & 0xFFFF): count for key, count in zip(keys.tolist(), counts.tolist(), strict=True)
    }


def nat_usage(arrays: Arrays) -> dict[str, tuple[int, int]]:
    """Of each kind of NAT flow that there may be: entries taken, and how many there can be."""
    lists, found = arrays.nat_lists, {}
    for row, name in enumerate(("nat_ipv4", "nat_ipv6", "nat_keep")):
        head = int(lists["head"][row])
        count, first, last = head >> 32, head >> 16 & 0xFFFF, head & 0xFFFF
        if count:
            blocks = lists["block"][row, :count].tolist()
            words = arrays.nat_forward["word"].reshape(-1, NAT_BLOCK)[blocks]
            found[name] = int(np.count_nonzero(words)), count * (last - first + 1)
    return found


@dataclass(frozen=True, slots=True)
class NatTuples:
    """A flow's two sides, as address and port: the client speaks to the VIP, and source, which is ours, to the backend.

    With nat_source keep source is the client itself. Of echo, client and source have an identifier in place of a port,
    the others the address alone.
    """

    client: str
    vip: str
    source: str
    backend: str


def tuples_of(arrays: Arrays, slot: int) -> NatTuples:
    """Those of an entry."""
    forward, reply, pool = (
        arrays.nat_forward[slot],
        arrays.nat_reply[slot],
        arrays.nat_pools[slot // NAT_BLOCK],
    )
    ports, families = int(forward["ports"]), int(reply["families"])
    near, far = families >> 4, families & 0xF
    client = _end(forward["client"], near, _host_order(ports & 0xFFFF))
    source = _end(pool["address"], int(pool["family"]), slot % NAT_BLOCK) if pool["family"] else client
    has_ports = ports >> 32 & 0xFF in (_TCP, _UDP)
    there, served = (
        _host_order(n & 0xFFFF) if has_ports else None for n in (ports >> 16, int(reply["live"]))
    )
    return NatTuples(
        client=client,
        vip=_end(forward["vip"], near, there),
        source=source,
        backend=_end(reply["backend"], far, served),
    )


def _host_order(port: int) -> int:
    return port >> 8 | (port & 0xFF) << 8


def _end(words: Array, family: int, port: int | None) -> str:
    address = ip_address(words.tobytes()[: 4 if family == 4 else 16])
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if family == 6 else f"{address}:{port}"

"""Blocklist and allowlist into memory; a source that passes before and after is never dropped in between."""

from dataclasses import dataclass

import numpy as np

from lb.dataplane.deny4 import Deny4, Writes
from lb.dataplane.tables import U64, Counters, Table, Tables
from lb.errors import CapacityError
from lb.model.columns import Column
from lb.reconcile.lists import ListPlan
from lb.reconcile.prefix_keys import model_keys, table_keys
from lb.stretches import unequal


@dataclass(frozen=True)
class _Ready:
    """Two lists as they are written. The blocklist's IPv4 part is worked out beforehand."""

    deny: ListPlan
    allow: ListPlan
    deny4: Writes
    deny6: Column
    allow4: Column
    allow6: Column


class ListMemory:
    """Keeps blocklist and allowlist as planned. One writer; after an error it is of no more use: make another."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._deny4 = Deny4(tables.arrays)
        self._deny6 = _Trie(tables.deny6, 6)
        self._allow4 = _Trie(tables.allow4, 4)
        self._allow6 = _Trie(tables.allow6, 6)
        self._held: tuple[ListPlan, ListPlan] | None = None
        self._ready: _Ready | None = None

    def prepare(self, deny: ListPlan, allow: ListPlan) -> None:
        """Work out what a following `put` writes. CapacityError: the lists do not fit; it names the setting."""
        self._ready = None
        if self._held is not None and self._held[0] is deny and self._held[1] is allow:
            return
        allow4 = Column(allow.ipv4 >> np.uint64(16), (allow.ipv4 & np.uint64(0x7FFF)).astype(np.uint32))
        allow6 = Column(allow.ipv6, allow.ipv6_rules.astype(np.uint32))
        deny6 = Column(deny.ipv6, deny.ipv6_rules.astype(np.uint32))
        self._deny6.check(deny6, "IPv6 blocklist", "--deny-ipv6")
        self._allow4.check(allow4, "IPv4 allowlist", "--allow")
        self._allow6.check(allow6, "IPv6 allowlist", "--allow")
        self._ready = _Ready(deny, allow, self._deny4.prepare(deny.ipv4), deny6, allow4, allow6)

    def put(self) -> None:
        """Make memory hold the lists last prepared."""
        ready = self._ready
        if ready is None:
            return
        self._ready = None
        tables, arrays = self._tables, self._tables.arrays
        _take_numbers(arrays.deny_owners, tables.deny_counters, ready.deny.owners)
        _take_numbers(arrays.allow_owners, tables.allow_counters, ready.allow.owners)
        # The wider of old and new allowlist, while the blocklist changes.
        self._allow4.add(ready.allow4)
        self._allow6.add(ready.allow6)
        self._deny4.commit(ready.deny4)
        self._deny6.add(ready.deny6)
        self._deny6.keep_only(ready.deny6)
        self._allow4.keep_only(ready.allow4)
        self._allow6.keep_only(ready.allow6)
        arrays.deny_owners[:] = ready.deny.owners
        arrays.allow_owners[:] = ready.allow.owners
        self._held = ready.deny, ready.allow

    def usage(self) -> dict[str, tuple[int, int]]:
        """Used and all places of each table."""
        return {
            **self._deny4.usage(),
            "deny6": self._deny6.usage(),
            "allow4": self._allow4.usage(),
            "allow6": self._allow6.usage(),
        }


def _take_numbers(owners: U64, counters: Counters, wanted: U64) -> None:
    """Numbers that get an owner start counting at zero. Those given back stay whose they were while they are in use."""
    fresh = np.flatnonzero((wanted != 0) & (owners != wanted))
    if len(fresh):
        counters.clear(fresh.tolist())
        owners[fresh] = wanted[fresh]


class _Trie:
    """A longest-prefix table, and what it holds: keys as the model has them (lb.model.columns), and rule numbers."""

    def __init__(self, table: Table, family: int) -> None:
        self._table, self._family = table, family
        keys, rules = table.read()
        self._held = Column.of(model_keys(self._family, keys), rules.astype(np.uint32))

    def check(self, wanted: Column, what: str, option: str) -> None:
        """CapacityError if there is no room: what is new stands beside what goes."""
        room = self._table.capacity
        count = len(wanted)
        if count <= room < count + len(self._held):
            count += int((~wanted.locate(self._held.keys)[1]).sum())
        if count > room:
            raise CapacityError(
                f"the {what} would hold {count} prefixes (with those being removed), but there is "
                f"room for {room}: raise {option}"
            )

    def add(self, wanted: Column) -> None:
        """Put in what is new or has another number."""
        old, new = _unequal(self._held, wanted)
        at, known = old.locate(new.keys)
        known[known] = old.ids[at[known]] == new.ids[known]
        put = Column(new.keys[~known], new.ids[~known])
        if len(put):
            self._table.write(table_keys(self._family, put.keys), put.ids.astype("<u4"))
            self._held = self._held.merged(put.keys, put.ids)

    def keep_only(self, wanted: Column) -> None:
        """Take out what is not wanted, once all that is wanted was added."""
        if len(self._held) > len(wanted):
            old, new = _unequal(self._held, wanted)
            gone = old.keys[~new.locate(old.keys)[1]]
            self._table.delete(table_keys(self._family, gone))
        self._held = wanted

    def usage(self) -> tuple[int, int]:
        """Used and all places."""
        return len(self._held), self._table.capacity


def _unequal(old: Column, new: Column) -> tuple[Column, Column]:
    """Both without what is the same in them, which is nearly all when one in a million changes."""
    ours, theirs = unequal(
        old.keys, new.keys, lambda a, b: (old.keys[a] == new.keys[b]) & (old.ids[a] == new.ids[b])
    )
    return old.at(ours), new.at(theirs)

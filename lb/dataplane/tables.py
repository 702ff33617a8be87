"""The data plane's memory as Python sees it: numpy arrays over map memory, and small tables read and written in bulk.

Keys and values are numpy arrays with the dtypes of xdp/types.h. The kernel's (kernel.py) and the twin's (twin.py)
tables are the same to whoever uses them.
"""

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lb.dataplane.layout import layout
from lb.settings import TableSizes

Array = npt.NDArray[Any]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


def where_used(words: Array) -> Ints:
    """The places of a one-dimensional array that hold something, even while packets write to it.

    numpy's nonzero counts first, and raises RuntimeError if what it then finds is not as many.
    """
    return np.flatnonzero(words != 0)


class Table(Protocol):
    """A hash or trie: entries by key, in no order."""

    capacity: int

    def read(self) -> tuple[Array, Array]:
        """All keys, and their values at the same positions."""

    def write(self, keys: Array, values: Array) -> None:
        """Put these entries in; CapacityError if they do not fit."""

    def delete(self, keys: Array) -> None:
        """Take these keys out; those that are not there are passed over."""


class Counters(Protocol):
    """A per-CPU array of tallies."""

    def read(self) -> Array:
        """The sum over all CPUs of every entry; a last_s member is the latest."""

    def read_some(self, indexes: list[int]) -> Array:
        """The same for some entries."""

    def by_cpu(self) -> Ints:
        """Packets that each CPU has counted, over all entries."""

    def clear(self, indexes: list[int]) -> None:
        """Set entries to zero on every CPU."""

    def put(self, indexes: list[int], rows: Array) -> None:
        """Make these the sums of entries; meant for entries that packets do not reach just then."""

    def add(self, index: int, packets: int, octets: int) -> None:
        """Add to one entry (on one CPU); meant for entries that packets do not reach just then."""


@dataclass(frozen=True)
class Arrays:
    """Memory that the packet path reads while it is written. Shapes: S services, B places, R rings, F buckets."""

    services4: Array  # (buckets, 4) struct service4_slot
    services6: Array  # (buckets, 2) struct service6_slot
    vip_bits: U64  # (2, 128): IPv4, IPv6
    service_rings: Array  # (S,) struct service_ring
    service_owners: Array  # (S,) struct service_owner
    rings: U16  # (R, 66048): a ring's slots, of which the first 65537 are used
    backends: Array  # (B,) struct backend
    flows: Array  # (F, 4) struct flow
    too_big_budget: Array  # (1,) struct budget
    deny4_cells: U16  # (2**24,)
    deny4_runs: U32  # (65536,)
    deny4_lines: U32  # (hosts, 16)
    deny4_dense: U16  # (dense, 256)
    deny6_filter: U8  # (65536,)
    deny_owners: U64  # (32768,)
    allow_owners: U64  # (4096,)
    rule_bank: Array  # (1,) struct rule_bank
    rule_cells: U16  # (2, 198144): a bank's classes by value, fields from RULE_CELLS_* on
    rule_sets: Array  # (2, 6, 4096) struct rule_set
    rule_actions: Array  # (2, 1024) struct rule_action
    rule_owners: U64  # (1024,)
    limit_totals: Array  # (1024,) struct limit_total
    limit_buckets: Array  # (L, 4) struct limit_slot
    limit_sketch: Array  # (2, 65536) struct limit_cell
    service_guards: Array  # (S,) struct service_guard
    known_sources: U32  # (65536, 16)
    syn_tests: U32  # (lines, 16)
    nat_forward: Array  # (N,) struct nat_forward, by slot: a block of 65536 for each pool address
    nat_reply: Array  # (N,) struct nat_reply
    nat_index: U64  # (buckets, 8): tag << 24 | slot
    nat_pools: Array  # (256,) struct nat_pool
    nat_addresses: U64  # (512, 8)
    nat_lists: Array  # (3,) struct nat_list: IPv4, IPv6, keep
    nat_interfaces: Array  # (256,) struct nat_interface
    nat_cursors: Array  # (1,) struct nat_cursor
    watching: Array  # (2,) struct sampling: packets, bans


@dataclass(frozen=True)
class Tables:
    """All of the data plane's memory."""

    arrays: Arrays
    services4: Table
    services6: Table
    vip_prefixes6: Table
    quic_ids: Table
    deny6: Table
    allow4: Table
    allow6: Table
    rule_sources4: Table
    rule_sources6: Table
    rule_targets4: Table
    rule_targets6: Table
    verdict_counters: Counters
    backend_counters: Counters
    service_counters: Counters
    deny_counters: Counters
    allow_counters: Counters
    rule_counters: Counters
    guard_counters: Counters
    nat_counters: Counters
    passive_counters: Counters
    flow_counters: Counters
    quic_counters: Counters


ARRAY_NAMES = tuple(f.name for f in fields(Arrays))
STAGE_MAPS = ("stages", "stages_frags", "stage_builds")
"""Of programs, not of what packets need: see second.py."""
TABLE_STRUCTS = {
    name: (made.key, made.value)
    for name, made in layout().maps.items()
    if made.kind in ("hash", "lpm_trie") and name not in STAGE_MAPS
}
COUNTER_STRUCTS = {name: made.value for name, made in layout().maps.items() if made.kind == "percpu_array"}


def dtype_of(struct: str) -> np.dtype[Any]:
    """The dtype of a struct of types.h, or of a bare u32."""
    return np.dtype("<u4") if struct == "__u32" else layout().structs[struct]


def service_buckets(sizes: TableSizes) -> int:
    """Cache lines of each service table: a power of two, with room for twice the IPv4 ports."""
    return 1 << max(1, (sizes.service_ports - 1).bit_length() - 1)


def nat_buckets(sizes: TableSizes) -> int:
    """Cache lines of the index of NAT: two words a slot at least, for flows that are found in both directions."""
    return 1 << (sizes.nat_slots // 4 - 1).bit_length()


def capacities(sizes: TableSizes) -> dict[str, int]:
    """How many entries (C values) each map has."""
    constant = layout().constants
    return {
        "services4": service_buckets(sizes),
        "services6": service_buckets(sizes),
        "services4_more": sizes.service_ports,
        "services6_more": sizes.service_ports,
        "vip_bits": 2,
        "vip_prefixes6": sizes.services,
        "quic_ids": sizes.backends,
        "service_rings": sizes.services,
        "service_owners": sizes.services,
        "rings": sizes.rings * constant["RING_CELLS"],
        "backends": sizes.backends,
        "flows": sizes.flow_slots // constant["FLOW_WAYS"],
        "too_big_budget": 1,
        "deny4_cells": (1 << 24) >> constant["CELLS_SHIFT"],
        "deny4_runs": 256,
        "deny4_lines": sizes.deny_hosts,
        "deny4_dense": sizes.deny_dense,
        "deny6_filter": constant["DENY6_VALUES"],
        "deny6_hosts": sizes.deny_ipv6,
        "deny6_trie": sizes.deny_ipv6,
        "allow4": sizes.allow,
        "allow6": sizes.allow,
        "rule_bank": 1,
        "rule_cells": 2 * constant["RULE_CELLS_VALUES"],
        "rule_sets": 2 * constant["RULE_FIELDS"] * constant["RULE_CLASSES"],
        "rule_actions": 2 * constant["RULES_MAX"],
        **dict.fromkeys(
            ("rule_sources4", "rule_sources6", "rule_targets4", "rule_targets6"), 2 * constant["RULES_MAX"]
        ),
        "rule_owners": constant["RULES_MAX"],
        "rule_counters": constant["RULES_MAX"],
        "limit_totals": constant["RULES_MAX"],
        "limit_buckets": sizes.limit_slots // constant["LIMIT_WAYS"],
        "limit_sketch": constant["LIMIT_ROWS"] * constant["LIMIT_CELLS"],
        "service_guards": sizes.services,
        "guard_counters": sizes.services,
        "passive_counters": sizes.backends,
        "known_sources": constant["KNOWN_LINES"],
        "syn_tests": sizes.syn_tests // 16,
        "nat_forward": sizes.nat_slots,
        "nat_reply": sizes.nat_slots,
        "nat_index": nat_buckets(sizes),
        "nat_pools": constant["NAT_BLOCKS"],
        "nat_addresses": constant["NAT_ADDRESS_LINES"],
        "nat_lists": constant["NAT_LISTS"],
        "nat_counters": 1,
        "nat_interfaces": constant["NAT_INTERFACES"],
        "nat_cursors": 1,
        "watching": 2,
        "verdict_counters": constant["VERDICTS_MAX"],
        "backend_counters": sizes.backends,
        "service_counters": sizes.services,
        "deny_counters": constant["ENTRY_NUMBERS"],
        "allow_counters": constant["ALLOW_NUMBERS"],
        "flow_counters": 1,
        "quic_counters": 1,
        "deny_owners": constant["ENTRY_NUMBERS"],
        "allow_owners": constant["ALLOW_NUMBERS"],
    }


def size_flags(sizes: TableSizes) -> dict[str, int]:
    """The capacities as config.h wants them."""
    return {
        "MAX_SERVICES": sizes.services,
        "MAX_SERVICE_PORTS": sizes.service_ports,
        "SERVICE_BUCKETS": service_buckets(sizes),
        "MAX_BACKENDS": sizes.backends,
        "MAX_RINGS": sizes.rings,
        "FLOW_BUCKETS": sizes.flow_slots // layout().constants["FLOW_WAYS"],
        "MAX_DENY_HOSTS": sizes.deny_hosts,
        "MAX_DENY_DENSE": sizes.deny_dense,
        "MAX_DENY6": sizes.deny_ipv6,
        "MAX_ALLOW": sizes.allow,
        "LIMIT_BUCKETS": sizes.limit_slots // layout().constants["LIMIT_WAYS"],
        "SYN_TEST_LINES": sizes.syn_tests // 16,
        "NAT_SLOTS": sizes.nat_slots,
        "NAT_BUCKETS": nat_buckets(sizes),
    }


def arrays_over(buffers: dict[str, Any], sizes: TableSizes) -> Arrays:
    """Views of raw memory, one buffer a map name, in the shapes that Arrays states."""
    structs, constant = layout().structs, layout().constants
    width = constant["RING_CELLS"] << constant["CELLS_SHIFT"]

    def view(name: str, dtype: Any) -> Array:
        data = np.frombuffer(buffers[name], np.uint8)
        return data[: array_bytes(name, sizes)].view(dtype)  # mapped memory ends with a page

    return Arrays(
        services4=view("services4", structs["service4_slot"]).reshape(-1, 4),
        services6=view("services6", structs["service6_slot"]).reshape(-1, 2),
        vip_bits=view("vip_bits", np.uint64).reshape(2, -1),
        service_rings=view("service_rings", structs["service_ring"]),
        service_owners=view("service_owners", structs["service_owner"]),
        rings=view("rings", np.uint16).reshape(-1, width),
        backends=view("backends", structs["backend"]),
        flows=view("flows", structs["flow"]).reshape(-1, constant["FLOW_WAYS"]),
        too_big_budget=view("too_big_budget", structs["budget"]),
        deny4_cells=view("deny4_cells", np.uint16),
        deny4_runs=view("deny4_runs", np.uint32),
        deny4_lines=view("deny4_lines", np.uint32).reshape(-1, 16),
        deny4_dense=view("deny4_dense", np.uint16).reshape(-1, 256),
        deny6_filter=view("deny6_filter", np.uint8),
        deny_owners=view("deny_owners", np.uint64),
        allow_owners=view("allow_owners", np.uint64),
        rule_bank=view("rule_bank", structs["rule_bank"]),
        rule_cells=view("rule_cells", np.uint16).reshape(2, -1),
        rule_sets=view("rule_sets", structs["rule_set"]).reshape(2, constant["RULE_FIELDS"], -1),
        rule_actions=view("rule_actions", structs["rule_action"]).reshape(2, -1),
        rule_owners=view("rule_owners", np.uint64),
        limit_totals=view("limit_totals", structs["limit_total"]),
        limit_buckets=view("limit_buckets", structs["limit_slot"]).reshape(-1, constant["LIMIT_WAYS"]),
        limit_sketch=view("limit_sketch", structs["limit_cell"]).reshape(constant["LIMIT_ROWS"], -1),
        service_guards=view("service_guards", structs["service_guard"]),
        known_sources=view("known_sources", np.uint32).reshape(-1, 16),
        syn_tests=view("syn_tests", np.uint32).reshape(-1, 16),
        nat_forward=view("nat_forward", structs["nat_forward"]),
        nat_reply=view("nat_reply", structs["nat_reply"]),
        nat_index=view("nat_index", np.uint64).reshape(-1, constant["NAT_INDEX_WAYS"]),
        nat_pools=view("nat_pools", structs["nat_pool"]),
        nat_addresses=view("nat_addresses", np.uint64).reshape(-1, constant["NAT_INDEX_WAYS"]),
        nat_lists=view("nat_lists", structs["nat_list"]),
        nat_interfaces=view("nat_interfaces", structs["nat_interface"]),
        nat_cursors=view("nat_cursors", structs["nat_cursor"]),
        watching=view("watching", structs["sampling"]),
    )


def array_bytes(name: str, sizes: TableSizes) -> int:
    """The size of an array map's memory in bytes."""
    struct = {
        "services4": "service4_bucket",
        "services6": "service6_bucket",
        "vip_bits": "vip_bits",
        "service_rings": "service_ring",
        "service_owners": "service_owner",
        "rings": "cells",
        "backends": "backend",
        "flows": "flow_bucket",
        "too_big_budget": "budget",
        "deny4_cells": "cells",
        "deny4_runs": "deny_runs",
        "deny4_lines": "deny_line",
        "deny4_dense": "deny_dense",
        "deny6_filter": "deny6_cells",
        "deny_owners": "entry_owner",
        "allow_owners": "entry_owner",
        "rule_bank": "rule_bank",
        "rule_cells": "cells",
        "rule_sets": "rule_set",
        "rule_actions": "rule_action",
        "rule_owners": "entry_owner",
        "limit_totals": "limit_total",
        "limit_buckets": "limit_bucket",
        "limit_sketch": "limit_cell",
        "service_guards": "service_guard",
        "known_sources": "cell_line",
        "syn_tests": "cell_line",
        "nat_forward": "nat_forward",
        "nat_reply": "nat_reply",
        "nat_index": "nat_bucket",
        "nat_pools": "nat_pool",
        "nat_addresses": "nat_line",
        "nat_lists": "nat_list",
        "nat_interfaces": "nat_interface",
        "nat_cursors": "nat_cursor",
        "watching": "sampling",
    }[name]
    return capacities(sizes)[name] * dtype_of(struct).itemsize

"""All tables, including those composed of several maps."""

from collections.abc import Mapping
from typing import Any

from lb.dataplane.deny6 import Deny6
from lb.dataplane.service_table import ServiceTable
from lb.dataplane.tables import Arrays, Tables
from lb.settings import TableSizes

_PARTS = ("services4_more", "services6_more", "deny6_hosts", "deny6_trie")


def join_tables(arrays: Arrays, maps: Mapping[str, Any], sizes: TableSizes) -> Tables:
    """Of memory, and the other maps by name."""
    ports, bits = sizes.service_ports, arrays.vip_bits
    others = {name: table for name, table in maps.items() if name not in _PARTS}
    return Tables(
        arrays=arrays,
        services4=ServiceTable(arrays.services4, bits[0], maps["services4_more"], ports, family=4),
        services6=ServiceTable(arrays.services6, bits[1], maps["services6_more"], ports, family=6),
        deny6=Deny6(arrays.deny6_filter, maps["deny6_hosts"], maps["deny6_trie"], sizes.deny_ipv6),
        **others,
    )

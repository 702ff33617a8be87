"""How full the maps are."""

import shlex
from collections.abc import Sequence

from lb.doctor.facts import DaemonFacts, TableFacts
from lb.doctor.finding import Finding, fail, ok, warn

NEARLY_FULL, FULL = 0.8, 0.95
CACHE = "flows"
"""The one table that may be full: it forgets those unseen for longest."""
POOLS = ("nat_ipv4", "nat_ipv6")
"""Tables that addresses make larger, and no option."""


def examine(table: TableFacts, daemon: DaemonFacts) -> Finding:
    """Whether there is room for more."""
    share = table.entries / max(1, table.capacity)
    figures = f"{table.entries} of {table.capacity} entries"
    if share < NEARLY_FULL:
        return ok("tables", table.name, f"table {table.name} has room: {figures}")
    command = None
    if table.name in POOLS:
        command = "sluice export > sluice.yaml && sluice apply -f sluice.yaml"
    elif table.option is not None:
        command = with_option(daemon.serve_command, table.option, table.to or larger(table.capacity))
    full = share >= FULL and table.name != CACHE
    found = fail if full else warn
    return found(
        "tables",
        table.name,
        f"table {table.name} is {'full' if share >= 1 else 'nearly full'}: {figures}",
        effect=_effect(table.name),
        command=command,
    )


def _effect(name: str) -> str:
    if name == CACHE:
        return "New flows are not remembered: a change of backends may move them."
    if name in POOLS:
        return "New flows find no port and are dropped (DROP_NAT_PORTS); known ones go on. Add addresses to nat_pools."
    if name == "nat_keep":
        return "New flows that keep their source find no slot and are dropped (DROP_NAT_PORTS); known ones go on."
    return "A change that needs more is refused as a whole (507); what is in force stays."


def larger(capacity: int) -> int:
    """Twice as much, as a power of two."""
    return 1 << max(2, capacity.bit_length())


def with_option(words: Sequence[str], option: str, value: int) -> str:
    """A command line with this value of an option, instead of the one it may have."""
    kept, name = list(words), f"--{option}"
    if name in kept:
        at = kept.index(name)
        del kept[at : at + 2]
    return shlex.join([*kept, name, str(value)])

"""All memory of a twin, to compare."""

import numpy as np

from lb.dataplane.twin import TwinDataPlane

ARRAYS = ("service_rings", "rings", "backends", "deny4_runs", "deny4_lines", "deny4_dense",
          "deny6_filter", "deny_owners", "allow_owners", "rule_bank", "rule_cells", "rule_sets", "rule_actions",
          "rule_owners", "service_guards", "service_owners")  # fmt: skip
TABLES = ("services4", "services6", "vip_prefixes6", "quic_ids", "deny6", "allow4", "allow6", "rule_sources4",
          "rule_sources6", "rule_targets4", "rule_targets6")  # fmt: skip


def memory(twin: TwinDataPlane) -> dict[str, object]:
    """All of it but flows and counters."""
    found: dict[str, object] = {name: getattr(twin.tables.arrays, name).tobytes() for name in ARRAYS}
    cells = twin.tables.arrays.deny4_cells.reshape(-1).view(np.uint64)
    used = np.flatnonzero(cells)
    found["deny4_cells"] = used.tobytes(), cells[used].tobytes()
    for name in TABLES:
        keys, values = getattr(twin.tables, name).read()
        found[name] = {k.tobytes(): v.tobytes() for k, v in zip(keys, values, strict=True)}
    return found

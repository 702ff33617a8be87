"""What the program has counted since it was last asked: packets and bytes by verdict, and QUIC packets by kind."""

from collections import Counter
from collections.abc import Iterable

from rig import Rig

from lb.dataplane.layout import layout

Counts = dict[str, int]
"""By the counter's name, those that rose."""

QUIC_KINDS = ("by_id", "unknown", "without")


class Counted:
    """Reads a rig's counters."""

    def __init__(self, rig: Rig) -> None:
        self._tables = rig.plane.tables
        self._seen = self._read()

    def rose(self) -> Counts:
        """By how much each rose since the last call."""
        before, self._seen = self._seen, self._read()
        return {name: count - before[name] for name, count in self._seen.items() if count != before[name]}

    def _read(self) -> Counts:
        rows, quic = self._tables.verdict_counters.read(), self._tables.quic_counters.read()[0]
        packets, octets = rows["packets"].tolist(), rows["bytes"].tolist()
        seen = {f"quic {kind}": int(quic[kind]) for kind in QUIC_KINDS}
        for verdict in layout().verdicts:
            seen[verdict.name] = packets[verdict.number]
            seen[f"{verdict.name} bytes"] = octets[verdict.number]
        return seen


def expected(verdicts: Iterable[tuple[str, int]], quic: Counter[str]) -> Counts:
    """What should have been counted of packets with these verdicts and lengths, and of QUIC."""
    counts = Counter({f"quic {kind}": quic[kind] for kind in QUIC_KINDS if quic[kind]})
    for name, length in verdicts:
        counts[name] += 1
        counts[f"{name} bytes"] += length
    return dict(counts)

"""What the program has counted since it was last asked: by verdict, by rule, of QUIC and of guarded services."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from rig import Rig

from lb.dataplane.layout import layout
from tests.reference import Reference

Counts = dict[str, int]
"""By the counter's name, those that rose."""

QUIC_KINDS = ("by_id", "unknown", "without")
RULE_KINDS = ("packets", "bytes", "dropped_packets", "dropped_bytes")
GUARD_KINDS = ("known", "tested", "proven", "refused", "learned")


class Counted:
    """Reads a rig's counters."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._tables = rig, rig.plane.tables
        self._rules: dict[str, int] = {}
        self._guards: dict[str, int] = {}
        self._seen = self._read()

    def begin(self, document: dict[str, Any]) -> None:
        """Count anew from here on, for the rules and the guarded services of a document that is in force."""
        self._rules = {
            rule["name"]: self._rig.rule_number(rule["name"]) for rule in document.get("rules", [])
        }
        guarded = [s["name"] for s in document["services"] if s.get("flood_protection")]
        self._guards = {name: self._rig.plan(name).number for name in guarded}
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
        for what, counters, numbers, kinds in (
            ("rule", self._tables.rule_counters, self._rules, RULE_KINDS),
            ("guard", self._tables.guard_counters, self._guards, GUARD_KINDS),
        ):
            rows = counters.read_some(list(numbers.values()))
            for name, row in zip(numbers, rows, strict=True):
                seen |= {f"{what} {name} {kind}": int(row[kind]) for kind in kinds}
        return seen


def expected(verdicts: Iterable[tuple[str, int]], reference: Reference) -> Counts:
    """What should have been counted of packets with these verdicts and lengths, and what the reference counted."""
    counts = Counter({f"quic {kind}": reference.quic[kind] for kind in QUIC_KINDS})
    for name, length in verdicts:
        counts[name] += 1
        counts[f"{name} bytes"] += length
    for what, counted in (("rule", reference.admission.counted), ("guard", reference.guards.counted)):
        counts.update({f"{what} {name} {kind}": count for (name, kind), count in counted.items()})
    return {name: count for name, count in counts.items() if count}

"""Writes lb/dataplane/known_answers.json: frames in a known state, and what the reference makes of each.

    python tests/known_answers.py      writes the file; `--check` only says whether it would be another

The state is what the control plane writes for the documents here, taken from the twin's memory; the answers are those
of tests/reference. Nothing of it comes from the C. Our MAC is zero here, our interface 0 (another's: 1) and the outer
sources are the settings' defaults: lb/dataplane/known.py puts in what a build was compiled with.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "xdp"))
# Before the directory of this file, which holds folders called lb and api.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import known_frames
from known_case import Case, Stage

from lb.dataplane.protocol import NextHop
from lb.dataplane.twin import SMALL, TwinDataPlane
from lb.model import Config
from lb.model.document import from_mapping
from lb.reconcile.guard import Guard
from lb.reconcile.loop import Reconciler
from lb.settings import NAT_BLOCK
from lb.store import SqliteStore
from tests.reference import Reference, balancer

FILE = Path(__file__).resolve().parents[1] / "lb" / "dataplane" / "known_answers.json"
NOW = 1_900_000_000.0
OURS = bytes(6)
ELSEWHERE = bytes.fromhex("020000000e01")
"""The MAC of another interface of ours."""
NO_PLACE = 0xFFFE
"""What all slots of a ring say that no known frame asks for: a place that no service has."""
SIZES = replace(SMALL, nat_slots=3 * NAT_BLOCK)
"""A block for each pool address, and one for flows that keep their source."""
_ZEROS = 64
"""So many zeros at a frame's end are still written out."""
_TABLES = ("services4", "services6", "vip_prefixes6", "quic_ids", "deny6", "allow4", "allow6", "rule_sources4",
           "rule_sources6", "rule_targets4", "rule_targets6")  # fmt: skip
_ARRAYS = ("service_rings", "backends", "deny4_cells", "deny4_runs", "deny4_lines", "deny4_dense", "rule_bank",
           "rule_cells", "rule_sets", "rule_actions", "service_guards", "watching", "nat_pools", "nat_addresses",
           "nat_lists")  # fmt: skip
_NEVER = 1 << 30
"""A second of the packet path's clock that no machine lives to see."""
_EVERYTHING = {"most": 1 << 20, "bytes": 256, "verdicts": (1 << 64) - 1}
"""As struct sampling: whoever looks sees every packet."""


class KnownPlane(TwinDataPlane):
    """A twin whose ways to the backends are those of known_frames."""

    def next_hops(self, addresses: Iterable[bytes]) -> Mapping[bytes, NextHop]:
        """Here, elsewhere, unresolved or narrow, by address."""
        return {packed: _way(packed) for packed in addresses}


def _way(packed: bytes) -> NextHop:
    address = str(ip_address(packed))
    away = address in known_frames.ELSEWHERE
    return NextHop(
        interface="known1" if away else "twin0",
        ifindex=int(away),
        source_mac=ELSEWHERE if away else OURS,
        mac=None if address in known_frames.UNRESOLVED else b"\x02\x10" + packed[-4:],
        mtu=known_frames.MTU.get(address, 1500),
        gateway=False,
    )


@dataclass
class _Writer:
    """The control plane and the reference in the same state, and what was in memory a stage ago."""

    plane: KnownPlane
    control: Reconciler
    references: dict[str, Reference]
    slots: set[int]
    before: dict[str, Any]

    def stage(self, stage: Stage) -> dict[str, Any]:
        """Go to the next state; its differences to the one before, and its cases."""
        document = stage.document

        def edit(have: Config) -> Config:
            return from_mapping(document, now=NOW, have=have)

        config = self.control.change(
            edit, actor="test", summary="known answers", guard=Guard(force=True)
        ).config
        addresses = {b.address.packed for s in config.services.values() for b in s.backends}
        hops = self.plane.next_hops(addresses)
        for without, reference in self.references.items():
            settings = known_frames.SETTINGS_WITHOUT.get(without, {})
            both = {**document.get("settings", {}), **settings}
            other = from_mapping({**document, "settings": both}, now=NOW, have=Config())
            reference.configure(other, hops, NOW, document.get("rules", ()))
            for name, budget in stage.attacked.items():
                guard = reference.guards.by_name[name]
                guard.attack_until, guard.budget = _NEVER, budget
            if stage.nat_begins:
                reference.nat.nat.forget()
        self._as_packets_would(stage)
        done = [self._answered(case) for case in stage.cases]
        memory = self._memory() | (self._no_flow_of_nat() if stage.nat_begins else {})
        return {"memory": memory, "tables": self._tables(), "cases": done}

    def _as_packets_would(self, stage: Stage) -> None:
        """What is in memory by what has come, or by who looks, and not by the document."""
        arrays = self.plane.tables.arrays
        for name, budget in stage.attacked.items():
            row = arrays.service_guards[self.control._plans.services.by_name[name].number]
            row["attack_until"], row["budget"] = _NEVER, budget
        if stage.looked_at:
            for member, value in _EVERYTHING.items():
                arrays.watching[member] = value

    def _answered(self, case: Case) -> dict[str, Any]:
        frame = case.frame
        answer = self.references[case.lacks].run(frame)
        assert answer.verdict == case.verdict, f"{case.name}: the reference says {answer.verdict}"
        document: dict[str, Any] = {
            "name": case.name,
            "needs": [f"HAVE_{name}" for name in case.needs.split()],
            "lacks": [f"HAVE_{name}" for name in case.lacks.split()],
            "remembers": case.remembers,
            "frame": _hex(frame),
            "verdict": answer.verdict,
            "out": None if answer.frame == frame else _hex(answer.frame),
        }
        return {key: value for key, value in document.items() if value not in ([], False)}

    def _memory(self) -> dict[str, dict[str, str]]:
        """For each array the words that are not as they were: byte offset → bytes."""
        arrays = self.plane.tables.arrays
        changed: dict[str, dict[str, str]] = {}
        for name in _ARRAYS:
            words = getattr(arrays, name).view(np.uint8).reshape(-1, 8)
            old = self.before.get(name, np.zeros_like(words))
            rows = np.flatnonzero((words != old).any(axis=1))
            self.before[name] = words.copy()
            runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows) else []
            changed[name] = {str(int(run[0]) * 8): words[run].tobytes().hex() for run in runs}
        return {name: runs for name, runs in changed.items() if runs}

    def _no_flow_of_nat(self) -> dict[str, dict[str, str]]:
        """Zeros for all that known frames leave in NAT's memory; what is left in the index then leads nowhere."""
        arrays, plan = self.plane.tables.arrays, self.control._plans.nat
        first, last = plan.ports
        zeros = {"nat_cursors": {"0": bytes(arrays.nat_cursors.nbytes).hex()}}
        for name in ("nat_forward", "nat_reply"):
            width = getattr(arrays, name).itemsize
            places = [(block * NAT_BLOCK + first) * width for block in plan.in_use]
            zeros[name] = {str(place): bytes((last - first + 1) * width).hex() for place in places}
        return zeros

    def rings(self) -> dict[str, dict[str, int]]:
        """For each ring in use the slots that were asked for: number of the place."""
        arrays = self.plane.tables.arrays
        in_use = sorted(set(arrays.service_rings["ring"].tolist()) - {0})
        return {
            str(ring): {str(slot): int(arrays.rings[ring, slot]) for slot in sorted(self.slots)}
            for ring in in_use
        }

    def _tables(self) -> dict[str, dict[str, str]]:
        """For each table the entries that are not as they were: key → value."""
        changed: dict[str, dict[str, str]] = {}
        for name in _TABLES:
            keys, values = getattr(self.plane.tables, name).read()
            entries = {k.tobytes().hex(): v.tobytes().hex() for k, v in zip(keys, values, strict=True)}
            old = self.before.get(name, {})
            assert old.keys() <= entries.keys(), f"{name}: no entry may go from one stage to the next"
            changed[name] = {key: value for key, value in sorted(entries.items()) if old.get(key) != value}
            self.before[name] = entries
        return {name: entries for name, entries in changed.items() if entries}


def _hex(frame: bytes) -> str:
    """In hex; where it ends with many zeros, these as a number."""
    zeros = len(frame) - len(frame.rstrip(b"\0"))
    return f"{frame[:-zeros].hex()}+{zeros}" if zeros > _ZEROS else frame.hex()


def text() -> str:
    """The whole file."""
    slots: set[int] = set()
    ring_slot = balancer.ring_slot

    def noted(*args: Any, **options: Any) -> int:
        slot = ring_slot(*args, **options)
        slots.add(int(slot))
        return slot

    plane, store = KnownPlane(SIZES), SqliteStore(":memory:")
    control = Reconciler(store, plane, clock=lambda: NOW)
    control.start()
    balancer.ring_slot = noted
    try:
        without = {case.lacks for stage in known_frames.STAGES for case in stage.cases}
        references = {lacks: Reference(OURS, 0) for lacks in {"", *without}}
        writer = _Writer(plane, control, references, slots, {})
        stages = []
        for stage in known_frames.STAGES:
            slots.clear()
            answers = writer.stage(stage)
            stages.append({"rings": writer.rings(), **answers})
    finally:
        balancer.ring_slot = ring_slot
        control.stop()
        store.close()
    document = {
        "charter": "Known frames and their answers, written by tests/known_answers.py: do not edit.",
        "elsewhere_in_rings": NO_PLACE,
        "stages": stages,
    }
    return json.dumps(document, indent=1) + "\n"


def main(arguments: list[str]) -> int:
    """Write the file, or (--check) compare it; 1 if it is another."""
    now, written = text(), FILE.read_text() if FILE.exists() else ""
    if arguments == ["--check"]:
        return int(now != written)
    FILE.write_text(now)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

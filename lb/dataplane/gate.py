"""The known-answer gate: a compiled program must treat known frames correctly in this very kernel.

It runs over maps of its own (scratch.py) in a known state (known.py): nothing that is in force is touched or counted.
"""

from collections.abc import Mapping

from lb.dataplane.known import Case, Stage, document, stages
from lb.dataplane.layout import Verdict, layout
from lb.dataplane.scratch import Scratch
from lb.dataplane.tables import array_bytes, capacities
from lb.errors import KnownAnswerError
from lb.settings import TableSizes

_ACTIONS = {0: "aborted", 1: "drop", 2: "pass", 3: "tx", 4: "redirect"}


def check(
    code: bytes,
    flags: int,
    features: frozenset[str],
    constants: Mapping[str, int],
    *,
    second: bytes = b"",
    stage_slot: int = 0,
) -> int:
    """Test bytecode whose maps are open; returns the number of frames. second: the program that it calls at a slot.

    KnownAnswerError names the first case that differs. OSError: the kernel refuses a scratch map or the program.
    """
    known = stages(features, constants)
    asked = 0
    with Scratch(code, flags, _room(known), second, stage_slot) as scratch:
        scratch.fill("rings", document()["elsewhere_in_rings"])
        bench = _Bench(scratch)
        for stage in known:
            for name, runs in stage.memory.items():
                scratch.write_memory(name, runs)
            for name, entries in stage.tables.items():
                scratch.write_entries(name, entries)
            for case in stage.cases:
                if (difference := bench.difference(case)) is not None:
                    raise KnownAnswerError(
                        f'the compiled program fails the known packet "{case.name}" and is not put in force: '
                        f"{difference}: undo what was changed in xdp/, or report it with the kernel's version"
                    )
                asked += 1
    return asked


class _Bench:
    """A program under test, and how often each verdict was counted."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._by_name = {v.name: v for v in layout().verdicts}
        self._seen = {v.number: (0, 0) for v in layout().verdicts}

    def difference(self, case: Case) -> str | None:
        """What is wrong in a case; None if nothing is."""
        # The budget of ICMP answers is the build's; here each case has it whole.
        self._scratch.write_memory("too_big_budget", {0: bytes(8)})
        action, out = self._scratch.run(case.frame)
        expected = self._by_name[case.verdict]
        if (packets := self._rise(expected)) != (1, len(case.frame)):
            return f"expected {expected.name}, got {self._counted(expected, packets)}"
        if _ACTIONS.get(action) != expected.action:
            return f"expected action {expected.action}, got {_ACTIONS.get(action, action)}"
        return _difference(case.out, out)

    def _rise(self, verdict: Verdict) -> tuple[int, int]:
        """Packets and bytes counted since the verdict was last looked at."""
        row = self._scratch.verdicts.read_some([verdict.number])[0]
        before, now = self._seen[verdict.number], (int(row["packets"]), int(row["bytes"]))
        self._seen[verdict.number] = now
        return now[0] - before[0], now[1] - before[1]

    def _counted(self, expected: Verdict, rise: tuple[int, int]) -> str:
        names = [v.name for v in self._by_name.values() if v != expected and self._rise(v)[0]]
        if rise[0]:
            names.append(f"{expected.name} with {rise[0]} packets of {rise[1]} bytes")
        return " and ".join(names) or "no verdict"


def _difference(expected: bytes, out: bytes) -> str | None:
    if expected == out:
        return None
    if len(expected) != len(out):
        return f"expected {len(expected)} bytes, got {len(out)}"
    at = next(n for n, (a, b) in enumerate(zip(expected, out, strict=True)) if a != b)
    return f"expected {expected[at]:#04x} at byte {at}, got {out[at]:#04x}"


def _room(known: list[Stage]) -> dict[str, int]:
    """How many entries of each map the known state fills."""
    sizes, constant = TableSizes(), layout().constants
    whole, room = capacities(sizes), dict[str, int]()
    for stage in known:
        for name, runs in stage.memory.items():
            width = array_bytes(name, sizes) // whole[name]
            last = max((offset + len(data) for offset, data in runs.items()), default=0)
            room[name] = max(room.get(name, 1), -(-last // width))
        for table, entries in stage.tables.items():
            for name in (table, f"{table}_more", f"{table}_hosts", f"{table}_trie"):
                if name in whole:
                    room[name] = room.get(name, 0) + len(entries)
    room["rings"] = -(-room["rings"] // constant["RING_CELLS"]) * constant["RING_CELLS"]
    return room

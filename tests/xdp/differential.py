"""The program and the reference side by side: the same configuration, the same frames, and where they differ."""

import ctypes
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import generate
from plane import OUR_IFINDEX, OUR_MAC
from rig import XDP_ACTIONS, Rig

from lb.dataplane import libbpf
from lb.dataplane.layout import layout
from lb.model import Config
from lb.model.document import from_mapping

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.reference import Reference

Step = dict[str, Any]
"""Either {"document", "link"}, which configures both, or {"frame"}, in hex, which both run."""

_MAC = bytes.fromhex(OUR_MAC.replace(":", ""))
_BY_NAME = {v.name: v for v in layout().verdicts}
_ACTION_NAMES = {number: name for name, number in XDP_ACTIONS.items()}
_LINK = {"mtu": 1500, "unresolved": [], "unreachable": [], "behind_gateway": [], "ifindex": {}}


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the two part: after these steps, of which the last is a frame."""

    steps: tuple[Step, ...]
    expected: str
    actual: str

    def __str__(self) -> str:
        steps = ",\n  ".join(json.dumps(step) for step in self.steps)
        return f"reference: {self.expected}\nprogram:   {self.actual}\nsteps:\n[\n  {steps}\n]"


class Pair:
    """A rig and a reference that are kept in the same state."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._reference = Reference(_MAC, OUR_IFINDEX)
        self._counters = _Counters(rig)
        self.frames = 0

    def configure(self, step: Step) -> None:
        """Both take the document, and the ways to the backends; flows stay."""
        plane, ways = self._rig.plane, {**_LINK, **step.get("link", {})}
        for name, value in ways.items():
            setattr(plane, name, set(value) if isinstance(value, list) else value)
        document = step["document"]
        self._rig.apply(
            services=document["services"],
            block=document.get("blocklist", []),
            allow=document.get("allowlist", []),
            settings=document.get("settings", {}),
        )
        self._rig.follow()
        config = from_mapping(document, now=self._rig.now, have=Config())
        addresses = {b.address.packed for s in config.services.values() for b in s.backends}
        self._reference.configure(config, plane.next_hops(addresses), self._rig.now)

    def forget_flows(self) -> None:
        """Both have never seen a flow."""
        self._rig.flows.view("u1")[:] = 0
        self._reference.flows.clear()

    def run(self, frame: bytes) -> tuple[str, str] | None:
        """None if both do the same with a frame; else what the reference does, and what the program does."""
        self.frames += 1
        answer = self._reference.run(frame)
        verdict = _BY_NAME[answer.verdict]
        action, out = libbpf.test_run(self._rig.program.fd, frame)
        counted = self._counters.rose(verdict.number, len(frame))
        if counted and action == XDP_ACTIONS[verdict.action] and out == answer.frame:
            return None
        name = answer.verdict if counted else self._counters.which()
        expected = f"{answer.verdict} {verdict.action} {answer.backend} {answer.frame.hex()}"
        return expected, f"{name} {_ACTION_NAMES.get(action, action)} {out.hex()}"

    def replay(self, steps: Iterable[Step]) -> Difference | None:
        """Run steps from a state without flows, up to the first difference."""
        self.forget_flows()
        done: list[Step] = []
        for step in steps:
            done.append(step)
            if "document" in step:
                self.configure(step)
            elif (parted := self.run(bytes.fromhex(step["frame"]))) is not None:
                return Difference(tuple(done), *parted)
        return None

    def session(self, chance: Random, frames: int) -> Difference | None:
        """One random configuration, altered half-way, with so many frames."""
        document, ways = generate.configuration(chance), generate.link(chance)
        done: list[Step] = [{"document": document, "link": ways}]
        self.forget_flows()
        self.configure(done[0])
        earlier: list[bytes] = []
        towards = generate.targets(document)
        for number in range(frames):
            if number == frames // 2:
                done.append({"document": generate.altered(chance, document), "link": ways})
                self.configure(done[-1])
            if earlier and chance.random() < 0.3:
                frame = generate.again(chance, chance.choice(earlier))
            else:
                frame = generate.frame(chance, towards)
                earlier.append(frame)
            done.append({"frame": frame.hex()})
            if (parted := self.run(frame)) is not None:
                return Difference(tuple(done), *parted)
        return None

    def shrunk(self, difference: Difference, seconds: float) -> Difference:
        """A shorter way to a difference: fewer steps, then a shorter last frame of plainer bytes."""
        best = difference
        deadline = time.monotonic() + seconds

        def holds(steps: Sequence[Step]) -> bool:
            nonlocal best
            if time.monotonic() > deadline:
                return False
            found = self.replay(steps)
            if found is not None and len(found.steps) == len(steps):
                best = found
                return True
            return False

        alone = [s for s in best.steps if "document" in s][-1:] + list(best.steps[-1:])
        if not holds(alone):
            # Documents stay where they are: without one, a frame would meet what an earlier attempt left behind.
            order = {id(step): at for at, step in enumerate(best.steps)}
            documents, last = [s for s in best.steps if "document" in s], best.steps[-1]

            def within(kept: list[Step]) -> list[Step]:
                return [*sorted([*documents, *kept], key=lambda step: order[id(step)]), last]

            _without([s for s in best.steps[:-1] if "frame" in s], lambda kept: holds(within(kept)))
        head = best.steps[:-1]
        frame = bytes.fromhex(best.steps[-1]["frame"])
        frame = bytes(
            _without(
                list(frame), lambda kept: len(kept) >= 14 and holds([*head, {"frame": bytes(kept).hex()}])
            )
        )
        for at in range(len(frame)):
            plain = frame[:at] + b"\0" + frame[at + 1 :]
            if frame[at] and holds([*head, {"frame": plain.hex()}]):
                frame = plain
        return best


class _Counters:
    """Reads one verdict's counter in one system call, since a read of all takes four times as long as a test run."""

    def __init__(self, rig: Rig) -> None:
        self._all = rig.plane.tables.verdict_counters
        self._fd: int = self._all._fd  # type: ignore[attr-defined]
        self._key = ctypes.c_uint32()
        self._values = (ctypes.c_uint64 * (2 * libbpf.possible_cpus()))()
        self._lookup = libbpf._lib().bpf_map_lookup_elem
        self._arguments = ctypes.byref(self._key), ctypes.byref(self._values)
        self._take()

    def rose(self, verdict: int, octets: int) -> bool:
        """Whether this verdict's counter says one packet of so many bytes more than when it was last looked at."""
        self._key.value = verdict
        self._lookup(self._fd, *self._arguments)
        packets, total = sum(self._values[::2]), sum(self._values[1::2])
        before = self._seen[verdict]
        self._seen[verdict] = packets, total
        return (packets - before[0], total - before[1]) == (1, octets)

    def which(self) -> str:
        """The verdicts whose counters rose since they were last looked at."""
        before = self._seen
        self._take()
        return (
            "+".join(v.name for v in layout().verdicts if self._seen[v.number] != before[v.number])
            or "nothing"
        )

    def _take(self) -> None:
        self._seen = [(int(row["packets"]), int(row["bytes"])) for row in self._all.read()]


def _without(items: list[Any], holds: Callable[[list[Any]], bool]) -> list[Any]:
    """As few of the items as `holds` still is true of: halves are left out, then quarters, down to single ones."""
    size = max(len(items) // 2, 1)
    while items:
        at = 0
        while at < len(items):
            fewer = items[:at] + items[at + size :]
            if holds(fewer):
                items = fewer
            else:
                at += size
        if size == 1:
            break
        size //= 2
    return items

"""The program and the reference side by side: the same configuration, the same frames, and where they differ."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from random import Random
from typing import Any

import batch
import counts
import random_frames
import states
from plane import OUR_IFINDEX, OUR_MAC
from rig import XDP_ACTIONS, Rig

from lb.dataplane.layout import layout
from lb.model import Config
from lb.model.document import from_mapping

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.reference import Answer, Reference

Step = dict[str, Any]
"""Either {"document", "link", "guards"}, which configures both, or {"frame"}, in hex, which both run.

guards: for services under attack "attack", or "refuse" if nobody unknown comes in without a proof.
"""

BATCH = 250
"""Frames between two looks at the counters. Limits and tests of SYNs begin anew with each."""
ATTACK_SECONDS = 80_000
"""How long an attack lasts, less than the guards' time to hold, so that none becomes shorter."""

_MAC = bytes.fromhex(OUR_MAC.replace(":", ""))
_ACTION_OF = {v.name: XDP_ACTIONS[v.action] for v in layout().verdicts}
_NUMBER_OF = {v.name: v.number for v in layout().verdicts}
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


@dataclass(frozen=True, slots=True)
class Parting:
    """The frame of a batch at which the two part; number is None if only what was counted of all differs."""

    number: int | None
    expected: str
    actual: str


class Pair:
    """A rig and a reference that are kept in the same state."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._reference = Reference(_MAC, OUR_IFINDEX)
        self._counted = counts.Counted(rig)
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
            rules=(rules := document.get("rules", [])),
            settings=document.get("settings", {}),
        )
        self._rig.follow()
        config = from_mapping(document, now=self._rig.now, have=Config())
        addresses = {b.address.packed for s in config.services.values() for b in s.backends}
        self._reference.configure(config, plane.next_hops(addresses), self._rig.now, rules)
        self._rig.sweep()
        self._attack(step.get("guards", {}))
        self._counted.begin(document)

    def _attack(self, states: Mapping[str, str]) -> None:
        """Guarded services are under attack as the step says, the others in peace."""
        rows = self._rig.plane.tables.arrays.service_guards
        for name, guard in self._reference.guards.by_name.items():
            number, state = self._rig.plan(name).number, states.get(name)
            rows[number]["attack_until"] = self._rig.plane.clock_seconds() + ATTACK_SECONDS if state else 0
            guard.attack_until = ATTACK_SECONDS if state else 0
            if state == "refuse":
                guard.budget = 0
            rows[number]["budget"] = guard.budget

    def forget(self) -> None:
        """Both have never seen a packet."""
        self._rig.flows.view("u1")[:] = 0
        self._rig.forget_nat()
        self._rig.plane.tables.arrays.known_sources[:] = 0
        self._reference.forget()

    def _begin(self) -> None:
        """Nobody has used anything of a limit, and no SYN waits to come again."""
        arrays = self._rig.plane.tables.arrays
        for name in ("limit_totals", "limit_buckets", "limit_sketch", "syn_tests"):
            getattr(arrays, name).view("u1")[:] = 0
        self._reference.limits.clear()
        self._reference.guards.forget_tests()

    def run(self, frames: Sequence[bytes], *, begin: bool = True) -> Parting | None:
        """Both run these frames; None if they do the same with each, and count the same.

        begin: limits and tests of SYNs begin anew.
        """
        self.frames += len(frames)
        if begin:
            self._begin()
        self._reference.clear_counts()
        answers = [self._reference.run(frame) for frame in frames]
        tracer = self._rig.plane.tracer("rig0")
        dry = batch.Dry(tracer.program.fd, tracer.verdict_address)
        done, explained, traced = batch.run_both(self._rig.program.fd, dry, frames)
        rose = self._counted.rose()
        verdicts = [(a.verdict, len(frame)) for a, frame in zip(answers, frames, strict=True)]
        expected = counts.expected(verdicts, self._reference)
        actions = [_ACTION_OF[a.verdict] for a in answers]
        if done.actions.tolist() != actions or done.out != b"".join(a.frame for a in answers):
            return _first(answers, done, str(rose) if len(frames) == 1 else "")
        named = [_NUMBER_OF[a.verdict] for a in answers]
        if (explained.out, explained.actions.tolist(), traced.tolist()) != (done.out, actions, named):
            return _first(answers, explained, "explained", traced.tolist())
        if rose != expected:
            return Parting(0 if len(frames) == 1 else None, str(expected), str(rose))
        return None

    def replay(self, steps: Sequence[Step], *, size: int = BATCH) -> Difference | None:
        """Run steps from a state without flows, up to the first difference; size: of a batch."""
        self.forget()
        at = since = 0
        while at < len(steps):
            if "document" in steps[at]:
                self.configure(steps[at])
                at += 1
                since = 0
                continue
            some = takewhile(lambda step: "frame" in step, islice(steps, at, at + size))
            frames = [bytes.fromhex(step["frame"]) for step in some]
            parting = self.run(frames, begin=since % BATCH == 0)
            since += len(frames)
            if parting is not None and parting.number is None:
                # The counters say that something differs, but not at which frame.
                found = self.replay(steps[: at + len(frames)], size=1)
                return found or _unlike(steps[: at + len(frames)], parting)
            if parting is not None:
                return _unlike(steps[: at + (parting.number or 0) + 1], parting)
            at += len(frames)
        return None

    def _known(self) -> list[random_frames.Known]:
        """The flows of mode nat that there are."""
        entries = self._reference.nat.nat.entries.values()
        flows = [(random_frames.Sent(*e.reply), e.flow) for e in entries]
        return [
            (reply, random_frames.Sent(f.vip, f.port, f.client, f.client_port, f.protocol))
            for reply, f in flows
        ]

    def session(self, chance: Random, frames: int, *, nat: bool = False) -> Difference | None:
        """One random configuration, altered half-way, with so many frames; nat: with services of mode nat."""
        document, ways = states.configuration(chance, nat=nat), states.link(chance)
        altered = states.altered(chance, document, nat=nat)
        towards = random_frames.targets(document)
        self.forget()
        steps: list[Step] = []
        earlier: list[bytes] = []
        for half in (document, altered):
            steps.append({"document": half, "link": ways, "guards": states.guards(chance, half)})
            self.configure(steps[-1])
            for start in range(0, frames // 2, BATCH):
                count, known = min(BATCH, frames // 2 - start), self._known()
                some = random_frames.frames(chance, towards, count, earlier, half, known=known)
                steps += [{"frame": frame} for frame in some]
                parting = self.run(some)
                if parting is not None:
                    written = [{k: v.hex() if k == "frame" else v for k, v in s.items()} for s in steps]
                    return self.replay(written) or _unlike(written, parting)
        return None


def _unlike(steps: Sequence[Step], parting: Parting) -> Difference:
    return Difference(tuple(steps), parting.expected, parting.actual)


def _first(answers: Sequence[Answer], done: batch.Outcomes, rose: str, traced: Sequence[int] = ()) -> Parting:
    """The first frame that left, or by its trace ended, otherwise than it should have."""
    for number, answer in enumerate(answers):
        action, out = int(done.actions[number]), done.frame(number)
        named = not traced or traced[number] == _NUMBER_OF[answer.verdict]
        if action != _ACTION_OF[answer.verdict] or out != answer.frame or not named:
            wanted = f"{answer.verdict} {answer.backend} {answer.frame.hex()}"
            return Parting(number, wanted, f"{_ACTION_NAMES.get(action, action)} {rose} {out.hex()}")
    raise AssertionError("they differ, but in no frame")

"""The program group: nanoseconds a packet by BPF_PROG_TEST_RUN, net of the same harness around an empty program.

progbench.c puts the packet back, varies it and tail-calls what is measured. Samples of all cases, of their floors and
of their peers are taken in turns, so that what else the machine does falls on all alike.
"""

import ctypes
import time
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from generate import make_template

from benchmarks import figures
from benchmarks.cases import ENDLESS, FIRST_SOURCE, SCATTER, SOURCES, Traffic, source_of
from benchmarks.figures import Figure
from benchmarks.world import on_one_cpu
from lb.dataplane import libbpf, xdpload
from lb.errors import SluiceError

SOURCE = Path(__file__).resolve().parents[1] / "progbench.c"
ACTIONS = {"drop": 1, "pass": 2, "tx": 3, "redirect": 4}
GROWTHS = (20, 40)
"""Bytes of outer header for which there is an empty program that adds them."""
_WARM_UP = 1_000
_ANSWERS = 1 << 17
_CHECKED = 200
"""Packets of each case that are looked at one by one."""
_GENERATOR_MAC = "02:00:00:fa:00:00"


class Harness:
    """progbench.c for frames of one length: what a measured program runs in."""

    def __init__(self, length: int) -> None:
        """Compile and load. CompileError."""
        self.length = length
        values = {"LENGTH": length, "ANSWERS": _ANSWERS, "SCATTER": SCATTER}
        values |= {"FIRST_SOURCE": FIRST_SOURCE, "SOURCES": SOURCES}
        self._bpf: Any = xdpload.compile_source(SOURCE, [f"-D{k}={v}u" for k, v in values.items()])
        self._restore = libbpf.prog_load("restore", self._bpf.dump_func(b"restore"))
        self.unchanged = libbpf.prog_load("unchanged", self._bpf.dump_func(b"unchanged"))
        self.grown = {
            growth: libbpf.prog_load(f"grown{growth}", self._bpf.dump_func(f"grown{growth}".encode()))
            for growth in GROWTHS
        }

    def choose(self, program: int, plan: bytes) -> None:
        """What runs next, and on which frames."""
        plans = self._bpf[b"plans"]
        plans[0] = plans.Leaf.from_buffer_copy(plan)
        self._bpf[b"measured"][ctypes.c_int(0)] = ctypes.c_int(program)

    @property
    def flow(self) -> int:
        """The number of the next flow, from 0 on."""
        return int(self._bpf[b"next_flow"][0].value)

    @flow.setter
    def flow(self, number: int) -> None:
        table = self._bpf[b"next_flow"]
        table[0] = table.Leaf(number)

    def answer(self, answers: np.ndarray) -> None:
        """What backends answer from now on: a row of 16 bytes for each flow (struct answer), ANSWERS at most."""
        numbers = np.arange(len(answers), dtype=np.uint32)
        fd = self._bpf[b"answers"].map_fd
        libbpf.map_update_batch(fd, numbers.ctypes.data, answers.ctypes.data, len(answers))

    def run(self, packets: int) -> tuple[int, int]:
        """Run what was chosen; the last packet's XDP action, and by how many bytes it grew."""
        action, out = libbpf.test_run(self._restore, bytes(self.length), packets)
        return action, len(out) - self.length

    def frame(self) -> bytes:
        """What the next packet leaves as."""
        return libbpf.test_run(self._restore, bytes(self.length), 1)[1]

    def time(self, packets: int) -> float:
        """Nanoseconds of this thread a packet, harness included."""
        begin = time.thread_time_ns()
        libbpf.test_run(self._restore, bytes(self.length), packets)
        return (time.thread_time_ns() - begin) / packets


@cache
def harness(length: int) -> Harness:
    """The one for this length."""
    return Harness(length)


def plan_of(traffic: Traffic, mac: str) -> bytes:
    """The bytes of struct plan of progbench.c, for a receiver of this MAC."""
    template = make_template(
        traffic.protocol,
        "fd00::1" if ":" in traffic.destination else source_of(traffic.first),
        1024,
        traffic.destination,
        traffic.port,
        macs=(_GENERATOR_MAC, mac),
        length=traffic.length,
    )
    words = (traffic.first, traffic.count, int(traffic.random), traffic.vips - 1, 0, 0)
    return template.frame.ljust(traffic.length, b"\0") + b"".join(
        word.to_bytes(4, "little") for word in words
    )


def reply_plan(program: int, traffic: Traffic, mac: str) -> bytes:
    """A plan of what backends answer to these flows, which a program of mode nat forwards; answers are put in place."""
    place = harness(traffic.length)
    forward = plan_of(replace(traffic, random=False), mac)
    place.choose(program, forward)
    place.flow = 0
    sent = np.array([np.frombuffer(place.frame(), np.uint8) for _ in range(traffic.count)])
    answers = np.zeros((traffic.count, 16), np.uint8)
    for at, of in ((0, 30), (4, 26)):
        answers[:, at : at + 4] = sent[:, of : of + 4]
    answers[:, 8:10], answers[:, 10:12] = sent[:, 36:38], sent[:, 34:36]
    place.answer(answers)
    first = sent[0].tobytes()
    words = (0, traffic.count, int(traffic.random), 0, 1, 0)
    return first[6:12] + first[:6] + first[12:] + b"".join(word.to_bytes(4, "little") for word in words)


@dataclass
class Target:
    """One program that takes its turns over some traffic: the one measured, a floor, or a peer."""

    harness: Harness
    program: int
    plan: bytes
    traffic: Traffic
    samples: list[float] = field(default_factory=list)
    _flow: int = 0

    def choose(self) -> None:
        """Put it in place."""
        self.harness.choose(self.program, self.plan)
        self.harness.flow = self._flow

    def lap(self) -> None:
        """Every flow twice, so that all are established (of endless ones: as many as the flow table has slots)."""
        self.choose()
        flows = min(self.traffic.count, 1 << 21)
        if self.traffic.random:  # in turn, or some would be left out
            in_turn = self.plan[: self.harness.length + 8] + bytes(4) + self.plan[self.harness.length + 12 :]
            self.harness.choose(self.program, in_turn)
        self.harness.run(2 * flows)
        self._flow = self.harness.flow if self.traffic.count == ENDLESS else 0

    def sample(self, packets: int) -> None:
        """One sample. The caches are warmed with the same traffic first: others had their turn before."""
        self.choose()
        self.harness.run(min(self.traffic.count, packets) + _WARM_UP)
        self.samples.append(self.harness.time(packets))
        self._flow = self.harness.flow


class Probe:
    """A program over some traffic, the floors that belong to it, and a peer. Figures come after the rounds."""

    def __init__(self, name: str, program: int, traffic: Traffic, mac: str, action: str) -> None:
        """Check that packets end as they should, and establish the flows. SluiceError if they end otherwise."""
        self.name, self._action = name, action
        self._harness, self._traffic, self._plan = harness(traffic.length), traffic, plan_of(traffic, mac)
        if traffic.reply:
            self._plan = reply_plan(program, traffic, mac)
        self.target = self._target(program)
        self._mac, self._peer_name = mac, ""
        self.peer: Target | None = None
        growth = self._check(self.target)
        self._floors = [self._target(self._harness.unchanged)]
        if growth:
            self._floors.append(self._target(self._harness.grown[growth]))
        self.target.lap()

    def _target(self, program: int) -> Target:
        return Target(self._harness, program, self._plan, self._traffic)

    def _check(self, target: Target) -> int:
        """By how much its packets grow. SluiceError if they do not end as they should."""
        target.choose()
        names = {number: name for name, number in ACTIONS.items()}
        for _ in range(min(target.traffic.count, _CHECKED)):
            action, growth = self._harness.run(2)
            if action != ACTIONS[self._action]:
                raise SluiceError(
                    f"{self.name}: packets end as {names.get(action, action)}, not as {self._action}"
                )
        if growth and growth not in self._harness.grown:
            raise SluiceError(f"{self.name}: packets grow by {growth} bytes, and there is no floor for that")
        return growth

    def set_peer(self, name: str, program: int, flows: int) -> None:
        """Measure a peer's program too, on the first flows of this traffic. SluiceError if they end otherwise."""
        traffic = replace(self._traffic, count=flows)
        self.peer = Target(self._harness, program, plan_of(traffic, self._mac), traffic)
        self._peer_name = name
        self._check(self.peer)

    def sample(self, packets: int) -> None:
        """One round."""
        for target in (self.target, *self._floors, *([self.peer] if self.peer else [])):
            target.sample(packets)

    def figure(self) -> Figure:
        """Net of the floors. The packet grows once in the harness's floor and once in the program: hence their mean."""
        return figures.net(self.target.samples, [floor.samples for floor in self._floors])

    def peer_figure(self) -> tuple[str, Figure]:
        """The peer's name and figure; it leaves packets as they are."""
        assert self.peer is not None
        return self._peer_name, figures.net(self.peer.samples, [self._floors[0].samples])


def take_turns(probes: list[Probe], rounds: int, packets: int) -> None:
    """All rounds of all probes, interleaved, on one CPU."""
    with on_one_cpu():
        for _ in range(rounds):
            for probe in probes:
                probe.sample(packets)

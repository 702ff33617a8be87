"""One run of the bench: which balancers and peers are needed, in which order they are measured, what is reported."""

import contextlib
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from benchmarks import cases, paths, peers, programs
from benchmarks.cases import LabCase, ProgramCase, Setup
from benchmarks.control import Control
from benchmarks.daemon import Daemon
from benchmarks.effort import Effort
from benchmarks.figures import Figure
from benchmarks.paths import Bare, Way
from benchmarks.programs import Probe
from benchmarks.report import Point, Report, Result, Versus
from benchmarks.sweeps import sweep
from benchmarks.world import Cable
from lb.dataplane import xdpload

Say = Callable[[str], None]

NAMES = (
    *(case.name for case in (*cases.PROGRAM, *cases.LAB, *cases.CONTROL)),
    cases.UNUSED,
    *(sweep.name for sweep in cases.SWEEPS),
)
"""Everything that can be asked for."""
STARTED_AT_ONCE = 2
"""Balancers: starting is mostly compiling, and few machines compile more at once without slowing down."""


class Run:
    """A run inside the bench's world. Balancers and cables are made when the first case asks for them."""

    def __init__(
        self, folder: Path, effort: Effort, wanted: frozenset[str], report: Report, say: Say
    ) -> None:
        self._folder, self._effort, self._wanted, self._report, self._say = (
            folder,
            effort,
            wanted,
            report,
            say,
        )
        self._stack = contextlib.ExitStack()
        self._daemons: dict[str, Daemon] = {}
        self._cables = 0
        self._missing = peers.missing()
        self._bare = cache(Bare)

    def all(self) -> None:
        """Everything that is wanted, into the report. SluiceError if the balancer does not do what it should."""
        begin = time.monotonic()
        some = self._effort.thorough or not self._wanted >= set(NAMES)
        program = [
            case for case in cases.PROGRAM if case.name in self._wanted and (some or not case.thorough)
        ]
        lab = [case for case in cases.LAB if case.name in self._wanted and self._can_be(case)]
        sweeps = [each for each in cases.SWEEPS if each.name in self._wanted]
        with self._stack:
            setups = {case.setup for case in (*program, *sweeps)} | {case.receiver for case in lab}
            if cases.UNUSED in self._wanted:
                setups |= {"plain", "after_all"}
            self._start([name for name in cases.SETUPS if name in setups])
            self._compare_lengths()
            self._programs(program)
            self._lab(lab)
            for each in sweeps:
                self._say(f"cost over {each.changes}: {each.name}")
                found = sweep(each, self._daemons[each.setup], self._effort)
                self._report.sweeps[each.name] = [Point(x, figure) for x, figure in found]
        control = [
            case for case in cases.CONTROL if case.name in self._wanted and (some or not case.thorough)
        ]
        self._control(control)
        self._report.seconds = time.monotonic() - begin

    def _cable(self, name: str) -> Cable:
        self._cables += 1
        return Cable(name, self._cables)

    def _start(self, names: list[str]) -> None:
        """Balancers for these setups, brought into their states; a few start at once."""
        for at in range(0, len(names), STARTED_AT_ONCE):
            some = names[at : at + STARTED_AT_ONCE]
            self._say(f"starting balancers: {', '.join(some)}")
            for name in some:
                daemon = Daemon(self._cable(name), self._folder / name)
                self._daemons[name] = self._stack.enter_context(daemon)
            for name in some:
                self._daemons[name].wait()
                prepare(self._daemons[name], cases.SETUPS[name], everything_first=name == "after_all")
        if names and self._effort.settled:
            self._say("waiting until each program holds what is in use, and no more")
        for name, daemon in self._daemons.items():
            features = daemon.settle() if self._effort.settled else daemon.features()
            self._report.programs[name] = {"instructions": daemon.instructions(), "features": features}

    def _compare_lengths(self) -> None:
        if cases.UNUSED in self._wanted:
            plain, after = (self._report.programs[name]["instructions"] for name in ("plain", "after_all"))
            self._add(
                "program", cases.UNUSED, "instructions", Figure(after - plain, after - plain, 1), goal=0
            )

    def _programs(self, wanted: list[ProgramCase]) -> None:
        if not wanted:
            return
        self._say(f"programs: {len(wanted)} cases, {self._effort.rounds} rounds")
        probes = {}
        for case in wanted:
            daemon = self._daemons[case.setup]
            probe = Probe(case.name, daemon.program(), case.traffic, daemon.cable.mac, case.action)
            self._set_peer(probe, case)
            probes[case.name] = probe
        programs.take_turns(list(probes.values()), self._effort.rounds, self._effort.packets)
        for case in wanted:
            probe = probes[case.name]
            versus = Versus(*probe.peer_figure()) if probe.peer else None
            if case.versus in probes:
                versus = Versus(case.versus, probes[case.versus].figure())
            goal = case.goal
            if versus and case.margin:
                goal = versus.figure.minimum + case.margin
            katran = peers.KATRAN.get(case.name)
            recorded = Versus("Katran, on record", Figure(katran, katran, 1)) if katran else None
            self._add("program", case.name, "ns", probe.figure(), versus=versus, recorded=recorded, goal=goal)

    def _set_peer(self, probe: Probe, case: ProgramCase) -> None:
        """Have its peer measured beside it, if it has one that is here."""
        if case.peer in cases.MEMORY:
            probe.set_peer(case.peer, self._bare().callee(cases.MEMORY[case.peer]), case.traffic.count)
        elif case.peer == "xdp-filter" and case.peer not in self._missing:
            sources = min(case.traffic.count, peers.XDP_FILTER_MOST)
            peer = peers.load_xdp_filter(self._cable(f"x{sources}"), sources)
            name = f"xdp-filter, {sources:,} sources" if sources > 1 else "xdp-filter"
            probe.set_peer(name, peer, sources)

    def _can_be(self, case: LabCase) -> bool:
        """Whether its peer is installed; else it is left out, with the reason."""
        tool = peers.TOOL.get(case.receiver)
        if tool in self._missing:
            self._report.left_out[case.name] = (
                f"{tool} is not installed: apt-get install {self._missing[tool]}"
            )
        return tool not in self._missing

    def _lab(self, wanted: list[LabCase]) -> None:
        if not wanted:
            return
        self._say(f"whole paths: {len(wanted)} cases, {self._effort.lab_rounds} rounds")
        bare = self._bare()
        ways = {}
        for number, case in enumerate(wanted):
            daemon = self._daemons.get(case.receiver)
            cable = daemon.cable if daemon else self._receiver(case.receiver, f"lab{number}", bare)
            ways[case.name] = Way(case.name, cable, case.traffic, bare)
        paths.take_turns(list(ways.values()), self._effort.lab_rounds, self._effort.lab_packets)
        for case in wanted:
            versus = Versus(case.versus, ways[case.versus].figure()) if case.versus in ways else None
            goal = case.goal * versus.figure.minimum if case.goal and versus else None
            self._add("lab", case.name, "ns", ways[case.name].figure(), versus=versus, goal=goal)

    def _receiver(self, kind: str, name: str, bare: Bare) -> Cable:
        """A cable whose near end does what that kind does."""
        cable = self._cable(name)
        if kind == "empty_drop":
            xdpload.attach(cable.near, bare.drop)
        elif kind == "empty_tx":
            xdpload.attach(cable.near, bare.transmit)
        elif kind == "xdp-filter":
            peers.load_xdp_filter(cable, 1)
        elif kind == "nft_drop":
            peers.nft_drop(cable)
        else:
            peers.nft_dnat(cable)
        return cable

    def _control(self, wanted: list[cases.ControlCase]) -> None:
        if not wanted:
            return
        with Daemon(self._cable("control"), self._folder / "control") as daemon:
            daemon.wait()
            control = Control(daemon, self._folder, self._effort)
            found: dict[str, Figure] = {}
            for case in wanted:
                if case.name not in found:
                    self._say(f"control plane: {case.name}")
                    found |= control.measure(case.name)
        for case in wanted:
            self._add("control", case.name, case.unit, found[case.name], goal=case.goal)

    def _add(
        self,
        group: str,
        name: str,
        unit: str,
        figure: Figure,
        *,
        versus: Versus | None = None,
        recorded: Versus | None = None,
        goal: float | None = None,
    ) -> None:
        self._report.results.append(Result(group, name, unit, figure, versus, recorded, goal))


def prepare(daemon: Daemon, setup: Setup, *, everything_first: bool = False) -> None:
    """Bring a balancer into a state; everything_first: after it has had use for every feature."""
    if everything_first:
        daemon.call("PUT", "/v1/config", dict(cases.EVERYTHING))
    backends = daemon.cable.hosts(cases.BACKENDS, 6 if ":" in setup.vip else 4)
    daemon.apply(cases.services_of(setup, backends), cases.rules_of(setup), cases.settings_of(setup))
    if setup.prefixes:
        daemon.block(setup.prefixes)

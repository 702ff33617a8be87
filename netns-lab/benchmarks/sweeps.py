"""The sweeps: one program's figure as flows, prefixes, services or backends become more."""

import os
from dataclasses import replace

from benchmarks import cases, programs
from benchmarks.cases import Sweep, Traffic
from benchmarks.daemon import Daemon
from benchmarks.effort import Effort
from benchmarks.figures import Figure
from benchmarks.programs import Probe


def sweep(each: Sweep, daemon: Daemon, effort: Effort) -> list[tuple[int, Figure]]:
    """The figure at each point; the balancer is brought back to its setup. SluiceError."""
    setup, points = cases.SETUPS[each.setup], each.points[:: effort.stride]
    if each.changes == "flows":
        return _measure([(x, replace(each.traffic, count=x)) for x in points], each, daemon, effort)
    found = []
    for x in points:
        traffic = each.traffic
        if each.changes == "prefixes":
            daemon.block(x)
            if each.action == "drop":
                traffic = cases.blocked(x)
        elif each.changes == "services":
            daemon.apply(cases.services_of(replace(setup, protocols=("tcp",)), _backends(daemon), count=x))
            traffic = replace(traffic, vips=x)
        else:
            daemon.apply(cases.services_of(replace(setup, protocols=("tcp",)), daemon.cable.hosts(x)))
        found += _measure([(x, traffic)], each, daemon, effort)
    if each.changes == "prefixes":
        daemon.block(setup.prefixes)
    else:
        daemon.apply(
            []
        )  # a service more than there is room for, even for the moment of a change, would be refused
        daemon.apply(cases.services_of(setup, _backends(daemon)))
    return found


def _backends(daemon: Daemon) -> list[str]:
    return daemon.cable.hosts(cases.BACKENDS)


def _measure(
    points: list[tuple[int, Traffic]], each: Sweep, daemon: Daemon, effort: Effort
) -> list[tuple[int, Figure]]:
    """Points that one state of the balancer serves, in turns."""
    program = daemon.program()
    try:
        name, mac = each.name, daemon.cable.mac
        probes = [(x, Probe(f"{name} {x}", program, traffic, mac, each.action)) for x, traffic in points]
        programs.take_turns([probe for _, probe in probes], effort.sweep_rounds, effort.packets)
        return [(x, probe.figure()) for x, probe in probes]
    finally:
        os.close(program)

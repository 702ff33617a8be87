"""The doctor without a daemon: checks this machine, and prints the report as JSON. `sluice doctor` runs it.

    python -m lb.dataplane.local_doctor WHY EXPECTED [INTERFACE…]

WHY: why no daemon answers; EXPECTED: "yes" if one was to be there, "pins" if one is where something is pinned. Beside
the interfaces named, those are looked at that pins are left of, and those that have an XDP program.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lb.dataplane import host_facts, libbpf, rtnetlink
from lb.dataplane.build import NAME_PREFIX
from lb.dataplane.hook import pin_directory
from lb.dataplane.link_facts import Served, interfaces_as_they_are
from lb.doctor.examine import examine
from lb.doctor.facts import DaemonFacts, Facts, InterfaceFacts
from lb.doctor.finding import Report
from lb.settings import PIN_ROOT


def look(why: str, expected: bool | None, interfaces: Sequence[str], *, pin_root: Path = PIN_ROOT) -> Report:
    """The report. expected: whether a daemon was to be there, None: if something is pinned."""
    pinned = _pinned(pin_root)
    host = host_facts.gather(pin_root.parent, compiling=True)
    return examine(
        Facts(
            host=host,
            daemon=DaemonFacts(unreachable=why, expected=bool(pinned) if expected is None else expected),
            interfaces=_interfaces(pinned, interfaces),
        )
    )


def _interfaces(pinned: dict[str, int], named: Sequence[str]) -> tuple[InterfaceFacts, ...]:
    """What is named and was never served is looked at as if it were, but for the program that it cannot have."""
    served = {name: Served("auto", pinned.get(name)) for name in dict.fromkeys([*pinned, *named])}
    busy = [link.name for link in rtnetlink.links().values() if link.xdp_program_id is not None]
    return tuple(_as_served(one, one.name in pinned) for one in interfaces_as_they_are(served, busy))


def _as_served(one: InterfaceFacts, is_pinned: bool) -> InterfaceFacts:
    """A program by our name is ours, also where its pin cannot be seen; one that was never served has none to miss."""
    if one.foreign_program is not None and one.foreign_program.startswith(f'"{NAME_PREFIX}'):
        return dataclasses.replace(one, attached=True, foreign_program=None)
    return one if is_pinned or one.foreign_program is not None else dataclasses.replace(one, attached=True)


def _pinned(pin_root: Path) -> dict[str, int]:
    """The interfaces of this namespace that something is pinned of, and the programs' ids."""
    found = {}
    for name in rtnetlink.links():
        try:
            descriptor = libbpf.obj_get(pin_directory(name, pin_root) / "program")
        except OSError:
            continue
        found[name] = libbpf.prog_info(descriptor).id
        os.close(descriptor)
    return found


def main(words: Sequence[str]) -> int:
    """Run the command line described at the top."""
    why, expected, *interfaces = words
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libbcc prints is not part of the answer
    found = look(why, True if expected == "yes" else None, interfaces)
    json.dump(dataclasses.asdict(found), answer)
    answer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Runs random frames in random configurations through the program and the reference, for as long as one likes.

    tests/fuzz.py DURATION [SEED]      seconds; the same seed gives the same configurations and frames
    tests/fuzz.py FILE                 replays a failure that was saved

Exit code 0: they agree; 1: they differ, and the steps to it are in tests/fuzz-failures/; 2: usage, or no
program can be loaded.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random, SystemRandom

sys.path.insert(0, str(Path(__file__).resolve().parent / "xdp"))
# Before the directory of this file, which holds folders called lb and api.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from differential import Difference, Pair, Step
from leftovers import BPFFS
from plane import RigDataPlane, pin_root
from rig import Programs, Rig
from shrink import shrunk

from lb.dataplane.bpffs import ensure_bpffs
from lb.dataplane.compiler import import_bcc
from lb.dataplane.twin import SMALL
from lb.errors import SluiceError

HERE = Path(__file__).resolve().parent
FAILURES = HERE / "fuzz-failures"
FRAMES = 10_000
"""Frames in one configuration and its alteration."""
FLOW_SLOTS = 1 << 18
"""So many that none of one configuration's flows is evicted: the reference never forgets."""
NAT_SLOTS = 4 << 16
"""A block for each pool address of the random states, and one for those that keep the source."""
SHRINK_SECONDS = 30.0
REPORT_SECONDS = 10.0
EXACT_EVERY = 10
"""One configuration in so many is run by a program compiled for just what it needs, which takes seconds."""


@contextmanager
def pairs() -> Iterator[tuple[Pair, Pair]]:
    """A program with everything and a program with what is needed, each beside a reference."""
    with ExitStack() as stack:
        pins = stack.enter_context(pin_root())
        made = []
        for name, exact in (("everything", False), ("exact", True)):
            programs = Programs(pins / name, replace(SMALL, flow_slots=FLOW_SLOTS, nat_slots=NAT_SLOTS))
            rig = Rig(RigDataPlane(programs, exact=exact, still=True))
            stack.callback(rig.close)
            made.append(Pair(rig))
        yield made[0], made[1]


def fuzz(duration: float, seed: int) -> int:
    """Sessions until the time is over or two answers differ; the exit code."""
    with pairs() as (everything, exact):
        start = reported = time.monotonic()
        sessions = 0

        def report() -> None:
            frames, seconds = everything.frames + exact.frames, time.monotonic() - start
            print(
                f"{frames:,} frames in {sessions:,} configurations, {frames / seconds:,.0f} frames/s, seed {seed}",
                flush=True,
            )

        print(f"seed {seed}", flush=True)
        while time.monotonic() < start + duration:
            pair = exact if sessions % EXACT_EVERY == EXACT_EVERY - 1 else everything
            difference = pair.session(Random(f"{seed} {sessions}"), FRAMES, nat=sessions % 2 == 1)
            sessions += 1
            if difference is not None:
                report()
                return _save(shrunk(pair, difference, SHRINK_SECONDS), f"{seed}-{sessions - 1}")
            if time.monotonic() > reported + REPORT_SECONDS:
                report()
                reported = time.monotonic()
        report()
    print("no difference")
    return 0


def replay(file: Path) -> int:
    """The steps of a failure once more; the exit code."""
    steps: list[Step] = json.loads(file.read_text())["steps"]
    with pairs() as both:
        found = [d for pair in both if (d := pair.replay(steps)) is not None]
    print(found[0] if found else "no difference")
    return 1 if found else 0


def _save(difference: Difference, name: str) -> int:
    FAILURES.mkdir(exist_ok=True)
    file = FAILURES / f"{name}.json"
    steps = ",\n".join(json.dumps(step) for step in difference.steps)
    answers = f'"reference": {json.dumps(difference.expected)},\n"program": {json.dumps(difference.actual)}'
    file.write_text(f'{{{answers},\n"steps": [\n{steps}\n]}}\n')
    print(f"{difference}\nsaved: {file.relative_to(HERE.parent)}; replay it with tests/fuzz.py {file}")
    return 1


def main(arguments: list[str]) -> int:
    """Read the arguments, and do what they say."""
    if len(arguments) == 1 and Path(arguments[0]).is_file():
        file, duration, seed = Path(arguments[0]), 0.0, 0
    else:
        try:
            duration, *rest = (float(arguments[0]), *map(int, arguments[1:]))
            (seed,) = rest or (SystemRandom().randrange(1 << 32),)
            file = None
        except (ValueError, IndexError):
            print("usage: tests/fuzz.py DURATION [SEED], or tests/fuzz.py FILE", file=sys.stderr)
            return 2
    try:
        if os.geteuid() != 0:
            raise SluiceError("loading BPF programs needs root: run it as root")
        import_bcc()
        ensure_bpffs(BPFFS)
    except SluiceError as error:
        print(error, file=sys.stderr)
        return 2
    return replay(file) if file is not None else fuzz(duration, int(seed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

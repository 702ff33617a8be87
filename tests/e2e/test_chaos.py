"""A short fault campaign, as `make chaos` runs it: faults under load, and nobody notices."""

import os
import re
import subprocess
import sys

import lifecycle
import pytest
from campaign.clients import Absence, Fault, Judge
from place import RUN_ROOT
from rerun import CHECKOUT

CHAOS = CHECKOUT / "netns-lab" / "chaos.py"
NAME = f"e2e-{os.getpid()}-chaos"
SECONDS, SEED = 20, 5


@pytest.mark.e2e
@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_fails_and_nothing_is_left(as_root: None) -> None:
    """Twenty seconds of faults: no request fails but on backends that were killed, and no flow goes elsewhere. The lab
    is gone afterwards."""
    words = [sys.executable, str(CHAOS), "--duration", str(SECONDS), "--seed", str(SEED), "--name", NAME]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=500)
    finally:
        lifecycle.down(NAME)

    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(
        r"requests (\d+), failed 0 beyond (\d+) on backends that were killed, flows misplaced 0", done.stdout
    )
    assert found is not None
    assert int(found[1]) > 1000
    assert not (RUN_ROOT / NAME).exists()


def fault(kind: str, began: float, ended: float, backend: str | None) -> Fault:
    return Fault(kind, began, ended, backend, "")


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (fault("closed", 9, 10.5, "backend1"), "excused"),
        (fault("closed", 10.5, 10.6, None), "excused"),
        (fault("closed", 11.5, 11.6, "backend1"), "excused"),  # it was just back
        (fault("closed", 10.5, 10.6, "backend2"), "failed"),
        (fault("closed", 8, 9.9, "backend1"), "failed"),
        (fault("closed", 12.5, 13, None), "failed"),
        (fault("lost", 10.2, 10.8, "backend1"), "failed"),
        (fault("wrong", 10.2, 10.8, None), "failed"),
        (fault("misplaced", 10.2, 10.8, "backend2"), "misplaced"),
    ],
)
def test_what_a_killed_backend_excuses(seen: Fault, verdict: str) -> None:
    """Connections that it had, and new ones, may be closed while it is away: no more than that."""
    judge = Judge(dead=[Absence("backend1", 10.0, 11.0)])

    judge.judge(seen)

    assert (judge.excused, len(judge.failed), len(judge.misplaced)) == {
        "excused": (1, 0, 0),
        "failed": (0, 1, 0),
        "misplaced": (0, 0, 1),
    }[verdict]


def test_a_drained_backend_takes_nothing_new() -> None:
    """What began after the acknowledgement, and was answered by it, is misplaced."""
    judge = Judge(drained=[Absence("backend1", 10.0, 12.0)])

    judge.hear(
        '{"done": 4, "fresh": [["backend1", 9.9], ["backend2", 11], ["backend1", 12.1]], "faults": []}'
    )
    assert judge.is_fine
    judge.hear('{"done": 1, "fresh": [["backend1", 10.1]], "faults": []}')

    assert (judge.done, len(judge.misplaced)) == (5, 1)

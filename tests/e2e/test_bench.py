"""`make bench`, cut down to a few cases and rounds: it measures, writes what it should, and leaves nothing."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks import world
from benchmarks.world import DATA_ROOT
from rerun import CHECKOUT

BENCH = [sys.executable, str(CHECKOUT / "netns-lab" / "bench.py"), "--effort", "tiny"]
CASES = {
    "pass_no_service": ("program", "ns"),
    "tcp_established_10kflows": ("program", "ns"),
    "empty_drop": ("lab", "ns"),
    "forward_ipip": ("lab", "ns"),
    "ring_1000_backends": ("control", "ms"),
    "block_to_enforced": ("control", "ms"),
}
PATIENCE_SECONDS = 60.0


def bench(out: Path) -> list[str]:
    return [*BENCH, "--out", str(out), *(word for name in CASES for word in ("--case", name))]


def is_inhabited(namespace: str) -> bool:
    """Whether any process is in a network namespace."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if str((process / "ns/net").readlink()) == namespace:
                return True
    return False


def daemons_of(bench: subprocess.Popen[str]) -> list[int]:
    """The daemons it has started, as descriptors that outlive their numbers; waits for the first."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        children = Path(f"/proc/{bench.pid}/task/{bench.pid}/children").read_text().split()
        found = [
            pid for pid in children if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ]
        if found:
            return [os.pidfd_open(int(pid)) for pid in found]
        assert bench.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_tiny_bench_writes_the_agreed_document(as_root: None, tmp_path: Path) -> None:
    """Cases of all three groups come with name, unit, rounds, minimum and median; the table and plots lie beside."""
    done = subprocess.run(bench(tmp_path), check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {case["name"]: (case["group"], case["unit"]) for case in found["cases"]} == CASES
    assert all(case["rounds"] > 0 for case in found["cases"])
    assert all(case["min"] <= case["median"] for case in found["cases"] if case["group"] != "program")
    assert all(name in done.stdout for name in CASES)
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json", "table.md", "program.png", "lab.png"}
    assert set(found["machine"]) == {"cpu", "cpus", "kernel"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ended_bench_leaves_nothing_running(as_root: None, tmp_path: Path, number: signal.Signals) -> None:
    """Told to stop, or killed, it takes its daemon and its namespace along; files go at once, or with the next run."""
    with subprocess.Popen(bench(tmp_path), stderr=subprocess.DEVNULL, text=True) as child:
        daemons = daemons_of(child)
        namespace = str(Path(f"/proc/{child.pid}/ns/net").readlink())
        child.send_signal(number)
        child.wait(timeout=PATIENCE_SECONDS)

    assert namespace != str(Path("/proc/self/ns/net").readlink())
    for daemon in daemons:
        assert select.select([daemon], [], [], PATIENCE_SECONDS)[0]
        os.close(daemon)
    assert not is_inhabited(namespace)
    assert (DATA_ROOT / str(child.pid)).exists() == (number == signal.SIGKILL)
    with world.data_folder():
        assert not (DATA_ROOT / str(child.pid)).exists()

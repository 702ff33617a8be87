"""However `lab.py` ends, nothing of its lab is left, and nothing of another lab is touched."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import inside
import lifecycle
import place
import processes
import pytest
from place import Lab
from rerun import CHECKOUT
from topology import Role

from lb.errors import NotFoundError

LAB = [sys.executable, str(CHECKOUT / "netns-lab" / "lab.py")]
NAME = f"e2e-{os.getpid()}-ends"
PATIENCE_SECONDS = 60.0


def left_of(name: str) -> list[str]:
    """What there is of a lab: namespaces, files, pins, processes."""
    lab = Lab(name)
    spaces = [path for path in inside.NAMESPACES.iterdir() if lab.names.is_namespace(path.name)]
    pins = Path("/sys/fs/bpf/sluice") / lab.names.balancer_interface
    files = [path for path in (lab.run, lab.data, pins) if path.exists()]
    return [str(path) for path in (*spaces, *files)] + [entry.what for entry in running(lab)]


def running(lab: Lab) -> list[place.Started]:
    try:
        return [entry for entry in place.started(lab) if entry.process.is_running()]
    except NotFoundError:
        return []


@pytest.fixture
def name(as_root: None) -> Iterator[str]:
    yield NAME
    lifecycle.down(NAME)


def is_begun() -> bool:
    return any(Lab(NAME).names.is_namespace(path.name) for path in inside.NAMESPACES.iterdir())


def is_serving() -> bool:
    return bool(running(Lab(NAME)))


def start_up_until(reached: Callable[[], bool]) -> subprocess.Popen[bytes]:
    """`lab.py up`, which has come so far and is still at it."""
    up = subprocess.Popen([*LAB, "up", "--name", NAME, "--no-daemon"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"`up` ended with {up.wait(timeout=0.005)} before it came so far")
    return up


@pytest.mark.parametrize("reached", [is_begun, is_serving])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_up_leaves_nothing(
    name: str, number: signal.Signals, reached: Callable[[], bool]
) -> None:
    """`up` that is told to stop takes away what it has built, and says by its exit code what ended it."""
    up = start_up_until(reached)

    up.send_signal(number)

    assert up.wait(timeout=PATIENCE_SECONDS) == 128 + number
    assert left_of(name) == []


@pytest.mark.parametrize("reached", [is_begun, is_serving])
def test_down_clears_away_a_killed_up(name: str, reached: Callable[[], bool]) -> None:
    """What `up` leaves when it is killed is found by the next `down`, processes included."""
    up = start_up_until(reached)
    up.kill()
    up.wait()
    started = running(Lab(name))
    assert left_of(name)

    subprocess.run([*LAB, "down", "--name", name], check=True)

    assert left_of(name) == []
    assert not [entry for entry in started if entry.process.is_running()]


def test_up_replaces_a_killed_up(name: str) -> None:
    """`up` after a kill begins anew, and the lab works."""
    up = start_up_until(is_begun)
    up.kill()
    up.wait()

    subprocess.run([*LAB, "up", "--name", name, "--no-daemon"], check=True, stdout=subprocess.DEVNULL)

    backend = Lab(name).configuration.of_role(Role.BACKEND)[1]
    ask = [
        *LAB,
        "exec",
        "--name",
        name,
        "client",
        "2",
        "--",
        "curl",
        "-sS",
        f"http://{backend.address(4)}/whoami",
    ]
    assert subprocess.run(ask, check=True, capture_output=True, text=True).stdout == "backend2\n"


def test_other_labs_are_not_touched(lab: Lab, name: str) -> None:
    """Going up and down, a lab leaves another one's namespaces, processes and pins as they are."""
    before = left_of(lab.name)

    lifecycle.up(name, daemon=False)
    lifecycle.down(name)

    assert left_of(lab.name) == before
    assert {entry.what for entry in running(lab)} == {"daemon", "nginx", "echo"}


def test_process_of_another_start_time_is_spared() -> None:
    """A pid that belongs to a process started at another time is not ours: it is left alone."""
    with subprocess.Popen(["sleep", "60"]) as child:
        process = processes.find(child.pid)
        assert process is not None

        processes.end([processes.Process(process.pid, process.started + 1)])
        assert process.is_running()

        processes.end([process])
        assert not process.is_running()


def test_exec_passes_the_exit_code_on(lab: Lab) -> None:
    """`lab.py exec` ends as the command inside did, and the command sees the machine's own /sys/fs/bpf."""
    inside_balancer = [*LAB, "exec", "--name", lab.name, "balancer", "1", "--"]
    pin = f"/sys/fs/bpf/sluice/{lab.names.balancer_interface}/program"

    assert subprocess.run([*inside_balancer, "sh", "-c", "exit 7"], check=False).returncode == 7
    assert subprocess.run([*inside_balancer, "test", "-e", pin], check=False).returncode == 0


def test_unknown_host_and_lab_are_not_found(lab: Lab) -> None:
    """Exit code 3, and a message that names what there is."""
    host = subprocess.run(
        [*LAB, "exec", "--name", lab.name, "backend", "9", "--", "true"],
        check=False,
        capture_output=True,
        text=True,
    )
    nobody = subprocess.run([*LAB, "status", "--name", "nobody"], check=False, capture_output=True, text=True)

    assert (host.returncode, nobody.returncode) == (3, 3)
    assert "backend 3" in host.stderr
    assert "nobody" in nobody.stderr


def test_status_names_all_that_scripts_need(lab: Lab) -> None:
    """`status -o json` has every namespace with role, MAC and addresses, and the daemon's places."""
    done = subprocess.run(
        [*LAB, "status", "--name", lab.name, "-o", "json"], check=True, capture_output=True, text=True
    )
    status = json.loads(done.stdout)

    roles = [entry["role"] for entry in status["namespaces"]]
    assert {role: roles.count(role) for role in Role} == {
        "client": 2,
        "switch": 1,
        "balancer": 1,
        "backend": 3,
    }
    assert Path(status["socket"]).is_socket()
    assert Path(status["state_dir"]).is_dir()
    for host in lab.configuration.hosts:
        (entry,) = [e for e in status["namespaces"] if (e["role"], e["number"]) == (host.role, host.number)]
        (interface,) = [i for i in entry["interfaces"] if i["name"] == lab.names.interface(host)]
        assert interface["mac"] == host.mac
        assert {str(address) for address in host.addresses} <= set(interface["addresses"])
    assert os.path.commonpath([status["socket"], str(lab.run)]) == str(lab.run)


@pytest.mark.slow
def test_interrupted_demo_leaves_nothing(name: str) -> None:
    """The demo that is told to stop amid its traffic takes its lab away, and does not claim success."""
    words = [sys.executable, "-u", str(CHECKOUT / "netns-lab" / "demo.py"), "--name", name]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert any("TCP connections" in line for line in demo.stdout)

        demo.send_signal(signal.SIGINT)

        rest = demo.stdout.read()
        assert demo.wait(timeout=PATIENCE_SECONDS) == 128 + signal.SIGINT
    assert "as it should be" not in rest
    assert left_of(name) == []

"""What surrounds the daemon is not as it should be: each time one clear sentence, and nothing half done."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import balancer
import httpx
import inside
import processes
import pytest
from pyroute2 import IPRoute, netns
from rerun import CHECKOUT

from lb.dataplane import xdpload

SLUICE = str(CHECKOUT / ".venv" / "bin" / "sluice")
PASS_PROGRAM = CHECKOUT / "netns-lab" / "pass.c"
SMALL = ["--flow-slots", "4096", "--rings", "8", "--deny-hosts", "1024", "--deny-ipv6", "1024"]
PATIENCE_SECONDS = 30.0
PREFIX = "sl-around-"
"""Of the namespace's name; the test run's pid follows."""

pytestmark = [pytest.mark.e2e, pytest.mark.root]


class Machine:
    """A network namespace with one cable, and the daemon in it."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.namespace = f"{PREFIX}{pid}"
        self.interface = f"sla{pid % 10**7}"
        self.socket = folder / "run" / "sluice.sock"
        self._state = folder / "state"

    def plug(self) -> None:
        """Give it the cable."""

        def lay() -> None:
            with IPRoute() as route:
                route.link("add", ifname=self.interface, kind="veth", peer={"ifname": f"{self.interface}p"})
                for name in (self.interface, f"{self.interface}p"):
                    route.link("set", index=route.link_lookup(ifname=name)[0], state="up")

        inside.call(self.namespace, lay)

    def unplug(self) -> None:
        """Take the cable away."""
        inside.route(self.namespace, lambda r: r.link("del", index=r.link_lookup(ifname=self.interface)[0]))

    def attach_foreign(self) -> None:
        """Somebody else's program on the hook."""
        program = xdpload.compile_source(PASS_PROGRAM)
        descriptor = xdpload.load_program(program, "pass")
        try:
            inside.call(self.namespace, lambda: xdpload.attach(self.interface, descriptor))
        finally:
            os.close(descriptor)
            program.cleanup()

    def serve(self, *more: str) -> subprocess.Popen[str]:
        """Start the daemon."""
        words = [SLUICE, "serve", "--interface", self.interface, "--socket", str(self.socket), *SMALL]
        return subprocess.Popen(
            inside.command(self.namespace, [*words, "--state-dir", str(self._state), *more]),
            stderr=subprocess.PIPE,
            text=True,
        )

    def refusal(self, *more: str) -> str:
        """What a daemon that must not start says; it exits 1."""
        with self.serve(*more) as daemon:
            _, words = daemon.communicate(timeout=PATIENCE_SECONDS)
        assert daemon.returncode == 1, words
        return words.strip().splitlines()[-1]

    def detach(self) -> None:
        """Take the program off, if it is on."""
        words = [SLUICE, "detach", "--interface", self.interface]
        subprocess.run(inside.command(self.namespace, words), capture_output=True, check=False)

    def clear(self) -> None:
        """Take all of it away."""
        processes.end_inside([self.namespace])
        self.detach()
        netns.remove(self.namespace)

    def wait(self, http: httpx.Client, ready: bool) -> httpx.Response:
        """/readyz, once it says what is waited for."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = http.get("/readyz")
            if answer.is_success == ready or time.monotonic() > deadline:
                assert answer.is_success == ready, answer.text
                return answer
            time.sleep(balancer.POLL_SECONDS)


@pytest.fixture
def machine(as_root: None, tmp_path: Path) -> Iterator[Machine]:
    for name in netns.listnetns():
        pid = name.removeprefix(PREFIX)
        if pid.isdecimal() and not Path("/proc", pid).exists():
            Machine(tmp_path, int(pid)).clear()  # of a run that was killed
    machine = Machine(tmp_path, os.getpid())
    netns.create(machine.namespace)
    try:
        machine.plug()
        yield machine
    finally:
        machine.clear()


@pytest.fixture
def daemon(machine: Machine) -> Iterator[subprocess.Popen[str]]:
    with machine.serve() as process:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not balancer._is_listening(machine.socket) and time.monotonic() < deadline:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(balancer.POLL_SECONDS)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_SECONDS)


def test_interface_that_does_not_exist(machine: Machine) -> None:
    """The refusal names it and those there are."""
    real, machine.interface = machine.interface, "nothere0"
    assert machine.refusal() == (
        f"sluice: there is no interface nothere0: there are {', '.join(sorted([real, f'{real}p']))}"
    )


def test_foreign_program_is_named_and_kept(machine: Machine) -> None:
    """Another XDP program is not replaced: the refusal says whose it is; told to, Sluice takes the hook."""
    machine.attach_foreign()
    assert f'{machine.interface} already has an XDP program, "pass" (id ' in machine.refusal()

    with machine.serve("--replace-foreign-program") as process:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not balancer._is_listening(machine.socket) and time.monotonic() < deadline:
                time.sleep(balancer.POLL_SECONDS)
            with balancer.client(machine.socket) as http:
                machine.wait(http, ready=True)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_SECONDS)


def test_second_daemon_is_refused(machine: Machine, daemon: subprocess.Popen[str]) -> None:
    """Two daemons on one socket: the second says so and touches nothing."""
    assert f"another sluice serves {machine.socket}" in machine.refusal()
    with balancer.client(machine.socket) as http:
        machine.wait(http, ready=True)


def test_interface_that_vanishes_and_returns(machine: Machine, daemon: subprocess.Popen[str]) -> None:
    """Without its interface the daemon says so and refuses changes; when it is back, so is the program."""
    with balancer.client(machine.socket) as http:
        machine.wait(http, ready=True)
        machine.unplug()
        answer = machine.wait(http, ready=False)
        assert f"interface {machine.interface} is not there" in answer.text
        refused = http.put("/v1/blocklist/198.51.100.7", json={})
        assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
        assert http.get("/v1/blocklist").json()["total"] == 0

        machine.plug()
        machine.wait(http, ready=True)
        assert http.get("/v1/status").json()["interfaces"][0]["attached"]
        assert http.put("/v1/blocklist/198.51.100.7", json={}).status_code == 201


def test_nobody_else_can_take_the_hook(machine: Machine, daemon: subprocess.Popen[str]) -> None:
    """The pinned link keeps the program: netlink can neither replace nor remove it, also when the daemon is dead."""
    daemon.kill()
    daemon.wait()
    with pytest.raises(Exception, match="takes no XDP program"):
        machine.attach_foreign()


def test_detach_leaves_nothing(machine: Machine, daemon: subprocess.Popen[str]) -> None:
    """SIGTERM leaves the program attached; detach takes it and its pins away, and says so if there is nothing."""
    pins = Path("/sys/fs/bpf/sluice") / machine.interface
    daemon.send_signal(signal.SIGTERM)
    daemon.communicate(timeout=PATIENCE_SECONDS)
    assert daemon.returncode == 0
    assert (pins / "program").exists()

    machine.detach()

    assert not pins.exists()
    words = [SLUICE, "detach", "--interface", machine.interface]
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "nothing of sluice is attached" in again.stderr


def test_tables_of_another_size_are_made_beside(machine: Machine, daemon: subprocess.Popen[str]) -> None:
    """A restart with other sizes fills new maps, swaps the program over, and leaves no maps of the old layout."""
    with balancer.client(machine.socket) as http:
        machine.wait(http, ready=True)
        http.put("/v1/blocklist/198.51.100.7", json={}).raise_for_status()
    pins = Path("/sys/fs/bpf/sluice") / machine.interface
    before = [folder.name for folder in pins.iterdir() if folder.is_dir()]
    daemon.send_signal(signal.SIGTERM)
    daemon.communicate(timeout=PATIENCE_SECONDS)

    with machine.serve("--flow-slots", "8192") as process:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not balancer._is_listening(machine.socket) and time.monotonic() < deadline:
                time.sleep(balancer.POLL_SECONDS)
            with balancer.client(machine.socket) as http:
                machine.wait(http, ready=True)
                assert http.get("/v1/blocklist").json()["total"] == 1
                tables = {t["name"]: t["capacity"] for t in http.get("/v1/status").json()["tables"]}
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_SECONDS)

    after = [folder.name for folder in pins.iterdir() if folder.is_dir()]
    assert tables["flows"] == 8192
    assert len(before) == len(after) == 1
    assert before != after


def test_daemon_that_is_down(tmp_path: Path) -> None:
    """The command says where it looked, and exits with 5."""
    words = [SLUICE, "--server", f"unix://{tmp_path}/no.sock", "status"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.returncode == 5
    assert f"{tmp_path}/no.sock" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1

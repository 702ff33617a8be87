"""The daemon's surroundings fail while it runs: packets go on, the API says what is degraded, and it mends itself."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import inside
import pytest
from lone_machine import PATIENCE_SECONDS, SLUICE, Machine, lone_machine
from pyroute2 import IPRoute
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from lb.dataplane import libbpf

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

BACKEND = {"address": "10.0.0.11"}
SERVICE = {"name": "web", "vip": "10.200.1.1", "port": 80, "protocol": "tcp", "backends": [BACKEND]}
ON_A_SMALL_DISK = 'mkdir -p "$0" && mount -t tmpfs -o size=3m,mode=700 tmpfs "$0" && exec "$@"'


@pytest.fixture
def machine(as_root: None, tmp_path: Path) -> Iterator[Machine]:
    with lone_machine(tmp_path) as machine:
        yield machine


def within(daemon: subprocess.Popen[str], script: str) -> None:
    """Run a script among the daemon's mounts, in its state directory."""
    words = ["nsenter", f"--mount=/proc/{daemon.pid}/ns/mnt", "sh", "-ec", script]
    subprocess.run(words, check=True)


def change(http: httpx.Client, weight: int) -> httpx.Response:
    return http.put("/v1/services/web", json={**SERVICE, "backends": [{**BACKEND, "weight": weight}]})


def action(machine: Machine, http: httpx.Client, source: str) -> str:
    """What the pinned program does with a SYN for the VIP."""
    mac = http.get("/v1/status").json()["interfaces"][0]["mac"]
    program = libbpf.obj_get(Path("/sys/fs/bpf/sluice") / machine.interface / "program")
    frame = (
        Ether(dst=mac, src="02:00:00:00:c1:01") / IP(src=source, dst="10.200.1.1") / TCP(sport=9, dport=80)
    )
    try:
        return ("aborted", "drop", "pass", "tx", "redirect")[libbpf.test_run(program, bytes(frame))[0]]
    finally:
        os.close(program)


def lay(machine: Machine) -> None:
    """A way to the backend."""

    def within(route: IPRoute) -> None:
        index = route.link_lookup(ifname=machine.interface)[0]
        route.addr("add", index=index, address="10.0.0.1", prefixlen=24)
        route.neigh("add", dst="10.0.0.11", lladdr="02:00:00:00:ba:01", ifindex=index, state="permanent")

    inside.route(machine.namespace, within)


def test_state_directory_fails_in_every_way(machine: Machine) -> None:
    """Full, read-only, or gone, the file or the disk: a change is refused and says why, what is in force stays, and
    /readyz has the reason. As soon as the disk is well again, so is the daemon."""
    state = str(machine.state)
    command = ["unshare", "--mount", "sh", "-c", ON_A_SMALL_DISK, state, SLUICE]

    lay(machine)
    with machine.running(command=command) as daemon, machine.client() as http:
        machine.wait(http, ready=True)
        change(http, 1).raise_for_status()
        assert action(machine, http, "10.0.9.9") == "tx"
        faults = (
            ("is full", f"dd if=/dev/zero of={state}/fill bs=4k 2>/dev/null || true", f"rm {state}/fill"),
            ("is gone", f"mv {state}/state.db {state}/aside", f"mv {state}/aside {state}/state.db"),
            (
                "is gone",
                f"mkdir {state}.aside && mount --move {state} {state}.aside",
                f"mount --move {state}.aside {state}",
            ),
            (
                "is on a read-only file system",
                f"mount --bind {state} {state} && mount -o remount,bind,ro {state}",
                f"umount {state}",
            ),
        )
        for weight, (reason, fault, remedy) in enumerate(faults, 2):
            within(daemon, fault)
            refused = change(http, weight)
            assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
            assert reason in refused.json()["detail"]
            assert reason in machine.wait(http, ready=False).text
            assert http.get("/v1/services/web").json()["backends"][0]["weight"] == weight - 1
            assert action(machine, http, "10.0.9.9") == "tx"

            within(daemon, remedy)
            machine.wait(http, ready=True)
            change(http, weight).raise_for_status()

        within(daemon, f"mv {state}/access.db {state}/aside")
        assert "access.db is gone" in machine.wait(http, ready=False).text
        change(http, 1).raise_for_status()  # the balancer's work goes on
        within(daemon, f"mv {state}/aside {state}/access.db")
        machine.wait(http, ready=True)


DYING = Path(__file__).parent / "dying.py"
POINTS = {
    "before-the-store": 0,
    "within-the-store": 0,
    "after-the-store": 1,
    "before-the-keys": 1,
    "before-the-swap": 1,
    "before-the-answer": 1,
}
"""Where the daemon is killed within a change (dying.py), and whether the change is there afterwards."""


def test_killed_within_a_change(machine: Machine) -> None:
    """The real daemon, killed at a point between store and answer: the next start makes the maps what the store holds,
    all of the change or nothing, and what was acknowledged before is there in any case."""
    lay(machine)
    wanted: dict[str, list[dict[str, Any]]] = {"services": [SERVICE], "blocklist": []}
    with machine.running(), machine.client() as http:
        machine.wait(http, ready=True)
        http.put("/v1/config", json=wanted).raise_for_status()
    sources: dict[str, str] = {}
    for number, (point, is_there) in enumerate(POINTS.items(), 1):
        source = f"198.51.100.{number}"
        # Keys, lists and program: each change has all of them.
        more = {**SERVICE, "name": "more", "port": 8000 + number, "mode": ("gue", "l2")[number % 2]}
        blocked = [*wanted["blocklist"], {"prefix": f"{source}/32", "reason": point}]
        change = {"services": [SERVICE, more], "blocklist": blocked}
        with (
            machine.serve(command=(sys.executable, str(DYING), point, "--")) as daemon,
            contextlib.ExitStack() as at_last,
            machine.client() as http,
        ):
            at_last.callback(daemon.kill)  # should it live on
            machine.wait_until_listening(daemon)
            check(machine, http, wanted, sources)
            with pytest.raises(httpx.HTTPError):
                http.put("/v1/config", json=change)
            assert daemon.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        sources[source] = "drop" if is_there else "tx"
        wanted = change if is_there else wanted
    with machine.running(), machine.client() as http:
        check(machine, http, wanted, sources)


def check(
    machine: Machine, http: httpx.Client, wanted: dict[str, list[dict[str, Any]]], sources: dict[str, str]
) -> None:
    """What the daemon desires, and what packets of these sources meet."""
    machine.wait(http, ready=True)
    found = http.get("/v1/config").json()
    assert [s["port"] for s in found["services"]] == [s["port"] for s in wanted["services"]]
    assert len(found["blocklist"]) == len(wanted["blocklist"])
    assert {source: action(machine, http, source) for source in sources} == sources
    assert action(machine, http, "10.0.9.9") == "tx"

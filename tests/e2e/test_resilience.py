"""The daemon's surroundings fail while it runs: packets go on, the API says what is degraded, and it mends itself."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import inside
import pytest
from lone_machine import SLUICE, Machine, lone_machine
from pyroute2 import IPRoute

from lb.dataplane import libbpf

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(400)]

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


def forwards(machine: Machine, http: httpx.Client) -> bool:
    """Whether the pinned program sends a SYN for the VIP on."""
    mac = http.get("/v1/status").json()["interfaces"][0]["mac"]
    program = libbpf.obj_get(Path("/sys/fs/bpf/sluice") / machine.interface / "program")
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether

    frame = (
        Ether(dst=mac, src="02:00:00:00:c1:01")
        / IP(src="10.0.9.9", dst="10.200.1.1")
        / TCP(sport=9, dport=80)
    )
    return libbpf.test_run(program, bytes(frame))[0] == 3  # XDP_TX


def test_state_directory_fails_in_every_way(machine: Machine) -> None:
    """Full, or gone: a change is refused and says why, what is in force stays, and /readyz has the reason. As
    soon as the disk is well again, so is the daemon."""
    state = str(machine.state)
    command = ["unshare", "--mount", "sh", "-c", ON_A_SMALL_DISK, state, SLUICE]

    def lay(route: IPRoute) -> None:
        index = route.link_lookup(ifname=machine.interface)[0]
        route.addr("add", index=index, address="10.0.0.1", prefixlen=24)
        route.neigh("add", dst="10.0.0.11", lladdr="02:00:00:00:ba:01", ifindex=index, state="permanent")

    inside.route(machine.namespace, lay)
    with machine.running(command=command) as daemon, machine.client() as http:
        machine.wait(http, ready=True)
        change(http, 1).raise_for_status()
        assert forwards(machine, http)
        faults = {
            "is full": (f"dd if=/dev/zero of={state}/fill bs=4k 2>/dev/null || true", f"rm {state}/fill"),
            "is gone": (f"mv {state}/state.db {state}/aside", f"mv {state}/aside {state}/state.db"),
        }
        for weight, (reason, (fault, remedy)) in enumerate(faults.items(), 2):
            within(daemon, fault)
            refused = change(http, weight)
            assert refused.headers["content-type"] == "application/problem+json", reason
            assert not refused.is_success, reason
            assert reason in machine.wait(http, ready=False).text
            assert http.get("/v1/services/web").json()["backends"][0]["weight"] == weight - 1
            assert forwards(machine, http)

            within(daemon, remedy)
            machine.wait(http, ready=True)
            change(http, weight).raise_for_status()

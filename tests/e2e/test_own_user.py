"""The daemon as its unit runs it: by a user of its own with three capabilities, all of it works."""

import contextlib
import functools
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import balancer
import httpx
import inside
import lifecycle
import processes
import pytest
from place import Lab
from pyroute2 import IPRoute
from rerun import CHECKOUT
from test_installed import CAPABILITIES, USER
from topology import POOL, Role

NAME = f"e2e-{os.getpid()}-user"
PATIENCE_SECONDS = 120.0
CHECK = {
    "interval_seconds": 0.5,
    "timeout_seconds": 0.5,
    "rise": 1,
    "fall": 2,
    "type": "http",
    "path": "/whoami",
}
VIPS = {"web": "10.200.1.1", "tunnel": "10.200.1.2", "translated": "10.200.1.3"}

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(400)]


@dataclass
class Unit:
    """What the unit is to the daemon: its user, its capabilities, its directories, and a bpf file system for both."""

    lab: Lab
    folder: Path
    mounts: int
    """The pid of who holds the mount namespace."""

    @property
    def api(self) -> Path:
        return self.folder / "run" / "sluice.sock"

    def within(self, *words: str) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self.mounts}/ns/mnt", "--", *words]

    def begin(self, *more: str) -> processes.Process:
        """Start the daemon."""
        caps = ",".join(f"+{name}" for name in CAPABILITIES)
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
        as_user += [f"--inh-caps=-all,{caps}", f"--ambient-caps=-all,{caps}", f"--bounding-set=-all,{caps}"]
        # The checkout may be where this user may not look, so it stands elsewhere for it.
        python = ["env", "-C", "/mnt", "/mnt/.venv/bin/python", "-c", "from lb.cli.main import main; main()"]
        places = ["--cache-dir", str(self.folder / "state" / "compiled")]
        serve = balancer.command(self.lab.names, self.api, self.folder / "state", [*places, *more])[1:]
        words = self.within(*as_user, *python, *serve)
        return lifecycle.start_process(self.lab, "daemon", (Role.BALANCER, 1), words, self.lab.daemon_log)

    def start(self, *more: str) -> processes.Process:
        """The daemon, when it is ready."""
        daemon = self.begin(*more)
        balancer.wait_until_ready(daemon, self.api, self.lab.daemon_log)
        return daemon

    def sluice(self, *words: str) -> subprocess.Popen[str]:
        """The command, as root."""
        command = [str(balancer.SLUICE), "--server", f"unix://{self.api}", "-o", "json", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def pins(self) -> list[str]:
        """Whatever is in the bpf file system, by path."""
        found = subprocess.run(
            self.within("find", "/sys/fs/bpf/sluice", "-mindepth", "1"),
            check=True,
            capture_output=True,
            text=True,
        )
        return [line.removeprefix("/sys/fs/bpf/sluice/") for line in found.stdout.splitlines()]


@pytest.fixture
def unit(as_root: None, open_folder: Path) -> Iterator[Unit]:
    folder = open_folder
    script = (
        f"mount --bind {CHECKOUT} /mnt && mount -t bpf -o mode=0700 bpf /sys/fs/bpf && "
        f"{CHECKOUT}/deploy/prepare-bpffs /sys/fs/bpf {USER}:{USER} && echo made && exec sleep infinity"
    )
    # It ends with us, however we end; what it has mounted goes with the last who is inside.
    words = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "sh", "-ec", script]
    lab = lifecycle.up(NAME, daemon=False)
    try:
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
            try:
                assert holder.stdout is not None
                assert holder.stdout.readline() == "made\n"
                for part in ("state", "run"):
                    (folder / part).mkdir(mode=0o700, parents=True)
                    os.chown(folder / part, USER, USER)
                give_pool(lab)
                yield Unit(lab, folder, holder.pid)
            finally:
                print(balancer.tail(lab.daemon_log, 200))  # shown where a test fails
                lifecycle.down(NAME)
                holder.kill()
    finally:
        lifecycle.down(NAME)


def give_pool(lab: Lab) -> None:
    """The addresses that NAT sends from, on the balancer's interface."""

    def add(route: IPRoute) -> None:
        index = route.link_lookup(ifname=lab.names.balancer_interface)[0]
        for address in POOL:
            if address.version == 4:
                route.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)

    inside.route(lab.namespace(Role.BALANCER, 1), add)


def document(lab: Lab) -> dict[str, Any]:
    """A service of each kind that needs something of its own of the kernel, checked through the data path."""
    hosts = lab.configuration.of_role(Role.BACKEND)
    plain = [{"address": host.address(4)} for host in hosts]
    common = {"protocol": "tcp", "port": 80, "health_check": CHECK}
    return {
        "services": [
            {"name": "web", "vip": VIPS["web"], "mode": "l2", "backends": plain, **common},
            {"name": "tunnel", "vip": VIPS["tunnel"], "mode": "ipip", "backends": plain, **common},
            {
                "name": "translated",
                "vip": VIPS["translated"],
                "mode": "nat",
                "backends": [{**backend, "port": 8080} for backend in plain],
                **common,
            },
        ],
        "settings": {"nat_pools": [str(address.ip) for address in POOL if address.version == 4]},
    }


class Connection:
    """One kept-alive connection from a client."""

    def __init__(self, vip: str, to: socket.socket) -> None:
        self._http = http.client.HTTPConnection(vip)
        self._http.sock, self._http.auto_open = to, 0
        self._backend = self._ask()

    def _ask(self) -> bytes:
        self._http.request("GET", "/whoami")
        return self._http.getresponse().read()

    def is_alive(self) -> bool:
        """Whether it leads to the backend that it led to."""
        return self._ask() == self._backend


@contextlib.contextmanager
def connected(lab: Lab, vip: str) -> Iterator[Connection]:
    open_it = functools.partial(socket.create_connection, (vip, 80), 20)
    with inside.call(lab.namespace(Role.CLIENT, 1), open_it) as to:
        yield Connection(vip, to)


def wait_until_healthy(api: httpx.Client) -> None:
    """Each service's backends have been found well."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        health = {
            name: [b["health"] for b in api.get(f"/v1/services/{name}/status").json()["backends"]]
            for name in VIPS
        }
        if all(each == "healthy" for found in health.values() for each in found):
            return
        assert time.monotonic() < deadline, health
        time.sleep(balancer.POLL_SECONDS)


def whoami(lab: Lab, vip: str) -> None:
    words = ["curl", "-sS", "--fail", "--max-time", "20", f"http://{vip}/whoami"]
    done = subprocess.run(
        inside.command(lab.namespace(Role.CLIENT, 2), words), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout[:7]) == (0, "backend"), (vip, done.stderr)


def end(daemon: processes.Process) -> None:
    """kill -9, and it is gone."""
    handle = os.pidfd_open(daemon.pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], PATIENCE_SECONDS)[0]
    finally:
        os.close(handle)


def end_while_it_starts(unit: Unit, daemon: processes.Process) -> None:
    """kill -9 as soon as some maps of its own sizes are pinned."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len({pin.split("/")[1] for pin in unit.pins() if pin.count("/") == 2}) < 2:
        assert daemon.is_running() and time.monotonic() < deadline
    end(daemon)


def check(unit: Unit, api: httpx.Client) -> None:
    """Every service is well, and answers."""
    wait_until_healthy(api)
    for vip in VIPS.values():
        whoami(unit.lab, vip)


def explained(api: httpx.Client) -> dict[str, str]:
    """What becomes of a new client's packet to each service."""
    asked = {"protocol": "tcp", "src": "10.0.1.9:1000", "syn": True}
    answers = {
        name: api.post("/v1/explain", json={**asked, "dst": f"{vip}:80"}) for name, vip in VIPS.items()
    }
    return {name: answer.json()["packets"][0]["verdict"] for name, answer in answers.items()}


def packets(api: httpx.Client) -> dict[str, int]:
    """What each service has counted."""
    services = api.get("/v1/stats").json()["services"]
    return {name: service["packets"] for name, service in services.items()}


def capture(unit: Unit) -> dict[str, Any]:
    """A packet, as it comes by."""
    with unit.sluice("capture", "--service", "translated", "-c", "1") as looker:
        assert looker.stdout is not None
        assert looker.stderr is not None
        assert looker.stderr.readline() == "sluice: looking; Ctrl-C ends it\n"
        whoami(unit.lab, VIPS["translated"])
        record: dict[str, Any] = json.loads(looker.stdout.readline())
        return record


def test_all_of_it_without_root(unit: Unit) -> None:
    """Checks through the data path, NAT, explain and capture work. Connections and counts stay over kill -9 and a start
    that adopts; and, but for NAT's connections, over a kill in a start and one with other sizes. Of what was killed
    nothing is left.
    """
    daemon = unit.start()
    with balancer.client(unit.api, timeout=PATIENCE_SECONDS) as api, contextlib.ExitStack() as stack:
        api.put("/v1/config", json=document(unit.lab)).raise_for_status()
        check(unit, api)
        connections = {name: stack.enter_context(connected(unit.lab, vip)) for name, vip in VIPS.items()}
        counts = packets(api)

        end(daemon)
        daemon = unit.start()

        assert [name for name, each in connections.items() if not each.is_alive()] == []
        assert all(packets(api)[name] >= count > 0 for name, count in counts.items())
        check(unit, api)
        assert capture(unit)["verdict"] == "TX_NAT"

        end(daemon)
        end_while_it_starts(unit, unit.begin("--rings", "100"))
        unit.start("--flow-slots", "131072")

        del connections["translated"]
        assert [name for name, each in connections.items() if not each.is_alive()] == []
        assert all(packets(api)[name] >= count for name, count in counts.items())
        check(unit, api)
        assert explained(api) == {"web": "TX_L2", "tunnel": "TX_IPIP", "translated": "TX_NAT"}
        events = api.get("/v1/events").json()["items"]
        assert [event for event in events if event["kind"] == "failure"] == []
    directories = {pin.split("/")[0] for pin in unit.pins()}
    assert directories == {unit.lab.names.balancer_interface}
    assert len({pin.split("/")[1] for pin in unit.pins() if pin.count("/") == 2}) == 1

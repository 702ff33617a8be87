"""Things are broken one by one in a lab that is well: the doctor names each and nothing else; its command mends it."""

import ast
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import balancer
import httpx
import inside
import lifecycle
import place
import processes
import pytest
from rerun import CHECKOUT
from shared_lab import NAME
from topology import CLIENT_MTU, Role

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

LAB_NAME = f"{NAME}-doctor"
PATIENCE_SECONDS = 120.0
VIP, NEAR, ELSEWHERE = "10.201.0.1", "10.201.0.2", "10.201.0.3"
"""Outside of the lab's ranges: what backends and clients know of them, backend-setup and routes have told them."""
TRANSLATED = "10.201.0.4"
OWN, POOL = "10.0.0.99", "10.0.0.98"
"""In the balancer's network."""
BACKENDS = ("10.0.0.11", "10.0.0.12", "10.0.0.13")
SERVICES_MOST = 64
"""Of the daemon's table: so few that it is soon nearly full."""
MACHINE = {"clock"}
"""What may be wrong with the machine that the tests run on."""
SSH = """#!/bin/sh
# Stands for ssh to a backend: its last digits are the number of the namespace.
address=${1#root@}; shift
exec nsenter --net="/run/netns/$BACKENDS$((${address##*.} - 10))" -- "$@"
"""

Finding = dict[str, Any]


class Ward:
    """The lab, and the doctor in it."""

    def __init__(self, lab: place.Lab, folder: Path) -> None:
        self.lab, self.interface = lab, lab.names.balancer_interface
        tools = folder / "bin"
        tools.mkdir()
        (tools / "ssh").write_text(SSH)
        (tools / "ssh").chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{tools}:{CHECKOUT / '.venv' / 'bin'}:{os.environ['PATH']}",
            "SLUICE_SERVER": f"unix://{lab.socket}",
            "BACKENDS": lab.namespace(Role.BACKEND)[:-1],
        }

    def run(self, role: str, number: int, *words: str, stdin: str | None = None) -> str:
        """A command inside, which has to succeed; what it prints."""
        namespace = self.lab.namespace(role, number)
        done = subprocess.run(
            inside.command(namespace, words),
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def backend(self, number: int, *words: str) -> str:
        """A command on a backend."""
        return self.run(Role.BACKEND, number, *words)

    def balancer(self, *words: str) -> str:
        """A command on the balancer."""
        return self.run(Role.BALANCER, 1, *words)

    def http(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A request to the daemon, which has to succeed."""
        with balancer.client(self.lab.socket, timeout=PATIENCE_SECONDS) as client:
            answer = client.request(method, path, **more)
        assert answer.is_success, answer.text
        return answer

    def fetch(self, vip: str, times: int = 1) -> list[str | None]:
        """Who answers a client; None: nobody does within a second."""
        answers = []
        for _ in range(times):
            words = ["curl", "-s", "-m", "1", f"http://{vip}/whoami"]
            done = subprocess.run(
                inside.command(self.lab.namespace(Role.CLIENT), words),
                capture_output=True,
                text=True,
                check=False,
            )
            answers.append(done.stdout.strip() or None)
        return answers

    def wrong(self) -> list[Finding]:
        """What the doctor says is wrong, but for what is wrong with this machine."""
        found = self.http("GET", "/v1/doctor", params={"seconds": 0}).json()["findings"]
        return [one for one in found if one["severity"] != "ok" and one["check"] not in MACHINE]

    def names(self, check: str, subject: str, meanwhile: Callable[[], object] | None = None) -> Finding:
        """The one finding, once it is the only one. What is broken takes a moment to show in the kernel's tables.

        meanwhile: what goes on, where it shows only in what happens.
        """

        def is_so(found: list[Finding]) -> bool:
            if [(f["check"], f["subject"]) for f in found] == [(check, subject)]:
                return True
            if meanwhile is not None:
                meanwhile()
            return False

        return self._until(is_so)[0]

    def is_well(self) -> None:
        """Nothing is wrong, soon."""
        self._until(lambda found: not found)

    def _until(self, is_so: Callable[[list[Finding]], bool]) -> list[Finding]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_so(found := self.wrong()):
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        return found

    def serve(self, name: str, vip: str) -> None:
        """A service more, its backends prepared."""
        self.http("POST", "/v1/services", json=service(name, vip, "l2"))
        self.prepare(name)

    def prepare(self, name: str) -> None:
        """Run on each backend what backend-setup prints."""
        for address in BACKENDS:
            script = f"sluice backend-setup {name} {address} --script | ssh root@{address} sh"
            self.balancer("sh", "-euc", script)

    def mend(self, finding: Finding) -> None:
        """Run the command that the doctor prints, where it says, to the letter; then all is well."""
        self.obey(finding)
        self.is_well()

    def obey(self, finding: Finding) -> None:
        """Run the command that the doctor prints, where it says."""
        where = finding["run_on"]
        role, number = (Role.BALANCER, 1) if where == "balancer" else (Role.CLIENT, 1)
        if where in BACKENDS:
            role, number = Role.BACKEND, BACKENDS.index(where) + 1
        self.run(role, number, "sh", "-euc", finding["command"])


def service(name: str, vip: str, mode: str) -> dict[str, Any]:
    return {
        "name": name,
        "vip": vip,
        "protocol": "tcp",
        "port": 80,
        "mode": mode,
        # The way of checks is there all along, and hardly used: else each look would compile it in.
        "health_check": {"type": "tcp", "interval_seconds": 3600},
        "backends": [{"address": address} for address in BACKENDS],
    }


@pytest.fixture
def ward(as_root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    """A lab whose backends were prepared by backend-setup, and whose clients have a route to two of the VIPs."""
    monkeypatch.setenv("SLUICE_SERVICES", str(SERVICES_MOST))
    try:
        ward = Ward(lifecycle.up(LAB_NAME, document=False), tmp_path)
        ward.http(
            "PUT", "/v1/config", json={"services": [service("web", VIP, "ipip"), service("near", NEAR, "l2")]}
        )
        for name in ("web", "near"):
            ward.prepare(name)
        for vip in (VIP, NEAR):
            ward.run(Role.CLIENT, 1, "ip", "route", "add", vip, "via", "10.0.0.1")
            assert None not in ward.fetch(vip, 3)
        yield ward
    finally:
        lifecycle.down(LAB_NAME)


def test_what_is_broken_is_named_and_mended(ward: Ward, tmp_path: Path) -> None:
    """Sixteen faults, one after the other, each with real packets; then the doctor without a daemon."""
    ward.is_well()

    ward.backend(1, "ip", "link", "set", "eth0", "xdp", "off")
    found = ward.names("encapsulation", "10.0.0.11")
    assert "by ICMP" in found["summary"]
    ward.mend(found)

    ward.backend(1, "ip", "address", "del", f"{VIP}/32", "dev", "lo")
    ward.mend(ward.names("vip-on-backend", "10.0.0.11"))

    _server_is_stopped(ward)

    ward.backend(2, "ip", "link", "set", "eth0", "mtu", "1400")
    ward.mend(ward.names("path-mtu", "10.0.0.12"))

    ward.backend(3, "ip", "link", "set", "eth0", "arp", "off")
    ward.names("reachable", "10.0.0.13")
    ward.balancer("ip", "neigh", "flush", "to", "10.0.0.13")
    ward.mend(ward.names("neighbour", "10.0.0.13"))

    ward.balancer("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    ward.mend(ward.names("rp-filter", ward.interface))

    _answers_are_lost(ward)

    _route_is_missing(ward)

    _vip_is_claimed(ward)

    _pool_is_nobodys(ward)

    _table_is_nearly_full(ward)

    _machine_alone(ward, tmp_path)


def _server_is_stopped(ward: Ward) -> None:
    """Who is taken out gets no packets, and is not asked; it comes back when it serves again."""
    (server,) = (one for one in place.started(ward.lab) if (one.what, one.number) == ("nginx", 2))
    processes.end([server.process])
    found = ward.names("server", "10.0.0.12")
    assert "no server listens there" in found["summary"]
    ward.mend(found)
    assert set(ward.fetch(VIP, 30)) == {"backend1", "backend3"}
    files = ward.lab.data / "backend2"
    words = ["nginx", "-c", str(files / "nginx.conf")]
    processes.start(ward.lab.namespace(Role.BACKEND, 2), words, files / "nginx.log")
    for name in ("web", "near"):
        ward.balancer("sluice", "backend", "enable", name, "10.0.0.12")
    ward.is_well()


def _answers_are_lost(ward: Ward) -> None:
    """Backend 1 answers clients by another cable than it hears them on, and checks the way back."""
    there = ward.lab.namespace(Role.BACKEND, 1)
    client = next(host for host in ward.lab.configuration.of_role(Role.CLIENT))
    ward.run(
        *(Role.SWITCH, 1, "ip", "link", "add", "second", "type", "veth", "peer", "name", "eth1"),
        *("netns", there),
    )
    ward.run(Role.SWITCH, 1, "ip", "link", "set", "second", "master", "br0", "up")
    ward.backend(1, "ethtool", "-K", "eth1", "tx", "off")
    ward.backend(1, "ip", "link", "set", "eth1", "up")
    ward.backend(1, "ip", "neigh", "replace", client.address(4), "lladdr", client.mac, "dev", "eth1")
    ward.backend(1, *f"ip route replace 10.0.1.0/24 dev eth1 mtu {CLIENT_MTU}".split())
    assert None not in ward.fetch(VIP, 6)
    ward.is_well()

    ward.backend(1, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    while ward.fetch(VIP, 20).count(None) < 3:
        pass
    found = ward.names("return-path", "10.0.0.11", meanwhile=lambda: ward.fetch(VIP, 20))
    assert found["severity"] == "fail"
    ward.obey(found | {"command": found["command"].replace("CLIENT", client.address(4))})
    assert None not in ward.fetch(VIP, 12)
    ward.is_well()


def _route_is_missing(ward: Ward) -> None:
    """A VIP that clients have no route to gets no packet."""
    ward.serve("far", ELSEWHERE)
    found = ward.names("vip", ELSEWHERE)
    assert found["run_on"] == "router"
    ward.obey(found)
    assert None not in ward.fetch(ELSEWHERE, 2)
    ward.is_well()


def _vip_is_claimed(ward: Ward) -> None:
    """In the balancer's own network nobody answers for a VIP, and then two do."""
    ward.serve("own", OWN)
    ward.obey(ward.names("vip", OWN))
    assert None not in ward.fetch(OWN, 2)
    ward.is_well()

    ward.backend(1, "sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0")
    found = ward.names("vip", OWN)
    assert ward.lab.configuration.of_role(Role.BACKEND)[0].mac in found["run_on"]
    ward.mend(found | {"run_on": "10.0.0.11"})


def _pool_is_nobodys(ward: Ward) -> None:
    """Nobody answers for an address that mode nat sends from."""
    document = ward.http("GET", "/v1/config").json()
    document["settings"]["nat_pools"] = [POOL]
    document["services"].append({**service("translated", TRANSLATED, "nat"), "health_check": None})
    ward.http("PUT", "/v1/config", json=document)
    ward.run(Role.CLIENT, 1, "ip", "route", "add", TRANSLATED, "via", "10.0.0.1")
    assert ward.fetch(TRANSLATED) == [None]
    ward.obey(ward.names("nat-pool", POOL))
    assert None not in ward.fetch(TRANSLATED, 2)
    ward.is_well()


def _table_is_nearly_full(ward: Ward) -> None:
    """The command is a daemon's whole command line: it takes the place of the one that runs."""
    document = ward.http("GET", "/v1/config").json()
    for port in range(1000, 1000 + SERVICES_MOST * 5 // 6):
        document["services"].append({**service(f"p{port}", VIP, "ipip"), "port": port, "backends": []})
    ward.http("PUT", "/v1/config", json=document)
    found = ward.names("tables", "services")
    old = lifecycle.find_daemon(ward.lab)
    assert old is not None
    processes.end([old])
    log = ward.lab.daemon_log
    words = ["env", f"PATH={ward.environment['PATH']}", "sh", "-euc", f"exec {found['command']}"]
    daemon = processes.start(ward.lab.namespace(Role.BALANCER), words, log)
    try:
        balancer.wait_until_ready(daemon, ward.lab.socket, log)
        ward.is_well()
    finally:
        processes.end([daemon])


def _machine_alone(ward: Ward, folder: Path) -> None:
    """No daemon runs any more. Three faults in the switch, whose port has a program of the lab's."""
    port = ward.lab.configuration.balancer.label
    names = "print(sorted(f['check'] for f in wrong))"
    commands = "print(*[f['command'] for f in wrong if f['check'] != 'daemon'], sep='\\n')"
    bad = f"f['severity'] != 'ok' and f['check'] not in {MACHINE}"
    wrong = f"import json, sys; wrong = [f for f in json.load(sys.stdin)['findings'] if {bad}]"
    script = f"""
    umount /sys/fs/bpf
    export BCC_KERNEL_SOURCE={folder}
    sluice doctor -o json --interface {port} >{folder}/broken && exit 1
    {sys.executable} -c "{wrong}; {commands}" <{folder}/broken >{folder}/commands
    . {folder}/commands
    sluice doctor -o json --interface {port} >{folder}/mended && exit 1
    for report in broken mended; do {sys.executable} -c "{wrong}; {names}" <{folder}/$report; done
    """
    said = ward.run(Role.SWITCH, 1, "unshare", "-m", "sh", "-euc", script).splitlines()

    assert ast.literal_eval(said[0]) == ["bpffs", "daemon", "foreign-program", "headers"]
    assert ast.literal_eval(said[1]) == ["daemon"]

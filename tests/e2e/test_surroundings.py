"""What surrounds the daemon is not as it should be: each time one clear sentence, and nothing half done."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import balancer
import inside
import pytest
from lone_machine import PATIENCE_SECONDS, SLUICE, Machine, lone_machine

from lb.dataplane import libbpf

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture
def machine(as_root: None, tmp_path: Path) -> Iterator[Machine]:
    with lone_machine(tmp_path) as machine:
        yield machine


@pytest.fixture
def daemon(machine: Machine) -> Iterator[subprocess.Popen[str]]:
    with machine.running() as process:
        yield process


def test_interface_that_does_not_exist(machine: Machine) -> None:
    """The refusal names it and those there are."""
    real, machine.interface = machine.interface, "nothere0"
    assert machine.refusal() == (
        f"sluice: there is no interface nothere0: there are {', '.join(sorted([real, f'{real}p']))}"
    )


def test_state_directory_that_cannot_be_made(machine: Machine, tmp_path: Path) -> None:
    """One sentence names the state file and the reason."""
    (tmp_path / "file").touch()
    machine.state = tmp_path / "file" / "state"
    says = "cannot be opened (Not a directory): correct that, or give another --state-dir"
    assert machine.refusal() == f"sluice: {machine.state}/state.db {says}"


def test_foreign_program_is_named_and_kept(machine: Machine) -> None:
    """Another XDP program is not replaced: the refusal says whose it is; told to, Sluice takes the hook."""
    machine.attach_foreign()
    assert f'{machine.interface} already has an XDP program, "pass" (id ' in machine.refusal()

    with machine.running("--replace-foreign-program"), machine.client() as http:
        machine.wait(http, ready=True)


def test_second_daemon_is_refused(machine: Machine, daemon: subprocess.Popen[str]) -> None:
    """Two daemons on one socket: the second says so and touches nothing."""
    assert f"another sluice serves {machine.socket}" in machine.refusal()
    with balancer.client(machine.socket) as http:
        machine.wait(http, ready=True)


def test_an_interface_has_one_daemon(machine: Machine, daemon: subprocess.Popen[str], tmp_path: Path) -> None:
    """By another socket and state, a second daemon would empty the first one's maps: it is refused, and so is to detach
    under a daemon, whose program would end with it. Neither takes anything away."""
    pins = Path("/sys/fs/bpf/sluice") / machine.interface
    with balancer.client(machine.socket) as http:
        machine.wait(http, ready=True)
        http.put("/v1/blocklist/198.51.100.7", json={}).raise_for_status()
        before = sorted(pins.rglob("*"))
        says = f"{machine.interface} is served by a sluice that runs"

        other = ["--socket", str(tmp_path / "other.sock"), "--state-dir", str(tmp_path / "other")]
        assert says in machine.refusal(*other)
        words = [SLUICE, "detach", "--interface", machine.interface]
        detached = subprocess.run(
            inside.command(machine.namespace, words), capture_output=True, text=True, check=False
        )

        assert (detached.returncode, says in detached.stderr) == (1, True)
        assert sorted(pins.rglob("*")) == before
        found = http.post(
            "/v1/explain", json={"src": "198.51.100.7", "dst": "192.0.2.1:80", "protocol": "tcp"}
        )
        assert found.json()["packets"][0]["verdict"] == "DROP_BLOCKLIST"


def test_program_that_is_taken_off_is_put_back(machine: Machine, daemon: subprocess.Popen[str]) -> None:
    """Root can detach a link, of which the kernel tells nobody: the daemon sees it, and attaches the program again."""
    with machine.client() as http:
        machine.wait(http, ready=True)
        taken_off(Path("/sys/fs/bpf/sluice") / machine.interface / "link")

        asked = {"kind": "interface.attached", "after": 0, "follow": True}
        with http.stream("GET", "/v1/events", params=asked) as events:
            found = (
                json.loads(line[6:])["text"] for line in events.iter_lines() if line.startswith("data: ")
            )
            assert "instructions" in next(found)
            assert next(found).endswith(f"which it had before, attached on {machine.interface}")
        machine.wait(http, ready=True)


def taken_off(link: Path) -> None:
    descriptor = libbpf.obj_get(link)
    try:
        assert libbpf._lib().bpf_link_detach(descriptor) == 0
    finally:
        os.close(descriptor)


def test_a_reload_does_not_end_a_start(machine: Machine) -> None:
    """SIGHUP before the daemon serves is passed over."""
    with machine.serve() as process:
        for line in process.stderr or ():
            if "daemon.starting" in line:
                break
        process.send_signal(signal.SIGHUP)
        machine.wait_until_listening(process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0


def test_pins_that_are_gone(machine: Machine, daemon: subprocess.Popen[str]) -> None:
    """Without its pin the program would end with the daemon: as long as that is so, /readyz says it."""
    link = Path("/sys/fs/bpf/sluice") / machine.interface / "link"
    aside = link.with_name("aside")
    with balancer.client(machine.socket) as http:
        machine.wait(http, ready=True)
        link.rename(aside)
        assert (
            f"the pins of interface {machine.interface} were removed" in machine.wait(http, ready=False).text
        )
        aside.rename(link)
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


def set_mtu(machine: Machine, interface: str, mtu: int) -> None:
    inside.route(
        machine.namespace, lambda r: r.link("set", index=r.link_lookup(ifname=interface)[0], mtu=mtu)
    )


def test_other_end_of_the_cable_has_large_frames(machine: Machine) -> None:
    """A veth's driver then takes only a program for frames in several buffers, whatever its own MTU is: it is given
    one, at the start as well as when its own MTU shrinks, and never falls back to generic mode."""
    set_mtu(machine, f"{machine.interface}p", 9000)
    with machine.running(), machine.client() as http:
        machine.wait(http, ready=True)
        for mtu, mode in ((1500, "l2"), (9000, "ipip"), (1500, "gue")):
            set_mtu(machine, machine.interface, mtu)
            service = {"name": mode, "vip": "10.200.1.1", "port": 80, "protocol": "udp", "mode": mode}
            http.put("/v1/config", json={"services": [service]}).raise_for_status()

            [interface] = http.get("/v1/status").json()["interfaces"]
            assert (interface["xdp_mode"], interface["mtu"], interface["attached"]) == ("native", mtu, True)
        machine.wait(http, ready=True)
        events = http.get("/v1/events").json()["items"]
        assert [event for event in events if event["kind"] == "failure"] == []


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

    with machine.running("--flow-slots", "8192"), machine.client() as http:
        machine.wait(http, ready=True)
        assert http.get("/v1/blocklist").json()["total"] == 1
        tables = {t["name"]: t["capacity"] for t in http.get("/v1/status").json()["tables"]}

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

"""What prepares a backend: each script is run by a real shell, over commands that write down how they were called."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lb.cli.backend_setup import joined
from lb.doctor.preparation import FOREIGN, Wish, prepare

OWN4, OWN6 = "10.0.0.11", "fd00::11"
TOOLS = {
    # Of a machine with both addresses on eth7, whose kernel has the devices that $HAS names.
    "ip": """
case "$*" in
"-o address show to 10.0.0.11" | "-o address show to fd00::11") echo "2: eth7    inet $5/24 scope global eth7" ;;
"-o link show dev eth7") echo "2: eth7: <UP> mtu $MTU qdisc noqueue" ;;
"link show dev "*) grep -qx "$4" "$STATE" ;;
*"fou show") cat "$STATE.fou" ;;
*"fou add port 6080 gue") case "$HAS" in *fou*) echo "port 6080 gue" >"$STATE.fou" ;; *) exit 2 ;; esac ;;
"link add name "*) case "$HAS" in *"$6"*) echo "$4" >>"$STATE" ;; *) exit 2 ;; esac ;;
esac
""",
    "id": "echo 0",
    "sysctl": "",
    "modprobe": "exit 1",
    "sluice": "",
}


class Machine:
    """A backend that only writes down what was done to it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.log = folder, folder / "log"
        (folder / "state").touch()
        (folder / "state.fou").touch()
        for name in ("awk", "grep", "sed", "sh", "cat"):
            (folder / name).symlink_to(str(shutil.which(name)))
        for name, text in TOOLS.items():
            # A query is no deed: only what may change something is logged.
            note = f'case "$*" in *show*) ;; *) echo "{name} $*" >>"$LOG" ;; esac' if name != "id" else ""
            (folder / name).write_text(f"#!/bin/sh\n{note}\n{text}\n")
            (folder / name).chmod(0o755)

    def without(self, tool: str) -> None:
        (self._folder / tool).unlink()

    def run(self, script: str, *, has: str = "", mtu: int = 1500) -> tuple[int, list[str], str]:
        """Exit code, what was done, and what was said."""
        self.log.write_text("")
        state = {"STATE": str(self._folder / "state"), "LOG": str(self.log), "HAS": has, "MTU": str(mtu)}
        done = subprocess.run(
            [str(self._folder / "sh")],
            input=script,
            env={"PATH": str(self._folder), **state},
            text=True,
            capture_output=True,
            check=False,
        )
        return done.returncode, self.log.read_text().splitlines(), done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


IPIP = Wish("web", "192.0.2.10", "ipip", (OWN4, "10.0.0.12"), 20)
GUE6 = Wish("web6", "2001:db8::1", "gue", (OWN6,), 48)
L2 = Wish("near", "192.0.2.10", "l2", (OWN4,))
PREFIX = Wish("many", "2001:db8:1::/80", "ipip", (OWN4,), 20)
FOUR_IN_SIX = Wish("mixed", "192.0.2.10", "ipip", (OWN6,), 40)
ALL = [IPIP, GUE6, L2, PREFIX, FOUR_IN_SIX]
ARP = ["sysctl -q -w net.ipv4.conf.all.arp_ignore=1", "sysctl -q -w net.ipv4.conf.all.arp_announce=2"]
STRICT = ["sysctl -q -w net.ipv4.conf.all.rp_filter=0", "sysctl -q -w net/ipv4/conf/eth7/rp_filter=0"]
UP = ["ip link set dev eth7 up arp on"]


def test_mode_l2_needs_the_vip_alone(machine: Machine) -> None:
    """Silence about the VIP comes before the VIP, so that nobody hears of it; nothing is taken off."""
    code, done, _ = machine.run(prepare(L2).script)

    assert (code, done) == (0, [*UP, *ARP, *STRICT, "ip address replace 192.0.2.10/32 dev lo"])


def test_kernel_device_takes_the_header_off(machine: Machine) -> None:
    """Where the kernel has the device, it is made for the backend's own address, and does not check the way back."""
    code, done, said = machine.run(prepare(IPIP).script, has="ipip", mtu=9000)

    assert code == 0
    assert done[-4:] == [
        "modprobe -q ipip",
        f"ip link add name sluice-ipip type ipip local {OWN4}",
        "ip link set dev sluice-ipip up",
        "sysctl -q -w net/ipv4/conf/sluice-ipip/rp_filter=0",
    ]
    assert "mtu" not in said


def test_second_run_makes_no_second_device(machine: Machine) -> None:
    """What is there already is left."""
    first = machine.run(prepare(IPIP).script, has="ipip")
    second = machine.run(prepare(IPIP).script, has="ipip")

    assert [first[0], second[0]] == [0, 0]
    assert set(first[1]) - set(second[1]) == {f"ip link add name sluice-ipip type ipip local {OWN4}"}


@pytest.mark.parametrize("wish", [IPIP, GUE6, PREFIX, FOUR_IN_SIX], ids=lambda wish: wish.service)
def test_program_takes_the_header_off_where_the_kernel_cannot(machine: Machine, wish: Wish) -> None:
    """A kernel without the device gets Sluice's XDP program, and the script says so."""
    code, done, said = machine.run(prepare(wish).script)

    assert code == 0
    assert done[-1] == "sluice decap attach eth7 --gue-port 6080"
    assert "an XDP program on eth7 strips the outer header" in said


def test_neither_device_nor_sluice_is_a_failure_that_names_both(machine: Machine) -> None:
    """The script does not say that a backend is prepared which is not."""
    machine.without("sluice")
    code, _, said = machine.run(prepare(IPIP).script)

    assert code == 1
    assert "this kernel has no ipip device: install that module, or Sluice" in said
    assert "is prepared" not in said


def test_gue_needs_its_port_and_the_device(machine: Machine) -> None:
    """The kernel takes GUE if it has both; a device without the port is no use, so the program steps in."""
    with_port = machine.run(prepare(GUE6).script, has="fou ip6tnl")[1]
    (machine._folder / "state.fou").write_text("")
    without = machine.run(prepare(GUE6).script, has="ip6tnl")[1]

    assert "ip link set dev sluice-ip6tnl up" in with_port
    assert "ip -6 fou add port 6080 gue" in with_port
    assert without[-1].startswith("sluice decap attach")


def test_too_small_an_mtu_is_told_and_not_changed(machine: Machine) -> None:
    """It says what the interface would have to take; it is the network's owner who knows whether it can."""
    _, done, said = machine.run(prepare(IPIP).script, mtu=1500)

    assert "ip link set dev eth7 mtu 1520" in said
    assert not any("mtu" in line for line in done)


def test_prefix_is_local_by_a_route(machine: Machine) -> None:
    """A VIP that is a prefix has no address to add; servers may bind to any of it."""
    _, done, _ = machine.run(prepare(PREFIX).script)

    assert "sysctl -q -w net.ipv6.ip_nonlocal_bind=1" in done
    assert "ip -6 route replace local 2001:db8:1::/80 dev lo" in done


def test_mode_nat_needs_the_way_back_alone(machine: Machine) -> None:
    """A backend of mode nat has no VIP: its answers to where the balancer sends from go back to the balancer."""
    wish = Wish("behind", "192.0.2.10", "nat", (OWN4,), gateway="10.0.0.1", answers_to=("10.0.9.0/28",))
    done = machine.run(prepare(wish).script)[:2]
    undone = machine.run(prepare(replace(wish, undo=True)).script)[:2]

    assert done == (0, [*UP, "ip route replace 10.0.9.0/28 via 10.0.0.1"])
    assert undone == (0, ["ip route del 10.0.9.0/28 via 10.0.0.1"])


def test_machine_that_is_no_backend_is_left_alone(machine: Machine) -> None:
    """Run in the wrong place it changes nothing, and says whose it is."""
    code, done, said = machine.run(prepare(Wish("web", "192.0.2.10", "ipip", ("10.9.9.9",), 20)).script)

    assert (code, done) == (FOREIGN, [])
    assert "10.9.9.9" in said


def test_undoing_takes_back_what_was_done(machine: Machine) -> None:
    """The device, the VIP and the silence go."""
    machine.run(prepare(IPIP).script, has="ipip")
    code, done, _ = machine.run(prepare(replace(IPIP, undo=True)).script)

    assert code == 0
    assert done == [
        "ip link delete dev sluice-ipip",
        "sluice decap detach eth7",
        "ip address del 192.0.2.10/32 dev lo",
        "sysctl -q -w net.ipv4.conf.all.arp_ignore=0",
        "sysctl -q -w net.ipv4.conf.all.arp_announce=0",
    ]


def test_undoing_leaves_what_others_need(machine: Machine) -> None:
    """Of what another service on the same backend needs, nothing is taken."""
    kept = replace(IPIP, undo=True, keeps_vip=True, keeps_tunnel=True, keeps_arp=True)

    assert machine.run(prepare(kept).script)[:2] == (0, [])


def test_backends_of_both_families_are_one_script(machine: Machine) -> None:
    """Each machine does its parts; a part that fails fails the whole, one for other machines does not."""
    ours, other = prepare(L2).script, prepare(Wish("web6", "2001:db8::1", "l2", ("fd00::99",))).script
    fails = prepare(IPIP).script
    machine.without("sluice")

    assert machine.run(joined([ours, other]))[:2] == (0, machine.run(ours)[1])
    assert machine.run(joined([ours, fails]))[0] == 1
    assert machine.run(joined([other, other]))[0] == 1


@pytest.mark.parametrize("undo", [False, True], ids=["do", "undo"])
@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed: make setup")
def test_shellcheck_finds_nothing(tmp_path: Path, undo: bool) -> None:
    """The scripts are plain POSIX without a fault that shellcheck knows."""
    files = []
    for wish in ALL:
        path = tmp_path / f"{wish.service}.sh"
        path.write_text(prepare(replace(wish, undo=undo)).script)
        files.append(str(path))
    both = tmp_path / "both.sh"
    both.write_text(joined([prepare(IPIP).script, prepare(GUE6).script]))

    done = subprocess.run(["shellcheck", *files, str(both)], capture_output=True, text=True, check=False)

    assert done.stdout == ""


def test_commands_to_read_are_those_of_the_script() -> None:
    """What is printed and what the script runs are the same commands."""
    for wish in ALL:
        found = prepare(wish)
        commands = [command for step in found.steps for command in step.commands]
        plain = [c for c in commands if "$own" not in c and "fou" not in c and not c.startswith("ip link")]

        assert all(command in found.script for command in plain)
        assert len(plain) >= 1

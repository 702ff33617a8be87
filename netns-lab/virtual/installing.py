"""Chapters: Sluice comes onto the machine by `make install`, starts by its unit, and goes by `make uninstall`."""

import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path

from rerun import CHECKOUT
from virtual import network, sluice, traffic
from virtual.network import BACKENDS
from virtual.report import check, fact, note

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_PERFMON": 38, "CAP_BPF": 39}
"""Numbers of linux/capability.h."""
WATCHDOG_SECONDS = 20
"""The unit's own minute would have to be waited for."""
NOT_LEFT = (
    "/usr/lib/sluice",
    "/usr/bin/sluice",
    "/usr/share/doc/sluice",
    "/usr/lib/systemd/system/sluice.service",
    "/usr/lib/sysusers.d/sluice.conf",
    "/etc/systemd/system/multi-user.target.wants/sluice.service",
    "/run/sluice",
)
NETWORK_UNIT = f"""\
[Unit]
Before=sluice.service

[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=none
ExecStart={CHECKOUT}/.venv/bin/python {network.__file__}

[Install]
WantedBy=multi-user.target
"""


def install() -> None:
    """`make install`, without a network: wheels are at hand, and the set-up is this checkout's own."""
    began = time.monotonic()
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/given/wheels", "HOME": "/root"}
    words, said = ["make", "-C", str(CHECKOUT), "-o", "setup", "install"], []
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | offline
    ) as make:
        assert make.stdout is not None
        for line in make.stdout:
            note(f"{time.monotonic() - began:.0f} s: {line.rstrip()}")
            said.append(line)
    check(make.returncode == 0, f"make install: {''.join(said[-15:])}")
    version = sluice.run("sluice", "version").stdout.split("\n")[0]
    fact(f"make install: {version}, in {time.monotonic() - began:.0f} s, on Linux {os.uname().release}")


def prepare() -> None:
    """The network, which a unit makes at each boot before the daemon starts; what is served; more patience."""
    began = time.monotonic()
    Path("/etc/systemd/system/sluice-machine-network.service").write_text(NETWORK_UNIT)
    sluice.DROP_IN.parent.mkdir(parents=True)
    patience = f"TimeoutStartSec={sluice.START_SECONDS:.0f}\nWatchdogSec={WATCHDOG_SECONDS}\n"
    sluice.DROP_IN.write_text(f"[Service]\n{patience}")
    network.KIND.write_text("bond")
    sluice.configure("bond0")
    _take_compiled()
    sluice.run("systemctl", "daemon-reload")
    done = sluice.run("systemctl", "enable", "--now", "sluice-machine-network", ok=False)
    check(done.returncode == 0, done.stderr + sluice.journal(20, "sluice-machine-network"))
    note(f"network made in {time.monotonic() - began:.0f} s")


def _take_compiled() -> None:
    """What was compiled outside for this kernel; whatever it is not the same for is not found by its name."""
    given = sorted(Path("/given/compiled").glob("*"))
    if given:
        sluice.run(
            "install",
            "-d",
            "-m",
            "700",
            "-o",
            "sluice",
            "-g",
            "sluice",
            "/var/lib/sluice",
            str(sluice.COMPILED),
        )
        sluice.run(
            "install", "-m", "600", "-o", "sluice", "-g", "sluice", *map(str, given), str(sluice.COMPILED)
        )
    note(f"{len(given)} compiled programs were given")


def start() -> None:
    """The unit is active when the daemon says that it is in step; a first service."""
    began = time.monotonic()
    sluice.run("systemctl", "enable", "sluice")
    sluice.systemctl("start")
    took = time.monotonic() - began
    state = sluice.unit("Type", "ActiveState", "StatusText", "MainPID")
    check((state["Type"], state["ActiveState"]) == ("notify", "active"), str(state))
    fact(f"systemctl start: active, told by sd_notify, after {took:.0f} s; status: {state['StatusText']}")
    _see_rights(state["MainPID"])
    _add_service()
    for one in sluice.ask("status")["programs"]:
        times = ", ".join(f"{what} {one[f'{what}_seconds']:.1f} s" for what in ("compile", "load", "check"))
        note(f"program of {one['instructions']} instructions, in force: {one['in_force']}: {times}")


def _see_rights(pid: str) -> None:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    user = pwd.getpwuid(int(fields["Uid"].split()[0])).pw_name
    wanted = sum(1 << number for number in CAPABILITIES.values())
    held = {name: int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")}
    check(user == "sluice" and set(held.values()) == {wanted}, f"user {user}, capabilities {held}")
    fact(f"it runs as user {user}, with {', '.join(CAPABILITIES)}, and no other in its bounding set")


def _add_service() -> None:
    """A service of mode ipip with health checks; its backends are prepared by the script that the command prints."""
    began = time.monotonic()
    sluice.run("sluice", "service", "add", *sluice.SERVICE_WORDS)
    fact(f"sluice service add, by the unit's socket: in force after {time.monotonic() - began:.0f} s")
    for said in prepare_backends():
        check("sluice-ipip strips the outer header" in said, said)
    fact("sluice backend-setup --script has prepared both backends, with the kernel's own ipip")
    sluice.wait_until_healthy()
    fact("both backends are healthy, asked by the way of clients' packets")
    fact(traffic.balance())


def prepare_backends() -> list[str]:
    """Run the script on every backend; what it says there."""
    script = sluice.run("sluice", "backend-setup", sluice.SERVICE, "--script").stdout
    return [sluice.run(*network.inside.command(name, ["sh"]), feed=script).stderr for name in BACKENDS]


def uninstall() -> None:
    """`make uninstall` leaves state and configuration, and nothing else."""
    make = ["make", "-C", str(CHECKOUT), "uninstall"]
    refused = sluice.run(*make, ok=False)
    interface = sluice.served()["name"]
    told = f"{interface} is still served" in refused.stderr
    check(refused.returncode != 0 and told, refused.stderr)
    fact(f"make uninstall while it serves: {refused.stderr.splitlines()[0]}")
    sluice.run("systemctl", "disable", "--now", "sluice")
    sluice.run("sluice", "detach", "--interface", interface)
    shutil.rmtree(sluice.DROP_IN.parent)
    sluice.run(*make)
    left = [path for path in map(Path, NOT_LEFT) if path.exists()]
    check(not left, f"left: {left}")
    check("xdp" not in sluice.run("ip", "link", "show", interface).stdout, "a program is attached")
    check(not list(Path("/sys/fs/bpf").glob("sluice/*")), "pins are left")
    check(Path("/var/lib/sluice/state.db").exists() and sluice.ENV.exists(), "state or configuration is gone")
    fact("make uninstall: gone but for /var/lib/sluice, /etc/sluice and the user")
    subprocess.run(make, env=os.environ | {"PURGE": "1"}, check=True, capture_output=True)
    users = Path("/etc/passwd").read_text()
    left = [path for path in ("/var/lib/sluice", "/etc/sluice") if Path(path).exists()]
    check(not left and "sluice:" not in users, f"PURGE=1 left {left}")
    fact("make uninstall PURGE=1: these too")

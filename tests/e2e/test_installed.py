"""make install, and what is installed at work: as a user of its own with three capabilities, told of to systemd."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from lone_machine import PATIENCE_SECONDS, SLUICE, SMALL, Machine, lone_machine
from rerun import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tests" / "api"))

from ipaddress import ip_address

from authority import Authority
from cryptography import x509

from lb.settings import PIN_ROOT

USER = 64_993
CAPABILITIES = ("bpf", "net_admin", "perfmon")
BITS = 1 << 39 | 1 << 12 | 1 << 38
PREFIX = "/mnt"
"""A place that every machine has, over which the test puts what it installed, in a mount namespace of its own."""

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(400)]


@pytest.fixture
def machine(as_root: None, tmp_path: Path) -> Iterator[Machine]:
    with lone_machine(tmp_path) as machine:
        yield machine


@pytest.fixture
def folder(open_folder: Path) -> Path:
    """One that the daemon's user may look into."""
    return open_folder


def make(what: str, folder: Path, **more: str) -> str:
    """`make install` or `make uninstall` into the folder, by the script that they call."""
    environment = {**os.environ, "DESTDIR": str(folder), "PREFIX": PREFIX, **more}
    words = [str(CHECKOUT / "deploy" / "install.sh"), what]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Manager:
    """What systemd is to the daemon: the listener at NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path, self._socket = path, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._socket.settimeout(1)
        self.heard: list[str] = []

    def wait_for(self, word: str, daemon: subprocess.Popen[bytes]) -> None:
        """Return when it was said; fails if the daemon ends, or says nothing for long."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while word not in self.heard:
            try:
                self.heard.append(self._socket.recv(4096).decode())
            except TimeoutError:
                assert daemon.poll() is None and time.monotonic() < deadline, self.heard

    def catch_up(self) -> None:
        """Read all that was said: the kernel keeps ten, and what finds no room is not said."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self._socket.recv(4096).decode())
        self._socket.settimeout(1)

    def close(self) -> None:
        self._socket.close()


def test_an_installed_daemon_needs_no_root(machine: Machine, folder: Path) -> None:
    """It compiles, attaches, serves TLS and answers the installed command; uninstalled, it leaves nothing behind."""
    make("install", folder)
    modules = list((folder / "mnt" / "lib" / "sluice" / "python" / "lb").rglob("*.py"))
    assert all(Path(cache_from_source(path)).is_file() for path in modules), "each start would compile Python"
    action = (folder / "mnt" / "share" / "doc" / "sluice" / "fail2ban-sluice.conf").read_text()
    assert f"\nsluice = {PREFIX}/bin/sluice\n" in action
    authority = Authority(folder, "authority")
    certificate, key = authority.issue("edge", x509.IPAddress(ip_address("127.0.0.1")))
    for path in (key, folder / "state", folder / "run"):
        path.mkdir(mode=0o700) if path.name in ("state", "run") else None
        os.chown(path, USER, USER)
    manager = Manager(folder / "notify")
    log = (folder / "log").open("w+")
    serve = [f"{PREFIX}/bin/sluice", "serve", "--interface", machine.interface, "--listen", "127.0.0.1:8443"]
    serve += ["--tls-cert", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(authority.file)]
    serve += ["--state-dir", str(folder / "state"), "--socket", str(folder / "run" / "s.sock"), *SMALL]
    caps = ",".join(f"+{name}" for name in CAPABILITIES)
    as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
    as_user += [f"--inh-caps=-all,{caps}", f"--ambient-caps=-all,{caps}", f"--bounding-set=-all,{caps}"]
    script = (
        f"mount --bind {folder}{PREFIX} {PREFIX} && mount -t bpf -o mode=0700 bpf /sys/fs/bpf && "
        f'{PREFIX}/lib/sluice/prepare-bpffs /sys/fs/bpf {USER}:{USER} && exec "$@"'
    )
    inside = [
        "nsenter",
        f"--net=/run/netns/{machine.namespace}",
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
    ]
    environment = {**os.environ, "NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "3000000"}
    environment.pop("WATCHDOG_PID", None)
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{machine.namespace}", "ip", "link", "set", "lo", "up"], check=True
    )
    daemon = subprocess.Popen([*inside, *as_user, *serve], env=environment, stderr=log, cwd="/")
    try:
        manager.wait_for("READY=1", daemon)
        manager.wait_for("WATCHDOG=1", daemon)
        manager.wait_for("STATUS=forwarding, in step with what is desired", daemon)

        status = Path(f"/proc/{daemon.pid}/status").read_text()
        shown = {line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()}
        assert set(shown["Uid"]) == {str(USER)}
        assert {int(shown[name][0], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {BITS}
        assert shown["NoNewPrivs"] == ["1"]
        pins = Path(f"/proc/{daemon.pid}/root/sys/fs/bpf/sluice")
        for path in (
            pins,
            pins / machine.interface,
            *(p for p in (pins / machine.interface).iterdir() if p.is_dir()),
        ):
            found = path.stat()
            assert (found.st_uid, found.st_mode & 0o777) == (USER, 0o700), path

        def sluice(*words: str, token: Path | None = None) -> subprocess.CompletedProcess[str]:
            """The installed command, as root, by the socket, or by TLS with a token."""
            by = ["--server", f"unix://{folder}/run/s.sock"]
            if token:
                by = ["--server", "https://127.0.0.1:8443", "--ca-file", str(authority.file)]
                by += ["--token-file", str(token)]
            return subprocess.run(
                [
                    "nsenter",
                    f"--target={daemon.pid}",
                    "--net",
                    "--mount",
                    f"{PREFIX}/bin/sluice",
                    *by,
                    *words,
                ],
                capture_output=True,
                text=True,
                check=False,
            )

        made = sluice("token", "create", "ci", "--role", "operator", "--expires", "1h")
        assert made.returncode == 0, made.stderr
        token = folder / "ci.token"
        token.touch(mode=0o600)
        token.write_text(made.stdout)
        service = ["--vip", "192.0.2.10", "--port", "80", "--protocol", "tcp", "--backend", "198.51.100.9"]
        assert sluice("service", "add", "web", *service).returncode == 0
        assert sluice("block", "203.0.113.0/24", token=token).returncode == 0
        asked = [
            "--src",
            "203.0.113.7:1000",
            "--dst",
            "192.0.2.10:80",
            "--protocol",
            "tcp",
            "--syn",
            "-o",
            "json",
        ]
        explained = sluice("explain", *asked, token=token)
        assert json.loads(explained.stdout)["packets"][0]["verdict"] == "DROP_BLOCKLIST", explained.stderr
        refused = sluice("apply", "-f", "/dev/null", token=token)
        assert (refused.returncode, "needs the role admin" in refused.stderr) == (1, True)
        token.write_text("sluice_wrong")
        unknown = sluice("status", token=token)
        assert (unknown.returncode, "there is no such token" in unknown.stderr) == (1, True)
        lines = json.loads(sluice("audit", "-o", "json").stdout)["items"]
        assert [(line["actor"], line["status"]) for line in lines] == [
            ("unknown", 401),
            ("token ci", 403),
            ("token ci", 201),
            ("uid 0", 201),
            ("uid 0", 201),
        ]
        events = json.loads(sluice("events", "-o", "json").stdout)
        assert not [event for event in events["items"] if event["kind"] == "failure"]
        for file in (folder / "state").iterdir():
            assert (file.stat().st_uid, file.stat().st_mode & 0o077) == (USER, 0), file
            assert made.stdout.strip().encode() not in file.read_bytes()

        manager.catch_up()
        daemon.terminate()
        assert daemon.wait(PATIENCE_SECONDS) == 0
        manager.wait_for("STOPPING=1", daemon)
    finally:
        daemon.kill()
        daemon.wait()
        manager.close()
        log.seek(0)
        print(log.read())  # shown where the test fails
        log.close()

    left = make("uninstall", folder)
    assert "PURGE=1 removes them too" in left
    assert [p.name for p in (folder / "etc" / "sluice").iterdir()] == ["sluice.env"]
    make("uninstall", folder, PURGE="1")
    files = [str(p.relative_to(folder)) for top in ("etc", "usr", "mnt") for p in (folder / top).rglob("*")]
    assert [name for name in files if (folder / name).is_file()] == []
    assert not [name for name in files if "sluice" in name]


def test_without_its_capabilities_it_says_which(machine: Machine, folder: Path) -> None:
    """One sentence that names them and how they are had; nothing is made."""
    words = ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+net_admin,+dac_override", SLUICE, "serve"]
    words += ["--interface", machine.interface, "--state-dir", str(folder / "state")]
    words += ["--socket", str(folder / "s")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith(
        "sluice: sluice serve lacks CAP_PERFMON and CAP_BPF: run it as root, by deploy/"
    )
    assert list(folder.iterdir()) == []


def test_the_unit_is_closed(folder: Path) -> None:
    """systemd's own judgement of its exposure is 2.6 or less, and it finds no fault with it."""
    unit = CHECKOUT / "deploy" / "sluice.service"
    words = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    judged = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    line = next(line for line in judged.splitlines() if "Overall exposure level" in line)
    assert float(line.rpartition(": ")[2].split()[0]) <= 2.6

    copy = folder / "sluice.service"
    true = shutil.which("true")
    text = unit.read_text().replace("/usr/lib/sluice/prepare-bpffs", str(true))
    copy.write_text(text.replace("/usr/bin/sluice", str(true)))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    assert [line for line in verified.stderr.splitlines() if "sluice" in line] == []
    assert "ProtectKernelModules=" not in unit.read_text()


def test_the_unit_may_write_its_pins() -> None:
    """The daemon's directory, which need not be there yet; above it ProtectKernelTunables counts."""
    lines = (CHECKOUT / "deploy" / "sluice.service").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    assert given["ProtectKernelTunables"] == "yes"
    assert given["ReadWritePaths"] == f"-{PIN_ROOT}"

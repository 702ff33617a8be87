"""The real fail2ban bans a client by deploy/fail2ban/sluice.conf, and lets it go."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import balancer
import httpx
import pytest
from place import Lab
from test_blocklist import Ask, asker  # noqa: F401  # a fixture

ACTION = Path(__file__).resolve().parents[2] / "deploy/fail2ban/sluice.conf"
PATIENCE_SECONDS = 30.0
JAIL = "lab"


class Fail2ban:
    """A fail2ban of our own: sockets, pid file and configuration in one folder."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        self.socket, self.log = folder / "f2b.sock", folder / "auth.log"
        self.log.touch()
        settings = {
            "fail2ban.conf": (
                "[Definition]\nloglevel = INFO\nlogtarget = STDOUT\nsyslogsocket = auto\nallowipv6 = auto\n"
                f"socket = {self.socket}\npidfile = {folder}/f2b.pid\n"
                "dbfile = None\ndbmaxmatches = 10\ndbpurgeage = 1d\n"
                "[Thread]\nstacksize = 0\n"
            ),
            "jail.conf": (
                f"[{JAIL}]\nenabled = true\nfilter = lab\nlogpath = {self.log}\nbackend = polling\n"
                "usedns = no\nmaxretry = 3\nfindtime = 600\nbantime = 600\nignoreself = false\n"
                f"action = sluice[sluice={balancer.SLUICE}, server=unix://{lab.socket}]\n"
            ),
            "filter.d/lab.conf": r"[Definition]" + "\nfailregex = ^\\s*login failed from <HOST>$\n",
        }
        for name, text in settings.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        (folder / "action.d").mkdir()
        shutil.copy(ACTION, folder / "action.d/sluice.conf")
        places = ["-c", str(folder), "-s", str(self.socket), "-p", str(folder / "f2b.pid")]
        self.output = (folder / "output").open("w+")
        words = ["fail2ban-server", "-f", *places, "start"]
        self.child = subprocess.Popen(words, stdout=self.output, stderr=subprocess.STDOUT)

    def ask(self, *words: str) -> str:
        """One command of fail2ban-client; what it printed."""
        done = subprocess.run(
            ["fail2ban-client", "-s", str(self.socket), *words], capture_output=True, text=True, check=False
        )
        return done.stdout

    def fail(self, address: str) -> None:
        """A line such as a login that failed leaves."""
        with self.log.open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} login failed from {address}\n")

    def stop(self) -> str:
        """End it; all that it said."""
        self.child.terminate()
        self.child.wait(timeout=PATIENCE_SECONDS)
        self.output.seek(0)
        with self.output:
            return self.output.read()


@pytest.fixture
def fail2ban(lab: Lab, tmp_path: Path) -> Iterator[Fail2ban]:
    """A fail2ban with one jail that is at work."""
    jailer = Fail2ban(tmp_path, lab)
    try:
        until(lambda: JAIL in jailer.ask("status"))
        yield jailer
    finally:
        print(jailer.stop())


def until(holds: Callable[[], bool]) -> None:
    """Return when it holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.05)


def test_a_client_is_banned_and_let_go(
    http: httpx.Client,
    asker: Ask,  # noqa: F811
    fail2ban: Fail2ban,
) -> None:
    """After three failures its packets are dropped, for as long as the jail says; unbanned, they pass."""
    client = asker(1, 4)
    address = client.host.address(4)
    assert client.ask() == "TX_IPIP"
    path = f"/v1/blocklist/{address}"

    for _ in range(3):
        fail2ban.fail(address)

    until(lambda: http.get(path).status_code == 200)
    assert client.ask() == "DROP_BLOCKLIST"
    entry: dict[str, Any] = http.get(path).json()
    assert (entry["owners"], entry["ttl_seconds"]) == (["fail2ban"], 600)
    assert entry["reason"] == f"fail2ban {JAIL}"
    assert entry["hits"]["packets"] == 1
    fail2ban.ask("set", JAIL, "unbanip", address)
    until(lambda: http.get(path).status_code == 404)
    assert client.ask() == "TX_IPIP"

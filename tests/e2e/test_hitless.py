"""Changes, a killed daemon and a restart, all under load: nothing that could stay is moved, nothing fails."""

import asyncio
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import inside
import lifecycle
import processes
import pytest
from another_version import another_version
from place import Lab
from rerun import CHECKOUT
from topology import Role

CONNECTIONS = 48
SLUICE = str(CHECKOUT / ".venv" / "bin" / "sluice")


@dataclass
class Connection:
    """One kept-alive connection: whose name each answer bore, and the failure that ended it."""

    names: list[str] = field(default_factory=list)
    failure: str | None = None


class Load:
    """Connections from one client that ask again and again until `stop`."""

    def __init__(self, namespace: str, vip: str, port: int) -> None:
        self.connections = [Connection() for _ in range(CONNECTIONS)]
        self._vip, self._port = vip, port
        self._stopping = threading.Event()
        self._answered = threading.Condition()
        self._thread = threading.Thread(target=lambda: inside.call(namespace, self._run))

    def __enter__(self) -> "Load":
        self._thread.start()
        self.wait_for_more(3)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def wait_for_more(self, answers: int) -> None:
        """Return when every connection that is alive has had so many more answers."""
        wanted = [len(c.names) + answers for c in self.connections]
        with self._answered:
            assert self._answered.wait_for(
                lambda: all(
                    c.failure or len(c.names) >= n for c, n in zip(self.connections, wanted, strict=True)
                ),
                timeout=30,
            )

    def _run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        await asyncio.gather(*(self._ask(c) for c in self.connections))

    async def _ask(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(self._vip, self._port)
            while not self._stopping.is_set():
                async with asyncio.timeout(10):
                    writer.write(f"GET /whoami HTTP/1.1\r\nHost: {self._vip}\r\n\r\n".encode())
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
                    connection.names.append((await reader.readexactly(length)).decode().strip())
                with self._answered:
                    self._answered.notify_all()
                await asyncio.sleep(0.005)
            writer.close()
        except (OSError, EOFError, TimeoutError) as error:
            connection.failure = repr(error)
            with self._answered:
                self._answered.notify_all()


@contextmanager
def wrk(lab: Lab, url: str, seconds: int) -> Iterator[Callable[[], str]]:
    """wrk at full speed from client 2; call what is given to wait for its report."""
    words = ["wrk", "--threads", "1", "--connections", "32", "--duration", f"{seconds}s", url]
    process = subprocess.Popen(
        inside.command(lab.namespace(Role.CLIENT, 2), words), stdout=subprocess.PIPE, text=True
    )
    try:
        yield lambda: process.communicate()[0]
    finally:
        process.kill()
        process.wait()


def failures(report: str) -> list[str]:
    """What wrk says of errors; it says nothing where there were none."""
    assert int(re.search(r"(\d+) requests in", report)[1]) > 0  # type: ignore[index]
    return re.findall(r"(?:Socket errors|Non-2xx).*", report)


@pytest.fixture
def two_of_three(lab: Lab, vips: dict[int, str], http: httpx.Client) -> dict[str, Any]:
    """A service over the first two backends."""
    hosts = lab.configuration.of_role(Role.BACKEND)
    service = {
        "name": "web",
        "vip": vips[4],
        "protocol": "tcp",
        "port": 80,
        "mode": "ipip",
        "backends": [{"address": host.address(4)} for host in hosts[:2]],
    }
    http.post("/v1/services", json=service).raise_for_status()
    return service


def test_changes_under_load_fail_nothing_and_move_nothing(
    lab: Lab, http: httpx.Client, two_of_three: dict[str, Any]
) -> None:
    """Backends added, weighted and removed by REST under load: established connections stay, no request fails.

    Only the connections of a backend that is removed may break.
    """
    third = lab.configuration.of_role(Role.BACKEND)[2]
    path = f"/v1/services/web/backends/{third.address(4)}"
    first = f"/v1/services/web/backends/{lab.configuration.of_role(Role.BACKEND)[0].address(4)}"
    namespace, vip = lab.namespace(Role.CLIENT, 1), two_of_three["vip"]

    with wrk(lab, f"http://{vip}/whoami", 4) as report, Load(namespace, vip, 80) as old:
        http.put(path, json={"weight": 3}).raise_for_status()
        old.wait_for_more(5)
        with Load(namespace, vip, 80) as new:
            http.patch(path, json={"weight": 1}).raise_for_status()
            http.patch(first, json={"weight": 7}).raise_for_status()
            new.wait_for_more(5)
            assert failures(report()) == []
            http.delete(path).raise_for_status()
            old.wait_for_more(10)
            new.wait_for_more(10)

    assert {name for c in new.connections for name in c.names[:1]} >= {"backend1", third.label}
    for connection in old.connections:
        assert connection.failure is None
        assert len(set(connection.names)) == 1
    for connection in new.connections:
        if connection.names[0] != third.label:
            assert connection.failure is None
            assert len(set(connection.names)) == 1


def test_killed_daemon_is_not_noticed_and_its_maps_are_adopted(
    lab: Lab, http: httpx.Client, two_of_three: dict[str, Any], tmp_path: Path
) -> None:
    """kill -9 under load fails no request; the restart moves no connection, and finds nothing to change."""
    namespace, vip = lab.namespace(Role.CLIENT, 1), two_of_three["vip"]
    http.put("/v1/blocklist/198.51.100.0%2F24", json={"reason": "kept"}).raise_for_status()
    exported = tmp_path / "sluice.yaml"
    exported.write_text(sluice(lab, "export").stdout)
    wait_until_trimmed(http)

    with wrk(lab, f"http://{vip}/whoami", 6) as report, Load(namespace, vip, 80) as load:
        daemon = lifecycle.find_daemon(lab)
        assert daemon is not None
        program = program_in_force(http)
        os.kill(daemon.pid, signal.SIGKILL)
        load.wait_for_more(20)
        lifecycle.start_daemon(lab)
        lifecycle.wait_for_daemon(lab)
        assert program_in_force(http) == program
        load.wait_for_more(20)
        assert failures(report()) == []

    for connection in load.connections:
        assert connection.failure is None
        assert len(set(connection.names)) == 1
    assert sluice(lab, "diff", "-f", str(exported)).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_upgrade_moves_nothing_and_fails_nothing(
    lab: Lab,
    http: httpx.Client,
    two_of_three: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From one layout of maps to another, to other sizes, and back, under load: tables are built beside and swapped,
    established connections stay though the ring has changed since, no request fails, counts go on."""
    other = another_version(tmp_path / "other")
    starts = [{"PYTHONPATH": str(other)}, {"SLUICE_FLOW_SLOTS": str(1 << 18), "SLUICE_BACKENDS": "16384"}, {}]
    pins = Path("/sys/fs/bpf/sluice") / lab.names.balancer_interface
    before = {path.name for path in pins.glob("maps-*")}
    third = lab.configuration.of_role(Role.BACKEND)[2]
    with Load(lab.namespace(Role.CLIENT, 1), two_of_three["vip"], 80) as load:
        # By the ring alone a third of them would move from here on.
        http.put(f"/v1/services/web/backends/{third.address(4)}", json={"weight": 3}).raise_for_status()
        maps, counted = [before], packets(http)
        for environment in starts:
            daemon = lifecycle.find_daemon(lab)
            assert daemon is not None
            processes.end([daemon])
            with monkeypatch.context() as patch:
                for name, value in environment.items():
                    patch.setenv(name, value)
                lifecycle.start_daemon(lab)
            lifecycle.wait_for_daemon(lab)
            maps.append({path.name for path in pins.glob("maps-*")})
            assert packets(http) >= counted
            counted = packets(http)
            load.wait_for_more(5)

    assert [len(names) for names in maps] == [1, 1, 1, 1]
    assert maps[0] == maps[3]
    assert len(set.union(*maps)) == 3
    for connection in load.connections:
        assert connection.failure is None
        assert len(set(connection.names)) == 1


def packets(http: httpx.Client) -> int:
    """Of the service, so far."""
    found: int = http.get("/v1/stats").json()["services"]["web"]["packets"]
    return found


def wait_until_trimmed(http: httpx.Client) -> None:
    """Return when the program has what is in use and no more: a restart takes over such a one, and no other."""
    deadline = time.monotonic() + 60
    while "HAVE_ALLOW" in http.get("/v1/status").json()["program"]["features"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def program_in_force(http: httpx.Client) -> int:
    """Its number."""
    number: int = http.get("/v1/status").json()["interfaces"][0]["program_id"]
    return number


def sluice(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, against the lab's daemon."""
    return subprocess.run(
        [SLUICE, "--server", f"unix://{lab.socket}", *words], capture_output=True, text=True, check=False
    )

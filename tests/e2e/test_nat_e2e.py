"""Mode nat with real servers, whose replies come back through the balancer, in all pairs of families."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TextIO, TypeVar

import balancer
import httpx
import inside
import lifecycle
import nat_servers
import pytest
import quic_hosts
from another_version import another_version
from place import Lab
from test_health import status, wait_until
from test_modes import digest
from topology import Role

VIPS = {(4, 4): "10.200.1.91", (4, 6): "10.200.1.92", (6, 4): "fc00:1::93", (6, 6): "fc00:1::94"}
"""By family of the VIP and of the backends."""
MESSAGES = [os.urandom(size) for size in (0, 1, 125, 1400, 70_000, 1_000_000)]
PIECE, PACE = 1 << 15, 1_000_000
"""Bytes at once, and in a second, of a transfer that is to last."""

T = TypeVar("T")


def translated(
    lab: Lab, pair: tuple[int, int], protocol: str, port: int, *, port_there: int | None = None, **more: Any
) -> dict[str, Any]:
    """A service of that pair of families whose backends listen on another port, or on the same."""
    elsewhere = {} if port_there is None else {"port": port_there}
    return {
        "name": f"{protocol}{port}-{pair[0]}-to-{pair[1]}",
        "vip": VIPS[pair],
        "protocol": protocol,
        "port": port,
        "mode": "nat",
        "backends": [{"address": host.address(pair[1]), **elsewhere} for host in nat_servers.hosts(lab)],
        **more,
    }


def put(http: httpx.Client, services: list[dict[str, Any]], pool: list[str]) -> None:
    """Make these the desired state; once it returns, the way to each backend is known."""
    document = {"services": services, "settings": {"nat_pools": pool}}
    http.put("/v1/config", json=document, timeout=240).raise_for_status()

    def states() -> list[str]:
        names = (service["name"] for service in services)
        return [backend["effective_state"] for name in names for backend in status(http, name)]

    wait_until(lambda: "unresolved" not in states(), states)


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def run(lab: Lab, *words: str) -> str:
    """The output of a client's command, which must succeed."""
    command = inside.command(lab.namespace(Role.CLIENT, 1), words)
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def test_real_protocols_in_all_pairs_of_families(
    lab: Lab, http: httpx.Client, pool: list[str], tmp_path: Path
) -> None:
    """HTTP/2 over TLS with checksummed files both ways, WebSockets, QUIC, iperf3 and wrk: no error in any of it."""
    services = []
    for pair in VIPS:
        services += [
            translated(lab, pair, "tcp", 80, port_there=8080),
            translated(lab, pair, "tcp", 443, port_there=nat_servers.TLS),
            translated(lab, pair, "udp", 443, port_there=nat_servers.QUIC),
            # iperf3 has several connections, which must come to one server.
            translated(lab, pair, "tcp", nat_servers.IPERF, affinity="source"),
            translated(lab, pair, "udp", nat_servers.IPERF, affinity="source"),
        ]
    put(http, services, pool)
    certificate = quic_hosts.write_certificate(tmp_path)
    sent = tmp_path / "sent"
    sent.write_bytes((lab.data / "100m").read_bytes()[:20_000_000])

    with nat_servers.processes(lab, certificate) as said:
        for pair, vip in VIPS.items():
            transfers(lab, vip, certificate[0], sent, tmp_path)
            for way in ([], ["--reverse"]):
                bulk = iperf(lab, vip, said, "--bytes", "50M", *way)
                assert bulk["sum_sent"]["bytes"] >= 50_000_000, (pair, way)
                # What is under way at the end is not counted.
                assert bulk["sum_received"]["bytes"] > 25_000_000, (pair, way)
                datagrams = iperf(lab, vip, said, "--udp", "--bitrate", "4M", "--bytes", "200K", *way)
                assert datagrams["sum"]["packets"] > 100, (pair, way)
                assert datagrams["sum"]["lost_packets"] == 0, (pair, way)
            for header in ("Connection: keep-alive", "Connection: close"):
                told = run(lab, "wrk", "-t1", "-c16", "-d1s", "-H", header, f"http://{bracketed(vip)}/whoami")
                assert "requests in" in told
                assert "Socket errors" not in told, (pair, told)
                assert "Non-2xx" not in told, (pair, told)
        asyncio.run(conversations(lab, certificate))

    verdicts = http.get("/v1/stats").json()["verdicts"]
    assert verdicts["TX_NAT"]["packets"] > 0
    assert verdicts["TX_NAT_REPLY"]["packets"] > 0
    refused = [name for name in verdicts if name.startswith("DROP_NAT") and verdicts[name]["packets"]]
    assert refused == []
    nat = http.get("/v1/stats").json()["nat"]
    assert nat["opened"] > 0
    assert set(nat["no_port"].values()) == {0}


def transfers(lab: Lab, vip: str, trust: Path, sent: Path, folder: Path) -> None:
    """100 MB come and 20 MB go by HTTP/2 over TLS, whose certificate is looked at."""
    fetched, name = folder / "fetched", f"nat-{vip}"
    words = ["curl", "-sS", "--fail", "--max-time", "100", "--http2", "--cacert", str(trust)]
    words += ["--resolve", f"{nat_servers.NAME}:443:{bracketed(vip)}", "--write-out", "%{http_version}"]
    versions = [
        run(lab, *words, "-o", str(fetched), f"https://{nat_servers.NAME}/100m"),
        run(lab, *words, "-T", str(sent), f"https://{nat_servers.NAME}/upload/{name}"),
    ]
    folders = [nat_servers.uploads(lab, host) for host in nat_servers.hosts(lab)]

    assert versions == ["2", "2"]
    assert digest(fetched) == digest(lab.data / "100m"), vip
    assert [digest(path) for folder in folders if (path := folder / name).exists()] == [digest(sent)], vip


def iperf(lab: Lab, vip: str, said: TextIO, *words: str) -> dict[str, Any]:
    """What iperf3 says at its end; it fails by itself when a connection does. said: by its servers."""
    document = json.loads(run(lab, "iperf3", "--client", vip, "--json", *words))
    end: dict[str, Any] = document["end"]
    assert ("sum" if "--udp" in words else "sum_sent") in end, document
    nat_servers.listens(said)
    return end


async def conversations(lab: Lab, certificate: tuple[Path, Path]) -> None:
    """WebSockets and QUIC: what is said is heard, whichever backend it is."""
    client = lab.configuration.of_role(Role.CLIENT)[0]
    async with nat_servers.coroutines(lab, certificate):
        for (family, _), vip in VIPS.items():
            assert await nat_servers.echoed(lab, vip, certificate[0], MESSAGES) == MESSAGES, vip
            answers = await nat_servers.named(lab, client.address(family), vip, connections=8)
            assert len(answers) == 8
            assert set(answers) <= {host.label for host in nat_servers.hosts(lab)}, vip


def test_killed_daemon_costs_nothing(
    lab: Lab, http: httpx.Client, pool: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 MB each way arrive unchanged while the daemon is killed three times: no reset, no stall of a second.

    In between it is of another version, with fewer slots and other structs: both connections are taken over by other
    tables, with their ports, and back.
    """
    other = another_version(tmp_path / "other")
    put(http, [translated(lab, (4, 6), "tcp", 80, port_there=8080)], pool)
    original, name, over = lab.data / "100m", f"nat-{os.getpid()}", threading.Event()
    client = lab.namespace(Role.CLIENT, 1)

    def begun(transfer: Callable[[Connection], T]) -> Future[tuple[T, float]]:
        connection = Connection(inside.call(client, lambda: narrow(VIPS[4, 6])), over)
        return threads.submit(lambda: (transfer(connection), connection.longest_wait))

    with ThreadPoolExecutor() as threads:
        try:
            download = begun(lambda connection: connection.download("/100m"))
            upload = begun(lambda connection: connection.upload(f"/upload/{name}", original))
            before = both_sides(lab)
            for options in ((), ("--nat-slots", "131072"), ()):
                daemon = lifecycle.find_daemon(lab)
                assert daemon is not None
                os.kill(daemon.pid, signal.SIGKILL)
                with monkeypatch.context() as patch:
                    if options:
                        patch.setenv("PYTHONPATH", str(other))
                    lifecycle.start_daemon(lab, *options)
                lifecycle.wait_for_daemon(lab)
                assert both_sides(lab) >= before
            assert not download.done()
            assert not upload.done()
        finally:
            over.set()
        (fetched, stalled_down), (status, stalled_up) = download.result(), upload.result()

    folders = [lab.data / host.label / "uploads" for host in nat_servers.hosts(lab)]
    received = [path for folder in folders if (path := folder / name).exists()]
    assert fetched == digest(original)
    assert status == HTTPStatus.CREATED
    assert [digest(path) for path in received] == [digest(original)]
    assert max(stalled_down, stalled_up) < 1.0


def both_sides(lab: Lab) -> set[tuple[str, ...]]:
    """Of each live flow the client's end, the VIP's, the pool's and the backend's. Each time the daemon is another."""
    with balancer.client(lab.socket, timeout=60.0) as http:
        flows = http.get("/v1/flows").raise_for_status().json()["items"]
    return {tuple(flow["nat"].values()) for flow in flows if flow["nat"]}


def narrow(vip: str) -> socket.socket:
    """A connection with so small buffers that it cannot hide a stall."""
    made = socket.socket()
    for size in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, size, 1 << 16)
    made.settimeout(60)
    made.connect((vip, 80))
    return made


class Connection:
    """A transfer that takes its time until something is over, and remembers how long the network once made it wait."""

    def __init__(self, connected: socket.socket, over: threading.Event) -> None:
        self._http = HTTPConnection("web")
        self._http.sock, self._over = connected, over
        self.longest_wait = 0.0

    def download(self, path: str) -> str:
        """The digest of what comes."""
        with contextlib.closing(self._http):
            self._http.request("GET", path)
            answer, seen = self._http.getresponse(), hashlib.sha256()
            while piece := self._timed(lambda: answer.read(PIECE)):
                seen.update(piece)
            return seen.hexdigest()

    def upload(self, path: str, content: Path) -> int:
        """The status that it ends with."""
        with contextlib.closing(self._http), content.open("rb") as file:
            self._http.putrequest("PUT", path)
            self._http.putheader("Content-Length", str(content.stat().st_size))
            self._http.endheaders()
            while piece := file.read(PIECE):
                self._timed(partial(self._http.send, piece))
            return self._http.getresponse().status

    def _timed(self, step: Callable[[], T]) -> T:
        self._over.wait(PIECE / PACE)
        begun = time.monotonic()
        done = step()
        self.longest_wait = max(self.longest_wait, time.monotonic() - begun)
        return done

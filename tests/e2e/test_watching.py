"""What the dropper does, seen from outside: capture, top and events of the real daemon, over real packets."""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import balancer
import httpx
import pytest
import traffic
from place import Lab
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader
from topology import Role

PORT = 53
PATIENCE_SECONDS = 60.0


@contextlib.contextmanager
def running(lab: Lab, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command that looks, once it does; ended in the end if it has not by itself."""
    command = [str(balancer.SLUICE), "--server", f"unix://{lab.socket}", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as looker:
        try:
            assert looker.stderr is not None
            assert looker.stderr.readline() == "sluice: looking; Ctrl-C ends it\n"
            yield looker
            looker.wait(PATIENCE_SECONDS)
        finally:
            looker.kill()


def sluice(lab: Lab, *words: str) -> str:
    command = [str(balancer.SLUICE), "--server", f"unix://{lab.socket}", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ask(lab: Lab, number: int, vip: str, flows: int, *, port: int = PORT, first_port: int = 30000) -> None:
    """Datagrams from a client, sent again where no answer comes."""
    client = lab.namespace(Role.CLIENT, number)
    traffic.run(client, "udp", vip, port, flows, first_port=first_port, patience=0.6)


def client_address(lab: Lab, number: int) -> str:
    return lab.configuration.of_role(Role.CLIENT)[number - 1].address(4)


@pytest.fixture
def vip(add_service: Any, vips: dict[int, str]) -> str:
    """The VIP of a DNS service."""
    add_service("dns", vips[4], "udp", PORT)
    return vips[4]


def test_a_blocked_clients_packets(lab: Lab, vip: str, tmp_path: Path) -> None:
    """They are in the file whole, with verdict and entry in the comment and the time of now; nobody else's are."""
    blocked, file = client_address(lab, 1), tmp_path / "blocked.pcapng"
    sluice(lab, "block", blocked, "--reason", "noise")
    began = time.time_ns()

    with running(lab, "capture", "--verdict", "drop", "-c", "5", "-w", str(file)) as looker:
        ask(lab, 2, vip, 3)
        ask(lab, 1, vip, 5)
        assert looker.stderr is not None
        assert looker.stderr.readline().startswith("sluice: 5 packets shown, of ")

    with RawPcapNgReader(str(file)) as reader:
        packets = list(reader)
    assert len(packets) == 5
    for data, meta in packets:
        frame = Ether(data)
        assert (frame[IP].src, frame[IP].dst, frame[UDP].dport) == (blocked, vip, PORT)
        assert meta.wirelen == len(data)
        assert meta.comments == [f"DROP_BLOCKLIST; blocklist entry {blocked}/32 (operator: noise)".encode()]
        assert began < (meta.tshigh << 32 | meta.tslow) < time.time_ns()
    times = [meta.tshigh << 32 | meta.tslow for _, meta in packets]
    assert times == sorted(times)


def test_a_forwarded_packet_has_its_outer_header(lab: Lab, vip: str) -> None:
    """It is shown as it leaves, with service and backend; a filter for what leaves finds it, and the line says both."""
    with running(lab, "capture", "-v", "tx", "-c", "1", "ip", "proto", "4", "-o", "json") as looker:
        ask(lab, 1, vip, 2)
        assert looker.stdout is not None
        record = json.loads(looker.stdout.readline())

    backends = {host.address(4) for host in lab.configuration.of_role(Role.BACKEND)}
    assert (record["verdict"], record["service"], record["source"]) == (
        "TX_IPIP",
        "dns",
        client_address(lab, 1),
    )
    assert record["backend"] in backends
    assert record["entry"] is None
    assert record["interface"] == lab.names.balancer_interface


def test_two_look_at_once(lab: Lab, vip: str) -> None:
    """One at what is dropped, one at what is forwarded by one service: each gets its own, whoever came first."""
    blocked = client_address(lab, 1)
    sluice(lab, "block", blocked)

    with (
        running(lab, "capture", "-v", "DROP_BLOCKLIST", "-c", "3", "-o", "json") as drops,
        running(lab, "capture", "--service", "dns", "-c", "3", "-o", "json") as served,
    ):
        ask(lab, 1, vip, 3)
        ask(lab, 2, vip, 3)
        assert drops.stdout is not None
        assert served.stdout is not None
        dropped, forwarded = ([json.loads(line) for line in who.stdout] for who in (drops, served))

    assert [(r["verdict"], r["source"]) for r in dropped] == [("DROP_BLOCKLIST", blocked)] * 3
    assert [(r["verdict"], r["source"]) for r in forwarded] == [("TX_IPIP", client_address(lab, 2))] * 3


def features(http: httpx.Client) -> set[str]:
    """Those of the program in force."""
    return set(http.get("/v1/status").raise_for_status().json()["program"]["features"])


def test_nothing_is_left_of_it(lab: Lab, http: httpx.Client, vip: str) -> None:
    """While somebody looks the program has the feature; some seconds after the last has gone it has not any more."""
    with running(lab, "capture", "--seconds", "0.5"):
        assert "HAVE_SAMPLES" in features(http)

    deadline = time.monotonic() + PATIENCE_SECONDS
    while "HAVE_SAMPLES" in features(http):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_top_finds_the_heavy_talker(lab: Lab, http: httpx.Client, vip: str) -> None:
    """The client that sends most is the first line, and its share is what it is, within the uncertainty."""
    heavy = client_address(lab, 1)
    http.get("/v1/top", params={"seconds": 0.1}).raise_for_status()
    query = {"seconds": 4, "by": "source", "verdict": "tx"}
    found: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: found.append(http.get("/v1/top", params=query)))
    asking.start()
    ask(lab, 1, vip, 600)
    ask(lab, 2, vip, 100)
    asking.join()

    document = found[0].raise_for_status().json()
    first, second = document["items"][:2]
    assert first["key"] == heavy
    assert second["key"] == client_address(lab, 2)
    true = 600 / 700
    assert abs(first["share"] - true) <= first["uncertainty"] + 0.01
    assert list(first["verdicts"]) == ["TX_IPIP"]
    assert ip_address(first["key"]).version == 4


def test_changes_are_told_while_they_happen(lab: Lab, http: httpx.Client) -> None:
    """A block by one command is an event for another that follows, and a line of the daemon's log."""
    command = [str(balancer.SLUICE), "--server", f"unix://{lab.socket}", "events", "--follow", "-o", "json"]
    with subprocess.Popen([*command, "--kind", "config"], stdout=subprocess.PIPE, text=True) as follower:
        try:
            assert follower.stdout is not None
            sluice(lab, "block", "203.0.113.77")
            revision = http.get("/v1/status").json()["revision"]
            event = json.loads(follower.stdout.readline())
            while event["facts"]["revision"] < revision:
                event = json.loads(follower.stdout.readline())
        finally:
            follower.kill()

    assert event["kind"] == "config.changed"
    assert event["text"].startswith(f"revision {revision} by uid 0: POST /v1/blocklist")
    assert event["text"] in lab.daemon_log.read_text()

"""Mode nat with protocol icmp: the real ping, whose requests backends answer, in all pairs of families."""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import balancer
import httpx
import inside
import lifecycle
import nat_servers
import pytest
from place import Lab
from test_nat_e2e import VIPS, put
from topology import Role

pytestmark = pytest.mark.skipif(
    not shutil.which("ping"), reason="this asks with ping: apt-get install iputils-ping"
)

IDENTIFIER = 4242
"""That all clients have at once."""
HOPS_ONCE = 63
"""The TTL of a reply that a backend has made, and the balancer has passed on; one of its own has 64."""


class Pings(NamedTuple):
    """What ping says in the end, and the TTLs of the replies."""

    sent: int
    received: int
    ttls: Counter[int]


def pinged(pair: tuple[int, int], lab: Lab) -> dict[str, Any]:
    """A service of that pair of families."""
    backends = [{"address": host.address(pair[1])} for host in nat_servers.hosts(lab)]
    return {
        "name": f"ping-{pair[0]}-to-{pair[1]}",
        "vip": VIPS[pair],
        "protocol": "icmp",
        "mode": "nat",
        "backends": backends,
    }


def started(lab: Lab, client: int, vip: str, *words: str) -> subprocess.Popen[str]:
    """A client's ping of a VIP."""
    command = inside.command(lab.namespace(Role.CLIENT, client), ["ping", "-n", *words, vip])
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str], seen: str = "") -> Pings:
    """What it says once it has ended; seen: what was read of it before."""
    text = seen + process.communicate(timeout=60)[0]
    found = re.search(r"(\d+) packets transmitted, (\d+) received", text)
    assert found, text
    return Pings(int(found[1]), int(found[2]), Counter(int(ttl) for ttl in re.findall(r" ttl=(\d+)", text)))


@contextmanager
def endless(lab: Lab, client: int, vip: str, identifier: int) -> Iterator[subprocess.Popen[str]]:
    """A ping that goes on."""
    process = started(lab, client, vip, "-i", "0.02", "-e", str(identifier))
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def replies(process: subprocess.Popen[str], count: int) -> str:
    """So many more replies, awaited."""
    assert process.stdout
    lines: list[str] = []
    while sum(" ttl=" in line for line in lines) < count:
        lines.append(process.stdout.readline())
        assert lines[-1], "it has ended"
    return "".join(lines)


def flows(lab: Lab) -> list[dict[str, Any]]:
    """Those that are live. Each time the daemon is another."""
    with balancer.client(lab.socket, timeout=60.0) as http:
        items: list[dict[str, Any]] = http.get("/v1/flows").raise_for_status().json()["items"]
    return items


def test_clients_with_one_identifier(lab: Lab, http: httpx.Client, pool: list[str]) -> None:
    """In each pair of families two clients ping at once with one identifier: backends answer every request."""
    put(http, [pinged(pair, lab) for pair in VIPS], pool)
    answered = http.get("/v1/stats").json()["verdicts"]["TX_ECHO"]["packets"]
    sizes = ("0", "56", "1401")

    for vip in VIPS.values():
        for size in sizes:
            words = ("-c", "20", "-i", "0.01", "-s", size, "-e", str(IDENTIFIER))
            both = [started(lab, client, vip, *words) for client in (1, 2)]
            told = [ended(process) for process in both]
            assert told == [Pings(20, 20, Counter({HOPS_ONCE: 20}))] * 2, (vip, size)

    stats = http.get("/v1/stats").json()["verdicts"]
    of_echo = [flow for flow in flows(lab) if flow["protocol"] == "icmp"]
    clients = {flow["nat"]["client"] for flow in of_echo}
    assert stats["TX_ECHO"]["packets"] == answered
    assert len(of_echo) == 2 * len(VIPS)
    assert len({flow["nat"]["source"] for flow in of_echo}) == len(of_echo)
    assert clients == {
        f"[{address}]:{IDENTIFIER}" if ":" in address else f"{address}:{IDENTIFIER}"
        for host in lab.configuration.of_role(Role.CLIENT)
        for address in (host.address(4), host.address(6))
    }


def test_drain_and_a_killed_daemon(lab: Lab, http: httpx.Client, pool: list[str]) -> None:
    """Pings lose nothing and keep their backend while that drains, and while the daemon is killed and starts again."""
    service = pinged((4, 6), lab)
    put(http, [service], pool)
    vip, path = VIPS[4, 6], f"/v1/services/{service['name']}/backends"

    with endless(lab, 1, vip, 7) as first, endless(lab, 2, vip, 7) as second:
        seen = [replies(process, 5) for process in (first, second)]
        before = {flow["nat"]["client"]: flow for flow in flows(lab)}
        held = {flow["backend"] for flow in before.values()}
        for backend in held:
            http.post(f"{path}/{backend}/drain").raise_for_status()
        daemon = lifecycle.find_daemon(lab)
        assert daemon is not None
        os.kill(daemon.pid, signal.SIGKILL)
        seen = [text + replies(process, 20) for text, process in zip(seen, (first, second), strict=True)]
        lifecycle.start_daemon(lab)
        lifecycle.wait_for_daemon(lab)
        seen = [text + replies(process, 20) for text, process in zip(seen, (first, second), strict=True)]
        after = {flow["nat"]["client"]: flow for flow in flows(lab)}
        for process in (first, second):
            process.send_signal(signal.SIGINT)
        told = [ended(process, text) for process, text in zip((first, second), seen, strict=True)]

    assert len(before) == 2
    assert [after[client]["nat"] for client in before] == [flow["nat"] for flow in before.values()]
    for pings in told:
        assert pings.sent - pings.received <= 1  # the last may be under way
        assert set(pings.ttls) == {HOPS_ONCE}
    words = ("-c", "3", "-i", "0.01")
    others = [ended(started(lab, 1, vip, *words, "-e", str(identifier))) for identifier in range(100, 110)]
    assert {(pings.sent, pings.received) for pings in others} == {(3, 3)}
    later = {flow["backend"] for flow in flows(lab) if flow["nat"]["client"] not in before}
    assert later
    assert not later & held

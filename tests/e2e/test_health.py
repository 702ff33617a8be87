"""Backends are checked through the data path, with real servers: what clients would see is what is found."""

import functools
import os
import signal
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import httpx
import inside
import lifecycle
import place
import processes
import pytest
import traffic
from place import Lab
from topology import Host, Role

from lb.dataplane import decap

PATIENCE_SECONDS = 60.0
UP, DOWN = "healthy", "unhealthy"
POLL_SECONDS = 0.1
OFTEN = {"interval_seconds": 0.5, "timeout_seconds": 0.5, "rise": 1, "fall": 2}
QUICK = OFTEN | {"type": "http", "path": "/whoami", "body": "backend"}
TCP, UDP = OFTEN | {"type": "tcp"}, OFTEN | {"type": "udp", "request": "who", "reply": "backend"}


def status(http: httpx.Client, service: str) -> list[dict[str, Any]]:
    """The backends of a service, as they are."""
    found: list[dict[str, Any]] = http.get(f"/v1/services/{service}/status").json()["backends"]
    return found


def wait_until(is_so: Callable[[], bool], what: Callable[[], object]) -> None:
    """Return once it is so; what: is shown if it does not come to be."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what()
        time.sleep(POLL_SECONDS)


class Ward:
    """The lab's backends, and what is known of their health."""

    def __init__(self, lab: Lab, http: httpx.Client) -> None:
        self.lab, self.http = lab, http
        self.hosts = lab.configuration.of_role(Role.BACKEND)

    def add(self, *services: dict[str, Any]) -> None:
        """All at once, each with the lab's backends of its `family`: one program is compiled, not one for each."""
        documents = []
        for service in services:
            family = service.pop("family", 4)
            addresses = [{"address": host.address(family)} for host in self.hosts]
            documents.append({"protocol": "tcp", "health_check": QUICK, "backends": addresses, **service})
        self.http.put("/v1/config", json={"services": documents}).raise_for_status()

    def health(self, service: str) -> list[str]:
        """By backend, in order."""
        return [backend["health"] for backend in status(self.http, service)]

    def wait_for(self, wanted: dict[str, list[str]]) -> None:
        """Return once it is so for all of these services at once."""

        def seen() -> dict[str, list[str]]:
            return {name: self.health(name) for name in wanted}

        wait_until(lambda: seen() == wanted, lambda: [status(self.http, name) for name in wanted])

    def namespace(self, number: int) -> str:
        """Where a backend is."""
        return self.lab.namespace(Role.BACKEND, number)

    def stop_server(self, number: int) -> None:
        """End a backend's nginx."""
        found = [s.process for s in place.started(self.lab) if (s.what, s.number) == ("nginx", number)]
        processes.end(found)

    def start_server(self, number: int) -> None:
        """And have it again."""
        run = self.lab.data / f"backend{number}"
        words = ["nginx", "-c", str(run / "nginx.conf")]
        lifecycle.start_process(self.lab, "nginx", (Role.BACKEND, number), words, run / "nginx.log")

    def set_decap(self, host: Host, *, on: bool) -> None:
        """Whether a backend takes outer headers off."""
        ends = [ip_address(str(a.ip)) for a in host.addresses]
        act = functools.partial(decap.attach, "eth0", ends) if on else functools.partial(decap.detach, "eth0")
        inside.call(self.namespace(host.number), act)

    def restart_daemon(self) -> None:
        """Kill -9, and start it anew."""
        daemon = lifecycle.find_daemon(self.lab)
        assert daemon is not None
        os.kill(daemon.pid, signal.SIGKILL)
        # Its threads take their time to die, and its socket takes connections until then.
        self.lab.socket.unlink()
        lifecycle.start_daemon(self.lab)
        lifecycle.wait_for_daemon(self.lab)

    def kinds(self) -> list[str]:
        """Of the events that are kept."""
        events = self.http.get("/v1/events", params={"limit": 1000}).json()["items"]
        return [event["kind"] for event in events]


@pytest.fixture
def ward(lab: Lab, http: httpx.Client) -> Ward:
    return Ward(lab, http)


def test_checks_take_the_way_of_clients_packets(ward: Ward, vips: dict[int, str]) -> None:
    """In every mode and family; a backend that takes no outer header off is unhealthy, though it answers directly."""
    ward.add(
        {"name": "four", "vip": vips[4], "port": 80},
        {"name": "six", "vip": vips[6], "port": 80, "family": 6},
        {"name": "four-in-six", "vip": vips[4], "port": 443, "family": 6, "mode": "gue"},
        {"name": "six-in-four", "vip": vips[6], "port": 443, "health_check": TCP},
        {"name": "l2", "vip": vips[4], "port": 8080, "mode": "l2"},
        {
            "name": "udp",
            "vip": vips[6],
            "port": 80,
            "protocol": "udp",
            "family": 6,
            "mode": "gue",
            "health_check": UDP,
        },
        {
            "name": "direct",
            "vip": vips[4],
            "port": 8081,
            "health_check": QUICK | {"via": "direct", "port": 80},
        },
    )
    through = ("four", "six", "four-in-six", "six-in-four", "udp")
    names = (*through, "l2", "direct")
    ward.wait_for({name: [UP] * 3 for name in names})

    ward.set_decap(ward.hosts[0], on=False)
    try:
        plain = {name: [UP] * 3 for name in ("l2", "direct")}
        ward.wait_for({name: [DOWN, UP, UP] for name in through} | plain)
        [backend, *_] = status(ward.http, "four")
        assert backend["effective_state"] == DOWN
        assert backend["ring_share"] == 0
        assert "no answer from" in backend["health_error"]
        answers = traffic.count(traffic.run(ward.lab.namespace(Role.CLIENT, 1), "tcp", vips[4], 80, 100))
        assert answers.keys() == {"backend2", "backend3"}
    finally:
        ward.set_decap(ward.hosts[0], on=True)
    ward.wait_for({name: [UP] * 3 for name in names})
    assert {"backend.down", "backend.up"} <= set(ward.kinds())


def test_server_that_stops_and_returns(ward: Ward, vips: dict[int, str]) -> None:
    """Out of the ring while nginx is stopped, also over a kill -9 of the daemon; back with a share that grows."""
    ward.add({"name": "web", "vip": vips[4], "port": 80, "health_check": QUICK | {"slow_start_seconds": 7}})
    ward.wait_for({"web": [UP] * 3})
    client = ward.lab.namespace(Role.CLIENT, 2)

    ward.stop_server(2)
    try:
        ward.wait_for({"web": [UP, DOWN, UP]})
        assert "connection refused" in status(ward.http, "web")[1]["health_error"]
        assert traffic.count(traffic.run(client, "tcp", vips[4], 80, 300)).keys() == {"backend1", "backend3"}

        ward.restart_daemon()
        assert [b["effective_state"] for b in status(ward.http, "web")] == ["active", DOWN, "active"]
        assert ward.health("web") == [UP, DOWN, UP]
        # That checks go on, by a new program in place of the old one, shows when the server returns.
        assert traffic.count(traffic.run(client, "tcp", vips[4], 80, 300)).keys() == {"backend1", "backend3"}
    finally:
        ward.start_server(2)

    shares: list[float] = []

    def is_whole() -> bool:
        shares.append(status(ward.http, "web")[1]["ring_share"])
        return shares[-1] > 0.333

    wait_until(is_whole, lambda: shares)
    grown = [share for share in shares if share]
    assert grown == sorted(grown)
    assert len(set(grown)) >= 3
    assert traffic.count(traffic.run(client, "tcp", vips[4], 80, 300)).keys() == {
        "backend1",
        "backend2",
        "backend3",
    }


def test_all_down(ward: Ward, vips: dict[int, str]) -> None:
    """With no healthy backend left a service that is open sends packets to all; one that is closed drops them."""
    closed = QUICK | {"when_all_down": "closed"}
    ward.add(
        {"name": "open", "vip": vips[4], "port": 80},
        {"name": "closed", "vip": vips[4], "port": 443, "health_check": closed},
    )
    ward.wait_for({"open": [UP] * 3, "closed": [UP] * 3})
    client = ward.lab.namespace(Role.CLIENT, 1)

    def dropped() -> int:
        return int(ward.http.get("/v1/stats").json()["verdicts"]["DROP_NO_BACKEND"]["packets"])

    def share(service: str) -> list[float]:
        return [round(backend["ring_share"], 2) for backend in status(ward.http, service)]

    for number in (1, 2, 3):
        ward.stop_server(number)
    try:
        ward.wait_for({"open": [DOWN] * 3, "closed": [DOWN] * 3})
        assert (share("open"), share("closed")) == ([0.33] * 3, [0.0] * 3)
        before = dropped()
        assert traffic.count(traffic.run(client, "tcp", vips[4], 80, 5, patience=1.0)).keys() == {None}
        assert dropped() == before
        assert traffic.count(traffic.run(client, "tcp", vips[4], 443, 5, patience=1.0)).keys() == {None}
        assert dropped() >= before + 5
    finally:
        for number in (1, 2, 3):
            ward.start_server(number)
    ward.wait_for({"open": [UP] * 3, "closed": [UP] * 3})
    assert {"service.down", "service.up"} <= set(ward.kinds())

"""Where packets go: out of the balancer by tunnel or by MAC, and back past it."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import inside
import pytest
from place import Lab
from pyroute2 import IPRoute
from rerun import CHECKOUT
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap
from topology import Role

LAB = str(CHECKOUT / "netns-lab" / "lab.py")


def received_bytes(lab: Lab) -> int:
    """What has come to the balancer's interface."""

    def read(route: IPRoute) -> int:
        (link,) = route.link("get", ifname=lab.names.balancer_interface)
        return int(link.get("stats64")["rx_bytes"])

    return inside.route(lab.namespace(Role.BALANCER), read)


@pytest.mark.parametrize("mode", ["ipip", "l2"])
def test_answers_do_not_pass_the_balancer(
    lab: Lab, vips: dict[int, str], add_service: Any, mode: str
) -> None:
    """While a client fetches 100 MB, little comes to the balancer: requests and acknowledgements."""
    add_service("web", vips[4], "tcp", 80, mode=mode)
    before = received_bytes(lab)

    fetch = ["curl", "-sS", "--fail", "--max-time", "60", "-o", "/dev/null", f"http://{vips[4]}/100m"]
    subprocess.run(inside.command(lab.namespace(Role.CLIENT, 1), fetch), check=True)

    assert 0 < received_bytes(lab) - before < 20_000_000


@pytest.mark.parametrize("mode", ["ipip", "l2"])
def test_capture_shows_what_is_on_the_cable(
    lab: Lab, vips: dict[int, str], add_service: Any, tmp_path: Path, mode: str
) -> None:
    """`lab.py capture` sees packets as the balancer sent them: with an outer header, or with new MACs."""
    add_service("web", vips[4], "tcp", 80, mode=mode, weights=(1, 0, 0))
    saved = tmp_path / "cable.pcap"
    match = "ip proto 4" if mode == "ipip" else f"dst host {vips[4]}"
    words = [LAB, "capture", "--name", lab.name, "backend", "1", "-c", "1", "-w", str(saved), match]
    capture = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    assert capture.stderr is not None
    while "listening on" not in capture.stderr.readline():
        assert capture.poll() is None
    try:
        ask = ["curl", "-sS", "--fail", "--max-time", "10", f"http://{vips[4]}/whoami"]
        done = subprocess.run(
            inside.command(lab.namespace(Role.CLIENT, 1), ask), check=True, capture_output=True, text=True
        )
        assert done.stdout == "backend1\n"
        capture.wait(timeout=30)
    finally:
        capture.kill()
        capture.communicate()

    (frame,) = rdpcap(str(saved))
    backend = lab.configuration.of_role(Role.BACKEND)[0]
    assert (frame[Ether].src, frame[Ether].dst) == (lab.configuration.balancer.mac, backend.mac)
    packet = frame[IP]
    if mode == "ipip":
        assert packet.dst == backend.address(4)
        packet = packet.payload
    assert (packet.dst, packet[TCP].dport, packet[TCP].flags) == (vips[4], 80, "S")


def test_the_page_is_opened_to_browsers_of_this_machine(lab: Lab) -> None:
    """`lab.py page` leads a port of loopback to the daemon, several connections at once, until Ctrl-C."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, LAB, "page", "--name", lab.name, "--port", str(port)]
    door = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert door.stderr is not None
    try:
        assert f"http://127.0.0.1:{port}/" in door.stderr.readline()
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as browser,
            browser.stream("GET", "/v1/events?follow=true") as events,
        ):
            assert next(events.iter_lines()).startswith("id: ")
            assert "<title>Sluice</title>" in browser.get("/").text
            assert browser.get("/v1/status").json()["version"]
        door.send_signal(signal.SIGINT)
        assert door.wait(timeout=30) == 0
    finally:
        door.kill()
        door.communicate()


def test_generator_reaches_the_program(lab: Lab, http: Any, vips: dict[int, str], add_service: Any) -> None:
    """Every generated packet is counted by the verdict it was made for; each source is a flow of its own."""
    packets = 200  # fewer than a veth queue holds, so that none is lost on a busy machine
    port = 54  # nobody answers there: an answer that no client waits for makes an ICMP error, which is forwarded too
    service = add_service("dns", vips[4], "udp", port)
    before = http.get("/v1/stats").json()["verdicts"]["TX_IPIP"]["packets"]
    generate = [sys.executable, str(CHECKOUT / "netns-lab" / "generate.py"), "--out", "balancer1"]
    aim = [
        "--destination",
        vips[4],
        "--port",
        str(port),
        "--packets",
        str(packets),
        "--ports",
        "50",
        "--sources",
        "20",
    ]

    subprocess.run(
        inside.command(lab.namespace(Role.SWITCH), [*generate, *aim]), check=True, capture_output=True
    )

    status = {s["name"]: s for s in http.get("/v1/status").json()["services"]}[service["name"]]
    assert http.get("/v1/stats").json()["verdicts"]["TX_IPIP"]["packets"] - before == packets
    assert status["flows"] == packets

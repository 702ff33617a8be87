"""sluice explain against the real daemon: a frame in hex, a five-tuple, and a capture of thousands of frames."""

import json
import subprocess
from pathlib import Path
from typing import Any

import balancer
import httpx
from place import Lab
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap, wrpcapng
from topology import Role

FRAMES = 5000


def explain(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(balancer.SLUICE), "--server", f"unix://{lab.socket}", "explain", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def packets(lab: Lab, *words: str) -> list[dict[str, Any]]:
    document = json.loads(explain(lab, *words, "-o", "json").stdout)
    assert document["next"] is None
    found: list[dict[str, Any]] = document["packets"]
    assert len(found) == document["total"]
    return found


def test_explain_by_command(
    lab: Lab, http: httpx.Client, add_service: Any, vips: dict[int, str], tmp_path: Path
) -> None:
    """Hex, five-tuple and captures of both kinds are explained alike, by name, and nothing of it is counted."""
    service = add_service("web", vips[4], "tcp", 80)
    http.post("/v1/blocklist", json={"prefix": "198.51.100.0/24", "reason": "port scan"}).raise_for_status()
    backends = {backend["address"] for backend in service["backends"]}
    link = Ether(src=lab.configuration.of_role(Role.CLIENT)[0].mac, dst=lab.configuration.balancer.mac)
    before = http.get("/v1/stats").json()

    by_tuple = ("--src", "10.0.1.1:40000", "--dst", f"{vips[4]}:80", "--protocol", "tcp", "--syn")
    (asked,) = packets(lab, *by_tuple)
    assert (asked["verdict"], asked["service"], asked["via"], asked["entry"]) == (
        "TX_IPIP",
        "web",
        "ring",
        None,
    )
    assert asked["backend"] in backends
    assert explain(lab, *by_tuple).stdout.startswith(
        "TX_IPIP (tx): Forwarded to a backend in an outer IP header.\n"
    )

    frame = link / IP(src="198.51.100.7", dst=vips[4]) / TCP(dport=80)
    (dropped,) = packets(lab, "--hex", bytes(frame).hex(":"))
    assert (dropped["verdict"], dropped["frame_out"]) == ("DROP_BLOCKLIST", None)
    assert (dropped["entry"]["prefix"], dropped["entry"]["reason"]) == ("198.51.100.0/24", "port scan")

    many = [link / IP(src="10.0.1.1", dst=vips[4]) / TCP(sport=n, dport=80 + n % 2) for n in range(FRAMES)]
    many[7] = link / IP(src="198.51.100.7", dst=vips[4]) / UDP()
    for write in (wrpcap, wrpcapng):
        file = tmp_path / write.__name__
        write(str(file), many)
        found = packets(lab, "--pcap", str(file))
        assert len(found) == FRAMES
        verdicts = [packet["verdict"] for packet in found]
        expected = [("TX_IPIP", "PASS_NO_SERVICE")[n % 2] for n in range(FRAMES)]
        expected[7] = "DROP_BLOCKLIST"
        assert verdicts == expected
        assert {packet["backend"] for packet in found} == backends | {None}

    after = http.get("/v1/stats").json()
    for kind in ("services", "owners", "flow_table"):
        assert after[kind] == before[kind]
    decided = [name for name in before["verdicts"] if name.startswith(("TX_", "DROP_", "REDIRECT_"))]
    assert {n: after["verdicts"][n] for n in decided} == {n: before["verdicts"][n] for n in decided}
    assert http.get("/v1/blocklist/198.51.100.0%2F24").json()["hits"]["packets"] == 0

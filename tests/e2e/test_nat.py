"""Mode nat with real servers, whose replies come back through the balancer, in all pairs of families."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import inside
import lifecycle
import pytest
from place import Lab
from pyroute2 import IPRoute
from test_modes import curl, digest
from topology import POOL, Role


@pytest.fixture
def pool(lab: Lab, http: httpx.Client) -> Iterator[list[str]]:
    """Addresses of the balancer to send from, on its interface and in the settings."""
    interface = lab.names.balancer_interface

    def change(verb: str) -> None:
        def work(route: IPRoute) -> None:
            index = route.link_lookup(ifname=interface)[0]
            for address in POOL:
                more = {"flags": 2} if verb == "add" and address.version == 6 else {}
                route.addr(
                    verb, index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **more
                )

        inside.route(lab.namespace(Role.BALANCER, 1), work)

    change("add")
    addresses = [str(address.ip) for address in POOL]
    try:
        yield addresses
    finally:
        http.put("/v1/config", json={}, timeout=240).raise_for_status()
        change("del")


def translated(name: str, vip: str, backends: list[str]) -> dict[str, Any]:
    """A web service on port 80 whose backends listen on another."""
    return {
        "name": name,
        "vip": vip,
        "protocol": "tcp",
        "port": 80,
        "mode": "nat",
        "backends": [{"address": address, "port": 8080} for address in backends],
    }


def url(vip: str) -> str:
    return f"http://[{vip}]" if ":" in vip else f"http://{vip}"


def addresses(lab: Lab, family: int) -> list[str]:
    return [host.address(family) for host in lab.configuration.of_role(Role.BACKEND)]


def test_all_pairs_of_families(lab: Lab, http: httpx.Client, pool: list[str], tmp_path: Path) -> None:
    """100 MB by nginx and curl arrive unchanged, there and back, and backends see the pool, not the client."""
    vips = {(4, 4): "10.200.1.91", (4, 6): "10.200.1.92", (6, 4): "fc00:1::93", (6, 6): "fc00:1::94"}
    services = [
        translated(f"web{pair[0]}-{pair[1]}", vip, addresses(lab, pair[1])) for pair, vip in vips.items()
    ]
    http.put(
        "/v1/config", json={"services": services, "settings": {"nat_pools": pool}}, timeout=240
    ).raise_for_status()
    sent = tmp_path / "sent"
    sent.write_bytes((lab.data / "100m").read_bytes()[:20_000_000])

    for (vip, backends), address in vips.items():
        fetched, name = tmp_path / "fetched", f"nat-{os.getpid()}-{vip}-{backends}"
        curl(lab, "-o", str(fetched), f"{url(address)}/100m")
        curl(lab, "-T", str(sent), f"{url(address)}/upload/{name}")
        folders = [lab.data / host.label / "uploads" for host in lab.configuration.of_role(Role.BACKEND)]
        received = [path for folder in folders if (path := folder / name).exists()]

        assert digest(fetched) == digest(lab.data / "100m"), (vip, backends)
        assert [digest(path) for path in received] == [digest(sent)], (vip, backends)
    verdicts = http.get("/v1/stats").json()["verdicts"]
    assert verdicts["TX_NAT"]["packets"] > 0
    assert verdicts["DROP_NAT_NO_FLOW"]["packets"] == verdicts["DROP_NAT_PORTS"]["packets"] == 0


def test_killed_daemon_costs_nothing(lab: Lab, http: httpx.Client, pool: list[str], tmp_path: Path) -> None:
    """100 MB there and back arrive unchanged while the daemon is killed three times: no reset, no stall of a second."""
    services = [translated("web", "10.200.1.95", addresses(lab, 6))]
    http.put(
        "/v1/config", json={"services": services, "settings": {"nat_pools": pool}}, timeout=240
    ).raise_for_status()
    fetched = tmp_path / "fetched"
    limits = ["--limit-rate", "12M", "--speed-limit", "1000", "--speed-time", "2"]
    words = [
        "curl",
        "-sS",
        "--fail",
        "--max-time",
        "110",
        *limits,
        "-o",
        str(fetched),
        f"{url('10.200.1.95')}/100m",
    ]

    with subprocess.Popen(inside.command(lab.namespace(Role.CLIENT, 1), words)) as download:
        for _ in range(3):
            daemon = lifecycle.find_daemon(lab)
            assert daemon is not None
            os.kill(daemon.pid, signal.SIGKILL)
            lifecycle.start_daemon(lab)
            lifecycle.wait_for_daemon(lab)
        assert download.wait() == 0

    assert digest(fetched) == digest(lab.data / "100m")

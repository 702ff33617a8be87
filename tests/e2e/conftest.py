"""One lab with the real daemon for all end-to-end tests, and clients that send real packets."""

import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "netns-lab"))

import balancer
import inside
import leftovers
import lifecycle
from place import Lab
from pyroute2 import IPRoute
from shared_lab import NAME, AddService
from topology import POOL, Role


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "lab" in getattr(item, "fixturenames", ()) and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("namespaces and BPF need root")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder into which any user may look; those of runs that were killed go."""
    leftovers.folders()
    folder = leftovers.FOLDERS / f"{leftovers.FOLDER}{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def lab(as_root: None) -> Iterator[Lab]:
    leftovers.labs()
    try:
        yield lifecycle.up(NAME, document=False)
    finally:
        lifecycle.down(NAME)


@pytest.fixture
def http(lab: Lab) -> Iterator[httpx.Client]:
    """A client of the REST interface; desired state is empty before the test, and after it."""
    with balancer.client(lab.socket, timeout=30.0) as client:
        clear(client)
        yield client
        clear(client)


def clear(client: httpx.Client) -> None:
    """Leave nothing: what other owners have put on a list is no part of the document, and what waits is kept first."""
    client.post("/v1/config/confirm")
    client.put("/v1/config", json={}).raise_for_status()
    for name in ("blocklist", "allowlist"):
        client.delete(f"/v1/{name}", params={"owner": "*"}).raise_for_status()


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


_numbers = itertools.count(20)


@pytest.fixture
def vips() -> dict[int, str]:
    """A VIP of each family that no other test has used, so that no remembered flow is in the way."""
    number = next(_numbers)
    return {4: f"10.200.1.{number}", 6: f"fc00:1::{number:x}"}


@pytest.fixture
def add_service(lab: Lab, http: httpx.Client) -> AddService:
    """Adds a service over REST, with the lab's backends of a family by weights and QUIC ids; returns it."""

    def add(name: str, vip: str, protocol: str, port: int, *, family: int = 4, **more: Any) -> dict[str, Any]:
        weights, ids = more.pop("weights", (1, 1, 1)), more.pop("quic_ids", (None,) * 3)
        hosts = lab.configuration.of_role(Role.BACKEND)
        service = {
            "name": name,
            "vip": vip,
            "protocol": protocol,
            "port": port,
            "mode": "ipip",
            **more,
            "backends": [
                {"address": host.address(family), "weight": weight, "quic_id": quic_id}
                for host, weight, quic_id in zip(hosts, weights, ids, strict=True)
            ],
        }
        answer = http.post("/v1/services", json=service)
        assert answer.status_code == 201, answer.text
        return service

    return add

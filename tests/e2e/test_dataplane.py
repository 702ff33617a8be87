"""What the kernel really holds, as /v1/dataplane and /v1/flows tell it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import traffic
from place import Lab
from topology import Role

from lb.dataplane import libbpf

T = TypeVar("T")


def asked(pin: str, question: Callable[[int], T]) -> T:
    """What the kernel says of what is pinned there."""
    fd = libbpf.obj_get(Path(pin))
    try:
        return question(fd)
    finally:
        os.close(fd)


def test_programs_and_maps_are_the_kernels(lab: Lab, http: httpx.Client) -> None:
    """Pins exist and hold what is told of them; entries are counted, and memory is what the kernel charges."""
    http.post("/v1/allowlist", json=["198.51.100.1", "198.51.100.2"]).raise_for_status()

    document = http.get("/v1/dataplane").raise_for_status().json()
    (interface,) = document["interfaces"]
    assert interface["attached"]
    assert [Path(pin).name for pin in interface["pins"]] == ["program", "link"]
    info = asked(interface["pins"][0], libbpf.prog_info)
    (in_force,) = [program for program in interface["programs"] if program["in_force"]]
    assert (in_force["id"], in_force["name"], in_force["tag"]) == (info.id, info.name, info.tag)
    assert interface["program_id"] == info.id
    assert in_force["instructions"] == info.instructions > 0
    maps = {each["name"]: each for each in document["maps"]}
    for each in document["maps"]:
        found = asked(each["pin"], libbpf.map_info)
        assert (each["id"], each["capacity"]) == (found.id, found.entries)
    assert (maps["allow4"]["kind"], maps["allow4"]["entries"]) == ("lpm_trie", 2)
    assert (maps["flows"]["kind"], maps["flows"]["entries"]) == ("array", None)
    flows = maps["flows"]
    assert flows["memory_bytes"] >= flows["capacity"] * flows["value_bytes"] > 0
    assert document["memory_bytes"] == sum(each["memory_bytes"] for each in document["maps"])


def test_flows_of_real_connections(
    lab: Lab, http: httpx.Client, vips: dict[int, str], add_service: Any
) -> None:
    """Each connection is a flow of the backend that answered, and the summary counts them as /status does."""
    add_service("flows", vips[4], "tcp", 80)
    answered = traffic.count(traffic.run(lab.namespace(Role.CLIENT, 1), "tcp", vips[4], 80, 30))
    assert None not in answered

    page = http.get("/v1/flows", params={"service": "flows"}).raise_for_status().json()
    status = http.get("/v1/services/flows/status").raise_for_status().json()
    assert page["total"] == len(page["items"]) == len({item["tag"] for item in page["items"]}) > 0
    by_backend = {backend["address"]: backend["flows"] for backend in status["backends"]}
    counted = dict.fromkeys(by_backend, 0)
    for group in page["summary"]:
        assert group["protocol"] == "tcp"
        counted[group["backend"]] += group["flows"]
    assert sum(counted.values()) == page["total"]
    assert {address for address, flows in counted.items() if flows} <= by_backend.keys()

"""Many callers write at once, under load: each write is acknowledged, kept, audited and in the maps; packets go on."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import balancer
import httpx
from place import Lab
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from shared_lab import AddService
from test_hitless import Load
from topology import Role

from lb.dataplane import libbpf

CALLERS, TURNS = 6, 12
"""Each turn of a caller blocks two addresses and lets go of one, changes two weights and the labels of its service."""
WRITES = CALLERS * TURNS * 6


def address(caller: int, turn: int, last: int) -> str:
    return f"198.18.{caller}.{turn * 2 + last}"


def turn_of(http: httpx.Client, caller: int, turn: int, backends: list[str]) -> list[httpx.Response]:
    """A turn's writes, one after the other."""
    service = f"/v1/services/w{caller}"
    return [
        http.post("/v1/blocklist", json={"prefix": address(caller, turn, 0), "reason": f"turn {turn}"}),
        http.patch(f"{service}/backends/{backends[0]}", json={"weight": turn + 2}),
        http.post("/v1/blocklist", json={"prefix": address(caller, turn, 1)}),
        http.patch(service, json={"labels": {"turn": str(turn)}}),
        http.delete(f"/v1/blocklist/{address(caller, turn, 0)}"),
        http.patch(f"{service}/backends/{backends[1]}", json={"weight": 2 * turn + 3}),
    ]


def at_once(lab: Lab, call: Callable[[httpx.Client, int], None]) -> None:
    """The callers, each with a connection of its own."""
    failed: list[BaseException] = []

    def run(caller: int) -> None:
        try:
            with balancer.client(lab.socket, timeout=60.0) as http:
                call(http, caller)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(caller,)) for caller in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def actions(lab: Lab, http: httpx.Client, vip: str, sources: list[str]) -> list[str]:
    """What the pinned program does with a SYN from each."""
    mac = http.get("/v1/status").json()["interfaces"][0]["mac"]
    program = libbpf.obj_get(Path("/sys/fs/bpf/sluice") / lab.names.balancer_interface / "program")
    names = ("aborted", "drop", "pass", "tx", "redirect")
    try:
        frames = [
            bytes(Ether(dst=mac, src="02:00:00:00:c1:01") / IP(src=source, dst=vip) / TCP(dport=80))
            for source in sources
        ]
        return [names[libbpf.test_run(program, frame)[0]] for frame in frames]
    finally:
        os.close(program)


def test_every_write_is_kept_and_in_force(
    lab: Lab, http: httpx.Client, vips: dict[int, str], add_service: AddService
) -> None:
    """Six callers at once. What each was told stands in store, audit and maps, and in the pinned program; connections
    that were there before stay where they are."""
    hosts = [host.address(4) for host in lab.configuration.of_role(Role.BACKEND)]
    add_service("web", vips[4], "tcp", 80)
    for caller in range(CALLERS):
        add_service(f"w{caller}", f"10.200.1.{230 + caller}", "tcp", 80)
    audited = http.get("/v1/audit", params={"limit": 1}).json()["total"]
    first = http.get("/v1/status").json()["revision"]
    answers: dict[int, list[httpx.Response]] = {}

    def call(own: httpx.Client, caller: int) -> None:
        for turn in range(TURNS):
            answers.setdefault(caller, []).extend(turn_of(own, caller, turn, hosts))

    with Load(lab.namespace(Role.CLIENT, 1), vips[4], 80) as load:
        at_once(lab, call)
        load.wait_for_more(3)

    assert {tuple(a.status_code for a in said) for said in answers.values()} == {
        (201, 200, 201, 200, 204, 200) * TURNS
    }
    told = sorted(int(a.headers["Sluice-Revision"]) for said in answers.values() for a in said)
    assert told == list(range(first + 1, first + WRITES + 1))
    lines = http.get("/v1/audit", params={"limit": WRITES}).json()
    assert lines["total"] == audited + WRITES
    kept = {line["revision_after"]: (line["method"], line["path"], line["status"]) for line in lines["items"]}
    history = http.get("/v1/config/revisions", params={"limit": WRITES}).json()["items"]
    summaries = {line["revision"]: line["summary"] for line in history}
    for answer in (a for said in answers.values() for a in said):
        revision, request = int(answer.headers["Sluice-Revision"]), answer.request
        assert kept[revision] == (request.method, request.url.path, answer.status_code)
        assert summaries[revision] == f"{request.method} {request.url.path}"
    assert wanted(http) == {
        "blocked": sorted(f"{address(c, t, 1)}/32" for c in range(CALLERS) for t in range(TURNS)),
        "services": {
            f"w{caller}": ([TURNS + 1, 2 * TURNS + 1, 1], {"turn": str(TURNS - 1)})
            for caller in range(CALLERS)
        },
    }
    sources = [
        address(caller, turn, last) for caller in range(CALLERS) for turn in range(TURNS) for last in (0, 1)
    ]
    assert actions(lab, http, vips[4], sources) == ["tx", "drop"] * (CALLERS * TURNS)
    for connection in load.connections:
        assert connection.failure is None
        assert len(set(connection.names)) == 1


def wanted(http: httpx.Client) -> dict[str, Any]:
    """What callers have left on the blocklist, and of their services the weights and labels."""
    entries = http.get("/v1/blocklist", params={"limit": 1000}).json()["items"]
    services = http.get("/v1/services").json()["items"]
    return {
        "blocked": sorted(entry["prefix"] for entry in entries),
        "services": {
            one["name"]: ([backend["weight"] for backend in one["backends"]], one["labels"])
            for one in services
            if one["name"] != "web"
        },
    }

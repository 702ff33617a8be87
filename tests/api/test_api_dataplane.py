"""What the data plane holds: /flows and /dataplane."""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from api_stack import WEB
from fastapi.testclient import TestClient

from lb.dataplane.layout import layout
from lb.dataplane.tables import ARRAY_NAMES, TABLE_STRUCTS
from lb.dataplane.twin import TwinDataPlane
from lb.reconcile.loop import Reconciler

C = layout().constants
Put = Callable[..., None]


@pytest.fixture
def put(plane: TwinDataPlane, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Writes one flow into a slot, as its packets would have: seen `idle` seconds ago. The clock stands still."""
    monkeypatch.setattr(plane, "clock_seconds", lambda: 100_000)

    def write(slot: int, service: str, place: int, flow_class: int, idle: int) -> None:
        plan = reconciler._plans.services.by_name[service]
        flow = plane.tables.arrays.flows.reshape(-1)[slot : slot + 1]
        flow["tag_backend"] = np.uint64(0xABC000000000 + slot) << np.uint64(16) | np.uint64(place)
        flow["state"] = (plane.clock_seconds() - idle) << 32 | plan.number << 16 | flow_class

    return write


@pytest.fixture
def flowing(client: TestClient, web: dict[str, Any], put: Put) -> TestClient:
    """A client of an API whose flow table has seven flows of two services, two of them idle."""
    dns = {"name": "dns", "vip": "192.0.2.53", "port": 53, "protocol": "udp", "backends": ["10.0.0.11"]}
    dns["backends"] = [{"address": "10.0.0.11"}]
    client.post("/v1/services", json=dns).raise_for_status()
    established = C["FLOW_ESTABLISHED"] | C["FLOW_OPENED"]
    put(5, "web", 0, established, 10)
    put(9, "web", 0, established, 30)
    put(2000, "web", 0, established, 20)
    put(7, "web", 1, C["FLOW_PROBATION"], 1)
    put(40, "dns", 0, C["FLOW_ESTABLISHED"] | C["FLOW_UDP"], 2)
    put(41, "dns", 0, C["FLOW_ESTABLISHED"] | C["FLOW_UDP"], 31)
    put(42, "web", 1, established, 3601)
    return client


def slots(answer: Any) -> list[int]:
    """Where the flows of a page are."""
    return [item["slot"] for item in answer.json()["items"]]


def test_flows_are_listed_with_their_class_and_age(flowing: TestClient) -> None:
    """Each flow that is not idle, in order of slot; of its addresses only the tag that stands for them."""
    answer = flowing.get("/v1/flows")

    assert slots(answer) == [5, 7, 9, 40, 2000]
    assert answer.json()["total"] == 5
    first, second, *_, udp, _ = answer.json()["items"]
    assert first == {
        "slot": 5,
        "tag": "abc000000005",
        "service": "web",
        "backend": "10.0.0.11",
        "protocol": "tcp",
        "state": "established",
        "opened": True,
        "idle_seconds": 10,
        "nat": None,
    }
    assert (second["backend"], second["state"], second["opened"]) == ("10.0.0.12", "new", False)
    assert (udp["service"], udp["protocol"]) == ("dns", "udp")


def test_the_summary_counts_flows_by_backend_and_class(flowing: TestClient) -> None:
    """How many, and the least, the median and the greatest of their silences; limit=0 gives it alone."""
    answer = flowing.get("/v1/flows?limit=0").json()

    assert (answer["items"], answer["next"]) == ([], None)
    kinds = [(g["service"], g["backend"], g["protocol"], g["state"], g["flows"]) for g in answer["summary"]]
    assert sorted(kinds) == [
        ("dns", "10.0.0.11", "udp", "established", 1),
        ("web", "10.0.0.11", "tcp", "established", 3),
        ("web", "10.0.0.12", "tcp", "new", 1),
    ]
    (three,) = [g for g in answer["summary"] if g["flows"] == 3]
    ages = [three[f"idle_seconds_{which}"] for which in ("least", "median", "most")]
    assert ages == [10, 20, 30]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"service": "web"}, [5, 7, 9, 2000]),
        ({"backend": "10.0.0.11"}, [5, 9, 40, 2000]),
        ({"service": "web", "backend": "10.0.0.12"}, [7]),
        ({"service": "dns", "backend": "10.0.0.12"}, []),
        ({"backend": "192.0.2.200"}, []),
    ],
)
def test_flows_of_one_service_or_backend(
    flowing: TestClient, query: dict[str, str], found: list[int]
) -> None:
    """Filters hold for the page, the total and the summary alike."""
    answer = flowing.get("/v1/flows", params=query)

    assert slots(answer) == found
    assert answer.json()["total"] == len(found) == sum(g["flows"] for g in answer.json()["summary"])


def test_flows_come_in_pages(flowing: TestClient) -> None:
    """Each page goes on after the last slot of the one before, and only the first has the summary."""
    seen, after, summaries = [], None, []
    while True:
        page = flowing.get("/v1/flows", params={"limit": 2} | ({} if after is None else {"after": after}))
        seen += slots(page)
        summaries.append(bool(page.json()["summary"]))
        after = page.json()["next"]
        if after is None:
            break

    assert seen == [5, 7, 9, 40, 2000]
    assert summaries == [True, False, False]


def test_flows_of_nat_come_behind_the_others(
    flowing: TestClient, plane: TwinDataPlane, reconciler: Reconciler
) -> None:
    """Entries of mode nat follow, with their two sides, in the same pages; their numbers are of their own table."""
    service = {
        **WEB,
        "name": "far",
        "vip": "2001:db8::7",
        "mode": "nat",
        "backends": [{"address": "10.0.0.13"}],
    }
    document = flowing.get("/v1/config").json() | {"settings": {"nat_pools": ["10.9.0.1"]}}
    document["services"].append(service)
    flowing.put("/v1/config", json=document).raise_for_status()
    arrays, plan = plane.tables.arrays, reconciler._plans.services.by_name["far"]
    block = reconciler._plans.nat.blocks[ip_address("10.9.0.1").packed]
    for port, silent in ((2000, 3), (2001, 31)):
        slot = block << 16 | port
        forward, reply = arrays.nat_forward[slot : slot + 1], arrays.nat_reply[slot : slot + 1]
        forward["word"], forward["state"] = (
            0xABC << 24 | slot,
            (plane.clock_seconds() - silent) << 32 | C["NAT_SYN"],
        )
        forward["client"][0] = np.frombuffer(ip_address("2001:db8::1").packed, "<u4")
        forward["vip"][0] = np.frombuffer(ip_address("2001:db8::7").packed, "<u4")
        forward["ports"] = 0x409C | 0xBB01 << 16 | 6 << 32  # in network order: 40000, 443
        forward["service"] = plan.number
        reply["backend"][0, 0] = int.from_bytes(ip_address("10.0.0.13").packed, "little")
        reply["families"], reply["live"] = 0x64, 0xFB20  # 8443

    first = flowing.get("/v1/flows", params={"limit": 5}).json()
    second = flowing.get("/v1/flows", params={"limit": 5, "after": first["next"]}).json()

    assert (first["total"], second["total"], second["next"]) == (6, 6, None)
    assert second["items"] == [
        {
            "slot": block << 16 | 2000,
            "tag": "000000000abc",
            "service": "far",
            "backend": "10.0.0.13",
            "protocol": "tcp",
            "state": "opening",
            "opened": True,
            "idle_seconds": 3,
            "nat": {
                "client": "[2001:db8::1]:40000",
                "vip": "[2001:db8::7]:443",
                "source": "10.9.0.1:2000",
                "backend": "10.0.0.13:8443",
            },
        }
    ]
    assert [g["state"] for g in first["summary"] if g["service"] == "far"] == ["opening"]


def test_flows_of_a_removed_service_are_not_shown(flowing: TestClient) -> None:
    """What no service owns is nobody's flow: no packet finds it."""
    flowing.delete("/v1/services/web").raise_for_status()

    assert slots(flowing.get("/v1/flows")) == [40]
    assert flowing.get("/v1/flows?service=web").status_code == 404


def test_the_data_plane_is_listed_whole(client: TestClient, plane: TwinDataPlane) -> None:
    """Every interface with its program, every map with its entries and capacity."""
    client.post("/v1/services", json=WEB).raise_for_status()
    client.post("/v1/allowlist", json=["198.51.100.1", "198.51.100.2"]).raise_for_status()

    answer = client.get("/v1/dataplane").json()
    (interface,) = answer["interfaces"]
    assert (interface["name"], interface["xdp_mode"], interface["attached"]) == ("twin0", "native", True)
    assert "HAVE_ALLOW" in interface["programs"][0]["features"]
    maps = {m["name"]: m for m in answer["maps"]}
    assert maps.keys() >= {*ARRAY_NAMES, *TABLE_STRUCTS}
    assert (maps["allow4"]["entries"], maps["allow4"]["capacity"]) == (2, plane.sizes.allow)
    assert maps["flows"]["entries"] is None
    assert answer["memory_bytes"] == sum(m["memory_bytes"] for m in answer["maps"])

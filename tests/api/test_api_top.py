"""GET /v1/top over the data plane's twin."""

import threading
from typing import Any

import pytest
from api_stack import WEB
from fastapi.testclient import TestClient
from sampled import pass_by, sample

from lb.dataplane.twin import TwinDataPlane
from lb.reconcile.loop import Reconciler


def top(client: TestClient, reconciler: Reconciler, flood: Any, **query: Any) -> dict[str, Any]:
    """What /top says of packets that come while it looks."""
    answer: list[Any] = []
    asking = threading.Thread(target=lambda: answer.append(client.get("/v1/top", params=query)))
    asking.start()
    while not reconciler.watch._watchers:
        pass
    flood()
    asking.join()
    assert answer[0].status_code == 200, answer[0].text
    document: dict[str, Any] = answer[0].json()
    return document


def test_the_heaviest_comes_first(client: TestClient, reconciler: Reconciler, plane: TwinDataPlane) -> None:
    """Shares are those of the samples, scaled to what the counters saw; each with its verdicts."""
    rows = [sample("DROP_BLOCKLIST", "203.0.113.9") for _ in range(60)]
    rows += [sample("TX_IPIP", f"2001:db8::{n:x}") for n in range(1, 21)]

    def flood() -> None:
        pass_by(plane, *rows)
        plane.tables.verdict_counters.add(48, 260, 60)  # 320 in all, of which 60 were handed out

    found = top(client, reconciler, flood, seconds=0.5, limit=2)

    assert (found["by"], found["packets"], found["sampled"]) == ("source", 340, 80)
    first, second = found["items"]
    assert first["key"] == "203.0.113.9"
    assert first["share"] == pytest.approx(320 / 340)
    assert first["uncertainty"] == 0  # all that came with this verdict came from there
    assert first["packets_per_second"] == pytest.approx(320 / found["seconds"])
    assert first["verdicts"] == {"DROP_BLOCKLIST": pytest.approx(320 / found["seconds"])}
    assert second["share"] == pytest.approx(1 / 340)
    assert second["key"].startswith("2001:db8::")


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        ("prefix", ["203.0.113.0/24", "2001:db8::/64", "-"]),
        ("service", ["web", "-"]),
        ("verdict", ["TX_IPIP", "DROP_BLOCKLIST", "PASS_NOT_IP"]),
        ("source", ["203.0.113.9", "203.0.113.8", "2001:db8::9", "-"]),
    ],
)
def test_packets_are_put_together(
    client: TestClient, reconciler: Reconciler, plane: TwinDataPlane, by: str, keys: list[str]
) -> None:
    """By source, by /24 and /64, by service, by verdict; what has none is together too."""
    client.post("/v1/services", json=WEB).raise_for_status()
    number = reconciler._plans.services.by_name["web"].number
    rows = [sample("TX_IPIP", "203.0.113.9", service=number) for _ in range(8)]
    rows += [sample("DROP_BLOCKLIST", "203.0.113.8") for _ in range(4)]
    rows += [sample("TX_IPIP", "2001:db8::9", service=number) for _ in range(2)]
    rows += [sample("PASS_NOT_IP")]

    found = top(client, reconciler, lambda: pass_by(plane, *rows), seconds=0.5, by=by)

    assert [item["key"] for item in found["items"]] == keys
    assert sum(item["share"] for item in found["items"]) == pytest.approx(1)


def test_a_sample_says_how_far_it_may_be_off(
    client: TestClient, reconciler: Reconciler, plane: TwinDataPlane
) -> None:
    """Half of a sample of 100 of 10,000: 1.96 standard deviations of such a draw are 9.75 per cent of all."""
    rows = [sample("TX_IPIP", f"203.0.113.{n % 2}") for n in range(100)]

    def flood() -> None:
        pass_by(plane, *rows)
        plane.tables.verdict_counters.add(17, 9900, 60)

    found = top(client, reconciler, flood, seconds=0.5)

    assert [item["share"] for item in found["items"]] == [pytest.approx(0.5)] * 2
    assert found["items"][0]["uncertainty"] == pytest.approx(1.96 * (0.25 * 0.99 / 100) ** 0.5)


def test_nothing_is_nothing(client: TestClient, reconciler: Reconciler) -> None:
    """Without a packet there is no line, and nobody looks afterwards."""
    found = client.get("/v1/top", params={"seconds": 0.1}).json()

    assert (found["packets"], found["items"]) == (0, [])
    assert not reconciler.watch.features


@pytest.mark.parametrize("query", [{"by": "port"}, {"seconds": 0}, {"limit": 0}, {"verdict": "up"}])
def test_what_cannot_be_is_refused(client: TestClient, query: dict[str, Any]) -> None:
    """With a problem document that names the parameter."""
    answer = client.get("/v1/top", params=query)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == next(iter(query))

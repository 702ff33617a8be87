"""Flood protection by REST: wanted as part of a service, observed in its status, in /stats and in the metrics."""

from typing import Any

import pytest
from api_stack import Stack
from fastapi.testclient import TestClient
from test_api_observed import samples

JsonDocument = dict[str, Any]
PATH = "/v1/services/web"
PEACE = {
    "under_attack": False,
    "attack_began_at": None,
    "attack_ends_in_seconds": None,
    "attacks": 0,
    "new_flows_last_second": 0,
    **dict.fromkeys(("known", "tested", "proven", "refused", "learned"), 0),
}


def protect(client: TestClient, **protection: Any) -> Any:
    """PATCH of the service's protection; the answer."""
    return client.patch(PATH, json={"flood_protection": protection or None})


def test_a_patch_changes_what_it_names(client: TestClient, web: JsonDocument) -> None:
    """The rest of the protection stays, calm follows the budget, and null takes it all away."""
    protect(client, new_flows_per_second=5000, test_unknown=True).raise_for_status()

    changed = protect(client, new_flows_per_second=100).json()["flood_protection"]
    assert changed == {
        **{"new_flows_per_second": 100, "calm_per_second": None, "hold_seconds": 30, "test_unknown": True}
    }

    assert protect(client).json() == client.get(PATH).json() == web


@pytest.mark.parametrize(
    ("protection", "pointer"),
    [
        ({"new_flows_per_second": 0}, "/flood_protection/new_flows_per_second"),
        ({"new_flows_per_second": 9, "calm_per_second": 10}, "/flood_protection/calm_per_second"),
        ({"test_unknown": True}, "/flood_protection/new_flows_per_second"),
    ],
)
def test_what_is_wrong_is_a_422_at_its_field(
    client: TestClient, web: JsonDocument, protection: JsonDocument, pointer: str
) -> None:
    """And nothing is changed."""
    answer = protect(client, **protection)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert client.get(PATH).json() == web


def test_a_service_without_protection_has_none_to_observe(client: TestClient, web: JsonDocument) -> None:
    """null in its status, and no series of its own."""
    assert client.get(f"{PATH}/status").json()["flood_protection"] is None
    assert client.get("/v1/stats").json()["flood_protection"] == {}
    assert not [name for name, _ in samples(client) if "guard" in name or "under_attack" in name]


def test_an_attack_is_observed(stack: Stack, web: JsonDocument, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status, statistics and metrics tell the same; readiness is not concerned."""
    client, plane = stack.client, stack.plane
    protect(client, new_flows_per_second=100, hold_seconds=60)
    assert client.get(f"{PATH}/status").json()["flood_protection"] == PEACE
    monkeypatch.setattr(plane, "clock_seconds", lambda: 5000)
    row = {
        "second": 5000,
        "opened": 7,
        "before": 99,
        "attack_since": 4980,
        "attack_until": 5030,
        "attacks": 2,
    }
    counts = {"known": 1, "tested": 20, "proven": 3, "refused": 4, "learned": 5}
    number = stack.reconciler._plans.services.by_name["web"].number
    for name, value in row.items():
        plane.tables.arrays.service_guards[name][number] = value
    for name, value in counts.items():
        plane.tables.guard_counters.values[name][number] = value  # type: ignore[attr-defined]

    assert client.get(f"{PATH}/status").json()["flood_protection"] == {
        "under_attack": True,
        "attack_began_at": stack.clock.now - 20,
        "attack_ends_in_seconds": 30,
        "attacks": 2,
        "new_flows_last_second": 99,
        **counts,
    }
    assert client.get("/v1/stats").json()["flood_protection"] == {"web": counts}
    seen = samples(client)
    assert seen["sluice_service_under_attack", (("service", "web"),)] == 1
    results = {
        result: seen["sluice_guard_new_flows_total", (("result", result), ("service", "web"))]
        for result in ("known", "tested", "proven", "refused")
    }
    assert results == {key: value for key, value in counts.items() if key != "learned"}
    assert client.get("/readyz").json()["status"] == "ready"

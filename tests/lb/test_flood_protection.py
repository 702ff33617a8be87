"""Flood protection of a service, as it is written: defaults, and what is refused with which words."""

from typing import Any

import pytest
from pydantic import ValidationError

from lb.model import FloodProtection, Service
from lb.model.fields import field_errors

WEB = {"name": "web", "vip": "192.0.2.10", "port": 80, "protocol": "tcp"}


def faults(service: dict[str, Any] | None = None, **protection: Any) -> list[tuple[str, str]]:
    """Where a service with this protection is wrong, and what is said of it."""
    with pytest.raises(ValidationError) as caught:
        Service.model_validate(WEB | (service or {}) | {"flood_protection": protection})
    return [(e.pointer, e.detail) for e in field_errors(caught.value)]


def test_a_budget_is_enough() -> None:
    """The document names every field; calm is half of the budget, whatever the budget becomes."""
    found = FloodProtection.model_validate({"new_flows_per_second": 5000})

    assert found.model_dump(mode="json") == {
        "new_flows_per_second": 5000,
        "calm_per_second": None,
        "hold_seconds": 30,
        "test_unknown": False,
    }
    assert [FloodProtection(new_flows_per_second=n).calm for n in (1, 2, 5000, 5001)] == [1, 1, 2500, 2501]
    assert FloodProtection(new_flows_per_second=9, calm_per_second=9).calm == 9


def test_the_protection_is_part_of_the_service() -> None:
    """What a service dumps is read as an equal service."""
    protection = {
        "new_flows_per_second": 10,
        "calm_per_second": 1,
        "hold_seconds": 86400,
        "test_unknown": True,
    }
    service = Service.model_validate(WEB | {"flood_protection": protection})

    assert service.model_dump(mode="json")["flood_protection"] == protection
    assert Service.model_validate(service.model_dump(mode="json")) == service


@pytest.mark.parametrize(
    ("protection", "field", "says"),
    [
        ({}, "new_flows_per_second", "this key is needed"),
        (
            {"new_flows_per_second": 0},
            "new_flows_per_second",
            "0 would be a permanent attack: give what the service can take, 1 or more, "
            "or set flood_protection to null",
        ),
        (
            {"new_flows_per_second": "5000"},
            "new_flows_per_second",
            'it should be a valid integer, not "5000"',
        ),
        (
            {"new_flows_per_second": 100, "calm_per_second": 101},
            "calm_per_second",
            "101 is more than the budget of 100 new flows per second: "
            "give that much or less, or leave it out for half of it",
        ),
        (
            {"new_flows_per_second": 100, "hold_seconds": 0},
            "hold_seconds",
            "it should be greater than or equal to 1, not 0",
        ),
        (
            {"new_flows_per_second": 100, "hold_seconds": 86401},
            "hold_seconds",
            "it should be less than or equal to 86400, not 86401",
        ),
        (
            {"new_flows_per_second": 100, "burst": 7},
            "burst",
            "this key is not known here: correct it or leave it out",
        ),
    ],
)
def test_what_is_refused_names_field_and_remedy(protection: dict[str, Any], field: str, says: str) -> None:
    """One sentence each, at the field's pointer."""
    assert faults(**protection) == [(f"/flood_protection/{field}", says)]


def test_only_tcp_can_be_tested() -> None:
    """A lost datagram is not sent again by anybody's kernel."""
    assert faults({"protocol": "udp"}, new_flows_per_second=9, test_unknown=True) == [
        (
            "/flood_protection/test_unknown",
            "only TCP retransmits what was lost: leave it out, or use protocol tcp",
        )
    ]

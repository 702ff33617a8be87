"""Protection of a service against floods of new flows, as the operator writes it."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from lb.model.fields import Strict, faults

RATE_MAX = 1_000_000_000
HOLD_SECONDS_MAX = 86400


def _some(rate: int) -> int:
    if rate < 1:
        raise ValueError(
            f"{rate} would be a permanent attack: give what the service can take, 1 or more, "
            "or set flood_protection to null"
        )
    return rate


Rate = Annotated[
    int, Field(le=RATE_MAX, strict=True, json_schema_extra={"minimum": 1}), AfterValidator(_some)
]
"""New flows in a second."""


class FloodProtection(Strict):
    """When a service counts as under attack, and what becomes of flows from unknown sources then."""

    new_flows_per_second: Rate = Field(
        description="the budget: more new flows than this in one second begin an attack", examples=[5000]
    )
    calm_per_second: Rate | None = Field(
        None,
        description="an attack ends once no second has had more new flows than this for hold_seconds; "
        "at most the budget; null: half of it",
        examples=[None, 2500],
    )
    hold_seconds: int = Field(
        30, ge=1, le=HOLD_SECONDS_MAX, strict=True, description="how long it must have been calm, in seconds"
    )
    test_unknown: bool = Field(
        False,
        strict=True,
        description="under attack, the first SYN of an unknown source is dropped, and passes when retransmitted; "
        "else flows of unknown sources pass within the budget; only with protocol tcp",
    )

    @model_validator(mode="after")
    def _check(self) -> "FloodProtection":
        faults(self._calm_faults())
        return self

    def _calm_faults(self) -> Iterator[tuple[tuple[int | str, ...], str]]:
        budget, calm = self.new_flows_per_second, self.calm_per_second
        if calm is not None and calm > budget:
            yield (
                ("calm_per_second",),
                f"{calm} is more than the budget of {budget} new flows per second: "
                "give that much or less, or leave it out for half of it",
            )

    @property
    def calm(self) -> int:
        """New flows in a second that are no attack any more."""
        return self.calm_per_second or (self.new_flows_per_second + 1) // 2

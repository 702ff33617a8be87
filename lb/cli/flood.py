"""What sluice service says of flood protection: options, the part of a document that they make, and words."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from lb.cli.output import alarming, count, span, when

FIELD = "flood_protection"
_KEYS = {
    "flood_protection": "new_flows_per_second",
    "flood_calm": "calm_per_second",
    "flood_hold": "hold_seconds",
    "flood_test": "test_unknown",
}
"""What each option is called in the document."""


def flood_options(on_or_off: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of flood protection; on_or_off: what is there can be taken away too."""
    test = "--flood-test/--no-flood-test" if on_or_off else "--flood-test"
    options = [
        click.option(
            "--flood-protection",
            type=click.IntRange(min=1),
            metavar="N",
            help="More than N new flows in one second begin an attack: from then on, unknown sources are held back.",
        ),
        click.option(
            "--flood-calm",
            type=click.IntRange(min=1),
            metavar="N",
            help="The attack ends when no second has had more than N new flows (half the budget) ...",
        ),
        click.option(
            "--flood-hold",
            type=click.IntRange(min=1),
            metavar="SECONDS",
            help="... for this many seconds (30).",
        ),
        click.option(
            test,
            is_flag=True,
            default=None,
            help="Under attack, an unknown source is admitted when it retransmits its SYN; only for TCP.",
        ),
    ]
    if on_or_off:
        options.append(click.option("--no-flood-protection", is_flag=True, help="Remove the protection."))

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def take_flood_document(said: dict[str, Any]) -> dict[str, Any]:
    """Take the options out of what was said: {} or {"flood_protection": …}, null to take it away. A usage error."""
    none = said.pop("no_flood_protection", False)
    given = {key: value for option, key in _KEYS.items() if (value := said.pop(option, None)) is not None}
    if none and given:
        raise click.UsageError(
            "--no-flood-protection contradicts the other --flood options: give one or the other"
        )
    return {FIELD: None} if none else {FIELD: given} if given else {}


def flood_words(wanted: Mapping[str, Any] | None) -> str:
    """Flood protection as it is wanted, on one line; "" for none."""
    if wanted is None:
        return ""
    budget, calm = wanted["new_flows_per_second"], wanted["calm_per_second"]
    test = ", unknown sources tested" if wanted["test_unknown"] else ""
    ends = f"attack ends after {wanted['hold_seconds']} s of at most {calm or (budget + 1) // 2}"
    return f"{budget} new flows per second, {ends}{test}"


def flood_fields(seen: Mapping[str, Any] | None) -> Iterator[tuple[str, object]]:
    """Flood protection as it is, for the fields of a service; nothing if there is none."""
    if seen is None:
        return
    state = "no"
    if seen["under_attack"]:
        ends = span(seen["attack_ends_in_seconds"])
        state = alarming(f"yes, since {when(seen['attack_began_at'])}, ends in {ends} if it is calm")
    yield "under attack", state
    yield "attacks", count(seen["attacks"])
    yield "new flows", f"{count(seen['new_flows_last_second'])} in the last second"
    counts = ((count(seen[key]), key) for key in ("known", "tested", "proven", "refused"))
    yield "in attacks", ", ".join(f"{number} {key}" for number, key in counts)
    yield "known sources", f"{count(seen['learned'])} learned"


def attack_words(name: str, seen: Mapping[str, Any]) -> str:
    """That a service is under attack, on one line."""
    flows = count(seen["new_flows_last_second"])
    return f"service {name} is under attack since {when(seen['attack_began_at'])}: {flows} new flows in the last second"

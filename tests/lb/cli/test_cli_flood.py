"""sluice service and flood protection: given, changed, shown and taken away."""

import click
import pytest
from cli_shell import Shell
from test_cli_status import STATUS

from lb.cli.flood import flood_fields
from lb.cli.status import status_lines

SEEN = {
    "under_attack": True,
    "attack_began_at": 1_900_000_000.0,
    "attack_ends_in_seconds": 25,
    "attacks": 3,
    "new_flows_last_second": 1_234_567,
    **{"known": 10, "tested": 2_000_000, "proven": 7, "refused": 0, "learned": 17},
}


def test_protection_is_given_with_the_service_and_changed(shell: Shell) -> None:
    """add sends what was said; set changes that and no more; --no-flood-protection takes it away."""
    shell.ok(
        *("service", "add", "web", "--vip", "192.0.2.9", "--port", "80", "--protocol", "tcp"),
        *("--flood-protection", "5000", "--flood-test", "--flood-hold", "60"),
    )
    wanted = {"new_flows_per_second": 5000, "calm_per_second": None, "hold_seconds": 60, "test_unknown": True}
    assert shell.rest("/services/web")["flood_protection"] == wanted

    said = shell.ok(
        "service", "set", "web", "--flood-protection", "4000", "--flood-calm", "7", "--no-flood-test"
    )
    assert said == (
        "service web changed: flood_protection 4000 new flows per second, attack ends after 60 s of at most 7\n"
    )
    changed = {**wanted, "new_flows_per_second": 4000, "calm_per_second": 7, "test_unknown": False}
    assert shell.rest("/services/web")["flood_protection"] == changed

    said = shell.ok("service", "set", "web", "--no-flood-protection")
    assert said == "service web changed: no flood_protection\n"
    assert shell.rest("/services/web")["flood_protection"] is None


def test_show_says_whether_a_service_is_under_attack(web: Shell) -> None:
    """What is wanted on one line and what is seen below it; nothing of that without protection."""
    assert "under attack" not in web.ok("service", "show", "web")
    web.ok("service", "set", "web", "--flood-protection", "5000", "--flood-test")

    lines = [line.split("  ", 1) for line in web.ok("service", "show", "web").splitlines() if "  " in line]
    shown = {name: value.strip() for name, value in lines}
    assert shown["protection"] == (
        "5000 new flows per second, attack ends after 30 s of at most 2500, unknown sources tested"
    )
    assert (shown["under attack"], shown["attacks"]) == ("no", "0")


def test_an_attack_is_shown_with_its_begin_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since when, until when if it is calm, and what became of new flows."""
    monkeypatch.setenv("TZ", "UTC")
    found = {name: click.unstyle(str(value)) for name, value in flood_fields(SEEN)}

    assert found.pop("under attack").endswith(", ends in 25s if it is calm")
    assert found == {
        "attacks": "3",
        "new flows": "1.2 M in the last second",
        "in attacks": "10 known, 2.0 M tested, 7 proven, 0 refused",
        "known sources": "17 learned",
    }


def test_status_begins_with_attacks() -> None:
    """A service under attack is the first thing that sluice status says; one in peace is not mentioned."""
    empty = {
        "mode": "ipip",
        "vip": "192.0.2.9",
        "port": 80,
        "protocol": "tcp",
        "backends": [],
        "flows": 0,
        "packets": 0,
    }
    services = [
        {**empty, "name": "web", "flood_protection": SEEN},
        {**empty, "name": "calm", "flood_protection": {**SEEN, "under_attack": False}},
        {**empty, "name": "open", "flood_protection": None},
    ]
    said = [
        click.unstyle(line) for line in status_lines({**STATUS, "reasons": [], "services": services}, 0.0)
    ]

    (attack,) = [line for line in said if "under attack" in line]
    assert said.index(attack) == 1
    assert attack.startswith("  ! service web is under attack since ")
    assert attack.endswith(": 1.2 M new flows in the last second")


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        (("--flood-protection", "0"), 2),
        (("--flood-protection", "9", "--no-flood-protection"), 2),
        (("--flood-protection", "9", "--flood-calm", "10"), 1),
        (("--flood-test",), 1),
    ],
)
def test_what_makes_no_sense_is_refused(web: Shell, words: tuple[str, ...], exit_code: int) -> None:
    """By the command itself, or by the daemon with the field's name; nothing was changed."""
    result = web.run("service", "set", "web", *words)

    assert result.exit_code == exit_code
    assert exit_code == 2 or "/flood_protection/" in result.stderr
    assert web.rest("/services/web")["flood_protection"] is None

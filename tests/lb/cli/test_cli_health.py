"""Health checks by the command: what the options become, and how what is seen is shown."""

from typing import Any

import pytest
from cli_shell import Shell

from lb.cli.backend import health_errors, health_words, unhealthy_words
from lb.cli.health import OWN, health_check_words
from lb.model.health import _ONLY

ADD = ("service", "add", "api", "--vip", "192.0.2.11", "--port", "80", "--protocol", "tcp")


def seen(**changes: Any) -> dict[str, Any]:
    """What is shown of a backend's checks."""
    plain = {"address": "10.0.0.11", "health": "unknown", "health_checked_at": None}
    return {**plain, "health_held": False, "health_error": None, **changes}


def test_options_become_the_document(shell: Shell) -> None:
    """Each option reaches its field; set changes what is said, and takes the check away."""
    shell.ok(
        *ADD,
        *("--health-check", "https", "--health-path", "/healthz", "--health-status", "200,204"),
        *("--health-interval", "0.5", "--health-timeout", "0.25", "--health-rise", "1", "--health-fall", "4"),
        *("--health-host", "www.example.com", "--health-verify", "--health-via", "direct"),
        *("--health-all-down", "closed", "--health-guard", "0.5", "--health-established", "move"),
        *("--slow-start", "30", "--health-passive", "vote"),
    )
    made = shell.rest("/services/api")["health_check"]
    wanted = {
        "type": "https", "path": "/healthz", "status": "200,204", "interval_seconds": 0.5, "timeout_seconds": 0.25,
        "rise": 1, "fall": 4, "host": "www.example.com", "verify": True, "via": "direct", "when_all_down": "closed",
        "mass_failure_guard": 0.5, "established": "move", "slow_start_seconds": 30,
    }  # fmt: skip
    assert {key: made[key] for key in wanted} == wanted
    assert made["passive"]["vote"] is True

    said = shell.ok("service", "set", "api", "--health-fall", "2", "--health-passive", "off")
    assert said.startswith("service api changed: health_check https /healthz, direct, every 0.5 s, 2 bad are")
    assert shell.rest("/services/api")["health_check"] == {**made, "fall": 2, "passive": None}
    assert "health check" in shell.ok("service", "show", "api")

    shell.ok("service", "set", "api", "--no-health-check")
    assert shell.rest("/services/api")["health_check"] is None


def test_another_type_takes_along_what_it_has(shell: Shell) -> None:
    """What only the former type has goes with it; the rest stays."""
    assert {field: tuple(sorted(kinds)) for field, kinds in _ONLY.items()} == OWN
    shell.ok(*ADD, "--health-check", "http", "--health-path", "/healthz", "--health-fall", "5")
    shell.ok("service", "set", "api", "--health-check", "udp", "--health-request", "ping")
    made = shell.rest("/services/api")["health_check"]
    assert (made["type"], made["path"], made["request"], made["fall"]) == ("udp", "/", "ping", 5)


def test_commands_are_taken_apart_into_words(shell: Shell) -> None:
    """Quotes hold words together, as in a shell; nothing is expanded."""
    shell.ok(*ADD, "--health-check", "command", "--health-command", "/bin/test 'a b' = $HOME")

    assert shell.rest("/services/api")["health_check"]["command"] == ["/bin/test", "a b", "=", "$HOME"]


@pytest.mark.parametrize(
    "words",
    [
        (*ADD, "--health-path", "/healthz"),
        (*ADD, "--health-check", "ping"),
        (*ADD, "--health-check", "command", "--health-command", "/bin/test 'a"),
        ("service", "set", "web", "--no-health-check", "--health-rise", "2"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(web: Shell, words: tuple[str, ...]) -> None:
    """Exit code 2, and nothing is sent."""
    assert web.run(*words).exit_code == 2
    assert web.rest("/services")["total"] == 1


def test_a_check_that_cannot_work_is_refused_by_its_field(web: Shell) -> None:
    """Exit code 1, and the field's name."""
    result = web.run("service", "set", "web", "--health-check", "http", "--health-path", "healthz")

    assert result.exit_code == 1
    assert "/health_check/path: a path begins with" in result.stderr


def test_what_is_seen() -> None:
    """A column says the health, lines below why a check failed; who is not checked has neither."""
    assert health_words(seen()) is None
    assert health_words(seen(health="healthy", health_checked_at=1.0)) == "healthy"
    assert health_words(seen(health="unhealthy", health_held=True)) == "unhealthy (held)"
    assert health_errors([seen(), seen(health_error="refused")]) == ["10.0.0.11: refused"]
    all_down = seen(health="unhealthy", effective_state="active")
    assert health_errors([all_down]) == [
        "none that is enabled is healthy: all of them take new flows (when_all_down: open)"
    ]
    assert (
        health_errors([{**all_down, "health_held": True}, {**all_down, "effective_state": "unhealthy"}]) == []
    )
    assert health_check_words(None) == ""
    some = [seen(health="unhealthy", address=f"10.0.0.{n}") for n in range(1, 5)]
    service = {"name": "web", "backends": [*some, seen()]}
    wanted = "service web: 4 of 5 backends unhealthy: 10.0.0.1, 10.0.0.2, 10.0.0.3, …"
    assert unhealthy_words(service) == wanted
    assert unhealthy_words({"name": "web", "backends": [seen()]}) is None

"""sluice backend drain: what it says, what it waits for, and what ends the wait."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from cli_shell import Shell

from lb.cli import drain
from lb.cli.client import Client, UnreachableError


def flows_on_every_backend(shell: Shell, number: int) -> None:
    """Make each backend of each service hold so many flows, as packets would."""
    slots = shell.dataplane.tables.arrays.flows.reshape(-1)
    pairs = [(service, place) for service in range(4) for place in range(4)] * number
    slots["tag_backend"][: len(pairs)] = [1 << 16 | place for _, place in pairs]
    seen = shell.dataplane.clock_seconds() << 32
    slots["state"][: len(pairs)] = [seen | service << 16 for service, _ in pairs]


def test_drain_without_flows_is_done_at_once(web: Shell) -> None:
    """The operation is done, and -o json prints it."""
    operation = web.json("backend", "drain", "web", "10.0.0.11", "--wait")

    assert (operation["state"], operation["flows"]) == ("done", 0)


def test_drain_returns_at_once_unless_told_to_wait(web: Shell) -> None:
    """It says how many flows are left."""
    flows_on_every_backend(web, 3)

    assert (
        web.ok("backend", "drain", "web", "10.0.0.11")
        == "backend 10.0.0.11 of web is draining: 3 flows left\n"
    )


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], list[float]]:
    """Puts something in the place of each pause of a wait; gives the pauses that there were."""

    def during(do: Callable[[], None]) -> list[float]:
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            do()

        monkeypatch.setattr(drain, "pause", pause)
        return pauses

    return during


Meanwhile = Callable[[Callable[[], None]], list[float]]


def test_drain_waits_until_no_flow_is_left(web: Shell, meanwhile: Meanwhile) -> None:
    """It says what it waits for, and asks again until the last flow has ended, here before the second look."""
    flows_on_every_backend(web, 1)
    pauses = meanwhile(lambda: web.dataplane.tables.arrays.flows.reshape(-1)["tag_backend"].fill(0))

    result = web.run("backend", "drain", "web", "10.0.0.11", "--wait")

    assert (result.exit_code, result.stdout) == (
        0,
        "backend 10.0.0.11 of web is draining: no flows are left\n",
    )
    assert result.stderr == "sluice: waiting for 1 flow of 10.0.0.11\n"
    assert len(pauses) == 1


def test_several_drain_in_one_step_and_are_waited_for_together(web: Shell, meanwhile: Meanwhile) -> None:
    """One revision; it ends with the last flow of the last of them, and -o json prints the operations."""
    flows_on_every_backend(web, 1)
    table = web.dataplane.tables.arrays.flows.reshape(-1)
    next_to_end = iter([0, 1])
    pauses = meanwhile(lambda: table["tag_backend"].__setitem__(next(next_to_end), 0))
    before = web.reconciler.desired.revision

    result = web.run("backend", "drain", "web", "10.0.0.11", "10.0.0.12", "--wait", "-o", "json")

    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [(o["address"], o["state"], o["flows"]) for o in document["items"]] == [
        ("10.0.0.11", "done", 0),
        ("10.0.0.12", "done", 0),
    ]
    assert len(pauses) == 2
    assert web.reconciler.desired.revision == before + 1


def test_of_several_none_drains_if_one_is_unknown(web: Shell) -> None:
    """All or none: the error names the one, and the others take new flows."""
    result = web.run("backend", "drain", "web", "10.0.0.11", "10.0.0.99")

    assert result.exit_code == 1
    assert result.stderr.startswith('sluice: /addresses/1: service "web" has no backend 10.0.0.99')
    assert web.rest("/services/web/backends/10.0.0.11")["admin_state"] == "enabled"


@pytest.mark.parametrize("verb", ["enable", "remove"])
def test_who_is_enabled_or_removed_meanwhile_is_waited_for_no_more(
    web: Shell, meanwhile: Meanwhile, verb: str
) -> None:
    """Exit code 1 at the next look, and what has happened."""
    flows_on_every_backend(web, 1)

    def somebody() -> None:
        web.ok("backend", verb, "web", "10.0.0.11")

    pauses = meanwhile(somebody)

    result = web.run("backend", "drain", "web", "10.0.0.11", "--wait")

    assert (result.exit_code, len(pauses)) == (1, 1)
    assert "backend 10.0.0.11 of web is no longer draining" in result.stderr


def test_who_is_disabled_meanwhile_has_no_flows_left(web: Shell, meanwhile: Meanwhile) -> None:
    """The wait is over, as its flows were ended; what is printed says that it is disabled."""
    flows_on_every_backend(web, 1)
    pauses = meanwhile(lambda: web.ok("backend", "disable", "web", "10.0.0.11") and None)

    result = web.run("backend", "drain", "web", "10.0.0.11", "--wait")

    assert (result.exit_code, len(pauses)) == (0, 1)
    assert result.stdout == "backend 10.0.0.11 of web is disabled: no flows are left\n"


@pytest.mark.parametrize(("looks_away", "exit_code"), [(2, 0), (99, 5)])
def test_a_wait_outlasts_a_restart_of_the_daemon(
    web: Shell, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch, looks_away: int, exit_code: int
) -> None:
    """A daemon that does not answer is asked again; exit code 5 if it does not when the time is over."""
    flows_on_every_backend(web, 1)
    away, call, now = iter(range(looks_away)), Client.call, itertools.count()

    def call_if_there(self: Client, method: str, path: str, **said: Any) -> Any:
        if path.startswith("/operations/") and next(away, None) is not None:
            raise UnreachableError("nothing listens there")
        return call(self, method, path, **said)

    monkeypatch.setattr(Client, "call", call_if_there)
    monkeypatch.setattr(drain, "monotonic", lambda: next(now))
    meanwhile(lambda: web.dataplane.tables.arrays.flows.reshape(-1)["tag_backend"].fill(0))
    result = web.run("backend", "drain", "web", "10.0.0.11", "--wait", "--timeout", "40")

    assert result.exit_code == exit_code
    assert ("nothing listens there" in result.stderr) == (exit_code == 5)
    assert result.stderr.startswith("sluice: waiting for 1 flow of 10.0.0.11\n")


def test_an_interrupted_wait_leaves_the_drain_on(web: Shell, meanwhile: Meanwhile) -> None:
    """Ctrl-C ends the waiting alone: exit code 1, the flows that are left, and how to take it back."""
    flows_on_every_backend(web, 2)

    def interrupt() -> None:
        raise KeyboardInterrupt

    meanwhile(interrupt)
    result = web.run("backend", "drain", "web", "10.0.0.11", "--wait")

    assert result.exit_code == 1
    assert "sluice: interrupted; of web, 10.0.0.11 has 2 flows left and goes on draining" in result.stderr
    assert web.rest("/services/web/backends/10.0.0.11")["admin_state"] == "draining"


def test_drain_gives_up_when_its_time_is_over(web: Shell) -> None:
    """Exit code 1, the flows that are left, and what can be done; the backend stays draining."""
    flows_on_every_backend(web, 2)

    result = web.run("backend", "drain", "web", "10.0.0.11", "--wait", "--timeout", "0")

    assert result.exit_code == 1
    assert "still has 2 flows after 0 s" in result.stderr
    assert "sluice backend disable web 10.0.0.11" in result.stderr
    assert web.rest("/services/web/backends/10.0.0.11")["admin_state"] == "draining"

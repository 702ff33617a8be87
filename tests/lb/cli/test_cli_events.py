"""sluice events."""

import json
import os
import subprocess
import sys

from cli_shell import Shell

from lb.cli.events import line_of, lost_line, messages


def test_events_are_listed(web: Shell) -> None:
    """Each on a line, with kind and sentence; -o json is the page that the daemon gives."""
    web.reconciler.events.publish("feed.failed", "no answer", level="error", feed="spam")

    lines = web.ok("events").splitlines()

    assert len(lines) == 2
    assert lines[0].endswith("config.changed  revision 1 by local: POST /v1/services")
    assert lines[1].endswith("error feed.failed  no answer")
    assert web.json("events") == web.rest("/events")


def test_events_are_chosen(web: Shell) -> None:
    """By kind, by level, by time."""
    web.reconciler.events.publish("feed.failed", "no answer", level="error")

    assert web.ok("events", "--kind", "feed").count("\n") == 1
    assert web.ok("events", "--kind", "feed", "-k", "config").count("\n") == 2
    assert "no answer" in web.ok("events", "--level", "warning")
    assert web.ok("events", "--since", "1h").count("\n") == 2
    result = web.run("events", "--since", "soon")
    assert result.exit_code == 1
    assert "since" in result.stderr


def test_many_events_come_in_pages(shell: Shell) -> None:
    """All that are kept are listed, however many."""
    for number in range(2345):
        shell.reconciler.events.publish("n", str(number))

    assert [line.rpartition(" ")[2] for line in shell.ok("events").splitlines()] == [*map(str, range(2345))]


def test_follow_goes_on(shell: Shell) -> None:
    """What was, then what comes, a document a line, until it is interrupted."""
    shell.reconciler.events.publish("n", "before")
    command = [sys.executable, "-c", "from lb.cli.main import main; main()", "--server", shell.server]
    words = ["events", "--follow", "-o", "json"]
    with subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as reader:
        assert reader.stdout is not None
        first = json.loads(reader.stdout.readline())
        shell.reconciler.events.publish("n", "after")
        second = json.loads(reader.stdout.readline())
        reader.terminate()

    assert [first["text"], second["text"]] == ["before", "after"]
    assert second["id"] == first["id"] + 1


def test_messages_are_taken_apart() -> None:
    """Comments and places are passed over; a name holds for one message alone."""
    lines = [": c", "id: 4", "", "event: lost", 'data: {"lost": 3}', "", "id: 8", 'data: {"a": 1}', ""]

    assert list(messages(iter(lines))) == [("lost", {"lost": 3}), ("message", {"a": 1})]


def test_what_a_terminal_must_not_see_is_not_shown() -> None:
    """Control characters of a text are question marks."""
    event = {"time": "2030-01-31T12:00:00.000Z", "level": "info", "kind": "n", "text": "a\x1b[2Jb"}

    assert line_of(event).endswith("a?[2Jb")


def test_loss_is_said_in_words() -> None:
    """With a number where it is known."""
    assert lost_line(7).startswith("7 events came faster")
    assert "restarted" in lost_line(None)

"""What the reconciler tells of itself, over the data plane's twin."""

import json
import logging
import threading
from collections.abc import Iterator

import pytest
from service_samples import addresses, service

from lb.dataplane.twin import TwinDataPlane
from lb.errors import DataPlaneError
from lb.events import Event, Events
from lb.logs import JsonFormatter, log_event
from lb.model import Service
from lb.reconcile.hops import TOLD_MOST
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def plane() -> TwinDataPlane:
    return TwinDataPlane()


@pytest.fixture
def control(plane: TwinDataPlane, events: Events) -> Iterator[Reconciler]:
    control = Reconciler(SqliteStore(":memory:"), plane, events=events)
    control.start()
    yield control
    control.stop()


def want(control: Reconciler, *services: Service) -> None:
    control.change(lambda config: config.with_services(list(services)), actor="alice", summary="a test")


def told(control: Reconciler, plane: TwinDataPlane, events: Events) -> list[Event]:
    """What a change of next hops made the loop tell; the change of the config before is left out."""
    last = events.last
    plane.touch()
    found = [event for event in events.wait(last, 60) if event.kind != "config.changed"]
    with control._lock:  # the loop tells all of one turn under it
        return [event for event in events.since(last) if event.kind != "config.changed"] or found


def packed(*addresses: str) -> set[bytes]:
    return {bytes(map(int, address.split("."))) for address in addresses}


def test_a_next_hop_comes_and_goes(control: Reconciler, plane: TwinDataPlane, events: Events) -> None:
    """A backend whose MAC becomes known, or is not known any more, is told with its address."""
    plane.unresolved = packed("10.0.0.11")
    want(control, service("web", "10.0.0.11", "10.0.0.12"))

    plane.unresolved = set()
    (found,) = told(control, plane, events)
    plane.unreachable = packed("10.0.0.12")
    (lost,) = told(control, plane, events)

    assert (found.kind, found.level) == ("hop.resolved", "info")
    assert found.text == "the next hop of 10.0.0.11 is 02:10:0a:00:00:0b on twin0"
    assert (lost.kind, lost.level, lost.facts) == ("hop.lost", "warning", {"address": "10.0.0.12"})


def test_many_next_hops_at_once_are_summed_up(
    control: Reconciler, plane: TwinDataPlane, events: Events
) -> None:
    """A link that goes takes thousands of backends with it: the first have an event each, the others one."""
    backends = addresses(TOLD_MOST + 7)
    want(control, service("web", *backends))
    plane.unreachable = packed(*backends)

    found = told(control, plane, events)

    assert [event.kind for event in found] == ["hop.lost"] * (TOLD_MOST + 1)
    assert found[-1].facts == {"changed": 7, "lost": 7}


def test_a_change_that_fails_is_told(
    control: Reconciler, plane: TwinDataPlane, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that the kernel refuses is an error with the reason, and no change."""

    def refuse(*_: object, **how: object) -> None:
        raise OSError(12, "no memory")

    with monkeypatch.context() as patch:
        patch.setattr(plane.tables.services4, "write", refuse)
        with pytest.raises(DataPlaneError):
            want(control, service("web", "10.0.0.11"))

    (event,) = events.since(0)
    assert (event.kind, event.level) == ("failure", "error")
    assert event.text.startswith("revision 1 could not be applied and is rolled back: ")
    assert "no memory" in event.text


def test_the_log_has_events_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """A text line is kind and sentence at the event's level; a JSON line has the event itself beside that."""
    event = Events(first=7, clock=lambda: 5.0).publish(
        "feed.failed", "no answer", level="warning", feed="spam"
    )
    with caplog.at_level(logging.INFO, "sluice"):
        log_event(event)

    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "feed.failed: no answer")
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["message"]) == ("warning", "feed.failed: no answer")
    assert line["event"] == event.document()
    assert line["event"]["facts"] == {"feed": "spam"}


def test_what_goes_on_failing_is_told_once(
    control: Reconciler, plane: TwinDataPlane, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that stays is tried again and again, and told when it begins; another fault is told too."""
    want(control, service("web", "10.0.0.11"))
    tries: list[str] = []
    tried = threading.Condition()

    def fail(*_: object) -> object:
        with tried:
            tries.append("the table is closed" if len(tries) < 3 else "the kernel says no")
            tried.notify_all()
            raise DataPlaneError(tries[-1])

    monkeypatch.setattr(plane, "next_hops", fail)
    monkeypatch.setattr(control._maps, "go_back", fail)
    plane.touch()
    with tried:
        assert tried.wait_for(lambda: len(tries) >= 6, 60)

    texts = [event.text for event in events.since(0) if event.kind == "failure"]
    assert len(texts) == len(set(texts))
    assert any(text.endswith("the kernel says no") for text in texts)

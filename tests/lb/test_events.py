"""The list of events: numbers, what is lost, who is told."""

import threading

import pytest

from lb.events import KEPT, Events, first_of_run, matcher


def test_numbers_go_up_and_reading_goes_on() -> None:
    """Each event has the next number, and whoever reads goes on after the last it saw, nothing twice."""
    events = Events(first=100, clock=lambda: 5.0)
    first, second = events.publish("a.b", "one", fact=1), events.publish("a.c", "two")

    part = events.read(0, most=1)

    assert [first.id, second.id] == [100, 101]
    assert (part.events, part.last, part.lost) == ([first], 100, 0)
    assert events.read(part.last).events == [second]
    assert events.read(101).events == []
    assert events.read(101).last == 101
    assert first.document() == {
        "id": 100,
        "time": "1970-01-01T00:00:05.000Z",
        "kind": "a.b",
        "level": "info",
        "text": "one",
        "facts": {"fact": 1},
        "request_id": None,
    }


def test_what_is_gone_is_counted() -> None:
    """A reader whose next event is no longer kept is told how many it missed, and goes on with the oldest."""
    events = Events(first=1000)
    for number in range(KEPT + 7):
        events.publish("n", str(number))

    part = events.read(1002, most=2)

    assert part.lost == 4
    assert [event.text for event in part.events] == ["7", "8"]
    assert events.read(1006).lost == 0


@pytest.mark.parametrize("last", [5, 99, 200])
def test_an_earlier_runs_number_is_no_number_of_this_one(last: int) -> None:
    """Who comes with a number of another run gets all there is, and is told that nobody knows how many it missed."""
    events = Events(first=101)
    event = events.publish("n", "x")

    part = events.read(last)

    assert (part.events, part.lost) == ([event], None)


def test_the_number_before_the_first_is_this_runs() -> None:
    """Who has read all that there was before the first event misses nothing."""
    events = Events(first=101)
    last = events.last
    event = events.publish("n", "x")

    assert (events.read(last).events, events.read(last).lost) == ([event], 0)


def test_a_later_run_begins_above_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of a run that begins a second later are above those of a run that published a hundred events."""
    now = 1_900_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    early = Events(first_of_run())
    for _ in range(100):
        early.publish("n", "x")
    now += 1.0

    assert Events(first_of_run()).publish("n", "y").id > early.last


def test_listeners_hear_each_event_once_and_in_order() -> None:
    """From whatever threads they are published, and no longer once a listener has ended."""
    events, heard = Events(), list[int]()
    end = events.listen(lambda event: heard.append(event.id))
    threads = [
        threading.Thread(target=lambda: [events.publish("n", "x") for _ in range(200)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end()
    events.publish("n", "y")

    assert heard == list(range(1, 801))


def test_waiting_ends_with_an_event_or_with_the_end() -> None:
    """Who waits is woken by what is published, and by the close."""
    events = Events()
    threading.Timer(0.01, lambda: events.publish("n", "x")).start()
    assert [event.text for event in events.wait(0, 60.0)] == ["x"]

    threading.Timer(0.01, events.close).start()
    assert events.wait(1, 60.0) == []
    assert events.is_closed


def test_kinds_and_levels_choose() -> None:
    """A kind takes in those below it, but not what only begins alike; a level takes in what is worse."""
    events = Events()
    for kind, level in (("feed.failed", "error"), ("feed", "info"), ("feeding", "warning")):
        events.publish(kind, kind, level=level)

    def chosen(*kinds: str, level: str | None = None) -> list[str]:
        return [e.kind for e in events.since(0) if matcher(list(kinds), level)(e)]

    assert chosen() == ["feed.failed", "feed", "feeding"]
    assert chosen("feed") == ["feed.failed", "feed"]
    assert chosen("feed.failed", "feeding") == ["feed.failed", "feeding"]
    assert chosen(level="warning") == ["feed.failed", "feeding"]


def test_an_event_between_two_reads_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published just as a reader has found nothing is what it reads next."""
    events = Events()
    last = events.publish("n", "before").id
    changed = events._changed

    class Meanwhile:
        def __enter__(self) -> None:
            changed.acquire()

        def __exit__(self, *_: object) -> None:
            changed.release()
            monkeypatch.undo()
            events.publish("n", "meanwhile")

    monkeypatch.setattr(events, "_changed", Meanwhile())
    part = events.read(last)

    assert (part.events, part.last) == ([], last)
    assert [event.text for event in events.read(part.last).events] == ["meanwhile"]

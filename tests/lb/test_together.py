"""Changes that wait for the writer's lock are made in one go, and each succeeds or fails as if it were alone."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from test_crash import (
    SIZES,
    Fate,
    KilledError,
    Mortal,
    daemon,
    document,
    meaning,
    mortal,
)
from test_reconcile import House, block, service

from lb.dataplane.twin import TwinDataPlane
from lb.errors import CapacityError, ConflictError, DataPlaneError, NotFoundError, SluiceError
from lb.events import REQUEST_ID
from lb.model import Config, Prefix, Service
from lb.reconcile.desired import Desired
from lb.reconcile.loop import Reconciler
from lb.reconcile.ring import SLOTS
from lb.reconcile.terms import Terms
from lb.store import SqliteStore

Edit = Callable[[Config], Config]
PATIENCE_SECONDS = 30


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.reconciler.stop()
    house.store.close()


class Came(dict[object, None]):
    """Who waits; tells each time that somebody comes."""

    def __init__(self) -> None:
        super().__init__()
        self.more = threading.Semaphore(0)

    def __setitem__(self, asked: object, nothing: None) -> None:
        super().__setitem__(asked, nothing)
        self.more.release()


def at_once(control: Reconciler, edits: list[Edit], **more: Any) -> list[Desired | SluiceError]:
    """What becomes of changes that all wait before the first is made. KilledError ends the thread it comes to."""
    came = control._together._waiting = Came()
    found: list[Desired | SluiceError] = [SluiceError("nothing")] * len(edits)

    def ask(number: int) -> None:
        REQUEST_ID.set(f"request {number}")
        try:
            found[number] = control.change(
                edits[number], actor=f"caller {number}", summary=f"change {number}", **more
            )
        except SluiceError as error:
            found[number] = error
        except KilledError:
            pass

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(edits))]
    with control._lock:
        for thread in threads:
            thread.start()
            assert came.more.acquire(timeout=PATIENCE_SECONDS)
    for thread in threads:
        thread.join()
    assert not came
    return found


def counted(monkeypatch: pytest.MonkeyPatch, house: House) -> list[str]:
    """Grows with each transaction and each pass of the maps."""
    said: list[str] = []
    together, apply = house.store.together, house.reconciler._maps.apply

    def one() -> Any:
        said.append("stored")
        return together()

    def put(*given: Any, **more: Any) -> None:
        apply(*given, **more)
        said.append("applied")

    monkeypatch.setattr(house.store, "together", one)
    monkeypatch.setattr(house.reconciler._maps, "apply", put)
    return said


def blocked(house: House) -> set[str]:
    """What is on the blocklist and in memory, which must be the same."""
    said = {str(entry.prefix) for entry in house.reconciler.desired.config.blocklist.page(0.0, None, 100)}
    held = {str(Prefix.from_key(int(word) >> 16)) for word in house.reconciler._plans.deny.ipv4}
    assert said == held
    before = house.memory()
    house.restart()  # which writes what differs from the store
    assert house.memory() == before
    return said


def unblock(text: str) -> Edit:
    prefix = Prefix.parse(text)

    def edit(config: Config) -> Config:
        layer = config.blocklist.layer("operator")
        if layer.get(prefix) is None:
            raise NotFoundError(f"{text} is not there")
        return replace(config, blocklist=config.blocklist.with_layer("operator", layer.without([prefix])))

    return edit


def added(one: Service) -> Edit:
    return lambda config: config.with_service(one)


def weighted(heavy: int) -> Edit:
    """One of three backends takes twice as much as each of the others."""
    backends = [{"address": f"10.0.0.{n}", "weight": 1 + (n == heavy)} for n in (11, 12, 13)]
    return added(service(backends=backends))


def test_all_who_wait_share_a_transaction_and_a_pass(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve changes of lists and services: each has its revision, its line of the history and its event, in one go."""
    house.change(lambda c: c.with_service(service()))
    said = counted(monkeypatch, house)
    edits = [block(f"198.51.100.{n}") for n in range(10)]
    edits += [
        lambda c: c.with_service(service(labels={"a": "b"})),
        lambda c: c.with_service(service("two", "10.200.1.2")),
    ]

    found = at_once(house.reconciler, edits)

    assert said == ["stored", "applied"]
    made = sorted((each for each in found if isinstance(each, Desired)), key=lambda each: each.revision)
    assert [(each.since, each.revision) for each in made] == [(n, n + 1) for n in range(1, 13)]
    lines = {line.revision: (line.actor, line.summary) for line in house.store.revisions(12)}
    events = [event for event in house.reconciler.events.since(0) if event.kind == "config.changed"][1:]
    assert [event.facts["revision"] for event in events] == list(range(2, 14))
    for number, each in enumerate(found):
        assert isinstance(each, Desired)
        assert lines[each.revision] == (f"caller {number}", f"change {number}")
        assert events[each.revision - 2].request_id == f"request {number}"
        assert house.store.config_at(each.revision) == each.config
    assert blocked(house) == {f"198.51.100.{n}/32" for n in range(10)}
    assert set(house.ring_of("web")) == {"10.0.0.11", "10.0.0.12", "10.0.0.13"}


def test_an_edit_that_fails_fails_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others beside it are made, in the same go."""
    said = counted(monkeypatch, house)

    found = at_once(house.reconciler, [block("198.51.100.1"), unblock("198.51.100.9"), block("198.51.100.2")])

    assert isinstance(found[1], NotFoundError)
    assert [each.revision for each in (found[0], found[2]) if isinstance(each, Desired)] in ([1, 2], [2, 1])
    assert said == ["stored", "applied"]
    assert blocked(house) == {"198.51.100.1/32", "198.51.100.2/32"}


def test_what_locks_out_fails_alone(house: House) -> None:
    """What would drop a backend is refused to whoever asked for it."""
    house.change(lambda c: c.with_service(service()))

    found = at_once(house.reconciler, [block("198.51.100.1"), block("10.0.0.12"), block("198.51.100.2")])

    assert [type(each) for each in found] == [Desired, ConflictError, Desired]
    assert blocked(house) == {"198.51.100.1/32", "198.51.100.2/32"}


def test_a_change_of_nothing_tells_the_revision_that_holds_it(house: House) -> None:
    """Twice the same: one revision, which both are told once it is in force."""
    found = at_once(house.reconciler, [block("198.51.100.1"), block("198.51.100.1"), block("198.51.100.1")])

    made = [each for each in found if isinstance(each, Desired)]
    assert sorted((each.since, each.revision) for each in made) == [(0, 1), (1, 1), (1, 1)]
    assert len(house.store.revisions()) == 1


def test_what_does_not_fit_fails_alone(house: House) -> None:
    """One that asks for more than the maps have room for is refused; the others are made."""
    ports = [
        lambda c: c.with_service(service("wide", "10.200.1.9", "1-60000")),
        block("198.51.100.1"),
        block("198.51.100.2"),
    ]

    found = at_once(house.reconciler, ports)

    assert [type(each) for each in found] == [CapacityError, Desired, Desired]
    assert {line.summary for line in house.store.revisions()} == {"change 1", "change 2"}
    assert blocked(house) == {"198.51.100.1/32", "198.51.100.2/32"}


@pytest.mark.parametrize("refused", ["198.51.100.2", None])
def test_what_the_kernel_refuses_fails_alone(
    house: House, monkeypatch: pytest.MonkeyPatch, refused: str | None
) -> None:
    """A pass that fails is taken back, store and maps, and each is made by itself; None: it fails but once."""
    apply, times = house.reconciler._maps.apply, [0]

    def refusing(config: Config, *given: Any, **more: Any) -> None:
        apply(config, *given, **more)
        prefix = refused and Prefix.parse(refused)
        if (prefix and config.blocklist.layer("operator").get(prefix)) or (not prefix and not times[0]):
            times[0] += 1
            house.reconciler._maps.failure = "the kernel refused it"
            raise DataPlaneError("the kernel refused it")

    monkeypatch.setattr(house.reconciler._maps, "apply", refusing)

    found = at_once(house.reconciler, [block(f"198.51.100.{n}") for n in (1, 2, 3)])

    kinds = [Desired, DataPlaneError if refused else Desired, Desired]
    assert [type(each) for each in found] == kinds
    kept = {line.revision for line in house.store.revisions()}
    assert kept == {each.revision for each in found if isinstance(each, Desired)}
    assert blocked(house) == {f"198.51.100.{n}/32" for n in (1, 2, 3) if refused is None or n != 2}


@pytest.mark.parametrize("terms", [Terms(tell_moves=True), Terms(max_moved_percent=99.0), Terms()])
def test_what_a_change_moves_is_its_own(house: House, monkeypatch: pytest.MonkeyPatch, terms: Terms) -> None:
    """Changes of which that is told, or bounded, by themselves or by the settings, are made one by one."""
    bounded = house.reconciler.desired.config.settings.model_copy(
        update={"max_moved_percent": 99.0 if terms == Terms() else None}
    )
    house.change(lambda c: replace(c.with_service(service()), settings=bounded))
    said = counted(monkeypatch, house)

    found = at_once(house.reconciler, [weighted(11), weighted(12)], terms=terms)

    assert said == ["stored", "applied"] * 2
    moves = [each.moves for each in found if isinstance(each, Desired)]
    assert len(moves) == 2
    assert all(not told or 0 < told[0].ring_slots_moved < SLOTS for told in moves)
    assert [bool(told) for told in moves] == [terms.tell_moves] * 2


def test_whoever_holds_the_lock_finds_things_as_they_were(house: House) -> None:
    """A change that is made with the lock held is made before those that wait, though they came first."""
    seen: list[int] = []
    came = house.reconciler._together._waiting = Came()

    def first(config: Config) -> Config:
        seen.append(len(config.blocklist))
        return block("198.51.100.7")(config)

    with house.reconciler._lock:
        other = threading.Thread(target=house.change, args=(block("198.51.100.1"),))
        other.start()
        assert came.more.acquire(timeout=PATIENCE_SECONDS)
        assert house.change(first) == 1
    other.join()

    assert seen == [0]
    assert blocked(house) == {"198.51.100.1/32", "198.51.100.7/32"}


def test_killed_anywhere_all_are_there_or_none() -> None:
    """At whichever step: the next daemon desires all changes of one go or none, packets meet just that, and none was
    acknowledged unless all are there."""
    before = document([service()])
    edits = [block("198.18.1.3"), added(service("two", "10.200.1.2", labels={"a": "b"})), weighted(12)]
    expected = []
    for some in ([], edits):
        twin = TwinDataPlane(SIZES)
        with daemon(SqliteStore(":memory:"), twin) as control:
            for edit in (before, *some):
                control.change(edit, actor="test", summary="test")
        expected.append(meaning(twin))

    step, ended, outcomes = 0, False, set[int]()
    while not ended:
        twin, fate, store = TwinDataPlane(SIZES), Fate(), SqliteStore(":memory:")
        with daemon(Mortal(store, fate, ("commit",)), mortal(twin, fate)) as control:
            first = control.change(before, actor="test", summary="test").revision
            fate.left = step
            found = at_once(control, edits)
            ended, fate.left = fate.left >= 0, None
        acknowledged = [each.revision for each in found if isinstance(each, Desired)]
        with daemon(store, twin) as control:
            revision = control.desired.revision

            assert revision in (first, first + len(edits))
            assert meaning(twin) == expected[revision != first]
            assert len(acknowledged) == (len(edits) if ended else 0)
            outcomes.add(revision)
        store.close()
        step += 1
    assert len(outcomes) == 2
    assert step > 10


def test_what_is_changed_and_changed_back_is_in_the_history(house: House) -> None:
    """Each revision says what differs from the one before it, not from what there was before the go."""
    house.change(added(service()))
    other = added(service(labels={"a": "b"}))

    found = at_once(house.reconciler, [other, added(service()), other, added(service())])

    made = {each.revision: each for each in found if isinstance(each, Desired)}
    assert len(made) > 2
    for revision, each in made.items():
        assert house.store.config_at(revision) == each.config

"""Who looks at guarded services tells when an attack begins and when it ends, once each."""

import pytest
from service_samples import named, service

from lb.dataplane.twin import TwinDataPlane
from lb.events import Event, Events
from lb.model import Config, Service
from lb.reconcile.floods import FloodWatch
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore


def web(budget: int | None = 100) -> Service:
    """A service with that budget, or without protection."""
    guard = None if budget is None else {"new_flows_per_second": budget}
    return service("web", "10.0.0.1", flood_protection=guard)


class Scene:
    """A reconciler over the twin, a clock that stands still, and the looks of a watch that nobody runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.twin, self.events, self.second = TwinDataPlane(), Events(), 1000
        monkeypatch.setattr(self.twin, "clock_seconds", lambda: self.second)
        self.reconciler = Reconciler(SqliteStore(":memory:"), self.twin)
        self.reconciler.start()
        self.watch = FloodWatch(self.twin, lambda: self.reconciler._plans.services, self.events)
        self._last = 0

    def put(self, *services: Service) -> None:
        """Make these the services."""
        self.reconciler.change(lambda config: Config(services=named(*services)), actor="test", summary="test")

    def packets(self, **members: int) -> None:
        """Write what packets would."""
        number = self.reconciler._plans.services.by_name["web"].number
        for name, value in members.items():
            self.twin.tables.arrays.service_guards[name][number] = value

    def look(self) -> list[Event]:
        """What one look published."""
        self.watch.look()
        found = self.events.since(self._last)
        self._last = found[-1].id if found else self._last
        return found


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Nothing configured."""
    return Scene(monkeypatch)


def test_an_attack_is_told_of_as_it_begins_and_as_it_ends(scene: Scene) -> None:
    """With the worst second that was seen, the budget, and how long it lasted."""
    scene.put(web())
    assert scene.look() == []

    scene.packets(second=1000, opened=101, attack_since=1000, attack_until=1030, attacks=1)
    (began,) = scene.look()
    assert (began.kind, began.level) == ("attack.began", "warning")
    assert dict(began.facts) == {"service": "web", "new_flows_per_second": 101, "budget": 100}
    assert began.text == 'service "web" is under attack: 101 new flows in a second so far, its budget is 100'

    scene.second = 1001
    scene.packets(second=1001, opened=5, before=70_000, attack_until=1031)
    assert scene.look() == []
    scene.second = 1031
    (ended,) = scene.look()
    assert (ended.kind, ended.level) == ("attack.ended", "info")
    facts = {"service": "web", "new_flows_per_second": 70_000, "budget": 100, "seconds": 31}
    assert dict(ended.facts) == facts
    assert ended.text == 'service "web" was under attack for 31 s, with up to 70000 new flows in a second'
    assert scene.look() == []


def test_an_attack_right_after_another_is_another(scene: Scene) -> None:
    """Though nobody looked in the peace between them."""
    scene.put(web())
    scene.packets(second=1000, opened=101, attack_since=1000, attack_until=1001, attacks=1)
    scene.look()

    scene.second = 1003
    scene.packets(second=1003, opened=102, attack_since=1003, attack_until=1004, attacks=2)

    assert [event.kind for event in scene.look()] == ["attack.ended", "attack.began"]


@pytest.mark.parametrize("after", [(), (web(None),)], ids=["removed", "no longer guarded"])
def test_an_attack_ends_with_the_protection(scene: Scene, after: tuple[Service, ...]) -> None:
    """Nobody is left with an attack that never ends."""
    scene.put(web())
    scene.packets(second=1000, opened=101, attack_since=1000, attack_until=1030, attacks=1)
    scene.look()

    scene.put(*after)

    (ended,) = scene.look()
    assert (ended.kind, ended.facts["budget"]) == ("attack.ended", None)
    assert ended.text.endswith("is no longer guarded")


def test_only_guarded_services_are_looked_at(scene: Scene) -> None:
    """A look says whether there are any, so that nobody looks again while there are none."""
    scene.put(web(None))
    assert scene.watch.look() is False
    scene.put(web())
    assert scene.watch.look() is True


def test_the_daemon_looks_by_itself() -> None:
    """A reconciler with events publishes what packets write, from the moment a service is guarded."""
    events, twin = Events(), TwinDataPlane()
    reconciler = Reconciler(SqliteStore(":memory:"), twin, events=events)
    reconciler.start()
    try:
        reconciler.change(lambda config: Config(services=named(web())), actor="test", summary="test")
        last = events.last
        now, number = twin.clock_seconds(), reconciler._plans.services.by_name["web"].number
        row = {"second": now, "opened": 101, "attack_since": now, "attack_until": now + 60, "attacks": 1}
        for name, value in row.items():
            twin.tables.arrays.service_guards[name][number] = value

        assert [event.kind for event in events.wait(last, 10.0)] == ["attack.began"]
    finally:
        reconciler.stop()

"""Rules through the reconciler: refused changes are taken back, restarts write nothing, the program keeps up."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from rule_reading import Packet, asked
from service_samples import service
from twin_memory import memory

from lb.dataplane.protocol import ProgramWish
from lb.dataplane.twin import TwinDataPlane
from lb.errors import CapacityError, CompileError, DataPlaneError
from lb.model import Config, Rule
from lb.reconcile.loop import Reconciler
from lb.store import SqliteStore

TCP80 = Packet(4, 0x0A000001, 0x0AC80101, 6, port=80)


def rule(name: str, action: str = "drop", **more: Any) -> Rule:
    return Rule.model_validate({"name": name, "action": action, **more})


class House:
    """A store, a twin whose kernel can be told to refuse, and the reconciler between them."""

    def __init__(self) -> None:
        self.store, self.twin = SqliteStore(":memory:"), TwinDataPlane()
        self.reconciler = Reconciler(self.store, self.twin)
        self.reconciler.start()

    def put(self, *rules: Rule, **more: Any) -> int:
        """Exactly these rules; the revision."""
        named = {each.name: each for each in rules}
        edited = self.reconciler.change(lambda c: replace(c, rules=named, **more), actor="", summary="")
        return edited.revision

    def names(self, packet: Packet) -> list[str]:
        """The rules that memory has for a packet."""
        by_number = {number: name for name, number in self.reconciler._plans.rules.numbers.items()}
        return [by_number[number] for number in asked(self.twin.tables, packet)]

    def restart(self) -> None:
        """A new reconciler over the same store and memory."""
        self.reconciler.stop()
        self.reconciler = Reconciler(self.store, self.twin)
        self.reconciler.start()


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.reconciler.stop()
    house.store.close()


def test_an_acknowledged_rule_is_in_memory(house: House) -> None:
    """And one that is removed is not, nor are the features that it needed wished for at the end."""
    house.put(rule("a", ports=80), rule("b", "count"))

    assert house.names(TCP80) == ["a", "b"]
    assert house.twin.wishes[-1].features >= {"HAVE_RULES", "HAVE_RULE_PORT"}
    house.put()
    house.reconciler._trim()
    assert house.names(TCP80) == []
    assert not {name for name in house.twin.wishes[-1].features if "RULE" in name}


def test_a_restart_writes_nothing_that_is_right(house: House) -> None:
    """Not one byte differs, and counts go on."""
    house.put(rule("x"), rule("a", ports=80), rule("b", source="10.0.0.0/8"))
    house.put(rule("a", ports=80), rule("b", source="10.0.0.0/8"))
    number = house.reconciler._plans.rules.numbers["a"]
    house.twin.tables.rule_counters.add(number, 9, 900)
    before = memory(house.twin)

    house.restart()

    assert memory(house.twin) == before
    assert house.names(TCP80) == ["a", "b"]
    assert house.reconciler.rule_tally("a").packets == 9


def test_what_was_committed_and_not_applied_is_applied_at_the_start(house: House) -> None:
    """A daemon that was killed between the two finds other rules in memory than in its store."""
    house.put(rule("a", source="10.0.0.0/8"))
    revision, config = house.store.load()
    wanted = replace(config, rules={"b": rule("b", ports=80)})
    assert house.store.commit(wanted, before=config, actor="", summary="", now=0.0) > revision

    house.restart()

    assert house.names(TCP80) == ["b"]
    assert len(house.twin.tables.rule_sources4.read()[0]) == 0
    assert "HAVE_RULE_SOURCE" in house.twin.wishes[-1].features


def test_rules_that_do_not_fit_change_nothing(house: House) -> None:
    """Refused before anything is stored or written."""
    revision = house.put(rule("a", ports=80))
    before = memory(house.twin)

    with pytest.raises(CapacityError, match="1025 rules are too many"):
        house.put(*(rule(f"r{n}") for n in range(1025)))

    assert house.reconciler.desired.revision == house.store.load()[0] == revision
    assert memory(house.twin) == before


class Refusing:
    """A table that refuses one write or removal."""

    def __init__(self, table: Any) -> None:
        self._table, self.capacity, self.refuses = table, table.capacity, ""

    def read(self) -> Any:
        return self._table.read()

    def write(self, keys: Any, values: Any) -> None:
        self._refuse("write")
        self._table.write(keys, values)

    def delete(self, keys: Any) -> None:
        self._refuse("delete")
        self._table.delete(keys)

    def _refuse(self, what: str) -> None:
        if self.refuses == what:
            self.refuses = ""
            raise OSError(12, "out of memory")


@pytest.mark.parametrize("refuses", ["write", "delete"])
def test_a_refused_change_is_taken_back(house: House, refuses: str) -> None:
    """The revision is gone, and memory says of packets what it said before."""
    trie = Refusing(house.twin.tables.rule_sources4)
    house.twin.tables = replace(house.twin.tables, rule_sources4=trie)
    house.restart()
    revision = house.put(rule("a", source="10.0.0.0/8"), rule("b", ports=80))
    trie.refuses = refuses

    with pytest.raises(DataPlaneError, match="out of memory"):
        house.put(rule("c", source="10.0.0.0/9"), rule("d", "allow", ports=80))

    assert house.reconciler.desired.revision == house.store.load()[0] == revision
    assert house.reconciler.readiness() == []
    assert house.names(TCP80) == ["a", "b"]
    assert len(trie.read()[0]) == 1


def test_a_program_that_does_not_compile_leaves_rules_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was written, and nothing is in the way of the next change."""
    house.put(rule("a", ports=80))
    before = memory(house.twin)
    require = house.twin.require

    def refuse(wish: ProgramWish, *, exactly: bool = False) -> None:
        if "HAVE_RULE_LENGTH" in wish.features:
            raise CompileError("it does not load")
        require(wish, exactly=exactly)

    monkeypatch.setattr(house.twin, "require", refuse)
    with pytest.raises(CompileError):
        house.put(rule("a", length=60))

    assert memory(house.twin) == before
    house.put(rule("b", ports=80))
    assert house.names(TCP80) == ["b"]


def test_the_program_can_do_what_the_rules_in_force_need(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the old rules are in force the new program asks what they ask: else they would match everything."""
    house.put(rule("a", source="203.0.113.0/24"))
    require, seen = house.twin.require, list[tuple[list[int], ProgramWish]]()

    def look(wish: ProgramWish, *, exactly: bool = False) -> None:
        seen.append((asked(house.twin.tables, Packet(4, 0xCB007101, 1, 6)), wish))
        require(wish, exactly=exactly)

    monkeypatch.setattr(house.twin, "require", look)
    house.put(rule("b", ports=80))

    assert [
        (bool(numbers), wish.features >= {"HAVE_RULE_SOURCE", "HAVE_RULE_PORT"}) for numbers, wish in seen
    ] == [(True, True)]


def test_a_service_that_moves_takes_its_rules_along(house: House) -> None:
    """A rule that names a service means its VIP of now."""
    house.put(rule("a", service="web"), services={"web": service("web", vip="10.200.1.1")})
    assert house.names(TCP80) == ["a"]

    moved = service("web", vip="10.200.1.2")
    house.reconciler.change(lambda c: c.with_service(moved), actor="", summary="")
    assert house.names(TCP80) == []
    assert house.names(replace(TCP80, destination=0x0AC80102)) == ["a"]


def test_equal_rules_make_no_revision(house: House) -> None:
    """A document that says the same again is the same."""
    revision = house.put(rule("a", ports=80))

    assert house.put(rule("a", ports="80")) == revision
    assert house.reconciler.desired.config != Config()

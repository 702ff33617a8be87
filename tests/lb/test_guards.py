"""Rows of guarded services in memory: settings are written, what packets wrote stays, and nobody inherits it."""

from dataclasses import replace
from typing import Any

import numpy as np
from apply_bench import Bench, ways
from service_samples import named, service
from test_apply_undo import Refusal, Refusing
from watched import watch_arrays

from lb.dataplane.layout import layout
from lb.dataplane.twin import TwinDataPlane
from lb.model import Service
from lb.reconcile.guards import GuardRow

GUARD, TEST = layout().constants["SERVICE_GUARD"], layout().constants["GUARD_TEST"]
SETTINGS = ("budget", "calm", "hold_s", "flags")
PACKETS = ("second", "opened", "before", "attack_since", "attack_until", "attacks")


def web(budget: int | None = 100, **more: Any) -> Service:
    """A service with that budget, or without protection."""
    guard = {"new_flows_per_second": budget, **more}
    return service("web", "10.0.0.1", flood_protection=None if budget is None else guard)


def renamed(one: Service) -> Service:
    """The same, of another name and VIP."""
    return one.model_copy(update={"name": "other", "vip": service("x", vip="10.200.1.2").vip})


def row(bench: Bench, name: str = "web") -> dict[str, int]:
    """What stands in a service's row."""
    one = bench.twin.tables.arrays.service_guards[bench.plans.by_name[name].number]
    return {field: int(one[field]) for field in (*SETTINGS, *PACKETS)}


def attack(bench: Bench, name: str = "web") -> dict[str, int]:
    """Write what packets would; returns that."""
    number = bench.plans.by_name[name].number
    said = {field: 1000 + n for n, field in enumerate(PACKETS)}
    for field, value in said.items():
        bench.twin.tables.arrays.service_guards[field][number] = value
    bench.twin.tables.guard_counters.values["tested"][number] = 7  # type: ignore[attr-defined]
    return said


def syns_tested(bench: Bench, name: str = "web") -> int:
    """SYNs that were tested."""
    return int(bench.twin.tables.guard_counters.read()["tested"][bench.plans.by_name[name].number])


def is_flagged(bench: Bench) -> bool:
    """Whether the keys of web lead packets to its row."""
    keys, values = bench.twin.tables.services4.read()
    (flags,) = values["flags"][keys["protocol"] != 0]
    return bool(flags & GUARD)


def test_a_row_holds_the_settings() -> None:
    """Budget, calm (half of it unless told), hold and whether sources are tested; the service has its flag."""
    bench = Bench()
    bench.put(named(web(101, hold_seconds=7, test_unknown=True)))

    assert row(bench) == {
        **{"budget": 101, "calm": 51, "hold_s": 7, "flags": TEST},
        **dict.fromkeys(PACKETS, 0),
    }
    assert is_flagged(bench)


def test_the_flag_is_there_only_while_the_row_is() -> None:
    """Whoever looks between any two writes finds no flag over an empty row, when protection comes and when it goes."""
    twin = TwinDataPlane()
    seen = []

    def look() -> None:
        keys, values = twin.tables.services4.read()
        budgets = twin.tables.arrays.service_guards["budget"]
        for value in values[keys["protocol"] != 0]:
            seen.append(bool(value["flags"] & GUARD))
            assert not value["flags"] & GUARD or budgets[value["number"]] == 100

    arrays = watch_arrays(twin.tables.arrays, look, elements={"service_guards": 1})
    bench = Bench(twin, replace(twin.tables, arrays=arrays))
    for budget in (None, 100, None, 100):
        bench.put(named(web(budget)))
        look()

    assert set(seen) == {False, True}


def test_new_settings_leave_what_packets_wrote() -> None:
    """An attack goes on, and counts stay, when the budget, or the service's backends, change; and after a restart."""
    bench = Bench()
    bench.put(named(web()))
    said = attack(bench)

    bench.put(named(web(200, calm_per_second=10)))
    assert row(bench) == {**said, "budget": 200, "calm": 10, "hold_s": 30, "flags": 0}

    again = bench.adopt(named(web(300)))
    assert row(again) == {**said, "budget": 300, "calm": 150, "hold_s": 30, "flags": 0}
    assert syns_tested(again) == 7


def test_protection_that_goes_leaves_nothing() -> None:
    """The row is empty, and protection that comes back begins in peace."""
    bench = Bench()
    bench.put(named(web()))
    attack(bench)

    bench.put(named(web(None)))
    assert set(row(bench).values()) == {0}
    assert not is_flagged(bench)

    bench.put(named(web()))
    assert [row(bench)[field] for field in PACKETS] == [0] * len(PACKETS)
    assert syns_tested(bench) == 0


def test_a_number_that_is_used_again_begins_in_peace() -> None:
    """Another service with the number of one removed has neither its attack nor its counts, restarted or not."""
    bench = Bench()
    bench.put(named(web()))
    attack(bench)
    number = bench.plans.by_name["web"].number
    other = renamed(web(50))

    bench.put({})
    bench.put(named(other))
    assert bench.plans.by_name["other"].number == number
    assert row(bench, "other") == {
        "budget": 50,
        "calm": 25,
        "hold_s": 30,
        "flags": 0,
        **dict.fromkeys(PACKETS, 0),
    }
    assert syns_tested(bench, "other") == 0

    attack(bench, "other")
    gone = bench.adopt({})
    assert not gone.twin.tables.arrays.service_guards.view(np.uint8).any()


def test_a_refused_change_goes_back() -> None:
    """If the kernel refuses half-way, settings and attack are as they were."""
    for calls in range(3):
        bench, refusal = Bench(), Refusal()
        bench.put(named(web()))
        said = attack(bench)
        before = row(bench)
        tables = bench.twin.tables
        bench.services._tables = replace(tables, backend_counters=Refusing(tables.backend_counters, refusal))
        services = named(web(200, hold_seconds=1), renamed(web(50)))
        refusal.left = calls
        try:
            bench.put(services)
        except OSError:
            bench.plans = bench.services.go_back(ways(services))
            assert row(bench) == before
            assert list(bench.twin.tables.arrays.service_guards["budget"].nonzero()[0]) == [
                bench.plans.by_name["web"].number
            ]
        else:
            assert row(bench) == {**said, "budget": 200, "calm": 100, "hold_s": 1, "flags": 0}


def one(**members: int) -> Any:
    """A row with these members."""
    made = np.zeros(1, layout().structs["service_guard"])
    for name, value in {"budget": 100, "calm": 50, "hold_s": 30, **members}.items():
        made[name] = value
    return made[0]


def test_a_row_is_read_as_the_next_packet_would_read_it() -> None:
    """An attack is over when its second comes; a second that was not calm puts that off all the same."""
    under = {"second": 1000, "attack_since": 990, "attack_until": 1030, "attacks": 2}

    assert GuardRow.of(one(), 1000) == GuardRow(0, 0, 0, 0, 0)
    assert GuardRow.of(one(**under, opened=7, before=3), 1000) == GuardRow(1030, 990, 2, 3, 7)
    assert GuardRow.of(one(**under, opened=7, before=3), 1001) == GuardRow(1030, 990, 2, 7, 0)
    assert GuardRow.of(one(**under, opened=7), 1002) == GuardRow(1030, 990, 2, 0, 0)
    assert GuardRow.of(one(**under, opened=50), 1001).until == 1030
    assert GuardRow.of(one(**under, opened=51), 1001).until == 1031
    assert GuardRow.of(one(**under, opened=51), 1030).until == 1031
    assert GuardRow.of(one(**under, opened=50), 1029).until == 1030
    assert GuardRow.of(one(**under, opened=50), 1030) == GuardRow(0, 0, 2, 0, 0)

"""QUIC ids in memory: no packet follows one to a wrong backend, whatever changes, and a restart finds them again."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest
from apply_bench import ACTIVE, Bench, ways
from service_samples import addresses, named
from test_apply_undo import Refusal, Refusing
from twin_memory import memory
from watched import WatchedTable, watch_arrays

from lb.dataplane.layout import layout
from lb.dataplane.tables import Tables
from lb.dataplane.twin import SMALL, TwinDataPlane
from lb.model import AdminState, Service

QUIC = layout().constants["SERVICE_QUIC"]
SIZES = replace(SMALL, flow_slots=64, rings=16, backends=256, services=16)


def h3(ids: Mapping[str, int | None], *, quic: bool = True, name: str = "h3") -> Service:
    """A service whose backends have these ids."""
    backends = [{"address": address, "quic_id": number} for address, number in ids.items()]
    document = {"name": name, "vip": "10.200.1.1", "port": 443, "protocol": "udp", "quic": quic}
    return Service.model_validate({**document, "backends": backends})


def numbered(some: list[str]) -> dict[str, int | None]:
    """Ids by address, each one that is the address's own."""
    return {address: int(ip_address(address)) for address in some}


def led(tables: Tables) -> dict[int, str]:
    """The address to which the packet path sends a packet with each id."""
    keys, places = tables.quic_ids.read()
    _, services = tables.services4.read()
    found = {}
    for service in services[(services["flags"] & QUIC) != 0]:
        for key, place in zip(keys, places, strict=True):
            if key["service"] != service["number"]:
                continue
            row = tables.arrays.backends[int(service["backends"]) + int(place)]
            if row["state"] & ACTIVE:
                found[int(key["id"])] = str(ip_address(row["address"].tobytes()[:4]))
    return found


EIGHT = numbered(addresses(8))
FIVE = dict(list(EIGHT.items())[:5])
SWAPPED = {**FIVE, "10.0.0.1": FIVE["10.0.0.2"], "10.0.0.2": FIVE["10.0.0.1"]}
OTHERS = numbered(addresses(5, net="10.9"))
ANOTHER = h3(OTHERS, name="another").model_copy(update={"vip": ip_address("10.200.1.2")})

CHANGES = {
    "a backend is added": (named(h3(FIVE)), named(h3(EIGHT))),
    "a backend is removed": (named(h3(EIGHT)), named(h3(FIVE))),
    "the block grows": (named(h3(FIVE), ANOTHER), named(h3(numbered(addresses(40))), ANOTHER)),
    "places are used again": (named(h3(EIGHT)), named(h3({**dict(list(EIGHT.items())[4:]), **OTHERS}))),
    "ids are swapped": (named(h3(FIVE)), named(h3(SWAPPED))),
    "an id goes": (named(h3(FIVE)), named(h3({**FIVE, "10.0.0.1": None}))),
    "quic is turned on": (named(h3(dict.fromkeys(FIVE), quic=False)), named(h3(FIVE))),
    "quic is turned off": (named(h3(FIVE)), named(h3(dict.fromkeys(FIVE), quic=False))),
    "a service comes": (named(h3(FIVE)), named(h3(FIVE), ANOTHER)),
    "a service goes": (named(h3(FIVE), ANOTHER), named(ANOTHER)),
}


def wanted(services: Mapping[str, Service]) -> dict[int, str]:
    """Where ids should lead."""
    return {b.quic_id: str(b.address) for s in services.values() for b in s.backends if b.quic_id is not None}


def watched(twin: TwinDataPlane, look: object, refusal: Refusal) -> Tables:
    """A twin's tables that are looked at after each write, and whose calls may be refused."""
    tables = {
        name: WatchedTable(Refusing(getattr(twin.tables, name), refusal), look)  # type: ignore[arg-type]
        for name in ("services4", "quic_ids")
    }
    arrays = watch_arrays(twin.tables.arrays, look, elements={"service_rings": 1, "backends": 8})  # type: ignore[arg-type]
    return replace(twin.tables, arrays=arrays, **tables)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CHANGES)
def test_an_id_leads_nowhere_wrong_and_refusals_are_undone(name: str) -> None:
    """Between any two writes an id leads where it did, where it will, or nowhere; one that stays, always there.

    Whichever call the kernel refuses, memory is afterwards what it was.
    """
    before, after = CHANGES[name]
    old, new = wanted(before), wanted(after)
    stays = {number for number in old.keys() & new.keys() if old[number] == new[number]}
    hops = ways({**{f"old-{n}": s for n, s in before.items()}, **after})
    calls, refused = 0, True
    while refused:
        twin, refusal = TwinDataPlane(SIZES), Refusal()
        looks: list[dict[int, str]] = []
        bench = Bench(
            twin, watched(twin, lambda twin=twin, looks=looks: looks.append(led(twin.tables)), refusal)
        )
        bench.put(before, hops)
        assert led(twin.tables) == old
        was = memory(twin)
        looks.clear()

        refusal.left = calls
        try:
            bench.put(after, hops)
            refused = False
        except OSError:
            bench.plans = bench.services.go_back(hops)
            assert {**memory(twin), "rings": 0} == {**was, "rings": 0}
        assert led(twin.tables) == (old if refused else new)
        assert looks
        for seen in looks:
            assert seen.keys() >= stays
            for number, address in seen.items():
                assert address in (old.get(number), new.get(number))
        calls += 1
    assert calls > 1


@pytest.mark.parametrize("name", CHANGES)
def test_a_restart_finds_the_ids(name: str) -> None:
    """Over what is right nothing is written; into another state, ids are those of that state and no others."""
    before, after = CHANGES[name]
    bench = Bench(TwinDataPlane(SIZES))
    bench.put(before)
    was = memory(bench.twin)

    again = bench.adopt(before)
    assert memory(bench.twin) == was

    again.adopt(after)
    assert led(bench.twin.tables) == wanted(after)
    keys, _ = bench.twin.tables.quic_ids.read()
    assert sorted(keys["id"].tolist()) == sorted(wanted(after))


def test_a_disabled_backend_is_led_to_by_nobody() -> None:
    """Its id stays, and its row says that it takes nothing: enabled again, it is found by the same id."""
    bench = Bench(TwinDataPlane(SIZES))
    bench.put(named(h3(FIVE)))
    plain = h3(FIVE)
    first = plain.backends[0].model_copy(update={"admin_state": AdminState.DISABLED})

    bench.put(named(plain.model_copy(update={"backends": (first, *plain.backends[1:])})))
    assert led(bench.twin.tables) == {
        n: a for n, a in wanted(named(plain)).items() if a != str(first.address)
    }

    bench.put(named(h3(FIVE)))
    assert led(bench.twin.tables) == wanted(named(plain))

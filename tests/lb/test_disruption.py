"""What a change moves, case by case: slots of the ring, and flows by the backend that they have."""

from typing import Any

import pytest

from lb.dataplane.twin import SMALL
from lb.errors import BudgetError
from lb.model import Service
from lb.reconcile.disruption import Counts, ServiceMove, check_budget, disruption
from lb.reconcile.flows import FlowCounts
from lb.reconcile.ring import SLOTS
from lb.reconcile.rings import ring_of
from lb.reconcile.services import RingRecipe, ServicePlans, plan_services

A, B, C, D = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"
FLOWS = {A: 10, B: 20, C: 30}
Backend = dict[str, Any] | str


def service(*backends: Backend, **fields: Any) -> Service:
    """ "web" over these backends: addresses, or documents."""
    given = [{"address": b} if isinstance(b, str) else b for b in backends]
    plain = {"name": "web", "vip": "192.0.2.10", "port": 80, "protocol": "udp", "backends": given}
    return Service.model_validate({**plain, **fields})


def drained(address: str, **fields: Any) -> Backend:
    """A backend that takes no new flows."""
    return {"address": address, "admin_state": "draining", **fields}


def disabled(address: str, **fields: Any) -> Backend:
    """A backend that takes nothing."""
    return {"address": address, "admin_state": "disabled", **fields}


def ring(recipe: RingRecipe, _number: int) -> Any:
    """Worked out each time."""
    return ring_of(recipe)


def plans(*services: Service, before: ServicePlans | None = None) -> ServicePlans:
    """What these services have in the maps."""
    return plan_services({s.name: s for s in services}, before or ServicePlans(), SMALL)


def counted(plan: ServicePlans) -> FlowCounts:
    """So many flows at each backend of "web" as FLOWS says."""
    web = plan.by_name["web"]
    return {(web.number, place): FLOWS.get(_text(address), 0) for address, place in web.at.items()}


def _text(packed: bytes) -> str:
    return ".".join(map(str, packed))


def moves(have: Service, *want: Service, also: Service | None = None) -> list[ServiceMove]:
    """From "web" as it is (and another beside it) to these services."""
    before = plans(have, *([also] if also else []))
    flows = counted(before)
    return disruption(before, plans(*want, before=before), Counts(flows, flows), ring)


def of_web(found: list[ServiceMove]) -> tuple[int, int, bool]:
    """Flows, those that move, and whether that is certain."""
    (move,) = found
    assert move.service == "web"
    assert (move.note is None) == move.exact
    return move.flows, move.flows_moved, move.exact


WEB = service(A, B, C)
MIGRATING = service(A, B, C, udp_migration=True)
CASES: dict[str, tuple[Service, Service, tuple[int, int, bool]]] = {
    "a backend more": (WEB, service(A, B, C, D), (60, 0, True)),
    "another weight": (WEB, service({"address": A, "weight": 5}, B, C), (60, 0, True)),
    "one drains": (WEB, service(drained(A), B, C), (60, 0, True)),
    "all drain": (WEB, service(drained(A), drained(B), drained(C)), (60, 0, True)),
    "one is disabled": (WEB, service(A, disabled(B), C), (60, 20, True)),
    "one is removed": (WEB, service(A, B), (60, 30, True)),
    "all are removed": (WEB, service(), (60, 60, True)),
    "one was disabled already": (service(A, disabled(B), C), service(A, C), (40, 0, True)),
    "one comes back": (service(A, disabled(B), C), WEB, (40, 0, True)),
    "a drain lets migrating flows go": (
        MIGRATING,
        service(drained(A), B, C, udp_migration=True),
        (60, 10, True),
    ),
    "a weight of 0 too": (
        MIGRATING,
        service({"address": A, "weight": 0}, B, C, udp_migration=True),
        (60, 10, True),
    ),
    "who has drained has lost them": (
        service(drained(A), B, C, udp_migration=True),
        service(drained(A), B, udp_migration=True),
        (50, 30, True),
    ),
    "migration is turned on": (
        service(drained(A), B, C),
        service(drained(A), B, C, udp_migration=True),
        (60, 10, True),
    ),
    "affinity": (WEB, service(A, B, C, affinity="source"), (60, 0, True)),
    "mode": (WEB, service(A, B, C, mode="gue"), (60, 0, True)),
    "to mode nat": (WEB, service(A, B, C, mode="nat"), (60, 60, True)),
    "from mode nat": (service(A, B, C, mode="nat"), WEB, (60, 60, True)),
    "within mode nat": (service(A, B, C, mode="nat"), service(A, B, mode="nat"), (60, 30, True)),
    "more ports": (WEB, service(A, B, C, port="79-90"), (60, 0, True)),
    "any port": (WEB, service(A, B, C, port="any"), (60, 0, True)),
    "fewer ports": (service(A, B, C, port="80-81"), WEB, (60, 60, False)),
    "other ports": (WEB, service(A, B, C, port=90), (60, 60, True)),
    "another VIP": (WEB, service(A, B, C, vip="192.0.2.11"), (60, 60, True)),
    "another protocol": (WEB, service(A, B, C, protocol="tcp"), (60, 60, True)),
    "an id is given": (
        service(A, B, C, quic=True),
        service({"address": A, "quic_id": 7}, B, C, quic=True),
        (60, 60, False),
    ),
    "an id is taken away": (
        service({"address": A, "quic_id": 7}, B, C, quic=True),
        service(A, B, C, quic=True),
        (60, 0, True),
    ),
    "ids keep migrating flows, or not": (
        service({"address": A, "quic_id": 7}, B, C, quic=True, udp_migration=True),
        service(drained(A, quic_id=7), B, C, quic=True, udp_migration=True),
        (60, 10, False),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_flows_that_move(name: str) -> None:
    """A flow moves if its backend takes no more packets of it, and only then."""
    have, want, expected = CASES[name]

    assert of_web(moves(have, want)) == expected


def test_slots_that_move_are_the_least_that_can() -> None:
    """One backend of four is a quarter of the ring; of a ring that was not, nothing moves; of one that ends, all."""
    (more,) = moves(WEB, service(A, B, C, D))
    (less,) = moves(service(A, B, C, D), WEB)
    (none,) = moves(WEB, service(drained(A), drained(B), drained(C)))
    (first,) = moves(service(), WEB)
    (other,) = moves(WEB, service(A, B, C, affinity="source"))

    assert more.ring_slots_moved == pytest.approx(SLOTS / 4, rel=0.05)
    assert less.ring_slots_moved == more.ring_slots_moved
    assert (none.ring_slots_moved, first.ring_slots_moved, other.ring_slots_moved) == (SLOTS, 0, SLOTS)
    assert none.ring_share_moved == 1.0


def test_what_stays_is_not_named() -> None:
    """A service that is left as it is, and one that is new, have no line."""
    assert moves(WEB, WEB, service(A, name="new", vip="192.0.2.99")) == []


def test_removed_and_renamed() -> None:
    """Removed, all flows are cut; where another service takes their packets, they may go where they are."""
    assert of_web(moves(WEB)) == (60, 60, True)
    assert of_web(moves(WEB, service(A, B, C, name="other"))) == (60, 60, False)


def heir(*backends: Backend, **fields: Any) -> Service:
    """ "other", over these backends."""
    return service(*backends, name="other", **fields)


def test_a_renamed_service_moves_what_its_heir_leads_elsewhere() -> None:
    """Its ring is compared with that of the one service that takes all its packets; without one, all of it moves."""
    every = service(A, name="every", port="any")

    def slots(*want: Service, have: Service = WEB) -> int:
        return moves(have, *want)[0].ring_slots_moved

    assert slots(heir(A, B, C)) == 0
    assert slots(heir(C, B, A, mode="gue")) == 0
    assert slots(heir(A, B, C), every) == slots(every, heir(A, B, C)) == 0
    assert slots(heir(A, B, C, port="any")) == 0
    assert slots(heir(A, B, C, D)) == slots(service(A, B, C, D)) == pytest.approx(SLOTS / 4, rel=0.05)
    assert slots(heir(A, B, drained(C))) == slots(service(A, B, drained(C)))
    assert slots(heir(A, B, C), service(D, port=90)) == 0
    assert slots(heir(D)) == slots(heir(drained(A))) == slots(heir()) == SLOTS
    assert slots(heir(A, B, C, affinity="source")) == SLOTS
    assert slots(heir(A, B, C), have=service(A, B, C, port="79-80")) == SLOTS
    assert slots(heir(A, B, C, port=80), heir(A, B, C, port=79), have=service(A, B, C, port="79-80")) == SLOTS
    assert slots(heir(A, B, C), have=service()) == 0


def test_what_was_anothers_before_is_not_inherited() -> None:
    """A port that another service had in advance is left out; one that it takes only now is not."""
    renamed, exact = heir(A, B, port="any"), service(C, name="exact")
    have = service(A, B, port="any")

    assert moves(have, exact, renamed, also=exact)[0].ring_slots_moved == 0
    assert moves(have, exact, renamed)[0].ring_slots_moved == SLOTS


def test_flows_of_a_renamed_service_ask_the_ring() -> None:
    """Those whose backend is in the heir's ring may be led there; others, and all of mode nat, are lost for sure."""
    nat = service(A, B, C, mode="nat")

    assert of_web(moves(WEB, heir(A, D))) == (60, 60, False)
    assert of_web(moves(WEB, heir(drained(A), disabled(B), D))) == (60, 60, True)
    assert of_web(moves(WEB, heir(drained(A), D, quic=True))) == (60, 60, False)
    assert of_web(moves(WEB, heir(A, B, C, mode="nat"))) == (60, 60, True)
    assert of_web(moves(nat, heir(A, B, C, mode="nat"))) == (60, 60, True)
    assert moves(nat, heir(A, B, C, mode="nat"))[0].ring_slots_moved == 0


def test_a_service_that_comes_before_may_take_flows() -> None:
    """By a port of its own, or a narrower VIP, not by a wider one; the other's line says so."""
    every, exact = service(A, B, C, port="any"), service(A, name="exact")
    assert of_web(moves(every, every, exact)) == (60, 60, False)
    assert moves(WEB, WEB, service(A, name="every", port="any")) == []

    wide = service(A, B, C, vip="2001:db8::/80")
    assert of_web(moves(wide, wide, service(A, name="narrow", vip="2001:db8::7"))) == (60, 60, False)
    assert moves(wide, wide, service(A, name="wider", vip="2001:db8::/72")) == []
    assert moves(wide, wide, service(A, name="far", vip="2001:db8:1::7")) == []
    assert moves(wide, wide, service(A, name="tcp", vip="2001:db8::7", protocol="tcp")) == []


def test_shorter_idle_times_forget_flows() -> None:
    """Those that are idle by the new times ask the ring, which may send them where they are: at most so many."""
    before = plans(WEB)
    flows = counted(before)
    still = {pair: count // 2 for pair, count in flows.items()}

    (move,) = disruption(before, before, Counts(flows, still), ring)

    assert (move.flows, move.flows_moved, move.exact, move.ring_slots_moved) == (60, 30, False, 0)


def test_flows_of_nat_end_with_their_pool_address_or_source() -> None:
    """What is known of flows that end with an address is exact; another source of a service ends all that it has."""
    nat = service(A, B, C, mode="nat")
    before = plans(nat)
    flows, number = counted(before), before.by_name["web"].number
    ending = {(number, before.by_name["web"].at[bytes([10, 0, 0, 2])]): 15}

    same = disruption(before, before, Counts(flows, flows, ending), ring)
    without_b = plans(service(A, C, mode="nat"), before=before)

    assert of_web(same) == (60, 15, True)
    assert of_web(disruption(before, without_b, Counts(flows, flows, ending), ring)) == (60, 20, True)
    assert of_web(moves(nat, service(A, B, C, mode="nat", nat_source="keep"))) == (60, 60, True)


def test_services_that_share_a_ring_and_places_are_counted_apart() -> None:
    """Each by its own number, though the places are the same."""
    other = service(A, B, C, name="other", vip="192.0.2.11")
    before = plans(WEB, other)
    flows = counted(before) | {(before.by_name["other"].number, 0): 7}

    found = disruption(before, plans(service(A, B), other, before=before), Counts(flows, flows), ring)

    assert [(m.service, m.flows, m.flows_moved) for m in found] == [("web", 60, 30)]


def test_the_budget_is_of_any_service_and_of_either_share() -> None:
    """What moves as much as may is made; a percent more is refused, and says which and by how much."""
    found = [
        ServiceMove("a", 100, 100 / SLOTS, 1000, 50),
        ServiceMove("b", 6554, 0.1, 0, 0),
    ]
    for most in (10, 10.5, 100, None):
        check_budget(found, most)
    with pytest.raises(
        BudgetError, match=r'for service "b", 10.0 % of the ring \(6,554 of 65,537 slots\)'
    ) as refused:
        check_budget(found, 9)
    assert refused.value.moves == (found[1],)
    with pytest.raises(
        BudgetError, match=r"50 of 1,000 live flows would move; for service .* the bound is 4.5 %.*--force"
    ):
        check_budget(found, 4.5)
    with pytest.raises(BudgetError):
        check_budget(found, 0)

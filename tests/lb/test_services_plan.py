"""What services are given in the maps: it stays while it is wanted, and is given to others only when it is free."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from random import Random

import numpy as np
import pytest
from service_samples import addresses, named, service

from lb.dataplane.layout import layout
from lb.dataplane.protocol import NextHop
from lb.errors import CapacityError
from lb.model import Service
from lb.reconcile.services import (
    RingRecipe,
    ServicePlan,
    ServicePlans,
    backend_rows,
    plan_services,
    plan_steps,
)
from lb.reconcile.vips import service_keys, vip_keys
from lb.settings import TableSizes

SIZES = TableSizes(services=16, service_ports=64, backends=512, rings=16)
ACTIVE, RESOLVED = layout().constants["BACKEND_ACTIVE"], layout().constants["BACKEND_RESOLVED"]
IN_RING = layout().constants["BACKEND_IN_RING"]


def packed(address: str) -> bytes:
    return ip_address(address).packed


def places(plan: ServicePlan) -> dict[str, int]:
    """The place of each backend of a service, by address."""
    return {str(backend.address): plan.at[backend.address.packed] for backend in plan.service.backends}


def span(plan: ServicePlan) -> set[int]:
    """All places of its block."""
    return set(range(plan.start, plan.start + (1 << plan.room)))


def plan(wanted: Mapping[str, Service], before: ServicePlans | None = None, **sizes: int) -> ServicePlans:
    return plan_services(wanted, before or ServicePlans(), replace(SIZES, **sizes))


def assert_sound(plans: ServicePlans, services: Mapping[str, Service], sizes: TableSizes) -> None:
    """Everybody has what they need, and nobody shares what is their own."""
    given = list(plans.by_name.values())
    assert [each.service for each in given] == list(services.values())
    assert len({each.number for each in given}) == len(given)
    assert all(each.number < sizes.services for each in given)
    every = [place for each in given for place in span(each)]
    assert len(every) == len(set(every))
    assert set(every) <= set(range(sizes.backends))
    assert len(set(plans.rings.values())) == len(plans.rings)
    for each in given:
        assert len(places(each)) == len(each.service.backends)
        assert len([a for a in each.places if a]) == len({a for a in each.places if a})
        assert each.recipe == RingRecipe.of(each.service, each.at)
        assert each.ring == (plans.rings[each.recipe.name] if each.recipe else 0)
        assert 0 <= each.ring < sizes.rings


def assert_continues(before: ServicePlans, after: ServicePlans) -> None:
    """What stays keeps what it had, and what is new takes nothing that was in use."""
    for name, new in after.by_name.items():
        old = before.by_name.get(name)
        if old is None:
            assert new.number not in {each.number for each in before.by_name.values()}
        else:
            assert new.number == old.number
            kept = places(old).keys() & places(new).keys()
            assert {a: places(old)[a] for a in kept} == {a: places(new)[a] for a in kept}
            taken = [places(new)[a] for a in places(new).keys() - places(old).keys()]
            had = dict(enumerate(old.places))
            assert {p for p in taken if had.get(p) not in (None, new.places[p])} == set(new.reused)
        if old is None or new.start != old.start:
            assert not any(span(new) & span(each) for each in before.by_name.values())
            assert not new.reused
    for recipe, ring in after.rings.items():
        assert before.rings.get(recipe) == ring or ring not in before.rings.values()


def test_a_row_of_changes_is_sound_and_continuous() -> None:
    """Through hundreds of random changes every plan is sound, and goes on from the one before."""
    random = Random(3)
    sizes = replace(SIZES, services=12, rings=40, backends=1024)
    services: dict[str, Service] = {}
    before = ServicePlans()
    for _ in range(300):
        services = dict(services)
        for _ in range(random.randrange(1, 4)):
            name = f"s{random.randrange(8)}"
            if random.randrange(5) == 0:
                services.pop(name, None)
                continue
            chosen = random.sample(addresses(40), random.choice([0, 1, 3, 7, 9, 20, 33]))
            states = random.choices(["enabled", "draining", "disabled"], [8, 1, 1], k=len(chosen))
            backends = [(a, random.randrange(4), s) for a, s in zip(chosen, states, strict=True)]
            services[name] = service(name, *backends, port=100 + int(name[1:]))
        after = plan_services(services, before, sizes)
        assert_sound(after, services, sizes)
        assert_continues(before, after)
        before = after
    assert plan_services({}, before, sizes).by_name == {}


def test_a_service_that_did_not_change_is_the_same_plan() -> None:
    """Of a service that is the same object nothing is worked out again."""
    web, dns = service("web", "10.0.0.1"), service("dns", "10.0.0.1", port=53)
    before = plan(named(web, dns))

    after = plan(named(web, service("dns", "10.0.0.1", "10.0.0.2", port=53)), before)

    assert after.by_name["web"] is before.by_name["web"]


def test_a_weight_changes_the_ring_and_nothing_else() -> None:
    """A change of weight gives a new ring and leaves number, block and places as they are."""
    before = plan(named(service("web", ("10.0.0.1", 1), ("10.0.0.2", 1))))
    after = plan(named(service("web", ("10.0.0.1", 1), ("10.0.0.2", 5))), before)

    old, new = before.by_name["web"], after.by_name["web"]
    assert (new.number, new.start, new.room, new.places) == (old.number, old.start, old.room, old.places)
    assert new.ring not in (0, old.ring)


def test_a_removed_backend_that_comes_back_has_its_place_again() -> None:
    """The block remembers who was at a place while others come and go."""
    first = plan(named(service("web", "10.0.0.1", "10.0.0.2")))
    second = plan(named(service("web", "10.0.0.1")), first)
    third = plan(named(service("web", "10.0.0.1", "10.0.0.3")), second)
    fourth = plan(named(service("web", "10.0.0.2", "10.0.0.3")), third)

    assert places(fourth.by_name["web"])["10.0.0.2"] == places(first.by_name["web"])["10.0.0.2"]
    assert not any(each.by_name["web"].reused for each in (first, second, third, fourth))


def test_a_place_left_earlier_is_used_again_when_there_is_no_other() -> None:
    """A full block gives the places of backends that were gone before to new ones, and says which."""
    eight = addresses(8)
    first = plan(named(service("web", *eight)), plan(named(service("web", *eight[:7]))))
    second = plan(named(service("web", *eight[:-1])), first)
    third = plan(named(service("web", *eight[:-1], "10.9.0.1")), second)

    old, new = first.by_name["web"], third.by_name["web"]
    assert (new.start, new.room) == (old.start, 3)
    assert places(new)["10.9.0.1"] == places(old)[eight[-1]]
    assert new.reused == (places(old)[eight[-1]],)
    fourth = plan(named(new.service), third)
    assert fourth.by_name["web"].reused == ()


@pytest.mark.parametrize(("room", "moves"), [(64, True), (8, False)])
def test_a_place_left_just_now_is_the_last_resort(room: int, moves: bool) -> None:
    """Packets still come to it, so the block rather grows; only where there is no room for that it is used at once."""
    eight = addresses(8)
    first = plan(named(service("web", *eight[:7])), backends=room)
    second = plan(named(service("web", *eight)), first, backends=room)
    third = plan(named(service("web", *eight[:-1], "10.9.0.1")), second, backends=room)

    old, new = second.by_name["web"], third.by_name["web"]
    assert (new.start != old.start) == moves
    assert new.reused == (() if moves else (places(old)[eight[-1]],))


def test_a_block_that_is_too_small_moves_and_keeps_its_places() -> None:
    """More backends than places: a larger block elsewhere, the old places at the same offsets."""
    first = plan(named(service("web", *addresses(7)), service("dns", "10.0.0.1", port=53)))
    second = plan(named(service("web", *addresses(9)), service("dns", "10.0.0.1", port=53)), first)

    old, new = first.by_name["web"], second.by_name["web"]
    assert new.room > old.room
    assert not span(new) & span(old)
    assert new.places[:7] == old.places[:7]
    assert new.reused == ()


def test_what_is_given_back_waits_for_a_later_change() -> None:
    """Number, block and ring of a removed service are not those of one that is added in the same change."""
    tight = {"services": 3, "backends": 16, "rings": 3}
    first = plan(named(service("a", "10.0.0.1")), **tight)
    second = plan(named(service("b", "10.0.0.2")), first, **tight)
    third = plan(named(service("c", "10.0.0.3")), second, **tight)

    a, b, c = first.by_name["a"], second.by_name["b"], third.by_name["c"]
    assert (b.number, b.start, b.ring) == (1, 8, 2)
    assert (c.number, c.start, c.ring) == (a.number, a.start, a.ring)


def test_equal_sets_at_equal_places_share_a_ring() -> None:
    """The ring is a matter of addresses, weights and places; the service does not count."""
    plans = plan(
        named(
            service("a", "10.0.0.1", "10.0.0.2"),
            service("b", "10.0.0.1", "10.0.0.2", port=81),
            service("c", "10.0.0.1", ("10.0.0.2", 2), port=82),
        )
    )

    a, b, c = plans.by_name.values()
    assert a.ring == b.ring != c.ring
    assert len(plans.rings) == 2


def test_without_a_backend_for_new_flows_there_is_no_ring() -> None:
    """Draining, disabled and weight 0 are not in the ring; if all are, its number is 0."""
    plans = plan(
        named(service("web", ("10.0.0.1", 0), ("10.0.0.2", 1, "draining"), ("10.0.0.3", 1, "disabled")))
    )

    assert (plans.by_name["web"].recipe, plans.by_name["web"].ring) == (None, 0)
    assert len(places(plans.by_name["web"])) == 3


@pytest.mark.parametrize(
    ("wanted", "option"),
    [
        ([service(f"s{n}", port=n + 1) for n in range(17)], "--services"),
        ([service("web", port="1-64")], "--service-ports"),
        (
            [service("web", port="1-40"), service("six", port="1-40"), service("any", port="any")],
            "--service-ports",
        ),
        ([service("web", *addresses(250)), service("dns", *addresses(250), port=53)], None),
        ([service("web", *addresses(250)), service("dns", *addresses(257), port=53)], "--backends"),
        ([service(f"s{n}", ("10.0.0.1", n + 1), port=n + 1) for n in range(15)], "--rings"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_its_setting(
    wanted: list[Service], option: str | None
) -> None:
    """Each table that is too small raises CapacityError with the option to raise; what was given out stands."""
    before = plan(named(service("old", "10.0.9.9", port=9999)), backends=520)
    free = before.places.copy()
    everything = named(before.by_name["old"].service, *wanted)
    if option is None:
        assert len(plan(everything, before, backends=520).by_name) == 3
        return

    with pytest.raises(CapacityError, match=option):
        plan(everything, before, backends=520)

    assert (before.places.free, before.places.returned) == (free.free, free.returned)


def test_old_and_new_ports_must_fit_side_by_side() -> None:
    """While a service changes its ports both stand in the table, so their sum counts."""
    before = plan(named(service("web", port="1-40")))

    with pytest.raises(CapacityError, match="--service-ports"):
        plan(named(service("web", port="101-140")), before)
    assert plan(named(service("web", "10.0.0.1", port="1-40")), before).by_name


def distinct(count: int, weight: int) -> dict[str, Service]:
    """Services that need a ring each."""
    return named(*(service(f"s{n}", (f"10.0.0.{n + 1}", weight), port=n + 1) for n in range(count)))


def elsewhere(services: dict[str, Service]) -> dict[str, Service]:
    """The same under other names, on another VIP."""
    other = {"vip": ip_address("10.200.1.2")}
    return named(
        *(each.model_copy(update={**other, "name": f"new-{each.name}"}) for each in services.values())
    )


@pytest.mark.parametrize("wanted", [distinct(10, 2), elsewhere(distinct(10, 3))])
def test_what_has_no_room_side_by_side_goes_by_steps(wanted: dict[str, Service]) -> None:
    """Ten of fifteen rings, or of sixteen services, cannot all be replaced at once, but one part after the other."""
    before = plan(distinct(10, 1))
    with pytest.raises(CapacityError):
        plan_services(wanted, before, SIZES)

    steps = plan_steps(wanted, before, SIZES)

    assert len(steps) > 1
    for step in steps:
        assert_sound(step, {n: p.service for n, p in step.by_name.items()}, SIZES)
        assert_continues(before, step)
        before = step
    assert_sound(before, wanted, SIZES)


def test_what_does_not_fit_by_steps_either_is_refused() -> None:
    """Steps are no way around a table that is too small."""
    with pytest.raises(CapacityError, match="--rings"):
        plan_steps(distinct(16, 1), plan(distinct(10, 1)), SIZES)


def swapped() -> dict[str, Service]:
    """Two of ten have taken over each other's ports."""
    first, second = service("s0", ("10.0.0.1", 2), port=2), service("s1", ("10.0.0.2", 2), port=1)
    return {**distinct(10, 2), "s0": first, "s1": second}


def renamed() -> dict[str, Service]:
    """Ten others have taken over the ports of ten."""
    return named(*(each.model_copy(update={"name": f"new-{each.name}"}) for each in distinct(10, 2).values()))


@pytest.mark.parametrize("wanted", [swapped(), renamed()])
def test_packets_that_change_hands_are_not_split_over_steps(wanted: dict[str, Service]) -> None:
    """Where a service takes over another's ports there must be no state in between."""
    with pytest.raises(CapacityError):
        plan_steps(wanted, plan(distinct(10, 1)), SIZES)


def test_keys_of_a_service() -> None:
    """One key a port, port 0 for any, and one that marks the VIP."""
    vip = packed("10.200.1.1")

    assert service_keys(service(port="8000-8002")) == [(vip, port, 6, 0) for port in (8000, 8001, 8002)]
    assert service_keys(service(port="any", protocol="udp")) == [(vip, 0, 17, 0)]
    assert vip_keys([service(), service("b", port=81), service("c", vip="fc00::1")]) == {
        (vip, 0, 0, 0),
        (packed("fc00::1"), 0, 0, 0),
    }


def hop(mac: bytes | None = b"\2\0\0\0\0\1", *, gateway: bool = False, mtu: int = 1500) -> NextHop:
    return NextHop("eth0", 7, b"\2\0\0\0\0\xfe", mac, mtu, gateway)


@pytest.mark.parametrize(
    ("backend", "mode", "way", "state"),
    [
        (("10.0.0.1",), "ipip", hop(), ACTIVE | RESOLVED | IN_RING),
        (("10.0.0.1",), "ipip", hop(gateway=True), ACTIVE | RESOLVED | IN_RING),
        (("10.0.0.1",), "l2", hop(), ACTIVE | RESOLVED | IN_RING),
        (("10.0.0.1",), "l2", hop(gateway=True), ACTIVE | IN_RING),
        (("10.0.0.1",), "ipip", hop(None), ACTIVE | IN_RING),
        (("10.0.0.1",), "ipip", None, ACTIVE | IN_RING),
        (("10.0.0.1",), "gue", hop(gateway=True), ACTIVE | RESOLVED | IN_RING),
        (("10.0.0.1", 0), "ipip", hop(), ACTIVE | RESOLVED),
        (("10.0.0.1", 1, "draining"), "ipip", hop(), ACTIVE | RESOLVED),
        (("10.0.0.1", 1, "disabled"), "ipip", hop(), 0),
        (("fd00::1", 1), "ipip", hop(mtu=70000), ACTIVE | RESOLVED | IN_RING),
    ],
)
def test_the_row_of_a_backend(
    backend: tuple[object, ...], mode: str, way: NextHop | None, state: int
) -> None:
    """A backend that may have packets is active, resolved if its way is one that the mode can use, and in the ring
    if it takes new flows."""
    address = packed(str(backend[0]))
    (web,) = plan(named(service("web", backend, mode=mode))).by_name.values()
    rows = backend_rows(web, {address: way} if way else {})

    (at,) = web.at.values()
    row = rows[at]
    assert row["state"] == state
    assert row["family"] == (4 if len(address) == 4 else 6)
    assert row["address"].tobytes() == address.ljust(16, b"\0")
    if state & RESOLVED:
        assert way is not None
        assert row["mac"].tobytes() == way.mac
        assert row["source_mac"].tobytes() == way.source_mac
        assert (row["ifindex"], row["mtu"]) == (7, min(way.mtu, 65535))
    else:
        assert not row["mac"].any()
    assert not np.delete(rows, at).view("<u8").any()


def test_the_row_of_a_backend_that_is_gone() -> None:
    """The place keeps the address, which a restart reads, and takes no packets."""
    first = plan(named(service("web", "10.0.0.1", "10.0.0.2")))
    (web,) = plan(named(service("web", "10.0.0.1")), first).by_name.values()
    rows = backend_rows(web, {packed("10.0.0.2"): hop()})

    gone = rows[web.at[packed("10.0.0.2")]]
    assert gone["address"].tobytes()[:4] == packed("10.0.0.2")
    assert (gone["state"], gone["mac"].any()) == (0, False)

"""UDP migration: flows leave a backend that takes no new ones, if their service says so; otherwise they stay."""

from typing import Any

import pytest
from flow_table import PROBATION, UDP, but_for, go, slots, stats
from frames import BACKENDS4, CLIENT4, VIP4, VIP6, expect_gue, families, ring_choice, service, tcp, udp
from rig import Rig

pytestmark = pytest.mark.root

PORTS = range(1000, 1040)
DOWN = [{"admin_state": "draining"}, {"weight": 0}]
downs = pytest.mark.parametrize("down", DOWN, ids=["draining", "weight 0"])


def services(vip: str, backends: list[Any], **more: Any) -> list[dict[str, Any]]:
    """A UDP service with migration, one without, and TCP beside them, on one VIP."""
    return [
        service("moves", vip=vip, protocol="udp", udp_migration=True, backends=backends, **more),
        service("stays", vip=vip, protocol="udp", port=81, backends=backends, **more),
        service("tcp", vip=vip, backends=backends, **more),
    ]


def flows(rig: Rig, vip: str, port: int = 80) -> dict[int, str]:
    """The backend of each of forty UDP flows, packet by packet."""
    return {sport: go(rig, udp(dst=vip, sport=sport, dport=port)) for sport in PORTS}


@families
@downs
def test_flows_leave_a_backend_that_goes_down(rig: Rig, vip: str, down: dict[str, Any]) -> None:
    """Its flows ask the ring of now, each once, and are newcomers there; those of other backends stay."""
    backends = but_for("")
    rig.apply(services=services(vip, backends))
    before = flows(rig, vip)
    assert flows(rig, vip) == before
    gone = BACKENDS4[1]
    left = but_for(gone, **down)

    rig.apply(services=services(vip, left))
    misses = stats(rig).misses
    after = flows(rig, vip)

    document = service(vip=vip, protocol="udp", backends=left)
    source = bytes(udp(dst=vip))[26:30] if vip == VIP4 else bytes(udp(dst=vip))[22:38]
    moved = {sport for sport, chosen in before.items() if chosen == gone}
    assert moved
    assert after == {
        sport: ring_choice(document, source, sport, 80) if sport in moved else chosen
        for sport, chosen in before.items()
    }
    assert stats(rig).misses == misses + len(moved)
    assert sum(s.kind == PROBATION | UDP for s in slots(rig)) == len(moved)
    assert len(slots(rig)) == len(PORTS)
    assert flows(rig, vip) == after


@families
@downs
def test_moved_flows_do_not_come_back(rig: Rig, vip: str, down: dict[str, Any]) -> None:
    """Once moved, a flow stays where it is when its first backend takes new flows again."""
    rig.apply(services=services(vip, but_for("")))
    flows(rig, vip)
    rig.apply(services=services(vip, but_for(BACKENDS4[1], **down)))
    after = flows(rig, vip)

    rig.apply(services=services(vip, but_for("")))

    assert flows(rig, vip) == after


@families
@downs
def test_without_the_flag_they_stay(rig: Rig, vip: str, down: dict[str, Any]) -> None:
    """A UDP service that does not say so keeps its flows where they are, beside one that does; TCP always does."""
    rig.apply(services=services(vip, but_for("")))
    before = flows(rig, vip, 81)
    connections = {sport: go(rig, tcp(dst=vip, sport=sport)) for sport in PORTS}
    gone = BACKENDS4[1]
    assert gone in before.values()

    rig.apply(services=services(vip, but_for(gone, **down)))

    assert flows(rig, vip, 81) == before
    assert {sport: go(rig, tcp(dst=vip, sport=sport, flags="A")) for sport in PORTS} == connections


@families
@pytest.mark.parametrize("flag", [True, False])
def test_disabled_backend_is_left_with_or_without(rig: Rig, vip: str, flag: bool) -> None:
    """A backend that takes no packets at all loses its flows either way."""
    rig.apply(services=[service(vip=vip, protocol="udp", udp_migration=flag)])
    before = flows(rig, vip)

    rig.apply(
        services=[
            service(
                vip=vip,
                protocol="udp",
                udp_migration=flag,
                backends=but_for(BACKENDS4[1], admin_state="disabled"),
            )
        ]
    )
    after = flows(rig, vip)

    assert BACKENDS4[1] not in after.values()
    assert {s for s in PORTS if before[s] != after[s]} == {s for s in PORTS if before[s] == BACKENDS4[1]}


@families
def test_nobody_takes_new_flows(rig: Rig, vip: str) -> None:
    """With every backend draining, the ring has none: dropped by name, where without the flag the flow stays."""
    rig.apply(services=services(vip, but_for("")))
    kept = flows(rig, vip, 81)
    flows(rig, vip)

    rig.apply(services=services(vip, [{"address": b, "admin_state": "draining"} for b in BACKENDS4]))

    assert rig.verdict(udp(dst=vip, sport=PORTS[0])) == "DROP_NO_BACKEND"
    assert flows(rig, vip, 81) == kept


@families
def test_flag_that_is_set_later(rig: Rig, vip: str) -> None:
    """Set on a service whose backend drains already, it moves the flows at once."""
    rig.apply(services=[service(vip=vip, protocol="udp")])
    before = flows(rig, vip)
    down = but_for(BACKENDS4[1], admin_state="draining")
    rig.apply(services=[service(vip=vip, protocol="udp", backends=down)])
    assert flows(rig, vip) == before

    rig.apply(services=[service(vip=vip, protocol="udp", backends=down, udp_migration=True)])

    assert BACKENDS4[1] not in flows(rig, vip).values()


@pytest.mark.parametrize("affinity", ["source", "destination-port"])
def test_with_another_affinity(rig: Rig, affinity: str) -> None:
    """The ring that a moved flow asks hashes what the service's affinity says."""
    document = service(protocol="udp", udp_migration=True, affinity=affinity)
    rig.apply(services=[document])
    (chosen,) = set(flows(rig, VIP4).values())
    document["backends"] = but_for(chosen, admin_state="draining")

    rig.apply(services=[document])

    source = bytes(int(part) for part in CLIENT4.split("."))
    assert set(flows(rig, VIP4).values()) == {ring_choice(document, source, PORTS[0], 80)} != {chosen}


def test_in_mode_gue(exact_rig: Rig) -> None:
    """A program with this and little else does the same."""
    document = service(vip=VIP6, protocol="udp", udp_migration=True, mode="gue")
    exact_rig.apply(services=[document])
    frame = udp(dst=VIP6)
    chosen = expect_gue(exact_rig.run(frame), frame)

    exact_rig.apply(services=[{**document, "backends": but_for(chosen, weight=0)}])

    assert expect_gue(exact_rig.run(frame), frame) != chosen

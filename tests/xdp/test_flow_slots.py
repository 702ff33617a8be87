"""The flow table's slots: who may be evicted, so that a flood of newcomers costs only newcomers."""

import pytest
from flow_table import (
    CLOSED,
    CLOSED_S,
    ESTABLISHED,
    PROBATION,
    PROTECT_S,
    TCP_IDLE_S,
    UDP,
    UDP_IDLE_S,
    WAYS,
    go,
    make_older,
    put,
    slots,
    stats,
    web_services,
    where,
)
from frames import BACKENDS4, tcp
from rig import Rig

pytestmark = pytest.mark.root


@pytest.fixture
def web(rig: Rig) -> Rig:
    """The four services, each with three backends."""
    rig.apply(services=web_services(list(BACKENDS4)))
    return rig


@pytest.mark.parametrize("ahead", [1, 2])
def test_a_flow_seen_a_moment_later_is_not_idle(web: Rig, ahead: int) -> None:
    """Another CPU may have stamped the flow with a second that this packet's clock had not reached: it is fresh."""
    old = go(web, tcp())
    go(web, tcp(flags="A"))
    web.apply(services=web_services([*({"address": b, "weight": 0} for b in BACKENDS4), "10.0.0.14"]))

    make_older(web, -ahead)

    assert go(web, tcp(flags="A")) == old


LATELY, OLD = 5, PROTECT_S + 5
NEW, KEPT = PROBATION, ESTABLISHED
SHUT = ESTABLISHED | CLOSED
EVICTIONS: dict[str, tuple[list[tuple[int, int] | None], int | None]] = {
    # what the other slots hold as (class, age in seconds), and which of them a newcomer replaces
    "an empty slot first": ([(KEPT, OLD), None, (NEW, 9), (NEW, 8)], 1),
    "then an idle one": ([(NEW, 9), (KEPT, OLD), (KEPT, TCP_IDLE_S + 5), (NEW, 8)], 2),
    "idle by UDP's time": ([(NEW, 9), (KEPT, 40), (KEPT | UDP, UDP_IDLE_S + 5), (NEW, 8)], 2),
    "or a closed one": ([(NEW, 9), (KEPT, OLD), (SHUT, CLOSED_S + 1), (NEW, 8)], 2),
    "not one just shut": ([(KEPT, OLD - 10), (SHUT, CLOSED_S - 1), (NEW, 3), (KEPT, 1)], 2),
    "then the oldest newcomer": ([(NEW, 7), (NEW, 9), (NEW | UDP, 8), (NEW, 6)], 1),
    "before any established": ([(KEPT, OLD), (KEPT, OLD), (NEW, 0), (KEPT, OLD)], 2),
    "then the longest silent": ([(KEPT, OLD), (KEPT, OLD + 9), (KEPT, OLD + 2), (KEPT, 1)], 1),
    "never one seen lately": ([(KEPT, LATELY), (KEPT, 0), (KEPT, OLD - 10), (KEPT | UDP, 9)], None),
    "nor one stamped ahead": ([(KEPT, -1), (KEPT, -2), (NEW, 3), (KEPT, -1)], 2),
    "newcomers stamped ahead": ([(NEW, -1), (NEW, 0), (NEW, -2), (KEPT, 1)], 1),
}


@pytest.mark.parametrize("name", EVICTIONS)
def test_who_is_evicted(web: Rig, name: str) -> None:
    """A full bucket gives up: what is empty, idle or closed, the newcomer seen longest ago, a long silent flow."""
    others, victim = EVICTIONS[name]
    frame = tcp()
    go(web, frame)
    bucket, way = where(web)
    (mine,) = slots(web)
    web.flows[bucket, way]["tag_backend"] = 0
    tags = [put(web, bucket, n, kind=slot[0], age=slot[1]) if slot else 0 for n, slot in enumerate(others)]
    before = stats(web)

    chosen = go(web, frame)

    expected = [mine.tag if n == victim else tag for n, tag in enumerate(tags)]
    assert (web.flows[bucket]["tag_backend"] >> 16).tolist() == expected
    after = stats(web)
    assert after.misses == before.misses + 1
    assert after.untracked == before.untracked + (victim is None)
    is_over = {"idle", "closed"} & set(name.split())
    evicted = victim is not None and others[victim] is not None and not is_over
    assert after.evictions == before.evictions + evicted
    # Tracked or not, the flow goes where the ring says.
    assert go(web, tcp(flags="A")) == chosen


def test_a_full_bucket_of_protected_flows_serves_by_the_ring(web: Rig) -> None:
    """A flow that finds no slot is balanced all the same, and takes one as soon as there is room."""
    go(web, tcp())
    bucket, way = where(web)
    web.flows[bucket, way]["tag_backend"] = 0
    for n in range(WAYS):
        put(web, bucket, n, kind=ESTABLISHED, age=1)
    chosen = [go(web, tcp(flags=f)) for f in "SAAA"]
    assert len(set(chosen)) == 1
    assert stats(web).untracked == 4

    put(web, bucket, 3, kind=ESTABLISHED, age=OLD)
    go(web, tcp(flags="A"))
    go(web, tcp(flags="A"))

    assert stats(web).untracked == 4
    assert (web.flows[bucket]["state"] & 0xFF).tolist() == [ESTABLISHED] * 4


def test_state_word_is_written_once_a_second(web: Rig) -> None:
    """Packets within one second leave the slot as it is, so CPUs do not fight over its line; a later one renews it."""
    go(web, tcp())
    go(web, tcp(flags="A"))
    make_older(web, 10)
    (old,) = slots(web)

    go(web, tcp(flags="A"))

    (new,) = slots(web)
    assert new.seconds >= old.seconds + 10
    assert abs(new.seconds - web.plane.clock_seconds()) <= 1

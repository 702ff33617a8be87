"""Floods of new flows: peace, the attack's begin and end, who is known, who is tested, and what is not remembered.

Time is written into the guard's row, so that nothing waits: `at` runs a frame in a second that the test chose.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flow_table import slots
from frames import (
    BACKENDS6,
    CLIENT4,
    LINK,
    VIP4,
    VIP6,
    expect_encapsulated,
    network,
    service,
    tcp,
    udp,
)
from quic_frames import cid, datagram, short_header
from rig import Outcome, Rig
from scapy.layers.inet import ICMP, IP, TCP
from scapy.packet import Packet
from test_explain import detail, explain, memory

from lb.dataplane.layout import layout
from lb.reconcile.observed import FloodStatus

pytestmark = pytest.mark.root

_C = layout().constants
BUDGET, CALM, HOLD = 5, 2, 10
STRANGER = "198.51.100.7"
SEQUENCE = 1000
KNOWN_HOURS, AGE = _C["KNOWN_HOURS"], (1 << _C["KNOWN_AGE_BITS"]) - 1
TEST_AGE = (1 << _C["TEST_AGE_BITS"]) - 1


def guarded(name: str = "web", *, test: bool = False, **more: Any) -> dict[str, Any]:
    """A service with flood protection."""
    guard = {
        "new_flows_per_second": BUDGET,
        "calm_per_second": CALM,
        "hold_seconds": HOLD,
        "test_unknown": test,
    }
    return service(name, flood_protection=guard, **more)


def syn(
    src: str = STRANGER, dst: str = VIP4, sport: int = 40000, sequence: int = SEQUENCE, flags: str = "S"
) -> Packet:
    """A TCP packet with a sequence number."""
    frame = tcp(src=src, dst=dst, sport=sport, flags=flags)
    frame[TCP].seq = sequence
    return frame


def row(rig: Rig, name: str = "web") -> Any:
    """A service's row of service_guards, in memory."""
    number = rig.plan(name).number
    return rig.plane.tables.arrays.service_guards[number : number + 1]


def at(
    rig: Rig, frame: Packet, *, opened: int = 0, ends: int = 0, ago: int = 0, name: str = "web"
) -> Outcome:
    """Run a frame. opened: new flows of the second that is `ago`; ends: when the attack does, in seconds; 0: peace."""
    for _ in range(20):
        now = rig.plane.clock_seconds()
        members = {
            "second": now - ago,
            "opened": opened,
            "before": 0,
            "attack_until": now + ends if ends else 0,
        }
        for member, value in members.items():
            row(rig, name)[member] = value
        outcome = rig.run(frame)
        if rig.plane.clock_seconds() == now:
            return outcome
        rig.flows["tag_backend"] = 0  # the second was over meanwhile: once more
    raise AssertionError("no frame fits into one second")


def attacked(rig: Rig, frame: Packet, **more: Any) -> Outcome:
    """Run a frame under attack, the second's budget spent."""
    return at(rig, frame, **{"opened": BUDGET, "ends": HOLD, **more})


def seen(rig: Rig, name: str = "web") -> FloodStatus:
    """What is observed of a guarded service."""
    status = rig.reconciler.service_status(name).flood_protection
    assert status
    return status


def make_known(rig: Rig, src: str = CLIENT4, dst: str = VIP4) -> None:
    """A client's connection in peace: SYN, and two packets that go on."""
    for flags in "SAA":
        frame = tcp(src=src, dst=dst, sport=50000, flags=flags)
        expect_encapsulated(at(rig, frame), frame)


def make_older(table: Any, sixteenths: int, mask: int) -> None:
    """As if the cells in use had been written so much earlier."""
    used = np.nonzero(table)
    cells = table[used].astype(np.int64)
    table[used] = (cells & ~mask | (cells - sixteenths) & mask).astype(np.uint32)


def dropped_syns(rig: Rig) -> Any:
    """Cells of SYNs that were dropped."""
    return rig.plane.tables.arrays.syn_tests


def test_in_peace_everything_passes(rig: Rig) -> None:
    """New flows up to the budget pass, are counted, and are remembered as any."""
    rig.apply(services=[guarded(test=True)])

    for opened in range(BUDGET):
        frame = syn(sport=1000 + opened)
        expect_encapsulated(at(rig, frame, opened=opened), frame)
        assert int(row(rig)["opened"][0]) == opened + 1

    status = seen(rig)
    assert (status.under_attack, status.attacks, status.known, status.tested) == (False, 0, 0, 0)
    assert len(slots(rig)) == BUDGET


def test_one_more_than_the_budget_begins_the_attack(rig: Rig) -> None:
    """From that very packet on, until hold_s later; more of them begin no other."""
    rig.apply(services=[guarded()])

    assert at(rig, syn(), opened=BUDGET).verdict == "DROP_NEW_FLOW"

    second = int(row(rig)["second"][0])
    assert (int(row(rig)["attack_since"][0]), int(row(rig)["attack_until"][0])) == (second, second + HOLD)
    assert attacked(rig, syn(sport=1)).verdict == "DROP_NEW_FLOW"
    assert (seen(rig).attacks, seen(rig).refused, seen(rig).under_attack) == (1, 2, True)


@pytest.mark.parametrize(
    ("opened", "ago", "ends", "then"),
    [
        (CALM + 1, 1, 1, HOLD),
        (CALM, 1, 1, 1),
        (CALM + 1, 1, HOLD, HOLD),
        (CALM + 1, 3, 1, HOLD - 2),
        (CALM, 3, 1, 1),
    ],
    ids=["not calm", "calm", "not calm, and far from its end", "not calm, some seconds ago", "calm for long"],
)
def test_a_second_that_was_not_calm_puts_the_end_off(
    rig: Rig, opened: int, ago: int, ends: int, then: int
) -> None:
    """To hold_s from that second's end."""
    rig.apply(services=[guarded()])

    at(rig, syn(), opened=opened, ago=ago, ends=ends)

    assert int(row(rig)["attack_until"][0] - row(rig)["second"][0]) == then
    assert seen(rig).attacks == 0


@pytest.mark.parametrize(
    ("opened", "verdict"), [(CALM, "TX_IPIP"), (CALM + 1, "DROP_SYN_TEST")], ids=["calm", "not calm"]
)
def test_an_attack_ends_after_calm_seconds_alone(rig: Rig, opened: int, verdict: str) -> None:
    """In the second that is to be the first of peace, what the one before it had decides."""
    rig.apply(services=[guarded(test=True)])

    for _ in range(20):
        now = rig.plane.clock_seconds()
        row(rig)["second"], row(rig)["opened"], row(rig)["attack_until"] = now - 1, opened, now
        outcome = rig.run(syn())
        if rig.plane.clock_seconds() == now:
            break

    assert outcome.verdict == verdict
    assert (int(row(rig)["attack_until"][0]) > now) == (opened > CALM)


@pytest.mark.parametrize(("ago", "before"), [(0, 0), (1, 3), (2, 0)])
def test_the_last_whole_second_is_kept(rig: Rig, ago: int, before: int) -> None:
    """What it had asked for, when the next packet comes in the second after it."""
    rig.apply(services=[guarded()])

    at(rig, syn(), opened=3, ago=ago)

    assert int(row(rig)["before"][0]) == before


def test_a_source_that_went_on_in_peace_is_known(rig: Rig) -> None:
    """Its new flows pass, over the budget and untested, and are remembered; a stranger's do not."""
    rig.apply(services=[guarded(test=True)])
    make_known(rig)
    assert seen(rig).learned == 1

    frame = tcp(sport=50001)
    expect_encapsulated(attacked(rig, frame), frame)

    assert attacked(rig, syn()).verdict == "DROP_SYN_TEST"
    assert (seen(rig).known, seen(rig).tested) == (1, 1)
    assert len(slots(rig)) == 2


@pytest.mark.parametrize(
    "packets",
    [
        [("S", 50000)],
        [("S", 50000), ("S", 50000)],
        [("A", 50000), ("A", 50000)],
        [("S", 50000), ("A", 50001)],
    ],
    ids=["a SYN", "a SYN twice", "a flow that was open before", "a SYN and another flow's packet"],
)
def test_less_than_a_flow_that_goes_on_makes_nobody_known(rig: Rig, packets: list[tuple[str, int]]) -> None:
    """Who is known sent a SYN here, and of that very flow more."""
    rig.apply(services=[guarded()])
    for flags, port in packets:
        at(rig, tcp(sport=port, flags=flags))

    assert attacked(rig, tcp(sport=50002)).verdict == "DROP_NEW_FLOW"
    assert seen(rig).learned == 0


def test_an_ipv6_source_is_known_by_its_64(rig: Rig) -> None:
    """Another address of the /64 passes, another /64 does not."""
    rig.apply(services=[guarded(vip=VIP6, backends=BACKENDS6)])
    make_known(rig, "2001:db8:1:2::1", VIP6)

    neighbour = tcp(src="2001:db8:1:2:ffff::9", dst=VIP6)
    expect_encapsulated(attacked(rig, neighbour), neighbour)

    assert attacked(rig, tcp(src="2001:db8:1:3::1", dst=VIP6)).verdict == "DROP_NEW_FLOW"


@pytest.mark.parametrize(
    ("hours", "verdict"), [(KNOWN_HOURS - 2, "TX_IPIP"), (KNOWN_HOURS + 2, "DROP_NEW_FLOW")]
)
def test_a_source_is_known_for_a_week(rig: Rig, hours: int, verdict: str) -> None:
    """And then is as any."""
    rig.apply(services=[guarded()])
    make_known(rig)

    make_older(rig.plane.tables.arrays.known_sources, hours, AGE)

    assert attacked(rig, tcp(sport=50001)).verdict == verdict


def test_who_is_learned_takes_the_oldest_cell(rig: Rig) -> None:
    """Of sixteen others in its line the one that was seen longest ago goes."""
    rig.apply(services=[guarded()])
    table, hour = rig.plane.tables.arrays.known_sources, rig.plane.clock_seconds() // 3600
    table[:] = 2 << _C["KNOWN_AGE_BITS"] | hour - 5 & AGE
    table[:, 3] = 2 << _C["KNOWN_AGE_BITS"] | hour - 50 & AGE
    before = table.copy()

    make_known(rig)

    assert [int(column) for column in np.nonzero(table != before)[1]] == [3]
    assert attacked(rig, tcp(sport=50001)).verdict == "TX_IPIP"


def test_what_is_known_of_one_service_holds_for_all(rig: Rig) -> None:
    """A UDP service lets in who has opened a TCP flow; sources of a service that is not guarded are not learned."""
    services = [guarded(), guarded("dns", protocol="udp"), service("open", vip="10.200.1.7")]
    rig.apply(services=services)
    make_known(rig, STRANGER, "10.200.1.7")
    assert attacked(rig, udp(src=STRANGER), name="dns").verdict == "DROP_NEW_FLOW"

    make_known(rig)

    assert attacked(rig, udp(), name="dns").verdict == "TX_IPIP"


@pytest.mark.parametrize(
    ("sixteenths", "verdict"),
    [(0, "DROP_SYN_TEST"), (_C["TEST_SOONEST"], "TX_IPIP"), (60, "TX_IPIP"), (70, "DROP_SYN_TEST")],
    ids=["at once", "after half a second", "after nearly four seconds", "after more"],
)
def test_a_syn_that_is_sent_again_in_time_passes(rig: Rig, sixteenths: int, verdict: str) -> None:
    """Sooner or later than a TCP would send it again, it is dropped once more."""
    rig.apply(services=[guarded(test=True)])
    assert attacked(rig, syn()).verdict == "DROP_SYN_TEST"

    make_older(dropped_syns(rig), sixteenths, TEST_AGE)

    assert attacked(rig, syn()).verdict == verdict
    assert (seen(rig).tested, seen(rig).proven) == ((1, 1) if verdict == "TX_IPIP" else (2, 0))


def test_after_a_proof_the_source_is_known(rig: Rig) -> None:
    """Its flow is remembered, its next flows pass at once, and the SYN itself is forgotten."""
    rig.apply(services=[guarded(test=True)])
    attacked(rig, syn())
    make_older(dropped_syns(rig), _C["TEST_SOONEST"], TEST_AGE)

    expect_encapsulated(attacked(rig, syn()), syn())

    assert not dropped_syns(rig).any()
    assert len(slots(rig)) == 1
    assert attacked(rig, syn(sport=40001)).verdict == "TX_IPIP"
    assert (seen(rig).proven, seen(rig).learned, seen(rig).known) == (1, 1, 1)


@pytest.mark.parametrize(("sixteenths", "verdict"), [(0, "DROP_SYN_TEST"), (_C["TEST_KEPT"], "TX_IPIP")])
def test_a_syn_that_may_soon_be_sent_again_is_not_displaced(rig: Rig, sixteenths: int, verdict: str) -> None:
    """In a flood that fills the table who was first can come in; later SYNs wait for a place."""
    rig.apply(services=[guarded(test=True)])
    attacked(rig, syn())
    age = int(dropped_syns(rig).max()) & TEST_AGE
    dropped_syns(rig)[dropped_syns(rig) == 0] = 2 << _C["TEST_AGE_BITS"] | age - sixteenths & TEST_AGE

    assert attacked(rig, syn(sport=1)).verdict == "DROP_SYN_TEST"
    make_older(dropped_syns(rig), _C["TEST_SOONEST"], TEST_AGE)

    assert attacked(rig, syn(sport=1)).verdict == verdict


@pytest.mark.parametrize(
    "other",
    [{"sequence": SEQUENCE + 1}, {"sport": 40001}, {"src": "198.51.100.8"}],
    ids=["sequence number", "port", "source"],
)
def test_another_syn_proves_nothing(rig: Rig, other: dict[str, Any]) -> None:
    """What differs in a member is not what was dropped; that passes still."""
    rig.apply(services=[guarded(test=True)])
    attacked(rig, syn())
    make_older(dropped_syns(rig), _C["TEST_SOONEST"], TEST_AGE)

    assert attacked(rig, syn(**other)).verdict == "DROP_SYN_TEST"
    assert attacked(rig, syn()).verdict == "TX_IPIP"


def test_ipv6_syns_are_tested_too(rig: Rig) -> None:
    """And the /64 is known afterwards."""
    rig.apply(services=[guarded(vip=VIP6, backends=BACKENDS6, test=True)])
    frame = syn("2001:db8::1", VIP6)
    assert attacked(rig, frame).verdict == "DROP_SYN_TEST"
    make_older(dropped_syns(rig), _C["TEST_SOONEST"], TEST_AGE)

    expect_encapsulated(attacked(rig, frame), frame)

    assert attacked(rig, syn("2001:db8::2", VIP6)).verdict == "TX_IPIP"


@pytest.mark.parametrize(
    ("protocol", "make"), [("udp", udp), ("tcp", tcp)], ids=["UDP", "TCP without the test"]
)
def test_who_is_unknown_passes_within_the_budget(
    rig: Rig, protocol: str, make: Callable[..., Packet]
) -> None:
    """And is not remembered, so evicts nobody; over the budget it is dropped."""
    rig.apply(services=[guarded(protocol=protocol)])

    within = make(src=STRANGER, sport=1)
    expect_encapsulated(at(rig, within, opened=BUDGET - 1, ends=HOLD), within)

    assert not slots(rig)
    assert at(rig, make(src=STRANGER, sport=2), opened=BUDGET, ends=HOLD).verdict == "DROP_NEW_FLOW"
    assert (seen(rig).refused, seen(rig).known) == (1, 0)


def test_a_udp_flow_that_is_there_is_not_asked(rig: Rig) -> None:
    """It goes on under attack, and does not count."""
    rig.apply(services=[guarded(protocol="udp")])
    backend = expect_encapsulated(at(rig, udp(src=STRANGER)), udp(src=STRANGER))

    outcome = attacked(rig, udp(src=STRANGER))

    assert expect_encapsulated(outcome, udp(src=STRANGER)) == backend
    assert int(row(rig)["opened"][0]) == BUDGET


@pytest.mark.parametrize("flags", ["A", "SA", "F", "PA"])
def test_tcp_that_opens_nothing_goes_by_the_ring(rig: Rig, flags: str) -> None:
    """It does not count, and under attack leaves no entry in the flow table; in peace it does."""
    rig.apply(services=[guarded(test=True)])
    frame = syn(flags=flags)

    expect_encapsulated(attacked(rig, frame), frame)

    assert not slots(rig)
    assert int(row(rig)["opened"][0]) == BUDGET
    at(rig, frame)
    assert len(slots(rig)) == 1


def test_a_connection_that_stands_goes_on(rig: Rig) -> None:
    """Its packets pass under attack, by the flow table, and keep its entry fresh."""
    rig.apply(services=[guarded(test=True)])
    make_known(rig)
    (before,) = slots(rig)
    rig.flows["state"][rig.flows["tag_backend"] != 0] -= np.uint64(20 << 32)

    frame = tcp(sport=50000, flags="A")
    expect_encapsulated(attacked(rig, frame), frame)

    (after,) = slots(rig)
    assert (after.tag, after.place) == (before.tag, before.place)
    assert after.seconds >= before.seconds


def test_a_quote_is_never_asked(rig: Rig) -> None:
    """An ICMP error about a flow of the service passes under attack, and does not count."""
    rig.apply(services=[guarded(test=True)])
    quoted = IP(src=VIP4, dst=STRANGER) / TCP(sport=80, dport=40000, flags="S")
    frame = LINK / network("192.0.2.1") / ICMP(type=3, code=1) / quoted

    expect_encapsulated(attacked(rig, frame), frame)

    assert int(row(rig)["opened"][0]) == BUDGET
    assert not slots(rig)


def test_a_quic_id_is_not_asked(rig: Rig) -> None:
    """Who bears a backend's id opens nothing: the guard is for what the ring would choose."""
    backends = [{"address": "10.0.0.11", "quic_id": 7}]
    rig.apply(services=[guarded(protocol="udp", quic=True, backends=backends)])
    frame = datagram(VIP4, short_header(cid(1, 7)), src=STRANGER, dport=80)

    assert attacked(rig, frame).verdict == "TX_IPIP"
    assert attacked(rig, udp(src=STRANGER, sport=1)).verdict == "DROP_NEW_FLOW"
    assert int(row(rig)["opened"][0]) == BUDGET + 1


def test_other_services_are_not_concerned(rig: Rig) -> None:
    """Each service has its own budget, and one without protection has none."""
    rig.apply(services=[guarded(), guarded("b", vip="10.200.1.7"), service("c", vip="10.200.1.8")])
    assert attacked(rig, syn()).verdict == "DROP_NEW_FLOW"

    assert at(rig, syn(dst="10.200.1.7"), name="b").verdict == "TX_IPIP"
    assert rig.verdict(syn(dst="10.200.1.8")) == "TX_IPIP"
    assert (seen(rig).under_attack, seen(rig, "b").under_attack) == (True, False)


def test_what_the_guard_drops_counts_for_the_service(rig: Rig) -> None:
    """No backend has it."""
    rig.apply(services=[guarded()])
    attacked(rig, syn())

    status = rig.reconciler.service_status("web")
    assert status.packets == 1
    assert [backend.packets for backend in status.backends] == [0, 0, 0]


@pytest.mark.parametrize("test", [False, True])
def test_explain_says_it_and_changes_nothing(rig: Rig, test: bool) -> None:
    """Each answer of the guard in words, and every byte of every map as before."""
    rig.apply(services=[guarded(test=test)])
    make_known(rig)
    scenes: list[tuple[str, str, int, int, Packet]] = [
        ("TX_IPIP", "is guarded, and not under attack", 0, 0, syn()),
        ("TX_IPIP", "this source is known", BUDGET, HOLD, tcp(sport=50001)),
    ]
    scenes += (
        [("DROP_SYN_TEST", "is admitted when it repeats its SYN", 0, HOLD, syn())]
        if test
        else [
            ("DROP_NEW_FLOW", "budget of new flows is spent", BUDGET, HOLD, syn()),
            ("DROP_NEW_FLOW", "budget of new flows is spent", BUDGET, 0, syn()),
            ("TX_IPIP", "budget of new flows is not spent", 0, HOLD, syn()),
        ]
    )
    for verdict, words, opened, ends, frame in scenes:
        for _ in range(20):
            now = rig.plane.clock_seconds()
            row(rig)["second"], row(rig)["opened"] = now, opened
            row(rig)["attack_until"] = now + ends if ends else 0
            before = list(memory(rig.plane.tables))
            answer = explain(rig, frame)
            if rig.plane.clock_seconds() == now:
                break
        assert list(memory(rig.plane.tables)) == before
        assert answer.verdict.name == verdict
        assert words in detail(answer, "select")
        assert at(rig, frame, opened=opened, ends=ends).verdict == verdict


def test_explain_of_a_syn_that_is_sent_again(rig: Rig) -> None:
    """It would pass, and may then still do so."""
    rig.apply(services=[guarded(test=True)])
    attacked(rig, syn())
    make_older(dropped_syns(rig), _C["TEST_SOONEST"], TEST_AGE)
    row(rig)["attack_until"] = rig.plane.clock_seconds() + 60

    answer = explain(rig, syn())

    assert (answer.verdict.name, seen(rig).proven) == ("TX_IPIP", 0)
    assert "SYN was repeated" in detail(answer, "select")
    assert attacked(rig, syn()).verdict == "TX_IPIP"

"""The traced program over the live maps: it says what the live one does, by name, and changes nothing."""

import os
from collections.abc import Iterator
from dataclasses import fields, replace
from random import Random
from typing import Any

import foreign
import pytest
import random_frames
import states
from flow_table import make_older
from frames import (
    BACKENDS4,
    BACKENDS6,
    CLIENT4,
    ELSE4,
    LINK,
    VIP4,
    VIP6,
    network,
    patched,
    service,
    tcp,
    udp,
)
from rig import OUR_MAC, XDP_ACTIONS, Rig
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether

from lb.dataplane import libbpf
from lb.dataplane.explain import TracedProgram
from lb.dataplane.layout import layout
from lb.dataplane.tables import ARRAY_NAMES, Tables
from lb.errors import ConflictError, DataPlaneError
from lb.model.question import LONGEST
from lb.reconcile.explained import Explained, FlowEntry, ListEntry
from lb.reconcile.services import ServicePlans

pytestmark = pytest.mark.root

_C = layout().constants


RULES: list[dict[str, Any]] = [
    {"name": "in", "action": "allow", "source": "10.0.2.8/30", "ports": "80"},
    {"name": "fin", "action": "drop", "protocol": "tcp", "tcp_flags": "fin", "reason": "scans"},
    {"name": "rate", "action": "limit", "ports": "80", "limit": {"rate": 1, "burst": 9, "per": "rule"}},
    {"name": "each", "action": "limit", "limit": {"rate": 2, "unit": "bytes", "burst": 1514}},
    {"name": "flows", "action": "limit", "limit": {"rate": 9, "unit": "new-flows", "per": "rule"}},
    {"name": "all", "action": "count"},
    {"name": "trial", "action": "drop", "count_only": True},
]


def explain(rig: Rig, frame: Any) -> Explained:
    """What becomes of one frame."""
    (answer,) = rig.reconciler.explain([bytes(frame)])
    return answer


def detail(answer: Explained, stage: str) -> str:
    """What one stage did, in words."""
    (found,) = [step.detail for step in answer.steps if step.stage == stage]
    return found


def memory(tables: Tables) -> Iterator[tuple[str, bytes]]:
    """Every byte of every map."""
    for field in fields(Tables):
        if field.name == "arrays":
            yield from ((name, getattr(tables.arrays, name).tobytes()) for name in ARRAY_NAMES)
        else:
            held = getattr(tables, field.name).read()
            parts = held if isinstance(held, tuple) else (held,)
            yield field.name, b"".join(part.tobytes() for part in parts)


def compare(rig: Rig, frames: list[bytes]) -> None:
    """Each frame is explained, then run: the two agree on verdict, action and frame, and explaining changed nothing."""
    for frame in frames:
        expected = explain(rig, frame)
        outcome = rig.run(frame)
        assert (expected.verdict.name, expected.verdict.action) == (outcome.verdict, outcome.action), (
            frame.hex()
        )
        leaves = outcome.action in ("tx", "redirect")
        assert expected.frame_out == (outcome.frame_out if leaves else None), frame.hex()


def test_nothing_changes(rig: Rig) -> None:
    """Every byte of every map is as before: no counter, no flow, no budget, no last hit."""
    rig.plane.mtu = 1000
    rig.apply(
        services=[
            service(),
            service("dns", protocol="udp", port=53),
            service("six", vip=VIP6, backends=BACKENDS6),
        ],
        block=["10.0.2.0/24", {"prefix": "10.0.3.0/24", "action": "count"}],
        allow=["10.0.2.7"],
        rules=RULES,
    )
    chance = Random("nothing changes")
    frames = [random_frames.frame(chance) for _ in range(300)]
    frames += [bytes(tcp(sport=n, flags=flags)) for n in range(50) for flags in ("S", "A", "R", "F")]
    frames += [bytes(tcp(src=f"10.0.{n}.7")) for n in range(5)]
    frames += [bytes(f / bytes(1400)) for f in (tcp(), udp(dport=53), tcp(dst=VIP6))]
    for frame in frames[::3]:
        rig.run(frame)
    before = list(memory(rig.plane.tables))

    answers = rig.reconciler.explain(frames)

    assert len({answer.verdict.name for answer in answers}) >= 8
    for (name, content), earlier in zip(memory(rig.plane.tables), before, strict=True):
        assert (name, content) == earlier, name


@pytest.mark.parametrize("seed", range(3))
def test_explain_and_the_live_program_agree(rig: Rig, seed: int) -> None:
    """On frames of every kind, sane and broken, over random configurations and flows that come and go."""
    chance = Random(f"explain {seed}")
    document = states.configuration(chance)
    for name, value in states.link(chance).items():
        setattr(rig.plane, name, set(value) if isinstance(value, list) else value)
    frames: list[bytes] = []
    for each in (document, states.altered(chance, document)):
        rig.apply(
            services=each["services"],
            block=each["blocklist"],
            allow=each["allowlist"],
            settings=each.get("settings", {}),
        )
        rig.follow()
        towards = random_frames.targets(each)
        frames += [random_frames.frame(chance, towards) for _ in range(150)]
        compare(rig, frames + [random_frames.again(chance, frame) for frame in frames])


def test_foreign_frames_are_explained(rig: Rig) -> None:
    """A thousand frames of other protocols: each as its documents say, and as the live program does."""
    rig.apply(services=[service(), service("six", vip=VIP6, backends=BACKENDS6)])
    frames = foreign.foreign_frames()
    answers = rig.reconciler.explain([frame.data for frame in frames])

    assert [answer.verdict.name for answer in answers] == [frame.verdict for frame in frames]
    assert all(answer.steps and answer.steps[-1].result == answer.verdict.name for answer in answers)


def test_agreement_under_the_exact_program(exact_rig: Rig) -> None:
    """The traced build has the features that the program in force has, and follows when that one changes."""
    frames = [bytes(f) for f in (tcp(), udp(), tcp(dst=VIP6), tcp(src="10.0.2.1"), LINK / network() / ICMP())]
    traced: list[TracedProgram] = []
    for change in ({"services": [service()]}, {"block": ["10.0.2.0/24"]}, {"services": [], "block": []}):
        exact_rig.apply(**change)
        compare(exact_rig, frames)
        traced.append(exact_rig.plane.tracer("rig0"))
        assert traced[-1] is exact_rig.plane.tracer("rig0")
        assert traced[-1].program.build.features == exact_rig.program.build.features
        assert traced[-1].program.info.instructions > exact_rig.program.info.instructions

    assert len(set(map(id, traced))) == 3


@pytest.mark.parametrize("size", [100, 3000, 5000, 9000, 60000])
def test_agreement_on_frames_in_several_buffers(frags_rig: Rig, size: int) -> None:
    """Where the program in force takes them, the traced one does."""
    frags_rig.plane.mtu = 0
    frags_rig.apply(services=[service()])

    compare(frags_rig, [bytes(tcp() / bytes(size))])


def test_agreement_on_a_frame_that_the_program_sees_in_part(rig: Rig) -> None:
    """A program for one buffer sees the first of several: such a frame is no driver's, but explain says the same."""
    rig.apply(services=[service()])
    frame = bytes(tcp() / bytes(9000))

    assert explain(rig, frame).verdict.name == "DROP_TRUNCATED"
    assert libbpf.test_run(rig.program.fd, frame) == (XDP_ACTIONS["drop"], frame)


def test_the_ring_the_flow_table_and_why(rig: Rig) -> None:
    """A new flow is the ring's; a known one the flow table's, with its age and class; each with what came of it."""
    rig.apply(services=[service(), service("dns", protocol="udp", port=53)])
    new = explain(rig, tcp())
    assert (new.via, new.entry, new.service) == ("ring", None, "web")
    assert "the flow table does not have it" in detail(new, "select")

    backend = rig.run(tcp()) and new.backend
    make_older(rig, 7)
    known = explain(rig, tcp(flags="A"))
    assert (known.via, known.backend) == ("flow", backend)
    assert isinstance(known.entry, FlowEntry)
    assert known.entry.established is False
    assert known.entry.age_seconds >= 7
    assert "a SYN opens a new connection" in detail(explain(rig, tcp()), "select")

    rig.run(tcp(flags="A"))
    entry = explain(rig, tcp(flags="A")).entry
    assert isinstance(entry, FlowEntry) and entry.established
    make_older(rig, 4000)
    idle = explain(rig, tcp(flags="A"))
    assert idle.via == "ring"
    assert "which is too old" in detail(idle, "select")


def test_a_backend_that_left_is_said_to_have_left(rig: Rig) -> None:
    """Its flows are the ring's again, and the words say why."""
    rig.apply(services=[service(backends=BACKENDS4[:1])])
    rig.run(tcp())
    gone = {"address": BACKENDS4[0], "admin_state": "disabled"}
    rig.apply(services=[service(backends=[gone, BACKENDS4[1]])])

    answer = explain(rig, tcp(flags="A"))
    assert (answer.via, answer.backend) == ("ring", BACKENDS4[1])
    assert "no longer takes its packets" in detail(answer, "select")

    rig.apply(services=[service(backends=[gone])])
    answer = explain(rig, tcp(flags="A"))
    assert (answer.verdict.name, answer.service, answer.backend) == ("DROP_NO_BACKEND", "web", None)
    assert "no backend that takes new flows (1 disabled)" in detail(answer, "select")


def test_entries_of_the_lists(rig: Rig) -> None:
    """The longest entry that decided: its owner, reason, age, what is left of its time, and its hits."""
    rig.apply(
        services=[service()],
        block=[
            "10.0.0.0/8",
            {"prefix": "10.0.1.0/24", "reason": "port scan", "ttl_seconds": 3600},
            {"prefix": "10.0.3.0/24", "action": "count"},
        ],
        allow=["10.0.1.7"],
    )
    for _ in range(3):
        rig.run(tcp())
    rig.advance(60)

    dropped = explain(rig, tcp()).entry
    assert isinstance(dropped, ListEntry)
    assert (dropped.allow, str(dropped.entry.prefix), dropped.entry.owners) == (
        False,
        "10.0.1.0/24",
        ("operator",),
    )
    assert (dropped.entry.attributes.reason, dropped.age_seconds) == ("port scan", 60)
    assert (dropped.ttl_left_seconds, dropped.hits.packets) == (3540, 3)

    allowed = explain(rig, tcp(src="10.0.1.7"))
    assert isinstance(allowed.entry, ListEntry)
    assert (allowed.entry.allow, str(allowed.entry.entry.prefix)) == (True, "10.0.1.7/32")
    assert allowed.entry.ttl_left_seconds is None
    assert "10.0.1.0/24 (operator: port scan) holds 10.0.1.7, and allowlist entry 10.0.1.7/32" in detail(
        allowed, "admit"
    )

    counted = explain(rig, tcp(src="10.0.3.9"))
    assert counted.verdict.name == "TX_IPIP"
    assert isinstance(counted.entry, ListEntry) and str(counted.entry.entry.prefix) == "10.0.3.0/24"
    assert "and only counts" in detail(counted, "admit")


def test_entries_of_ipv6(rig: Rig) -> None:
    """The same for the tries."""
    rig.apply(services=[service(vip=VIP6, backends=BACKENDS6)], block=["fd00::/16", "fd00:0:0:1::/64"])

    entry = explain(rig, tcp(dst=VIP6)).entry
    assert isinstance(entry, ListEntry)
    assert str(entry.entry.prefix) == "fd00:0:0:1::/64"


def test_an_entry_whose_time_is_over_is_explained_while_it_drops(rig: Rig) -> None:
    """Until the reconciler has taken it out of the maps it drops, and explain says by what."""
    rig.apply(services=[service()], block=[{"prefix": CLIENT4, "ttl_seconds": 10}])
    with rig.reconciler._lock:  # its own thread must not be first
        rig.now += 11
        entry = explain(rig, tcp()).entry

    assert isinstance(entry, ListEntry)
    assert entry.ttl_left_seconds == 0
    rig.follow(hops_changed=False)
    assert explain(rig, tcp()).verdict.name == "TX_IPIP"


STAGES = ["parse", "admit", "service", "select", "forward"]
WAYS: list[tuple[Any, str, str, str]] = [
    # frame, verdict, the last stage, and what it says
    (bytes(5), "DROP_TRUNCATED", "parse", "longer than the frame; the frame has 5 bytes"),
    (LINK / ARP(), "PASS_NOT_IP", "parse", "ethertype 0x0806 is neither IPv4 nor IPv6"),
    (LINK / Dot1Q() / ARP(), "PASS_NOT_IP", "parse", "ethertype 0x0806"),
    (
        Ether(dst="02:00:00:00:00:99") / network() / TCP(),
        "PASS_NOT_OUR_MAC",
        "parse",
        f"the frame is for 02:00:00:00:00:99, and this interface is {OUR_MAC}",
    ),
    (bytes(tcp())[:40], "DROP_TRUNCATED", "parse", "a header or the packet is longer than the frame"),
    (patched(tcp(), 14, 0x44), "DROP_BAD_IPV4", "parse", "the IPv4 header contradicts itself"),
    (patched(tcp(dst=VIP6), 14, 0x50), "DROP_BAD_IPV6", "parse", "the IPv6 header contradicts itself"),
    (
        patched(tcp(), 46, 0x10),
        "DROP_BAD_TCP",
        "parse",
        "10.0.1.1 → 10.200.1.1, 40 bytes, in a frame of 54 bytes: the TCP header's length",
    ),
    (LINK / Dot1Q() / Dot1Q() / Dot1Q() / network() / TCP(), "DROP_VLAN_DEPTH", "parse", "more VLAN tags"),
    (
        LINK / network(dst=VIP6, nh=60) / b"".join([bytes(IPv6ExtHdrDestOpt(nh=60))] * 7),
        "DROP_IPV6_CHAIN",
        "parse",
        "more IPv6 extension headers",
    ),
    (
        tcp(src="192.0.2.1"),
        "DROP_BLOCKLIST",
        "admit",
        "blocklist entry 192.0.2.0/24 (operator) drops what 192.0.2.1",
    ),
    (LINK / network(frag=3) / b"later", "DROP_FRAGMENT", "service", "a fragment for VIP 10.200.1.1"),
    (LINK / network(dst=ELSE4, frag=3) / b"later", "PASS_FRAGMENT", "service", "10.200.9.9 is not a VIP"),
    (LINK / network(proto=47) / b"12345678", "PASS_PROTOCOL", "service", "GRE is neither TCP nor UDP"),
    (tcp(dport=81), "PASS_NO_SERVICE", "service", 'TCP 10.200.1.1 port 81; of this VIP "web" has tcp 80'),
    (tcp(dst=ELSE4), "PASS_NO_SERVICE", "service", "and 10.200.9.9 is not a VIP"),
    (tcp(dport=90), "DROP_NO_BACKEND", "select", 'and "empty" has no backends'),
    (tcp(dport=91), "DROP_NO_NEXT_HOP", "forward", "no MAC is known for the next hop to 10.0.0.91"),
    (tcp() / bytes(1490), "TX_TOO_BIG", "forward", "1530 bytes and the outer header exceed the 1500 bytes"),
    (tcp(), "TX_IPIP", "forward", "by rig0, next hop 02:10:0a:00:00"),
    (LINK / Dot1Q(vlan=7) / network() / TCP(dport=80), "TX_IPIP", "forward", "78 bytes"),
    (tcp(dst=VIP6), "TX_L2", "forward", "to fd00::1"),
    (tcp(dport=92), "REDIRECT_IPIP", "forward", "by another interface, next hop 02:10:0a:00:00:5c"),
]


@pytest.mark.parametrize(("frame", "verdict", "stage", "says"), WAYS)
def test_every_way_ends_with_words(rig: Rig, frame: Any, verdict: str, stage: str, says: str) -> None:
    """The steps are those that the packet took, and the last says what ended its way there."""
    rig.plane.unresolved = {"10.0.0.91"}
    rig.plane.ifindex = {"10.0.0.92": 9}
    rig.apply(
        services=[
            service(),
            service("six", vip=VIP6, mode="l2", backends=BACKENDS6),
            service("empty", vip=VIP4, port=90, backends=[]),
            service("unresolved", port=91, backends=["10.0.0.91"]),
            service("elsewhere", port=92, backends=["10.0.0.92"]),
        ],
        block=["192.0.2.0/24"],
    )
    answer = explain(rig, frame)

    assert answer.verdict.name == verdict
    taken = [step.stage for step in answer.steps]
    assert taken == STAGES[: STAGES.index(stage) + 1]
    assert [step.result for step in answer.steps] == ["continue"] * (len(taken) - 1) + [verdict]
    assert says in answer.steps[-1].detail
    assert (answer.frame_out is not None) == (answer.verdict.action in ("tx", "redirect"))


def quic(number: int) -> bytes:
    """A packet with a short header, whose connection id names a backend in 16 bits."""
    ident = bytes([0x40 | number >> 10, number >> 2 & 0xFF, (number & 3) << 6])
    return bytes(LINK / network() / UDP(sport=4, dport=443) / (b"\x40" + ident + bytes(20)))


def test_icmp_gue_quic_and_the_rest(exact_rig: Rig) -> None:
    """What else ends a way or chooses a backend has its words, agrees with the live program, and changes nothing."""
    exact_rig.apply(
        services=[
            service(mode="gue"),
            service(
                "quic",
                protocol="udp",
                port=443,
                quic=True,
                backends=[{"address": BACKENDS4[0], "quic_id": 7}, {"address": BACKENDS4[1], "quic_id": 9}],
            ),
            service("six", vip="fc00:2::/64", backends=BACKENDS6),
        ]
    )
    flow = network(VIP4, CLIENT4) / TCP(sport=80, dport=40000)
    error = LINK / network("10.0.9.9") / ICMP(type=3, code=4)
    ways: list[tuple[Any, str, str | None, str, str]] = [
        (tcp(), "TX_GUE", "ring", "forward", "by rig0, next hop 02:10"),
        (LINK / network() / ICMP() / b"ping", "TX_ECHO", None, "icmp", "an echo request for VIP 10.200.1.1"),
        (error / flow, "TX_GUE", "ring", "icmp", "about TCP 10.0.1.1:40000 → 10.200.1.1:80"),
        (error / b"nothing of the kind", "PASS_ICMP_ERROR", None, "icmp", "quotes no packet"),
        (
            error / (network(VIP4, CLIENT4) / TCP(sport=81)),
            "PASS_ICMP_ERROR",
            None,
            "service",
            "no service has TCP",
        ),
        (tcp(src=VIP4), "DROP_SPOOFED", None, "admit", "but no client has this address"),
        (
            tcp() / bytes(1490),
            "TX_TOO_BIG",
            "ring",
            "forward",
            "1530 bytes and the outer header exceed the 1500",
        ),
        (quic(9), "TX_IPIP", "quic-cid", "select", "QUIC connection id 9 names backend 10.0.0.12"),
        (quic(77), "TX_IPIP", "ring", "select", "QUIC connection id 77 names no backend"),
        (tcp(dst="fc00:2::77"), "TX_IPIP", "ring", "service", '"six" takes tcp fc00:2::/64 port 80'),
        (tcp(dst="fc00:2::77", dport=9), "PASS_NO_SERVICE", None, "service", 'of this VIP "six" has tcp 80'),
    ]
    before = list(memory(exact_rig.plane.tables))
    answers = exact_rig.reconciler.explain([bytes(frame) for frame, *_ in ways])

    for (frame, verdict, via, stage, says), answer in zip(ways, answers, strict=True):
        assert (answer.verdict.name, answer.via) == (verdict, via), frame
        assert says in detail(answer, stage)
    assert list(memory(exact_rig.plane.tables)) == before
    compare(exact_rig, [bytes(frame) for frame, *_ in ways] * 2)


def test_a_frame_that_the_kernel_does_not_run(rig: Rig) -> None:
    """The largest that is taken runs; one beyond what test runs take is refused in words."""
    rig.apply(services=[service()])
    traced = rig.plane.tracer("rig0")

    assert len(traced.run([bytes(LONGEST)]).rows) == 1
    with pytest.raises(DataPlaneError, match=r"a frame of 100000 bytes .*: send a shorter one"):
        traced.run([bytes(100_000)])


def test_a_service_that_the_control_plane_does_not_know(rig: Rig) -> None:
    """A number in the maps that no plan has is a conflict, never another service's name."""
    rig.apply(services=[service()])
    rig.reconciler._maps.plans = replace(rig.reconciler._maps.plans, services=ServicePlans())

    with pytest.raises(ConflictError, match="a service was removed"):
        explain(rig, tcp(sport=77))


def test_programs_are_let_go(rig: Rig) -> None:
    """What the traced build held open is closed with it."""
    rig.apply(services=[service()])
    tracers = rig.plane._programs.tracers
    fd = tracers.get("rig0", rig.program.build).program.fd
    assert libbpf.prog_info(fd).instructions > 0

    tracers.keep([])

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)

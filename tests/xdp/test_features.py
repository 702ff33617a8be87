"""A program that has only what is in use does the same as one that has everything, in fewer instructions."""

import os
from typing import Any

import pytest
from frames import (
    BACKENDS6,
    CLIENT4,
    CLIENT6,
    LINK,
    NOBODY_IS_TOLD,
    VIP4,
    VIP6,
    expect_encapsulated,
    expect_rewritten,
    network,
    service,
    tcp,
    udp,
)
from rig import OUR_IFINDEX, Programs, Rig
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.layers.l2 import ARP

from lb.dataplane.layout import layout
from lb.dataplane.protocol import ProgramWish

pytestmark = pytest.mark.root

V4 = [service(), service("dns", protocol="udp", port=53)]
V6 = [service("six", vip=VIP6, mode="l2", port="any", affinity="source", backends=BACKENDS6)]
STEPS: list[tuple[dict[str, Any], str]] = [
    # what is changed, and all that the program then has
    ({}, "SPOOF ECHO"),
    ({"services": V4}, "SPOOF ECHO VIP4 IPIP TOO_BIG"),
    ({"block": ["10.0.1.0/28"]}, "SPOOF ECHO VIP4 IPIP TOO_BIG DENY4"),
    ({"allow": [CLIENT4]}, "SPOOF ECHO VIP4 IPIP TOO_BIG DENY4 ALLOW"),
    (
        {"services": V6, "allow": [], "block": [CLIENT6]},
        "SPOOF ECHO VIP6 L2 ANY_PORT SOURCE_AFFINITY DENY6",
    ),
]
FRAMES = [
    *(tcp(src=source) for source in (CLIENT4, "10.0.1.2", "10.0.1.99")),
    *(tcp(src=source, dst=VIP6, dport=port) for source in (CLIENT6, "fd00::2") for port in (80, 8080)),
    udp(dport=53),
    udp(src="10.0.1.99", dport=53),
    udp(dst=VIP6),
    LINK / network() / ICMP(),
    LINK / network(frag=3) / b"later",
    LINK / network(dst=VIP6) / IPv6ExtHdrFragment(offset=3) / b"later",
    LINK / ARP(),
    bytes(tcp())[:40],
]


def test_exact_programs_do_what_the_full_one_does(exact_rig: Rig, programs: Programs) -> None:
    """As services and lists come and go, the program has their features and no others, and every verdict and frame is
    that of the program with everything; what is in use costs instructions, what is not costs none."""
    full = programs.get(
        ProgramWish(frozenset(layout().features) - {"HAVE_FRAGS"}, exact_rig.plane.wished.constants)
    )
    sizes = {}
    for change, features in STEPS:
        exact_rig.apply(**change)
        exact = exact_rig.program
        assert exact.build.features == {f"HAVE_{name}" for name in features.split()}
        sizes[features] = exact.info.instructions
        for frame in FRAMES:
            exact_rig.flows["tag_backend"][:] = 0
            seen = exact_rig.run(frame)
            exact_rig.flows["tag_backend"][:] = 0
            exact_rig.plane.running = full
            assert exact_rig.run(frame) == seen
            exact_rig.plane.running = exact

    in_steps = [sizes[features] for _, features in STEPS[:4]]
    assert in_steps == sorted(set(in_steps))
    assert max(sizes.values()) < full.info.instructions


IN_ORDER = ("VIP4", "IPIP", "GUE", "DENY4", "ALLOW", "VIP6", "QUIC", "ECHO", "TOO_BIG")
"""Features in an order in which each can be in use."""


@pytest.mark.slow
def test_a_feature_costs_only_while_it_is_in_use(programs: Programs) -> None:
    """Each feature adds instructions, and more for the verifier to go through; without them the program, compiled
    anew, has the numbers that it had before."""
    features, loaded = frozenset({"HAVE_L2"}), []
    for name in IN_ORDER:
        features |= {f"HAVE_{name}"}
        loaded.append(programs.get(ProgramWish(features)))

    sizes = [program.info.instructions for program in loaded]
    assert sizes == sorted(set(sizes))
    assert loaded[0].info.verified < loaded[-1].info.verified < 1_000_000
    for program in loaded:
        assert program.info.jited_bytes > program.info.instructions
        assert program.cost.stack_bytes is not None
        assert 0 < program.cost.stack_bytes <= 512
    again = programs.make(ProgramWish(frozenset({"HAVE_L2", "HAVE_VIP4"})))
    assert (again.info.instructions, again.info.jited_bytes, again.info.verified, again.cost.stack_bytes) == (
        sizes[0],
        loaded[0].info.jited_bytes,
        loaded[0].info.verified,
        loaded[0].cost.stack_bytes,
    )
    os.close(again.fd)


def test_program_shrinks_again(exact_rig: Rig) -> None:
    """With the last entry gone, the program is the one there was before: the same code, to the instruction."""
    exact_rig.apply(services=V4)
    before = exact_rig.program
    exact_rig.apply(block=["10.0.1.0/28"])
    assert exact_rig.program.info.instructions > before.info.instructions

    exact_rig.apply(block=[])

    assert exact_rig.program is before


def test_flows_go_on_over_a_swap_of_programs(exact_rig: Rig) -> None:
    """The new program works on the same memory: an established flow stays while the ring changes with it."""
    exact_rig.apply(services=V4)
    chosen = expect_encapsulated(exact_rig.run(tcp(src="10.0.1.99")), tcp(src="10.0.1.99"))
    before = exact_rig.program
    drained = [{"address": b["address"], "weight": 0} for b in V4[0]["backends"]]

    exact_rig.apply(services=[service(backends=[*drained, "10.0.0.99"])], block=["10.0.1.0/28"])

    assert exact_rig.program is not before
    frame = tcp(src="10.0.1.99", flags="A")
    assert expect_encapsulated(exact_rig.run(frame), frame) == chosen


def test_another_interface_needs_a_feature(exact_rig: Rig) -> None:
    """Redirecting is compiled in once a next hop is behind another interface."""
    exact_rig.plane.ifindex = {BACKENDS6[0]: OUR_IFINDEX + 1}
    exact_rig.apply(services=[service(vip=VIP6, mode="l2", backends=BACKENDS6[:1])])

    assert "HAVE_REDIRECT" in exact_rig.program.build.features
    expect_rewritten(exact_rig.run(tcp(dst=VIP6)), tcp(dst=VIP6), BACKENDS6, verdict="REDIRECT_L2")


@pytest.mark.parametrize("size", [100, 3000, 5000, 9000])
def test_frames_in_several_buffers(frags_rig: Rig, size: int) -> None:
    """Frames that do not lie in one page are parsed, encapsulated and counted whole; their tail is never touched."""
    frags_rig.plane.mtu = 0
    frags_rig.apply(
        services=[service(), service("six", vip=VIP6, backends=BACKENDS6)],
        block=["192.0.2.0/24"],
        settings=NOBODY_IS_TOLD,
    )
    for vip in (VIP4, VIP6):
        frame = tcp(dst=vip) / bytes(n & 0xFF for n in range(size))
        expect_encapsulated(frags_rig.run(frame), frame)
        assert frags_rig.verdict(bytes(frame)[:-1]) == "DROP_TRUNCATED"
    assert frags_rig.verdict(tcp(src="192.0.2.9") / bytes(size)) == "DROP_BLOCKLIST"
    assert frags_rig.verdict(tcp(dport=81) / bytes(size)) == "PASS_NO_SERVICE"
    frags_rig.plane.mtu = 1500
    frags_rig.follow()
    expected = "TX_IPIP" if size < 1400 else "DROP_TOO_BIG"
    assert frags_rig.verdict(tcp(sport=5) / bytes(size)) == expected

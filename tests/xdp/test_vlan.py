"""802.1Q and QinQ: tags are stepped over whatever is inside, and kept on what is sent."""

import pytest
from frames import (
    BACKENDS4,
    BACKENDS6,
    LINK,
    TAGS,
    VIP4,
    VIP6,
    expect_encapsulated,
    expect_rewritten,
    network,
    service,
    tagged,
    tcp,
    udp,
    within,
)
from rig import Rig
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q
from scapy.packet import Packet

pytestmark = pytest.mark.root


@tagged
@pytest.mark.parametrize("vip", [VIP4, VIP6])
@pytest.mark.parametrize("backends", [BACKENDS4, BACKENDS6])
def test_tags_are_kept_when_encapsulated(rig: Rig, tags: Packet, vip: str, backends: tuple[str, ...]) -> None:
    """The frame leaves in the VLAN it came from, the last tag naming the outer header's family."""
    rig.apply(services=[service(vip=vip, backends=backends)])
    frame = within(tags, tcp(dst=vip))

    assert expect_encapsulated(rig.run(frame), frame) in backends


@tagged
@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_tags_are_kept_in_mode_l2(rig: Rig, tags: Packet, vip: str) -> None:
    """Only the MACs change."""
    backends = BACKENDS4 if vip == VIP4 else BACKENDS6
    rig.apply(services=[service(vip=vip, mode="l2", protocol="udp", backends=backends)])
    frame = within(tags, udp(dst=vip))

    expect_rewritten(rig.run(frame), frame, backends)


@tagged
def test_tags_do_not_hide_from_the_deny_list(rig: Rig, tags: Packet) -> None:
    """TCP, ICMP, fragments and unknown protocols of a blocked source are dropped within tags too."""
    rig.apply(services=[service()], block=["10.0.1.1", "fd00::/32"])

    for frame in (
        tcp(),
        tcp(dst=VIP6),
        LINK / network() / ICMP(),
        LINK / network(frag=5) / b"later",
        LINK / network(proto=132) / b"sctp",
        LINK / network(dst=VIP6) / IPv6ExtHdrFragment(offset=5) / b"later",
    ):
        assert rig.verdict(within(tags, frame)) == "DROP_BLOCKLIST"


@tagged
def test_what_is_inside_decides(rig: Rig, tags: Packet) -> None:
    """ARP, another port, ICMP and fragments end as they do without tags."""
    rig.apply(services=[service()])

    assert rig.verdict(LINK / tags / ARP()) == "PASS_NOT_IP"
    assert rig.verdict(within(tags, tcp(dport=81))) == "PASS_NO_SERVICE"
    assert rig.verdict(within(tags, LINK / network() / ICMP(type=13))) == "PASS_PROTOCOL"
    assert rig.verdict(within(tags, LINK / network(flags="MF") / UDP(dport=80) / bytes(8))) == "DROP_FRAGMENT"


@pytest.mark.parametrize("inside", [tcp().payload, ARP(), b"anything"])
def test_more_than_two_tags_are_dropped(rig: Rig, inside: Packet | bytes) -> None:
    """What is behind a third tag would be out of sight of the deny list."""
    rig.apply(services=[service()], block=["10.0.1.1"])
    three = LINK / Dot1AD(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3, type=0x0800)

    assert rig.verdict(three / inside) == "DROP_VLAN_DEPTH"


def test_the_same_flow_within_another_vlan(rig: Rig) -> None:
    """Tags are no part of a flow: the same tuple has the same backend in any VLAN."""
    rig.apply(services=[service()])
    plain = expect_encapsulated(rig.run(tcp()), tcp())

    for tags in TAGS.values():
        frame = within(tags, tcp(flags="A"))
        assert expect_encapsulated(rig.run(frame), frame) == plain

"""Mode l2: the two MACs change, and nothing else."""

import pytest
from frames import BACKENDS4, BACKENDS6, LINK, VIP4, VIP6, expect_rewritten, network, service, tcp, udp
from rig import OUR_IFINDEX, Rig
from scapy.layers.inet import TCP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt

pytestmark = pytest.mark.root

VIPS = {VIP4: BACKENDS4, VIP6: BACKENDS6}
vips = pytest.mark.parametrize("vip", VIPS)


@vips
def test_whole_frame(rig: Rig, vip: str) -> None:
    """Destination MAC is the backend's, source MAC ours; TTL, checksums, options, padding and data are untouched."""
    backends = VIPS[vip]
    web = service(vip=vip, mode="l2", backends=backends)
    rig.apply(services=[web, service("dns", vip=vip, mode="l2", protocol="udp", backends=backends)])
    ttl = {"ttl" if vip == VIP4 else "hlim": 1}
    frames = [
        tcp(dst=vip),
        udp(dst=vip),
        tcp(dst=vip, **ttl) / bytes(range(256)),
        bytes(udp(dst=vip)) + bytes(11),
        LINK / network(dst=vip) / TCP(sport=40000, dport=80, chksum=0xBAD),
    ]
    if vip == VIP4:
        frames.append(tcp(options=[IPOption_NOP()] * 8))
    else:
        frames.append(LINK / network(dst=vip) / IPv6ExtHdrDestOpt() / TCP(sport=40000, dport=80))

    for frame in frames:
        assert expect_rewritten(rig.run(frame), frame, backends) in backends


@vips
def test_both_modes_side_by_side(rig: Rig, vip: str) -> None:
    """The mode is the service's: one VIP with an l2 port and an ipip port."""
    backends = VIPS[vip]
    services = [
        service(vip=vip, mode="l2", backends=backends),
        service("tunnel", vip=vip, port=81, backends=backends),
    ]
    rig.apply(services=services)

    expect_rewritten(rig.run(tcp(dst=vip)), tcp(dst=vip), backends)
    assert rig.verdict(tcp(dst=vip, dport=81)) == "TX_IPIP"


@vips
def test_mode_that_changes(rig: Rig, vip: str) -> None:
    """A service switched to ipip and back keeps its flows' backends."""
    backends = VIPS[vip]
    rig.apply(services=[service(vip=vip, mode="l2", backends=backends)])
    chosen = expect_rewritten(rig.run(tcp(dst=vip)), tcp(dst=vip), backends)

    rig.apply(services=[service(vip=vip, backends=backends)])
    assert rig.verdict(tcp(dst=vip, flags="A")) == "TX_IPIP"

    rig.apply(services=[service(vip=vip, mode="l2", backends=backends)])
    frame = tcp(dst=vip, flags="A")
    assert expect_rewritten(rig.run(frame), frame, backends) == chosen


@vips
def test_backend_behind_another_interface(rig: Rig, vip: str) -> None:
    """The same rewrite, redirected."""
    backends = VIPS[vip]
    rig.plane.ifindex = dict.fromkeys(backends, OUR_IFINDEX + 3)
    rig.apply(services=[service(vip=vip, mode="l2", backends=backends)])

    expect_rewritten(rig.run(tcp(dst=vip)), tcp(dst=vip), backends, verdict="REDIRECT_L2")


@vips
def test_backend_behind_a_router_is_no_l2_backend(rig: Rig, vip: str) -> None:
    """By the router's MAC the packet, which keeps the VIP as its destination, would come straight back: dropped."""
    backends = VIPS[vip]
    rig.plane.behind_gateway = set(backends)
    tunnel = service("tunnel", vip=vip, port=81, backends=backends)
    rig.apply(services=[service(vip=vip, mode="l2", backends=backends), tunnel])

    assert rig.verdict(tcp(dst=vip)) == "DROP_NO_NEXT_HOP"
    assert rig.verdict(tcp(dst=vip, dport=81)) == "TX_IPIP"


@vips
def test_size_is_not_limited(rig: Rig, vip: str) -> None:
    """The frame does not grow, so a full-size one goes as it came in."""
    backends = VIPS[vip]
    rig.apply(services=[service(vip=vip, mode="l2", backends=backends)])
    frame = tcp(dst=vip) / bytes(1460 if vip == VIP4 else 1440)

    expect_rewritten(rig.run(frame), frame, backends)


@vips
def test_mac_that_changes_is_followed(rig: Rig, vip: str) -> None:
    """A flow stays with its backend while the way there is lost and found again."""
    backends = VIPS[vip]
    rig.apply(services=[service(vip=vip, mode="l2", backends=backends)])
    frames = [bytes(tcp(dst=vip, flags=flags)) for flags in "SA"]
    chosen = expect_rewritten(rig.run(frames[0]), frames[0], backends)

    rig.plane.unresolved = {chosen}
    rig.follow()
    assert rig.verdict(frames[1]) == "DROP_NO_NEXT_HOP"

    rig.plane.unresolved = set()
    rig.follow()
    assert expect_rewritten(rig.run(frames[1]), frames[1], backends) == chosen

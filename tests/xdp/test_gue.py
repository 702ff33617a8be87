"""Mode gue: whole frames, IP and UDP before the packet as it came (draft-ietf-intarea-gue, variant 1)."""

from ipaddress import ip_address

import pytest
from frames import (
    BACKENDS4,
    BACKENDS6,
    GUE_SOURCE_PORTS,
    LINK,
    VIP4,
    expect_encapsulated,
    expect_gue,
    expect_rewritten,
    families,
    from_tuple,
    gue_source_port,
    kinds,
    network,
    outer_addresses,
    ring_choice,
    service,
    tagged,
    tcp,
    udp,
    within,
)
from rig import OUR_IFINDEX, Rig
from scapy.layers.inet import TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Packet

pytestmark = pytest.mark.root


@kinds
def test_whole_frame(rig: Rig, vip: str, backends: tuple[str, ...]) -> None:
    """Outer IP header, UDP without a checksum, and the packet byte for byte; the ring's choice as in mode ipip."""
    web = service(vip=vip, mode="gue", backends=backends)
    rig.apply(services=[web, service("dns", vip=vip, protocol="udp", mode="gue", backends=backends)])

    for frame in (tcp(dst=vip), udp(dst=vip), tcp(dst=vip, flags="PA") / bytes(range(256))):
        assert expect_gue(rig.run(frame), frame) in backends
    source = bytes(tcp(dst=vip))[26:30] if vip == VIP4 else bytes(tcp(dst=vip))[22:38]
    assert expect_gue(rig.run(tcp(dst=vip)), tcp(dst=vip)) == ring_choice(web, source, 40000, 80)


@families
def test_backends_of_both_families_and_services_of_all_modes(rig: Rig, vip: str) -> None:
    """Each service's packets leave by its own mode, each backend's with a header of its family."""
    backends = BACKENDS4 if vip == VIP4 else BACKENDS6
    rig.apply(
        services=[
            service(vip=vip, mode="gue", backends=(*BACKENDS4, *BACKENDS6)),
            service("ipip", vip=vip, port=81, backends=backends),
            service("l2", vip=vip, port=82, mode="l2", backends=backends),
        ]
    )
    frames = [tcp(dst=vip, sport=port) for port in range(1000, 1060)]

    assert {expect_gue(rig.run(f), f) for f in frames} == {*BACKENDS4, *BACKENDS6}
    expect_encapsulated(rig.run(tcp(dst=vip, dport=81)), tcp(dst=vip, dport=81))
    expect_rewritten(rig.run(tcp(dst=vip, dport=82)), tcp(dst=vip, dport=82), backends)


@tagged
@kinds
def test_tags_are_kept(rig: Rig, tags: Packet, vip: str, backends: tuple[str, ...]) -> None:
    """The frame leaves in the VLAN it came from."""
    rig.apply(services=[service(vip=vip, mode="gue", backends=backends)])
    frame = within(tags, tcp(dst=vip))

    expect_gue(rig.run(frame), frame)


@kinds
def test_source_port_spreads_by_flow(rig: Rig, vip: str, backends: tuple[str, ...]) -> None:
    """Flows come from many ports, one flow always from the same, all within the dynamic range; the outer source too."""
    rig.apply(services=[service(vip=vip, mode="gue", backends=backends[:1])])
    frame = bytes(tcp(dst=vip))
    client = frame[26:30] if vip == VIP4 else frame[22:38]
    by_port = [from_tuple(frame, client, port) for port in range(30000, 30256)]
    by_client = [from_tuple(frame, client[:-1] + bytes([n]), 40000) for n in range(256)]

    for frames in (by_port, by_client):
        outs = [rig.run(f).frame_out for f in frames]
        ports = [gue_source_port(out) for out in outs]
        assert [gue_source_port(rig.run(f).frame_out) for f in frames] == ports
        assert len(set(ports)) > 240
        assert len({port & 7 for port in ports}) == 8
        assert set(ports) <= set(GUE_SOURCE_PORTS)
        # The same sixteen bits: the outer source ends in all of them, the port in the upper fourteen.
        spreads = [int(ip_address(outer_addresses(out)[0])) & 0xFFFF for out in outs]
        assert ports == [49152 + spread // 4 for spread in spreads]


@kinds
@pytest.mark.parametrize("port", [256, 65535])
def test_destination_port_is_a_setting(rig: Rig, vip: str, backends: tuple[str, ...], port: int) -> None:
    """The backend's port is the configured one."""
    rig.apply(services=[service(vip=vip, mode="gue", backends=backends)], settings={"gue_port": port})

    expect_gue(rig.run(tcp(dst=vip)), tcp(dst=vip), port=port)


@kinds
def test_outer_source_keeps_to_the_configured_prefix(rig: Rig, vip: str, backends: tuple[str, ...]) -> None:
    """As in mode ipip."""
    rig.apply(services=[service(vip=vip, mode="gue", backends=backends)])
    rig.apply(settings={"encap_source_ipv4": "192.0.2.0/24", "encap_source_ipv6": "2001:db8:1:2:3:4::/96"})

    for port in range(20000, 20050):
        frame = tcp(dst=vip, sport=port)
        expect_gue(rig.run(frame), frame, source4="192.0.2.0/24", source6="2001:db8:1:2:3:4::/96")


@kinds
def test_traffic_class_and_padding(rig: Rig, vip: str, backends: tuple[str, ...]) -> None:
    """DSCP and ECN go out as they came; padding stays in the frame, and neither outer length counts it."""
    rig.apply(services=[service(vip=vip, mode="gue", protocol="udp", backends=backends)])

    for value in (0, 1, 0x8C, 0xFF):
        frame = udp(dst=vip, **{"tos" if vip == VIP4 else "tc": value})
        for padding in (0, 1, 6, 100):
            outcome = rig.run(bytes(frame) + bytes(padding))
            expect_gue(outcome, bytes(frame) + bytes(padding))
            said = Ether(outcome.frame_out)[UDP].len
            assert said == len(bytes(frame)) - 14 + 8


@families
def test_options_and_extensions_are_carried(rig: Rig, vip: str) -> None:
    """The packet inside is the one that came, with its IPv4 options or IPv6 extension headers."""
    rig.apply(services=[service(vip=vip, mode="gue")])
    ip = network(options=[IPOption_NOP()] * 8) if vip == VIP4 else network(dst=vip) / IPv6ExtHdrDestOpt()
    frame = LINK / ip / TCP(sport=40000, dport=80, flags="S")

    expect_gue(rig.run(frame), frame)


@kinds
@pytest.mark.parametrize("mtu", [1500, 1300])
def test_too_big_counts_the_udp_header(rig: Rig, vip: str, backends: tuple[str, ...], mtu: int) -> None:
    """Eight bytes more than IP-in-IP: what just fits goes, one byte more is answered with the MTU that would do."""
    rig.plane.mtu = mtu
    rig.apply(services=[service(vip=vip, mode="gue", protocol="udp", backends=backends)])
    room = mtu - (20 if backends is BACKENDS4 else 40) - 8
    fits = udp(dst=vip)
    fits = fits / bytes(room - (len(bytes(fits)) - 14))

    expect_gue(rig.run(fits), fits)
    outcome = rig.run(fits / b"1")
    assert outcome.verdict == "TX_TOO_BIG"
    at = 14 + (20 if vip == VIP4 else 40) + 4
    assert int.from_bytes(outcome.frame_out[at : at + 4], "big") == room


@kinds
def test_backend_behind_another_interface(rig: Rig, vip: str, backends: tuple[str, ...]) -> None:
    """The same frame, redirected."""
    rig.plane.ifindex = dict.fromkeys(backends, OUR_IFINDEX + 1)
    rig.apply(services=[service(vip=vip, mode="gue", backends=backends)])

    assert expect_gue(rig.run(tcp(dst=vip)), tcp(dst=vip), verdict="REDIRECT_GUE") in backends


@kinds
def test_no_room_before_the_frame(rig: Rig, vip: str, backends: tuple[str, ...]) -> None:
    """A driver that leaves too little headroom: dropped with that reason, and the frame is as it was."""
    rig.apply(services=[service(vip=vip, mode="gue", backends=backends)])

    assert rig.run(tcp(dst=vip), metadata=128).verdict == "TX_GUE"
    assert rig.run(tcp(dst=vip), metadata=212).verdict == "DROP_NO_HEADROOM"


@families
def test_program_has_gue_alone(exact_rig: Rig, vip: str) -> None:
    """A program that knows no other mode makes the same frames; with a second mode beside it, both are right."""
    gue = service(vip=vip, mode="gue")
    exact_rig.apply(services=[gue])
    assert exact_rig.program.build.features & {"HAVE_GUE", "HAVE_IPIP", "HAVE_L2"} == {"HAVE_GUE"}
    expect_gue(exact_rig.run(tcp(dst=vip)), tcp(dst=vip))

    exact_rig.apply(services=[gue, service("ipip", vip=vip, port=81)])
    expect_gue(exact_rig.run(tcp(dst=vip)), tcp(dst=vip))
    expect_encapsulated(exact_rig.run(tcp(dst=vip, dport=81)), tcp(dst=vip, dport=81))


@pytest.mark.parametrize("size", [3000, 9000])
@families
def test_frames_in_several_buffers(frags_rig: Rig, vip: str, size: int) -> None:
    """Frames that do not lie in one page are sent whole."""
    frags_rig.plane.mtu = 0
    frags_rig.apply(services=[service(vip=vip, mode="gue")])
    frame = tcp(dst=vip) / bytes(n & 0xFF for n in range(size))

    expect_gue(frags_rig.run(frame), frame)


@families
def test_flow_stays_while_the_ring_changes(rig: Rig, vip: str) -> None:
    """A flow keeps its backend by the table, as in the other modes."""
    rig.apply(services=[service(vip=vip, mode="gue")])
    chosen = expect_gue(rig.run(tcp(dst=vip)), tcp(dst=vip))
    drained = [{"address": b, "weight": 0} for b in BACKENDS4]

    rig.apply(services=[service(vip=vip, mode="gue", backends=[*drained, "10.0.0.99"])])

    assert expect_gue(rig.run(tcp(dst=vip, flags="A")), tcp(dst=vip, flags="A")) == chosen
    fresh = tcp(dst=vip, sport=9)
    assert expect_gue(rig.run(fresh), fresh) == "10.0.0.99"

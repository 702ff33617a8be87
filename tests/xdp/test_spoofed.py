"""Stage admit: sources that can be no client's are dropped, after the lists, unless the setting is off."""

import pytest
from frames import (
    CLIENT4,
    CLIENT6,
    ELSE4,
    ELSE6,
    LINK,
    VIP4,
    VIP6,
    expect_encapsulated,
    network,
    service,
    tagged,
    tcp,
    udp,
    within,
)
from rig import Rig
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP
from scapy.packet import Packet

pytestmark = pytest.mark.root

OTHER4, OTHER6, PREFIX6 = "10.200.1.2", "fc00:1::2", "fc00:7:8::/64"
SERVICES = [
    service("web"),
    service("dns", vip=OTHER4, protocol="udp", port=53),
    service("web6", vip=VIP6),
    service("dns6", vip=OTHER6, protocol="udp", port="any"),
    service("net6", vip=PREFIX6),
]
SPOOFED4 = {
    "0/8, first": "0.0.0.0",
    "0/8, last": "0.255.255.255",
    "loopback": "127.0.0.1",
    "loopback, last": "127.255.255.255",
    "multicast, first": "224.0.0.0",
    "multicast": "232.1.2.3",
    "multicast, last": "239.255.255.255",
    "the VIP itself": VIP4,
    "another VIP": OTHER4,
}
SPOOFED6 = {
    "unspecified": "::",
    "loopback": "::1",
    "multicast, first": "ff00::",
    "multicast": "ff02::1",
    "multicast, last": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "the VIP itself": VIP6,
    "another VIP": OTHER6,
    "in a VIP prefix, first": "fc00:7:8::",
    "in a VIP prefix, last": "fc00:7:8:0:ffff:ffff:ffff:ffff",
}
SPOOFED = [(VIP4, s) for s in SPOOFED4.values()] + [(VIP6, s) for s in SPOOFED6.values()]
ANYBODY = [
    *((VIP4, s) for s in ("1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255", "240.0.0.0")),
    *((VIP4, s) for s in ("255.255.255.255", "10.200.1.3", "10.200.0.1", "1.1.200.10")),
    *((VIP6, s) for s in ("::2", "::1:0", "::1:0:1", "1::", "1::1", "0:1::1", "feff::1", "fe80::1")),
    *((VIP6, s) for s in ("fc00:1::3", "fc00:7:7:ffff:ffff:ffff:ffff:ffff", "fc00:7:8:1::")),
]


@pytest.fixture
def web(rig: Rig) -> Rig:
    """VIPs of both families, and a VIP prefix."""
    rig.apply(services=SERVICES)
    return rig


def every_kind(vip: str, source: str) -> list[Packet]:
    """Packets of every sort from this source: for services, VIPs, others, fragments, ICMP, unknown protocols."""
    other = ELSE4 if vip == VIP4 else ELSE6
    kinds = [tcp(src=source, dst=vip), tcp(src=source, dst=other), udp(src=source, dst=vip, dport=9)]
    if vip == VIP4:
        return [
            *kinds,
            LINK / network(source) / ICMP(),
            LINK / network(source, other) / ICMP(),
            LINK / network(source, flags="MF") / UDP(dport=80) / bytes(8),
            LINK / network(source, frag=7) / bytes(8),
            LINK / network(source, other, proto=132) / bytes(12),
        ]
    return [
        *kinds,
        LINK / network(source, vip) / ICMPv6EchoRequest(),
        LINK / network(source, vip) / IPv6ExtHdrFragment(offset=9) / bytes(8),
        LINK / network(source, vip) / IPv6ExtHdrHopByHop() / UDP(dport=80),
        LINK / network(source, other, nh=132) / bytes(12),
    ]


@pytest.mark.parametrize(("vip", "source"), SPOOFED)
def test_source_that_is_nobodys_is_dropped(web: Rig, vip: str, source: str) -> None:
    """Whatever it sends, and wherever to: dropped by name, and no flow is remembered."""
    for frame in every_kind(vip, source):
        assert web.verdict(frame) == "DROP_SPOOFED", frame.summary()

    assert not web.flows["tag_backend"].any()


@pytest.mark.parametrize(("vip", "source"), ANYBODY)
def test_source_beside_those_is_a_client(web: Rig, vip: str, source: str) -> None:
    """Addresses just outside of what nobody has are forwarded."""
    frame = tcp(src=source, dst=vip)

    expect_encapsulated(web.run(frame), frame)


@tagged
@pytest.mark.parametrize(("vip", "source"), [(VIP4, "127.0.0.1"), (VIP6, "::1"), (VIP6, OTHER6)])
def test_tags_do_not_hide_it(web: Rig, tags: Packet, vip: str, source: str) -> None:
    """Within VLAN tags all the same."""
    assert web.verdict(within(tags, tcp(src=source, dst=vip))) == "DROP_SPOOFED"


@pytest.mark.parametrize(("vip", "source"), SPOOFED)
def test_setting_off(rig: Rig, vip: str, source: str) -> None:
    """With drop_spoofed off these are sources like any other; on again, they are dropped."""
    frame = tcp(src=source, dst=vip)
    rig.apply(services=SERVICES, settings={"drop_spoofed": False})
    expect_encapsulated(rig.run(frame), frame)

    rig.apply(settings={"drop_spoofed": True})

    assert rig.verdict(frame) == "DROP_SPOOFED"


@pytest.mark.parametrize(
    ("vip", "source", "block"), [(VIP4, "127.0.0.1", "127.0.0.0/8"), (VIP6, "::1", "::/64")]
)
def test_lists_come_first(web: Rig, vip: str, source: str, block: str) -> None:
    """Blocked, it counts as blocked; allowed, it is dropped all the same; a count-only entry counts it first."""
    frame = tcp(src=source, dst=vip)
    web.apply(block=[block])
    assert web.verdict(frame) == "DROP_BLOCKLIST"

    web.apply(allow=[source])
    assert web.verdict(frame) == "DROP_SPOOFED"

    web.apply(allow=[], block=[{"prefix": block, "action": "count"}])
    assert web.verdict(frame) == "DROP_SPOOFED"
    assert web.hits(block).packets == 1


def test_vip_that_comes_and_goes(rig: Rig) -> None:
    """An address is spoofed as a source for as long as it is a VIP, also one within a prefix."""
    frames = {VIP4: tcp(src=OTHER4), VIP6: tcp(src="fc00:7:8::99", dst=VIP6)}
    two = [service("web"), service("web6", vip=VIP6)]
    for services, verdict in ((two, "TX_IPIP"), (SERVICES, "DROP_SPOOFED"), (two, "TX_IPIP")):
        rig.apply(services=services)
        assert [rig.verdict(f) for f in frames.values()] == [verdict, verdict]


def test_what_is_not_ip_has_no_source(web: Rig) -> None:
    """ARP that names a VIP or nobody (a probe, RFC 5227) is left to the kernel."""
    for source in ("0.0.0.0", VIP4, CLIENT4):
        assert web.verdict(LINK / ARP(psrc=source, pdst=ELSE4)) == "PASS_NOT_IP"


def test_without_services(rig: Rig) -> None:
    """Sources of nobody are dropped from the start; VIPs there are none."""
    assert rig.verdict(tcp(src="127.0.0.1", dst=ELSE4)) == "DROP_SPOOFED"
    assert rig.verdict(tcp(src="::1", dst=ELSE6)) == "DROP_SPOOFED"
    assert rig.verdict(tcp(src=VIP4, dst=ELSE4)) == "PASS_NO_SERVICE"
    assert rig.verdict(tcp(src=CLIENT6, dst=ELSE6)) == "PASS_NO_SERVICE"


CHECKED = service("web", health_check={"type": "tcp"})


@pytest.mark.parametrize(("vip", "other"), [(VIP4, ELSE4), (VIP6, ELSE6)])
def test_answers_to_checks_pass(rig: Rig, vip: str, other: str) -> None:
    """While backends are checked through the data path, what a VIP sends to a check's port of ours passes."""
    rig.apply(services=[CHECKED, *SERVICES[1:]])
    for port, verdict in (
        (60999, "DROP_SPOOFED"),
        (61000, "PASS_NO_SERVICE"),
        (64999, "PASS_NO_SERVICE"),
        (65000, "DROP_SPOOFED"),
    ):
        assert rig.verdict(tcp(src=vip, dst=other, dport=port)) == verdict
        assert rig.verdict(udp(src=vip, dst=other, dport=port)) == verdict

    rig.apply(services=[service("web", health_check={"type": "tcp", "via": "direct"}), *SERVICES[1:]])
    assert rig.verdict(tcp(src=vip, dst=other, dport=61000)) == "DROP_SPOOFED"


def test_only_answers_to_checks_pass(rig: Rig) -> None:
    """To a VIP, without ports, from a source that is nobody's, or blocked: nothing of that passes for an answer."""
    rig.apply(services=[CHECKED, *SERVICES[1:]])

    assert rig.verdict(tcp(src=VIP4, dst=OTHER4, dport=61000)) == "DROP_SPOOFED"
    assert rig.verdict(tcp(src="127.0.0.1", dst=ELSE4, dport=61000)) == "DROP_SPOOFED"
    assert rig.verdict(LINK / network(VIP4, ELSE4) / ICMP()) == "DROP_SPOOFED"
    assert rig.verdict(LINK / network(VIP4, ELSE4, proto=17, frag=3) / b"12345678") == "DROP_SPOOFED"
    rig.apply(block=[VIP4])
    assert rig.verdict(tcp(src=VIP4, dst=ELSE4, dport=61000)) == "DROP_BLOCKLIST"

"""Fragments: dropped for a VIP, since only the first says the port; passed elsewhere; the deny list comes first."""

import pytest
from frames import ELSE4, ELSE6, LINK, VIP4, VIP6, expect_encapsulated, network, service, tcp
from rig import Rig
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.packet import Packet, Raw

pytestmark = pytest.mark.root

DATA = Raw(bytes(64))
SERVICES = [service("web4", protocol="udp"), service("web6", vip=VIP6, protocol="udp")]


def fragments(vip: str) -> dict[str, Packet]:
    """Every kind of fragment for an address."""
    datagram = UDP(sport=40000, dport=80) / DATA
    if vip in (VIP4, ELSE4):
        return {
            "first": LINK / network(dst=vip, flags="MF") / datagram,
            "middle": LINK / network(dst=vip, flags="MF", frag=9, proto=17) / DATA,
            "last": LINK / network(dst=vip, frag=17, proto=17) / DATA,
            "furthest": LINK / network(dst=vip, frag=0x1FFF, proto=17) / DATA,
            "first of TCP": LINK / network(dst=vip, flags="MF") / TCP(dport=80) / DATA,
            "first of ICMP": LINK / network(dst=vip, flags="MF") / ICMP() / DATA,
            "last of ICMP": LINK / network(dst=vip, frag=3, proto=1) / DATA,
            "last, of no bytes": LINK / network(dst=vip, frag=3, proto=17),
            "DF and MF": LINK / network(dst=vip, flags="DF+MF") / datagram,
        }
    return {
        "first": LINK / network(dst=vip) / IPv6ExtHdrFragment(m=1) / datagram,
        "middle": LINK / network(dst=vip) / IPv6ExtHdrFragment(m=1, offset=9, nh=17) / DATA,
        "last": LINK / network(dst=vip) / IPv6ExtHdrFragment(offset=17, nh=17) / DATA,
        "furthest": LINK / network(dst=vip) / IPv6ExtHdrFragment(offset=0x1FFF, nh=17) / DATA,
        "first of TCP": LINK / network(dst=vip) / IPv6ExtHdrFragment(m=1) / TCP(dport=80) / DATA,
        "first, behind hop-by-hop": LINK
        / network(dst=vip)
        / IPv6ExtHdrHopByHop()
        / IPv6ExtHdrFragment(m=1)
        / datagram,
        "first, before options": LINK
        / network(dst=vip)
        / IPv6ExtHdrFragment(m=1)
        / IPv6ExtHdrDestOpt()
        / datagram,
        "last, behind hop-by-hop": LINK
        / network(dst=vip)
        / IPv6ExtHdrHopByHop()
        / IPv6ExtHdrFragment(offset=9, nh=17)
        / DATA,
        "later, of an extension": LINK / network(dst=vip) / IPv6ExtHdrFragment(offset=1, m=1, nh=60) / DATA,
    }


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_fragments_for_a_vip_are_dropped(rig: Rig, vip: str) -> None:
    """First, middle and last alike, of whatever protocol: half a datagram is of use to no backend."""
    rig.apply(services=SERVICES)

    verdicts = {name: rig.verdict(frame) for name, frame in fragments(vip).items()}

    assert verdicts == dict.fromkeys(verdicts, "DROP_FRAGMENT")


@pytest.mark.parametrize("address", [ELSE4, ELSE6])
def test_fragments_for_other_addresses_pass(rig: Rig, address: str) -> None:
    """The kernel puts them together."""
    rig.apply(services=SERVICES)

    verdicts = {name: rig.verdict(frame) for name, frame in fragments(address).items()}

    assert verdicts == dict.fromkeys(verdicts, "PASS_FRAGMENT")


@pytest.mark.parametrize("address", [VIP4, VIP6, ELSE4, ELSE6])
def test_fragments_of_a_blocked_source_are_dropped(rig: Rig, address: str) -> None:
    """The deny list is asked before anything else, and the allowlist overrules it for fragments too."""
    rig.apply(services=SERVICES, block=["10.0.1.0/24", "fd00::/32"])

    verdicts = {name: rig.verdict(frame) for name, frame in fragments(address).items()}

    assert verdicts == dict.fromkeys(verdicts, "DROP_BLOCKLIST")
    rig.apply(allow=["10.0.1.1", "fd00::/64", "fd00:0:0:1::1"])
    allowed = {rig.verdict(frame) for frame in fragments(address).values()}
    assert allowed == {"DROP_FRAGMENT" if address in (VIP4, VIP6) else "PASS_FRAGMENT"}


@pytest.mark.parametrize(("address", "other"), [(VIP4, ELSE4), (VIP6, ELSE6)])
def test_an_address_is_a_vip_while_a_service_has_it(rig: Rig, address: str, other: str) -> None:
    """Two services on one VIP: its fragments are dropped until the last of them is gone, and of no other address."""
    web, dns = service("web", vip=address), service("dns", vip=address, protocol="udp", port="any")

    for services, verdict in (([web, dns], "DROP_FRAGMENT"), ([dns], "DROP_FRAGMENT"), ([], "PASS_FRAGMENT")):
        rig.apply(services=services)
        assert rig.verdict(fragments(address)["last"]) == verdict
        assert rig.verdict(fragments(other)["last"]) == "PASS_FRAGMENT"


@pytest.mark.parametrize("flags", [0, "DF", "evil", "evil+DF"])
def test_no_fragment_by_other_flags(rig: Rig, flags: int | str) -> None:
    """Don't fragment, and the reserved bit, make no fragment."""
    rig.apply(services=[service()])
    frame = tcp(flags="S")
    frame.payload.flags = flags
    frame = type(frame)(bytes(frame))

    expect_encapsulated(rig.run(frame), frame)


@pytest.mark.parametrize("address", [VIP4, ELSE4])
def test_first_fragment_without_its_transport_header(rig: Rig, address: str) -> None:
    """A first fragment too short for its TCP header is a trick, and dropped (RFC 1858)."""
    rig.apply(services=SERVICES)

    assert (
        rig.verdict(LINK / network(dst=address, flags="MF", proto=6) / bytes(TCP(dport=80))[:16])
        == "DROP_TRUNCATED"
    )
    assert (
        rig.verdict(LINK / network(dst=address, flags="MF", proto=17) / bytes(UDP(dport=80))[:4])
        == "DROP_TRUNCATED"
    )


def test_later_fragments_are_not_read_for_ports(rig: Rig) -> None:
    """Bytes of a later fragment that look like a TCP header with a bad data offset are data."""
    rig.apply(services=SERVICES)
    data = bytes(TCP(dport=80, dataofs=1))

    assert rig.verdict(LINK / network(dst=ELSE4, frag=2, proto=6) / data) == "PASS_FRAGMENT"
    assert (
        rig.verdict(LINK / network(dst=ELSE6) / IPv6ExtHdrFragment(offset=2, nh=6) / data) == "PASS_FRAGMENT"
    )


def test_dropped_fragments_leave_no_flow(rig: Rig) -> None:
    """A fragment is no flow, and is not counted as one."""
    rig.apply(services=SERVICES)

    for frame in (*fragments(VIP4).values(), *fragments(VIP6).values()):
        rig.run(frame)

    assert not rig.flows["tag_backend"].any()
    assert rig.reconciler.counters().flow_table.misses == 0

"""Stage icmp: errors for a VIP go where the flow goes that they quote; what quotes none is left to the kernel."""

from typing import Any

import pytest
from flow_table import make_older, slots, stats
from frames import (
    BACKENDS4,
    BACKENDS6,
    CLIENT4,
    CLIENT6,
    ELSE4,
    ELSE6,
    LINK,
    VIP4,
    VIP6,
    expect_encapsulated,
    expect_rewritten,
    families,
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
from rig import Rig
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet

from lb.reconcile.observed import FlowTableStats

pytestmark = pytest.mark.root

ROUTER4, ROUTER6 = "192.0.2.254", "2001:db8::fe"
CLIENT = {VIP4: CLIENT4, VIP6: CLIENT6}
ERRORS4 = {
    "unreachable": ICMP(type=3, code=1),
    "fragmentation needed": ICMP(type=3, code=4, nexthopmtu=1400),
    "time exceeded": ICMP(type=11),
    "parameter problem": ICMP(type=12, ptr=8),
}
ERRORS6 = {
    "unreachable": ICMPv6DestUnreach(code=3),
    "packet too big": ICMPv6PacketTooBig(mtu=1400),
    "time exceeded": ICMPv6TimeExceeded(),
    "parameter problem": ICMPv6ParamProblem(code=1),
}
ERRORS = [*((VIP4, name) for name in ERRORS4), *((VIP6, name) for name in ERRORS6)]


def services(backends: Any = BACKENDS4, **more: Any) -> list[dict[str, Any]]:
    """TCP and UDP port 80 of both VIPs."""
    return [
        service(f"{protocol}{n}", vip=vip, protocol=protocol, backends=backends, **more)
        for n, vip in ((4, VIP4), (6, VIP6))
        for protocol in ("tcp", "udp")
    ]


@pytest.fixture
def web(rig: Rig) -> Rig:
    """TCP and UDP services on both VIPs, with three backends."""
    rig.apply(services=services())
    return rig


def quote(vip: str, sport: int = 40000, protocol: str = "tcp", dport: int = 80, **ip: Any) -> Packet:
    """A packet of the VIP's backend to the client, as a router quotes it."""
    kind = TCP if protocol == "tcp" else UDP
    header = {"tcp": {"flags": "A"}, "udp": {}}[protocol]
    return network(vip, CLIENT[vip], **ip) / kind(sport=dport, dport=sport, **header) / b"what was said"


def error(vip: str, quoted: Packet | bytes, name: str = "time exceeded") -> Packet:
    """A router's ICMP error about it, to the VIP."""
    if vip == VIP6:
        return LINK / IPv6(src=ROUTER6, dst=VIP6, tc=0x8C) / ERRORS6[name] / quoted
    return LINK / IP(src=ROUTER4, dst=VIP4, tos=0x8C) / ERRORS4[name] / quoted


def only(*backends: str) -> list[dict[str, Any]]:
    """All three known, but these alone take new flows."""
    return [{"address": b, "weight": int(b in backends)} for b in BACKENDS4]


def go(rig: Rig, frame: Any) -> str:
    """The backend that a frame goes to."""
    return expect_encapsulated(rig.run(frame), frame)


@pytest.mark.parametrize(("vip", "name"), ERRORS)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_error_goes_to_its_flows_backend(web: Rig, vip: str, name: str, protocol: str) -> None:
    """Where the table has the flow, though the ring has none of its backend any more; the error is sent unchanged."""
    packet = {"tcp": tcp, "udp": udp}[protocol]
    olds = {port: go(web, packet(dst=vip, sport=port)) for port in range(1000, 1030)}
    web.apply(services=services(only(BACKENDS4[0])))

    news = {port: go(web, error(vip, quote(vip, port, protocol), name)) for port in olds}

    assert news == olds
    assert set(olds.values()) == set(BACKENDS4)


@kinds
def test_whole_frame(rig: Rig, vip: str, backends: tuple[str, ...]) -> None:
    """The outer header is of the backend's family and spreads by the quoted flow, as that flow's own packets do."""
    rig.apply(services=services(backends))
    outers = set()
    for port in range(1000, 1030):
        own = rig.run(tcp(dst=vip, sport=port)).frame_out
        frame = error(vip, quote(vip, port))
        outcome = rig.run(frame)
        expect_encapsulated(outcome, frame)
        assert outer_addresses(outcome.frame_out) == outer_addresses(own)
        outers.add(outer_addresses(own)[0])

    assert len(outers) > 25


@families
def test_mode_l2(rig: Rig, vip: str) -> None:
    """Only the MACs change."""
    backends = BACKENDS4 if vip == VIP4 else BACKENDS6
    rig.apply(services=[service(vip=vip, mode="l2", backends=backends)])

    chosen = expect_rewritten(rig.run(tcp(dst=vip)), tcp(dst=vip), backends)

    assert expect_rewritten(rig.run(error(vip, quote(vip))), error(vip, quote(vip)), backends) == chosen


@tagged
@families
def test_tags_are_kept(web: Rig, tags: Packet, vip: str) -> None:
    """The error is found behind VLAN tags, and leaves with them."""
    chosen = go(web, tcp(dst=vip))

    assert go(web, within(tags, error(vip, quote(vip)))) == chosen


@families
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_unknown_flow_goes_by_the_ring(web: Rig, vip: str, protocol: str) -> None:
    """Where a packet of the quoted flow would go; it is counted as a miss, and nothing is remembered."""
    document = service(vip=vip, protocol=protocol)
    source = bytes(tcp(dst=vip))[26:30] if vip == VIP4 else bytes(tcp(dst=vip))[22:38]

    for port in range(1000, 1040):
        frame = error(vip, quote(vip, port, protocol))
        assert go(web, frame) == ring_choice(document, source, port, 80)
        assert go(web, frame) == ring_choice(document, source, port, 80)

    assert slots(web) == []
    assert stats(web) == FlowTableStats(misses=80)


@families
def test_client_that_counts_is_the_quoted_one(rig: Rig, vip: str) -> None:
    """With affinity by source, an error goes where its client's packets go, not where its router's would."""
    rig.apply(services=[service(vip=vip, affinity="source")])
    clients = [f"10.0.1.{n}" if vip == VIP4 else f"fd00:0:0:1::{n:x}" for n in range(1, 60)]
    reached = {client: go(rig, tcp(src=client, dst=vip)) for client in clients}
    rig.flows["tag_backend"][:] = 0

    for client, chosen in reached.items():
        quoted = network(vip, client) / TCP(sport=80, dport=40000)
        assert go(rig, error(vip, quoted)) == chosen

    assert set(reached.values()) == set(BACKENDS4)


@families
def test_entry_is_neither_changed_nor_refreshed(web: Rig, vip: str) -> None:
    """Errors keep no flow alive: a newcomer stays a newcomer, a stamp stays, an idle flow asks the ring."""
    chosen = go(web, udp(dst=vip))
    make_older(web, 20)
    (before,) = slots(web)

    assert go(web, error(vip, quote(vip, protocol="udp"))) == chosen
    assert slots(web) == [before]

    (other,) = sorted(set(BACKENDS4) - {chosen})[:1]
    web.apply(services=services(only(other)))
    make_older(web, 12)
    (before,) = slots(web)
    assert go(web, error(vip, quote(vip, protocol="udp"))) == other
    assert slots(web) == [before]


@families
def test_quoted_opening_is_not_one(web: Rig, vip: str) -> None:
    """The flags of a quoted TCP header mean nothing: the flow stays where it is known."""
    chosen = go(web, tcp(dst=vip))
    (other,) = sorted(set(BACKENDS4) - {chosen})[:1]
    web.apply(services=services(only(other)))

    for flags in ("S", "SA", "R", "FA"):
        quoted = network(vip, CLIENT[vip]) / TCP(sport=80, dport=40000, flags=flags)
        assert go(web, error(vip, quoted)) == chosen
    assert len(slots(web)) == 1


@families
def test_backend_that_is_gone_or_unknown(web: Rig, vip: str) -> None:
    """An error has its flow's fate: another backend once its own is disabled, none, or no next hop."""
    chosen = go(web, tcp(dst=vip))
    disabled = [{"address": b, **({"admin_state": "disabled"} if b == chosen else {})} for b in BACKENDS4]
    web.apply(services=services(disabled))
    assert go(web, error(vip, quote(vip))) in set(BACKENDS4) - {chosen}

    web.apply(services=services([]))
    assert web.verdict(error(vip, quote(vip))) == "DROP_NO_BACKEND"

    web.apply(services=services())
    web.plane.unresolved = set(BACKENDS4)
    web.follow()
    assert web.verdict(error(vip, quote(vip))) == "DROP_NO_NEXT_HOP"


@families
def test_error_that_is_too_big_gets_no_answer(web: Rig, vip: str) -> None:
    """No error is sent about an error (RFC 1122)."""
    web.plane.mtu = 1400
    web.follow()

    assert web.verdict(tcp(dst=vip) / bytes(1400)) == "TX_TOO_BIG"
    assert web.verdict(error(vip, bytes(quote(vip)) + bytes(1400))) == "DROP_TOO_BIG"


@families
def test_the_blocklist_asks_who_sent_it(web: Rig, vip: str) -> None:
    """The router that is blocked is dropped; that the quoted client is blocked says nothing of the router."""
    router, client = (ROUTER4, CLIENT4) if vip == VIP4 else (ROUTER6, CLIENT6)

    web.apply(block=[router])
    assert web.verdict(error(vip, quote(vip))) == "DROP_BLOCKLIST"

    web.apply(block=[client])
    assert web.verdict(error(vip, quote(vip))) == "TX_IPIP"


FORWARDED: dict[str, Packet] = {
    "options in the quote": error(VIP4, quote(VIP4, options=[IPOption_NOP()] * 8)),
    "first fragment quoted": error(VIP4, quote(VIP4, flags="MF")),
    "eight bytes of TCP quoted": error(VIP4, bytes(quote(VIP4))[:28]),
    "four bytes of TCP quoted": error(VIP4, bytes(quote(VIP4))[:24]),
    "four bytes of TCP quoted, IPv6": error(VIP6, bytes(quote(VIP6))[:44]),
    "options before ICMP": LINK
    / IP(src=ROUTER4, dst=VIP4, options=[IPOption_NOP()] * 8)
    / ICMP(type=11)
    / quote(VIP4),
    "an extension before ICMPv6": LINK
    / IPv6(src=ROUTER6, dst=VIP6)
    / IPv6ExtHdrDestOpt()
    / ICMPv6TimeExceeded()
    / quote(VIP6),
    "from the client itself": LINK / network() / ICMP(type=3, code=3) / quote(VIP4, protocol="udp"),
}


@pytest.mark.parametrize("name", FORWARDED)
def test_quote_that_says_enough(web: Rig, name: str) -> None:
    """A whole IP header and four bytes of TCP or UDP are enough, wherever they begin."""
    chosen = go(web, udp() if "client" in name else tcp(dst=VIP6 if "6" in name else VIP4))

    assert go(web, FORWARDED[name]) == chosen


NOTHING_KNOWN: dict[str, Packet] = {
    "another's packet": error(VIP4, IP(src=ELSE4, dst=CLIENT4) / TCP(sport=80, dport=40000)),
    "the client's own packet": error(VIP4, network() / TCP(sport=40000, dport=80)),
    "another VIP's packet": error(VIP4, IP(src="10.200.1.2", dst=CLIENT4) / TCP(sport=80, dport=40000)),
    "another IPv6 VIP's packet": error(VIP6, IPv6(src=ELSE6, dst=CLIENT6) / TCP(sport=80, dport=40000)),
    **{
        f"word {n} of the VIP differs": error(VIP6, IPv6(src=src, dst=CLIENT6) / TCP(sport=80, dport=40000))
        for n, src in enumerate(("fc01:1::1", "fc00:1:1::1", "fc00:1::1:0:1", "fc00:1::2"))
    },
    "another port": error(VIP4, quote(VIP4, dport=81)),
    "another port, IPv6": error(VIP6, quote(VIP6, dport=81)),
    "SCTP": error(VIP4, IP(src=VIP4, dst=CLIENT4, proto=132) / bytes(12)),
    "an echo reply": error(VIP4, IP(src=VIP4, dst=CLIENT4) / ICMP(type=0)),
    "ICMP to a router": error(VIP6, IPv6(src=VIP6, dst=CLIENT6, nh=58) / bytes(12)),
    "a later fragment": error(VIP4, quote(VIP4, frag=1)),
    "a later fragment of its own end": error(VIP4, quote(VIP4, frag=0x1FFF)),
    "an IPv6 fragment": error(VIP6, IPv6(src=VIP6, dst=CLIENT6) / IPv6ExtHdrFragment(m=1) / TCP(sport=80)),
    "an IPv6 extension": error(VIP6, IPv6(src=VIP6, dst=CLIENT6) / IPv6ExtHdrDestOpt() / TCP(sport=80)),
    "the wrong version": error(VIP4, quote(VIP4, version=5)),
    "the wrong version, IPv6": error(VIP6, quote(VIP6, version=4)),
    "a header too short": error(VIP4, quote(VIP4, ihl=4)),
    "nothing": error(VIP4, b""),
    "nothing, IPv6": error(VIP6, b""),
    "options that reach beyond its end": error(VIP4, IP(bytes(quote(VIP4, ihl=15))[:24])),
}


@pytest.mark.parametrize("name", NOTHING_KNOWN)
def test_quote_of_nothing_known(web: Rig, name: str) -> None:
    """Left to the kernel, unchanged: that quotes no flow of the VIP's services."""
    assert web.verdict(NOTHING_KNOWN[name]) == "PASS_ICMP_ERROR"


@families
def test_quote_that_is_cut(web: Rig, vip: str) -> None:
    """Shorter than header and ports it says nothing, though the frame's padding would; from there on it is enough."""
    whole, enough = bytes(quote(vip)), 24 if vip == VIP4 else 44
    for length in range(len(whole) + 1):
        expected = "TX_IPIP" if length >= enough else "PASS_ICMP_ERROR"
        frame = error(vip, whole[:length])
        assert web.verdict(frame) == expected, length
        assert web.verdict(bytes(frame) + whole[length:]) == expected, f"{length} and padding"


def test_error_that_is_itself_a_fragment(web: Rig) -> None:
    """Dropped, as every fragment for a VIP is."""
    assert web.verdict(LINK / network(flags="MF") / ICMP(type=11) / quote(VIP4)) == "DROP_FRAGMENT"
    six = LINK / network(dst=VIP6) / IPv6ExtHdrFragment(m=1) / ICMPv6TimeExceeded() / quote(VIP6)
    assert web.verdict(six) == "DROP_FRAGMENT"


def test_error_for_another_address(web: Rig) -> None:
    """What is no VIP is none of ours, whatever it quotes."""
    assert web.verdict(LINK / network(dst=ELSE4) / ICMP(type=3) / quote(VIP4)) == "PASS_PROTOCOL"
    assert web.verdict(LINK / network(dst=ELSE6) / ICMPv6DestUnreach() / quote(VIP6)) == "PASS_PROTOCOL"


@pytest.mark.parametrize(
    ("vip", "kind"),
    [*((VIP4, n) for n in (0, 4, 5, 9, 13, 40, 255)), *((VIP6, n) for n in (0, 5, 100, 127, 129, 133, 137))],
)
def test_other_types_are_no_errors(web: Rig, vip: str, kind: int) -> None:
    """A redirect, a source quench or a neighbour's word is not forwarded, whatever stands behind it."""
    header = bytes([kind, 0]) + bytes(6)
    ip = network(dst=vip, **({"proto": 1} if vip == VIP4 else {"nh": 58}))

    assert web.verdict(LINK / ip / (header + bytes(quote(vip)))) == "PASS_PROTOCOL"

"""What an outer header makes too big for its way: the client is told by the whole ICMP error, not too often."""

from collections.abc import Iterable
from typing import Any

import pytest
from frames import (
    BACKENDS4,
    BACKENDS6,
    CLIENT4,
    CLIENT6,
    CLIENT_MAC,
    LINK,
    VIP4,
    VIP6,
    expect_encapsulated,
    families,
    kinds,
    network,
    service,
    tagged,
    tcp,
    udp,
    within,
)
from rig import OUR_MAC, Rig
from scapy.layers.inet import ICMP, IP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Packet

pytestmark = pytest.mark.root

QUOTE = {VIP4: 548, VIP6: 1232}
"""Bytes of the packet that the error quotes: RFC 1812 and RFC 4443 allow 576 and 1280 in all."""
BACK = Ether(src=OUR_MAC, dst=CLIENT_MAC)


def outer(backends: Iterable[str]) -> int:
    """The length of the outer IP header to these backends."""
    return 40 if ":" in next(iter(backends)) else 20


def sized(vip: str, length: int, **ip: Any) -> Packet:
    """A UDP packet whose IP packet has this length."""
    frame = udp(dst=vip, **ip)
    data = bytes(n * 13 & 0xFF for n in range(length - (len(bytes(frame)) - 14)))
    return frame / data


def answer(vip: str, packet: bytes, mtu: int, client: str = "") -> Packet:
    """What tells the client, from the VIP, that so many bytes would fit."""
    quoted = packet[: QUOTE[vip]]
    if vip == VIP6:
        return IPv6(src=VIP6, dst=client or CLIENT6, hlim=64) / ICMPv6PacketTooBig(mtu=mtu) / quoted
    header = IP(src=VIP4, dst=client or CLIENT4, id=0, flags="DF", ttl=64)
    return header / ICMP(type=3, code=4, nexthopmtu=mtu) / quoted


def expect_answer(rig: Rig, frame: Any, expected: Packet) -> None:
    """Assert that the frame is answered with exactly this."""
    outcome = rig.run(frame)
    assert outcome.verdict == "TX_TOO_BIG"
    assert outcome.frame_out.hex() == bytes(expected).hex()


def set_budget(rig: Rig, sent: int) -> None:
    """As if so many answers had been sent in this second and the next, whichever it is when a frame comes."""
    rig.plane.tables.arrays.too_big_budget[0] = (rig.plane.clock_seconds(), sent)


@kinds
@pytest.mark.parametrize("mtu", [1500, 1400, 1300])
def test_whole_answer(rig: Rig, vip: str, backends: tuple[str, ...], mtu: int) -> None:
    """What just fits goes; one byte more is answered: MTU less the outer header, checksums right, the packet quoted."""
    rig.plane.mtu = mtu
    rig.apply(services=[service(vip=vip, protocol="udp", backends=backends)])
    room = mtu - outer(backends)

    expect_encapsulated(rig.run(sized(vip, room)), sized(vip, room))
    for length in (room + 1, room + 2, room + 600):
        frame = sized(vip, length)
        expect_answer(rig, frame, BACK / answer(vip, bytes(frame)[14:], room))


@families
def test_both_families_of_backends(rig: Rig, vip: str) -> None:
    """The MTU that is told depends on the backend that the flow has: 20 or 40 bytes for its header."""
    rig.apply(services=[service(vip=vip, protocol="udp", backends=(*BACKENDS4, *BACKENDS6))])

    told = set()
    for port in range(1000, 1040):
        frame = udp(dst=vip, sport=port)
        room = 1500 - outer([expect_encapsulated(rig.run(frame), frame)])
        big = udp(dst=vip, sport=port) / bytes(1500)
        expect_answer(rig, big, BACK / answer(vip, bytes(big)[14:], room))
        told.add(room)

    assert told == {1480, 1460}


@families
@pytest.mark.parametrize("length", [1481, 2000, 2001, 3000, 3001])
def test_quote_is_cut_to_size(rig: Rig, vip: str, length: int) -> None:
    """However long the packet, the answer has 576 or 1280 bytes, and a checksum over all of them."""
    rig.apply(services=[service(vip=vip, protocol="udp")])
    frame = sized(vip, length)

    expect_answer(rig, frame, BACK / answer(vip, bytes(frame)[14:], 1480))


def test_without_df_too(rig: Rig) -> None:
    """Nobody here cuts packets up: the client is told, with IPv4's DF bit or without; its other fields are quoted."""
    rig.apply(services=[service(protocol="udp")])
    for flags in ("", "DF"):
        frame = sized(VIP4, 1481, flags=flags, tos=0x8C, id=77, ttl=3)

        expect_answer(rig, frame, BACK / answer(VIP4, bytes(frame)[14:], 1480))


@families
def test_tcp_with_options_or_extensions(rig: Rig, vip: str) -> None:
    """The quote is the packet as it came, options and extension headers and all."""
    rig.apply(services=[service(vip=vip)])
    if vip == VIP4:
        frame = tcp(options=[IPOption_NOP()] * 12) / bytes(1450)
    else:
        whole = tcp(dst=VIP6)
        frame = LINK / network(dst=VIP6) / IPv6ExtHdrDestOpt() / whole.getlayer(2) / bytes(1450)

    expect_answer(rig, frame, BACK / answer(vip, bytes(frame)[14:], 1480))


@tagged
@families
def test_tags_are_kept(rig: Rig, tags: Packet, vip: str) -> None:
    """The answer leaves in the VLAN that the packet came from; tags are no part of its length."""
    rig.apply(services=[service(vip=vip, protocol="udp")])
    fits, big = sized(vip, 1480), sized(vip, 1481)

    expect_encapsulated(rig.run(within(tags, fits)), within(tags, fits))
    expect_answer(rig, within(tags, big), BACK / tags / answer(vip, bytes(big)[14:], 1480))


@families
def test_padding_is_neither_counted_nor_quoted(rig: Rig, vip: str) -> None:
    """What lies behind the packet makes it no bigger, and is not in the answer."""
    rig.apply(services=[service(vip=vip, protocol="udp")])
    fits, big = bytes(sized(vip, 1480)), bytes(sized(vip, 1481))

    expect_encapsulated(rig.run(fits + b"padding"), fits + b"padding")
    expect_answer(rig, big + b"padding", BACK / answer(vip, big[14:], 1480))


@families
def test_shorter_than_the_quote_is_not_answered(rig: Rig, vip: str) -> None:
    """Where the way takes so little that not even the quote would fill: dropped in silence."""
    rig.plane.mtu = 100
    rig.apply(services=[service(vip=vip, protocol="udp")])
    for length in (81, QUOTE[vip] - 1):
        assert rig.verdict(sized(vip, length)) == "DROP_TOO_BIG"
        assert rig.verdict(bytes(sized(vip, length)) + bytes(1400)) == "DROP_TOO_BIG"

    frame = sized(vip, QUOTE[vip])
    expect_answer(rig, frame, BACK / answer(vip, bytes(frame)[14:], 80))


@families
def test_mode_l2_answers_nothing(rig: Rig, vip: str) -> None:
    """Without an outer header nothing grows: a frame that came by this link goes by it."""
    rig.apply(services=[service(vip=vip, mode="l2", backends=BACKENDS4 if vip == VIP4 else BACKENDS6)])

    assert rig.verdict(tcp(dst=vip) / bytes(2500)) == "TX_L2"


@families
def test_it_counts_for_the_backend_and_its_flow_is_known(rig: Rig, vip: str) -> None:
    """The flow has its backend, which counts the packet that it would have got."""
    rig.apply(services=[service(vip=vip, protocol="udp")])
    assert rig.verdict(udp(dst=vip) / bytes(1500)) == "TX_TOO_BIG"
    chosen = expect_encapsulated(rig.run(udp(dst=vip)), udp(dst=vip))

    assert rig.reconciler.counters().backends["web", chosen].packets == 2
    assert rig.reconciler.counters().flow_table.misses == 1


@families
def test_answers_are_limited(rig: Rig, vip: str) -> None:
    """Up to a thousand in one second, then silence; the next second begins anew."""
    rig.apply(services=[service(vip=vip, protocol="udp")])
    frame, budget = sized(vip, 1481), rig.plane.tables.arrays.too_big_budget
    second = -1
    while rig.plane.clock_seconds() != second:  # again if a second began meanwhile
        set_budget(rig, 999)
        second = rig.plane.clock_seconds()
        seen = [rig.verdict(frame) for _ in range(3)]
    assert seen == ["TX_TOO_BIG", "DROP_TOO_BIG", "DROP_TOO_BIG"]
    assert budget[0]["sent"] == 1000

    budget[0] = (rig.plane.clock_seconds() - 1, 1000)

    assert rig.verdict(frame) == "TX_TOO_BIG"
    assert budget[0]["sent"] == 1


@families
def test_how_many_is_a_setting(rig: Rig, vip: str) -> None:
    """Another limit is in force at once; packets that fit are never counted."""
    rig.apply(services=[service(vip=vip, protocol="udp")], settings={"too_big_replies_per_second": 2})
    frame, second = sized(vip, 1481), -1
    while rig.plane.clock_seconds() != second:
        set_budget(rig, 0)
        second = rig.plane.clock_seconds()
        seen = [rig.verdict(f) for f in (frame, udp(dst=vip), frame, udp(dst=vip), frame)]

    assert seen == ["TX_TOO_BIG", "TX_IPIP", "TX_TOO_BIG", "TX_IPIP", "DROP_TOO_BIG"]


@families
def test_no_answers_at_all(exact_rig: Rig, vip: str) -> None:
    """A limit of 0 leaves the whole stage out: dropped in silence, and what fits goes."""
    exact_rig.apply(services=[service(vip=vip, protocol="udp")], settings={"too_big_replies_per_second": 0})

    assert "HAVE_TOO_BIG" not in exact_rig.program.build.features
    assert exact_rig.verdict(sized(vip, 1481)) == "DROP_TOO_BIG"
    expect_encapsulated(exact_rig.run(sized(vip, 1480)), sized(vip, 1480))


@families
@pytest.mark.parametrize("size", [3000, 5000, 9000])
def test_frames_in_several_buffers(frags_rig: Rig, vip: str, size: int) -> None:
    """A frame whose end lies in other buffers is cut to its quote all the same."""
    frags_rig.apply(services=[service(vip=vip, protocol="udp")])
    frame = sized(vip, size)

    expect_answer(frags_rig, frame, BACK / answer(vip, bytes(frame)[14:], 1480))


@families
def test_no_room_before_the_frame(rig: Rig, vip: str) -> None:
    """A driver that leaves too little headroom: dropped with that reason."""
    rig.apply(services=[service(vip=vip, protocol="udp")])

    assert rig.run(sized(vip, 1481), metadata=128).verdict == "TX_TOO_BIG"
    assert rig.run(sized(vip, 1481), metadata=212).verdict == "DROP_NO_HEADROOM"

"""Mode nat: what is too big for its way, told to whoever sent it; and UDP without a checksum. Whole frames."""

from typing import Any

import pytest
from frames import CLIENT_MAC, KINDS, kinds, service, tcp, udp
from nat_frames import (
    POOL4,
    POOL6,
    POOLS,
    answer,
    expect_reply,
    expect_request,
    network_of,
    reparsed,
)
from rig import OUR_MAC, Rig
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

pytestmark = pytest.mark.root

ROOM = 1500


def serve(rig: Rig, vip: str, backend: str, protocol: str = "udp") -> str:
    """A service of mode nat with one backend; the pool's address that it sees."""
    rig.apply(settings=POOLS, services=[service(mode="nat", vip=vip, protocol=protocol, backends=[backend])])
    return POOL6 if ":" in backend else POOL4


def filled(frame: Packet, length: int) -> Packet:
    """With a payload that makes its IP packet so long."""
    missing = length - len(bytes(network_of(Ether(bytes(frame)))))
    return frame / bytes(n * 13 & 0xFF for n in range(missing))


def told(frame: Packet, mtu: int) -> bytes:
    """The frame that tells a sender, from the address it sent to, that so many bytes would fit."""
    packet = Ether(bytes(frame))
    head = network_of(packet)
    link = Ether(src=OUR_MAC, dst=CLIENT_MAC)
    if isinstance(head, IPv6):
        quoted = bytes(head)[:1232]
        return bytes(link / IPv6(src=head.dst, dst=head.src, hlim=64) / ICMPv6PacketTooBig(mtu=mtu) / quoted)
    header = IP(src=head.dst, dst=head.src, id=0, flags="DF", ttl=64)
    return bytes(link / header / ICMP(type=3, code=4, nexthopmtu=mtu) / bytes(head)[:548])


def growth(there: str, here: str) -> int:
    """Bytes that a packet to one address has more when it leaves for the other."""
    return 20 * ((":" in here) - (":" in there))


@kinds
@pytest.mark.parametrize("make", [tcp, udp])
def test_request_too_big(nat_rig: Rig, vip: str, backends: tuple[str, ...], make: Any) -> None:
    """What just fits the backend's way goes; of one byte more the client hears what would fit, new flow or known."""
    nat_rig.plane.mtu = ROOM - 50
    pool = serve(nat_rig, vip, backends[0], "tcp" if make is tcp else "udp")
    most = ROOM - 50 - growth(vip, backends[0])
    later = {"flags": "A"} if make is tcp else {}

    for more in ({}, later, later):
        exceeds = nat_rig.run(filled(make(dst=vip, **more), most + 1))
        assert exceeds.verdict == "TX_TOO_BIG"
        assert exceeds.frame_out.hex() == told(filled(make(dst=vip, **more), most + 1), most).hex()
        fits = filled(make(dst=vip, **more), most)
        expect_request(nat_rig.run(fits), fits, source=pool, backend=backends[0])


@kinds
@pytest.mark.parametrize("make", [tcp, udp])
def test_reply_too_big(nat_rig: Rig, vip: str, backends: tuple[str, ...], make: Any) -> None:
    """The same for the client's way: the backend hears it, from the pool's address."""
    serve(nat_rig, vip, backends[0], "tcp" if make is tcp else "udp")
    most = ROOM - growth(backends[0], vip)
    request = make(dst=vip)
    out = nat_rig.run(request)

    for _ in range(2):
        exceeds = filled(answer(out, "A"), most + 1)
        outcome = nat_rig.run(exceeds)
        assert outcome.verdict == "TX_TOO_BIG"
        assert outcome.frame_out.hex() == told(exceeds, most).hex()
        fits = filled(answer(out, "A"), most)
        expect_reply(nat_rig.run(fits), fits, request)


def without_sum(frame: Packet) -> Packet:
    """UDP that has none."""
    frame = frame.copy()
    frame[UDP].chksum = 0
    return frame


@kinds
def test_no_udp_checksum(nat_rig: Rig, vip: str, backends: tuple[str, ...]) -> None:
    """None stays none, but IPv6 must have one: what would need it is dropped, either way (RFC 7915, 4.5)."""
    pool = serve(nat_rig, vip, backends[0])
    opening = nat_rig.run(udp(dst=vip))
    request, reply = without_sum(udp(dst=vip)), without_sum(answer(opening))

    there, back = nat_rig.run(request), nat_rig.run(reply)

    if growth(vip, backends[0]) > 0:
        assert there.verdict == "DROP_NAT_UNTRANSLATABLE"
    else:
        expect_request(there, request, source=pool, backend=backends[0])
    if growth(vip, backends[0]) < 0:
        assert back.verdict == "DROP_NAT_UNTRANSLATABLE"
    else:
        expect_reply(back, reply, udp(dst=vip))


@pytest.mark.parametrize("kind", KINDS)
def test_udp_checksum_that_comes_out_as_0(nat_rig: Rig, kind: str) -> None:
    """It is written as 0xffff, which is not none."""
    vip, backends = KINDS[kind]
    serve(nat_rig, vip, backends[0])
    sums = []
    for payload in (b"\0\0", b""):
        # A payload of what the sum is without it makes it 0.
        frame = udp(dst=vip) / (payload or sums[0].to_bytes(2, "big"))
        sums.append(reparsed(nat_rig.run(frame).frame_out)[UDP].chksum)

    assert sums[1] == 0xFFFF

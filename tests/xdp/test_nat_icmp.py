"""Mode nat: ICMP errors both ways, with the packet or echo that they quote, in all pairs of families; whole frames."""

from typing import Any

import pytest
from echo_frames import ping, pinged, pong
from frames import (
    CLIENT_MAC,
    LINK,
    VIP4,
    VIP6,
    kinds,
    service,
    tcp,
    udp,
)
from nat_frames import POOL4, POOL6, POOLS, answer, network_of, reparsed
from rig import OUR_MAC, Rig, next_hop_mac
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

pytestmark = pytest.mark.root

ROUTER4, ROUTER6 = "10.77.0.1", "fd77::1"
CASES4 = {
    "port": (ICMP(type=3, code=3), ICMPv6DestUnreach(code=4)),
    "host": (ICMP(type=3, code=1), ICMPv6DestUnreach(code=0)),
    "prohibited": (ICMP(type=3, code=13), ICMPv6DestUnreach(code=1)),
    "protocol": (ICMP(type=3, code=2), ICMPv6ParamProblem(code=1, ptr=6)),
    "too big": (ICMP(type=3, code=4, nexthopmtu=1400), ICMPv6PacketTooBig(mtu=1420)),
    "very small": (ICMP(type=3, code=4, nexthopmtu=576), ICMPv6PacketTooBig(mtu=1280)),
    "time": (ICMP(type=11, code=0), ICMPv6TimeExceeded(code=0)),
    "parameter": (ICMP(type=12, code=0, ptr=8), ICMPv6ParamProblem(code=0, ptr=7)),
}
"""Errors of IPv4, and what they are in IPv6."""
CASES6 = {
    "port": (ICMPv6DestUnreach(code=4), ICMP(type=3, code=3)),
    "no route": (ICMPv6DestUnreach(code=0), ICMP(type=3, code=1)),
    "prohibited": (ICMPv6DestUnreach(code=1), ICMP(type=3, code=10)),
    "too big": (ICMPv6PacketTooBig(mtu=1420), ICMP(type=3, code=4, nexthopmtu=1400)),
    "very small": (ICMPv6PacketTooBig(mtu=600), ICMP(type=3, code=4, nexthopmtu=1260)),
    "very large": (ICMPv6PacketTooBig(mtu=1 << 20), ICMP(type=3, code=4, nexthopmtu=65515)),
    "time": (ICMPv6TimeExceeded(code=1), ICMP(type=11, code=1)),
    "time of a strange kind": (ICMPv6TimeExceeded(code=8), ICMP(type=11, code=8)),
    "header": (ICMPv6ParamProblem(code=1, ptr=40), ICMP(type=3, code=2)),
    "parameter": (ICMPv6ParamProblem(code=0, ptr=7), ICMP(type=12, code=0, ptr=8)),
}


QUOTED = [8, 18, 60]
"""Bytes of transport: with 8 a quote ends with UDP's checksum, with 18 with TCP's."""


def rendered(error: Packet, src: str, dst: str, quote: bytes, ttl: int) -> bytes:
    """An error's IP packet, of whichever family, with this quote."""
    if ":" in dst:
        return bytes(IPv6(src=src, dst=dst, hlim=ttl) / error / quote)
    return bytes(IP(src=src, dst=dst, ttl=ttl, id=0, flags="DF") / error / quote)


def framed(error: Packet, src: str, dst: str, quote: bytes, ttl: int) -> bytes:
    """The same in its frame, for us."""
    ethertype = b"\x86\xdd" if ":" in dst else b"\x08\x00"
    return bytes(LINK)[:12] + ethertype + rendered(error, src, dst, quote, ttl)


def open_flow(
    rig: Rig, vip: str, backend: str, make: Any, **more: Any
) -> tuple[Packet, Packet, Packet, Packet]:
    """A flow: its request, that as it left, its reply, and that as it left."""
    protocol, backends = "tcp" if make is tcp else "udp", [{"address": backend, "port": 8080}]
    served = service(mode="nat", vip=vip, protocol=protocol, backends=backends, **more)
    echoed = pinged(vip=vip, backends=[backend], **more)
    rig.apply(settings=POOLS, services=[echoed if make is ping else served])
    request = make(dst=vip, data=b"x" * 80) if make is ping else make(dst=vip)
    out = rig.run(request)
    reply = pong(out) if make is ping else answer(out, payload=b"x" * 80)
    back = rig.run(reply)
    return request, reparsed(out.frame_out), Ether(bytes(reply)), reparsed(back.frame_out)


def errors(there: int, here: int) -> list[tuple[str, Packet, Packet]]:
    """Errors that come in a family, and as what they leave in the other or the same."""
    if there == here:
        return [(name, pair[0], pair[0]) for name, pair in (CASES4 if there == 4 else CASES6).items()]
    return [(name, *pair) for name, pair in (CASES4 if there == 4 else CASES6).items()]


def family(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


@pytest.mark.parametrize("length", QUOTED)
@kinds
@pytest.mark.parametrize("make", [tcp, udp, ping])
def test_from_the_backends_side(
    nat_rig: Rig, vip: str, backends: tuple[str, ...], make: Any, length: int
) -> None:
    """An error about a request as the backend would have got it reaches the client as one about what it sent."""
    request, sent, _, _ = open_flow(nat_rig, vip, backends[0], make)
    pool = POOL6 if ":" in backends[0] else POOL4
    router = ROUTER6 if ":" in backends[0] else ROUTER4
    client = network_of(request).src

    for name, error, expected in errors(family(pool), family(vip)):
        quoted = bytes(network_of(sent))[: length + (40 if ":" in pool else 20)]
        frame = framed(error, router, pool, quoted, 60)
        out = nat_rig.run(frame)
        asked = Ether(bytes(request))
        head = network_of(asked).copy()
        if ":" in vip:
            head.hlim = network_of(sent).ttl if ":" not in pool else network_of(sent).hlim
        else:
            head.ttl = network_of(sent).hlim if ":" in pool else network_of(sent).ttl
            head.chksum = None
            if ":" in pool:
                head.flags, head.id = "DF", 0
        quote = bytes(head)[: length + (40 if ":" in vip else 20)]
        whole = rendered(expected, vip, client, quote, 59)

        assert out.verdict == "TX_NAT_REPLY", name
        assert out.frame_out[:12].hex(":") == f"{CLIENT_MAC}:{OUR_MAC}"
        assert out.frame_out[14:].hex() == whole.hex(), name


@pytest.mark.parametrize("length", QUOTED)
@kinds
@pytest.mark.parametrize("make", [tcp, udp, ping])
def test_from_the_clients_side(
    nat_rig: Rig, vip: str, backends: tuple[str, ...], make: Any, length: int
) -> None:
    """An error about a reply as the client would have got it reaches the backend as one about what it sent."""
    _, _, reply, got = open_flow(nat_rig, vip, backends[0], make)
    pool = POOL6 if ":" in backends[0] else POOL4
    router = ROUTER6 if ":" in vip else ROUTER4

    for name, error, expected in errors(family(vip), family(pool)):
        quoted = bytes(network_of(got))[: length + (40 if ":" in vip else 20)]
        frame = framed(error, router, vip, quoted, 60)
        out = nat_rig.run(frame)
        head = network_of(reply).copy()
        if ":" in pool:
            head.hlim = network_of(got).ttl if ":" not in vip else network_of(got).hlim
        else:
            head.ttl = network_of(got).hlim if ":" in vip else network_of(got).ttl
            head.chksum = None
            if ":" in vip:
                head.flags, head.id = "DF", 0
        quote = bytes(head)[: length + (40 if ":" in pool else 20)]
        whole = rendered(expected, pool, backends[0], quote, 59)

        assert out.verdict == "TX_NAT", name
        assert out.frame_out[:6] == next_hop_mac(backends[0])
        assert out.frame_out[14:].hex() == whole.hex(), name


@pytest.mark.parametrize("length", QUOTED)
@pytest.mark.parametrize(("vip", "backend"), [(VIP4, "10.0.0.11"), (VIP6, "fd00::11")])
@pytest.mark.parametrize("make", [tcp, udp, ping])
def test_for_a_client_that_backends_see(nat_rig: Rig, vip: str, backend: str, make: Any, length: int) -> None:
    """With keep an error is for the client itself, from the backend or a router: it is told in the VIP's name."""
    request, sent, _, _ = open_flow(nat_rig, vip, backend, make, nat_source="keep")
    client, header = network_of(request).src, 40 if ":" in vip else 20
    asked = network_of(Ether(bytes(request))).copy()
    setattr(asked, "hlim" if ":" in vip else "ttl", 63)
    if ":" not in vip:
        asked.chksum = None

    for name, error, expected in errors(family(vip), family(vip)):
        for sender in (backend, ROUTER6 if ":" in vip else ROUTER4):
            quoted = bytes(network_of(sent))[: length + header]
            out = nat_rig.run(framed(error, sender, client, quoted, 60))
            whole = rendered(expected, vip, client, bytes(asked)[: length + header], 59)

            assert out.verdict == "TX_NAT_REPLY", name
            assert out.frame_out[:12].hex(":") == f"{CLIENT_MAC}:{OUR_MAC}"
            assert out.frame_out[14:].hex() == whole.hex(), name


@pytest.mark.parametrize(("vip", "backend"), [(VIP4, "10.0.0.11"), (VIP6, "fd00::11")])
def test_for_a_client_about_something_else(nat_rig: Rig, vip: str, backend: str) -> None:
    """What quotes no flow of keep is for the kernel to forward, as it came."""
    request, sent, reply, _ = open_flow(nat_rig, vip, backend, udp, nat_source="keep")
    client = network_of(request).src
    error = ICMPv6DestUnreach(code=4) if ":" in vip else ICMP(type=3, code=3)
    quoted = bytes(network_of(sent))
    at = 40 if ":" in vip else 20
    other = quoted[: at + 2] + b"\0\1" + quoted[at + 4 :]

    for quote in (other, quoted[: at + 3], quoted[: at - 1], bytes(network_of(reply)), b""):
        assert nat_rig.verdict(framed(error, backend, client, quote, 60)) == "PASS_PROTOCOL"


def test_error_that_grows_too_big(nat_rig: Rig) -> None:
    """To the other family an error grows by its own header and the quoted one, and has to fit the way still."""
    _, sent, _, _ = open_flow(nat_rig, VIP6, "10.0.0.11", tcp)

    for length, verdict in ((1460, "TX_NAT_REPLY"), (1461, "DROP_TOO_BIG")):
        quote = bytes(network_of(sent)).ljust(length - 28, b"x")
        error = framed(ICMP(type=3, code=3), ROUTER4, POOL4, quote, 60)
        out = nat_rig.run(error)
        assert out.verdict == verdict
        assert len(out.frame_out) == 14 + (1500 if verdict == "TX_NAT_REPLY" else length)

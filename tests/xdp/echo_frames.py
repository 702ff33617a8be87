"""Echo requests and replies through mode nat: built by scapy from what went in, checksums made anew."""

from collections.abc import Iterable
from typing import Any

from frames import CLIENT_MAC, LINK, VIP4, network, service
from nat_frames import network_of, reparsed
from rig import OUR_MAC, Outcome, next_hop_mac
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

IDENTIFIER = 77
DATA = b"payload"


def pinged(name: str = "ping", vip: str = VIP4, backends: Iterable[Any] = ("10.0.0.11",), **more: Any) -> Any:
    """A service of echo's document, of mode nat."""
    made = service(name, vip=vip, protocol="icmp", mode="nat", backends=backends, **more)
    return {key: value for key, value in made.items() if key != "port"}


def echo(dst: str, identifier: int, number: int = 1, data: bytes = DATA, *, reply: bool = False) -> Packet:
    """The message, of the family of the address that it is for."""
    if ":" in dst:
        return (ICMPv6EchoReply if reply else ICMPv6EchoRequest)(id=identifier, seq=number, data=data)
    return ICMP(type=0 if reply else 8, id=identifier, seq=number) / Raw(data)


def ping(
    src: str = "",
    dst: str = VIP4,
    identifier: int = IDENTIFIER,
    number: int = 1,
    data: bytes = DATA,
    **ip: Any,
) -> Packet:
    """An echo request from the client, in its frame."""
    return LINK / network(src, dst, **ip) / echo(dst, identifier, number, data)


def told(frame: Any) -> tuple[int, int, bytes]:
    """Identifier, number and data of an echo."""
    message = _message(reparsed(bytes(frame)))
    return int.from_bytes(message[4:6], "big"), int.from_bytes(message[6:8], "big"), message[8:]


def _message(packet: Packet) -> bytes:
    return bytes(packet[ICMP] if packet.haslayer(ICMP) else network_of(packet).payload)


def pong(request: Outcome | bytes) -> Packet:
    """What a backend sends back for a request that has left."""
    sent = request if isinstance(request, bytes) else request.frame_out
    head = network_of(reparsed(sent))
    identifier, number, data = told(sent)
    return LINK / network(head.dst, head.src) / echo(head.src, identifier, number, data, reply=True)


def translated(
    frame: Any, src: str, dst: str, identifier: int, *, reply: bool, mac: str | bytes, our_mac: str = OUR_MAC
) -> bytes:
    """The same echo between other addresses and with another identifier, one hop on."""
    packet = Ether(bytes(frame))
    head = network_of(packet)
    _, number, data = told(frame)
    v6_in, v6_out = isinstance(head, IPv6), ":" in dst
    if v6_in == v6_out:
        new = head.copy()
        new.remove_payload()
        new.src, new.dst = src, dst
        if v6_in:
            new.hlim -= 1
        else:
            new.ttl -= 1
            del new.chksum
    elif v6_out:
        new = IPv6(src=src, dst=dst, tc=head.tos, hlim=head.ttl - 1, nh=58)
    else:
        new = IP(src=src, dst=dst, tos=head.tc, ttl=head.hlim - 1, id=0, flags="DF", proto=1)
    link = packet.copy()
    link.dst, link.src = (mac if isinstance(mac, str) else mac.hex(":")), our_mac
    under = link
    while not isinstance(under.payload, IP | IPv6):
        under = under.payload
    under.remove_payload()
    under.type = 0x86DD if v6_out else 0x0800
    return bytes(link / new / echo(dst, identifier, number, data, reply=reply))


def expect_ping(outcome: Outcome, frame: Packet, source: str, backend: str, verdict: str = "TX_NAT") -> int:
    """Assert that the whole frame is the request as the backend shall have it; the identifier that it was given."""
    assert outcome.verdict == verdict
    given, _, _ = told(outcome.frame_out)
    expected = translated(frame, source, backend, given, reply=False, mac=next_hop_mac(backend))
    assert outcome.frame_out.hex() == expected.hex()
    return given


def expect_pong(outcome: Outcome, frame: Packet, request: Packet, verdict: str = "TX_NAT_REPLY") -> None:
    """Assert that the whole frame is the reply as the client of a request expects it."""
    assert outcome.verdict == verdict
    head, (identifier, _, _) = network_of(Ether(bytes(request))), told(request)
    expected = translated(frame, head.dst, head.src, identifier, reply=True, mac=CLIENT_MAC)
    assert outcome.frame_out.hex() == expected.hex()

"""What NAT makes of frames, and of its replies: built by scapy from what went in."""

from typing import Any

from frames import CLIENT_MAC, LINK, PORT
from rig import OUR_MAC, Outcome, Rig, next_hop_mac
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

POOL4, POOL6 = "10.9.0.1", "fd00:9::1"
POOLS = {"nat_pools": [POOL4, POOL6]}
"""Settings: one address a family."""


def reparsed(frame: bytes) -> Packet:
    """As scapy sees it."""
    return Ether(frame)


def network_of(packet: Packet) -> Packet:
    """Its IP header."""
    return packet[IPv6] if packet.haslayer(IPv6) else packet[IP]


def port_given(outcome: Outcome) -> int:
    """The source port that a request left with."""
    layer = reparsed(outcome.frame_out)
    return int((layer[TCP] if layer.haslayer(TCP) else layer[UDP]).sport)


def translated(
    frame: Packet,
    *,
    src: str,
    dst: str,
    sport: int,
    dport: int,
    mac: str | bytes,
    our_mac: str = OUR_MAC,
    hops: int = 1,
) -> bytes:
    """The same packet with other addresses and ports, one hop on, its checksums made anew."""
    packet = Ether(bytes(frame))
    head = network_of(packet)
    transport = packet[TCP] if packet.haslayer(TCP) else packet[UDP]
    body = transport.copy()
    body.sport, body.dport = sport, dport
    zero = isinstance(body, UDP) and body.chksum == 0
    del body.chksum
    if zero:
        body.chksum = 0
    v6_in, v6_out = isinstance(head, IPv6), ":" in dst
    if v6_in == v6_out:
        new = head.copy()
        new.remove_payload()
        new.src, new.dst = src, dst
        if v6_in:
            new.hlim -= hops
        else:
            new.ttl -= hops
            del new.chksum
    elif v6_out:
        new = IPv6(
            src=src, dst=dst, tc=head.tos, hlim=head.ttl - hops, nh=PORT["tcp" if TCP in packet else "udp"]
        )
    else:
        new = IP(src=src, dst=dst, tos=head.tc, ttl=head.hlim - hops, id=0, flags="DF")
    link = packet.copy()
    link.dst, link.src = (mac if isinstance(mac, str) else mac.hex(":")), our_mac
    under = link
    while under.payload is not None and not isinstance(under.payload, IP | IPv6):
        under = under.payload
    under.remove_payload()
    under.type = 0x86DD if v6_out else 0x0800
    return bytes(link / new / body)


def expect_request(
    outcome: Outcome,
    frame: Packet,
    *,
    source: str,
    backend: str,
    port: int | None = None,
    verdict: str = "TX_NAT",
) -> int:
    """Assert that the whole frame is the request, translated; the source port it was given."""
    assert outcome.verdict == verdict
    packet = Ether(bytes(frame))
    transport = packet[TCP] if packet.haslayer(TCP) else packet[UDP]
    given = port_given(outcome)
    expected = translated(
        frame,
        src=source,
        dst=backend,
        sport=given,
        dport=transport.dport if port is None else port,
        mac=next_hop_mac(backend),
    )
    assert outcome.frame_out.hex() == expected.hex()
    return given


def answer(request: Outcome, flags: str = "SA", payload: bytes = b"") -> Packet:
    """What a backend sends back for a request that has left."""
    packet = reparsed(request.frame_out)
    head = network_of(packet)
    ip = type(head)(src=head.dst, dst=head.src)
    if packet.haslayer(TCP):
        return LINK / ip / TCP(sport=packet[TCP].dport, dport=packet[TCP].sport, flags=flags) / payload
    return LINK / ip / UDP(sport=packet[UDP].dport, dport=packet[UDP].sport) / (payload or b"answer")


def expect_reply(
    outcome: Outcome,
    frame: Packet,
    request: Packet,
    *,
    verdict: str = "TX_NAT_REPLY",
    our_mac: str = OUR_MAC,
) -> None:
    """Assert that the whole frame is the reply, as the client of a request expects it."""
    assert outcome.verdict == verdict
    asked = Ether(bytes(request))
    head = network_of(asked)
    transport = asked[TCP] if asked.haslayer(TCP) else asked[UDP]
    expected = translated(
        frame,
        src=head.dst,
        dst=head.src,
        sport=transport.dport,
        dport=transport.sport,
        mac=CLIENT_MAC,
        our_mac=our_mac,
    )
    assert outcome.frame_out.hex() == expected.hex()


def state(rig: Rig, port: int, pool: str = POOL4) -> tuple[int, int]:
    """The flags of both directions of the entry at a pool's port."""
    arrays: Any = rig.plane.tables.arrays
    plan = rig.reconciler._plans.nat
    from ipaddress import ip_address

    slot = plan.blocks[ip_address(pool).packed] << 16 | port
    return int(arrays.nat_forward["state"][slot]) & 0xFF, int(arrays.nat_reply["state"][slot]) & 0xFF

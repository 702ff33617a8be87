"""Frames as the packet path gets them and leaves them, built by scapy from named constants."""

from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from rig import OUR_MAC, Outcome, next_hop_mac
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from lb.model import Affinity
from lb.reconcile.ring import build_ring, ring_slot

CLIENT_MAC, OTHER_MAC = "02:00:00:00:cc:01", "02:00:00:00:dd:01"
CLIENT4, CLIENT6 = "10.0.1.1", "fd00:0:0:1::1"
VIP4, VIP6 = "10.200.1.1", "fc00:1::1"
ELSE4, ELSE6 = "10.200.9.9", "fc00:9::9"
"""Addresses that no service has."""
BACKENDS4 = ("10.0.0.11", "10.0.0.12", "10.0.0.13")
BACKENDS6 = ("fd00::11", "fd00::12", "fd00::13")
OUTER4, OUTER6 = "172.16.0.0/16", "100::/64"
"""Where outer sources come from unless the settings say otherwise."""
ANY_SOURCE = {"drop_spoofed": False}
"""Settings under which sources may be anything at all."""
NOBODY_IS_TOLD = {"too_big_replies_per_second": 0}
"""Settings under which what is too big is dropped in silence."""
PORT = {"tcp": 6, "udp": 17}
GUE_PORT, GUE_SOURCE_PORTS = 6080, range(49152, 65536)
LINK = Ether(src=CLIENT_MAC, dst=OUR_MAC)
TAGS = {
    "one tag": Dot1Q(vlan=100, prio=5),
    "priority tag": Dot1Q(vlan=0, prio=7, dei=1),
    "service tag alone": Dot1AD(vlan=200),
    "QinQ": Dot1AD(vlan=200, prio=3) / Dot1Q(vlan=100, prio=1),
    "QinQ with two 0x8100": Dot1Q(vlan=4094) / Dot1Q(vlan=1),
    "QinQ with two 0x88a8": Dot1AD(vlan=4094) / Dot1AD(vlan=1),
}
tagged = pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
families = pytest.mark.parametrize("vip", [VIP4, VIP6])
KINDS = {
    "4 in 4": (VIP4, BACKENDS4),
    "4 in 6": (VIP4, BACKENDS6),
    "6 in 4": (VIP6, BACKENDS4),
    "6 in 6": (VIP6, BACKENDS6),
}
kinds = pytest.mark.parametrize(("vip", "backends"), KINDS.values(), ids=KINDS)
"""A VIP, and backends whose outer header is of this family or the other."""


def service(name: str = "web", **fields: Any) -> dict[str, Any]:
    """A service's document: TCP port 80 of VIP4 with three IPv4 backends unless said otherwise.

    backends are documents or bare addresses.
    """
    document = {"vip": VIP4, "port": 80, "protocol": "tcp", "backends": BACKENDS4, **fields, "name": name}
    document["backends"] = [{"address": b} if isinstance(b, str) else dict(b) for b in document["backends"]]
    return document


def network(src: str = "", dst: str = VIP4, **fields: Any) -> Packet:
    """The IP header for a destination of either family."""
    if ":" in dst:
        return IPv6(src=src or CLIENT6, dst=dst, **fields)
    return IP(src=src or CLIENT4, dst=dst, **fields)


def tcp(
    src: str = "", dst: str = VIP4, sport: int = 40000, dport: int = 80, flags: str = "S", **ip: Any
) -> Packet:
    """A TCP packet from the client, in its frame."""
    return LINK / network(src, dst, **ip) / TCP(sport=sport, dport=dport, flags=flags)


def udp(src: str = "", dst: str = VIP4, sport: int = 40000, dport: int = 80, **ip: Any) -> Packet:
    """A UDP packet from the client, in its frame."""
    return LINK / network(src, dst, **ip) / UDP(sport=sport, dport=dport) / b"question"


def within(tags: Packet, frame: Packet) -> Packet:
    """The frame with VLAN tags put in."""
    return LINK / tags / frame.payload


def from_tuple(frame: bytes, source: bytes, source_port: int, port: int | None = None) -> bytes:
    """The untagged frame, its addresses and ports patched; checksums are the end hosts' business."""
    at, ports = (26, 34) if len(source) == 4 else (22, 54)
    to = frame[ports + 2 : ports + 4] if port is None else port.to_bytes(2, "big")
    head = frame[:at] + source + frame[at + len(source) : ports]
    return head + source_port.to_bytes(2, "big") + to + frame[ports + 4 :]


def patched(frame: Any, at: int, value: int, size: int = 1) -> bytes:
    """The frame with a number written into it at an offset."""
    data = bytes(frame)
    return data[:at] + value.to_bytes(size, "big") + data[at + size :]


def split(frame: bytes) -> tuple[bytes, bytes]:
    """What lies between the MACs and the IP header's ethertype (the tags), and all from the IP header on."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    return frame[12:at], frame[at + 2 :]


def outer_header(inner: bytes, source: str, backend: str, gue: tuple[int, int] | None = None) -> Packet:
    """The headers that go before a packet (with its padding) on its way to a backend; gue: UDP's ports."""
    if inner[0] >> 4 == 4:
        length, protocol, traffic_class = int.from_bytes(inner[2:4], "big"), 4, inner[1]
    else:
        length, protocol = int.from_bytes(inner[4:6], "big") + 40, 41
        traffic_class = int.from_bytes(inner[:2], "big") >> 4 & 0xFF
    between: Packet | bytes = b""
    if gue:
        length, protocol = length + 8, 17
        between = UDP(sport=gue[0], dport=gue[1], len=length, chksum=0)
    if ":" in backend:
        return IPv6(src=source, dst=backend, tc=traffic_class, plen=length, nh=protocol, hlim=64) / between
    return (
        IP(
            src=source,
            dst=backend,
            tos=traffic_class,
            id=0,
            flags="DF",
            ttl=64,
            proto=protocol,
            len=length + 20,
        )
        / between
    )


def outer_addresses(frame: bytes) -> tuple[str, str]:
    """Source and destination of the first IP header."""
    ip = split(frame)[1]
    at, size = (12, 4) if ip[0] >> 4 == 4 else (8, 16)
    return str(ip_address(ip[at : at + size])), str(ip_address(ip[at + size : at + 2 * size]))


def gue_source_port(frame: bytes) -> int:
    """The source port of the outer UDP header."""
    ip = split(frame)[1]
    at = 20 if ip[0] >> 4 == 4 else 40
    return int.from_bytes(ip[at : at + 2], "big")


def expect_encapsulated(
    outcome: Outcome,
    frame: Any,
    *,
    verdict: str = "TX_IPIP",
    source4: str = OUTER4,
    source6: str = OUTER6,
    gue_port: int | None = None,
) -> str:
    """Assert that the whole frame is what IP-in-IP makes of the one that came; the backend's address.

    gue_port: what GUE to this port makes of it. The outer source is free within its prefix, and GUE's source port
    within its range; everything else is fixed.
    """
    data, out = bytes(frame), outcome.frame_out
    assert outcome.verdict == verdict
    source, backend = outer_addresses(out)
    assert ip_address(source) in ip_network(source6 if ":" in backend else source4)
    gue = None
    if gue_port is not None:
        gue = gue_source_port(out), gue_port
        assert gue[0] in GUE_SOURCE_PORTS
    tags, inner = split(data)
    outer = outer_header(inner, source, backend, gue)
    link = next_hop_mac(backend) + bytes(LINK)[:6] + tags
    expected = link + (b"\x86\xdd" if ":" in backend else b"\x08\x00") + bytes(outer) + inner
    assert out.hex() == expected.hex()
    return backend


def expect_gue(
    outcome: Outcome, frame: Any, *, verdict: str = "TX_GUE", port: int = GUE_PORT, **more: str
) -> str:
    """Assert that the whole frame is what mode gue makes of the one that came; the backend's address."""
    return expect_encapsulated(outcome, frame, verdict=verdict, gue_port=port, **more)


def expect_rewritten(
    outcome: Outcome, frame: Any, backends: tuple[str, ...], *, verdict: str = "TX_L2"
) -> str:
    """Assert that only the MACs changed; the address of the backend whose MAC it is."""
    assert outcome.verdict == verdict
    by_mac = {next_hop_mac(b): b for b in backends}
    backend = by_mac[outcome.frame_out[:6]]
    assert outcome.frame_out == next_hop_mac(backend) + bytes(LINK)[:6] + bytes(frame)[12:]
    return backend


@cache
def _ring(backends: tuple[tuple[bytes, int], ...]) -> Any:
    return build_ring(backends)


def ring_choice(
    document: dict[str, Any], source: bytes, source_port: int, port: int, address: str = ""
) -> str:
    """The backend that lb's own computation names for a flow; address: the one asked within a VIP prefix."""
    chosen = [
        (ip_address(b["address"]).packed, b.get("weight", 1))
        for b in document["backends"]
        if b.get("admin_state", "enabled") == "enabled" and b.get("weight", 1)
    ]
    chosen.sort()
    slot = ring_slot(
        source,
        source_port,
        ip_address(address or document["vip"]).packed,
        port,
        PORT[document["protocol"]],
        affinity=Affinity(document.get("affinity", "flow")),
    )
    return str(ip_address(chosen[_ring(tuple(chosen))[slot]][0]))

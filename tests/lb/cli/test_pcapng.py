"""A pcapng file as it is written, read back by scapy; and frames in a line."""

import io
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import RawPcapNgReader

from lb.cli.filters import Filter, FilterError
from lb.cli.frame_line import frame_line, ip_frame_length
from lb.cli.pcapng import PcapngWriter, comment_of, nanoseconds
from lb.model.capture import read_capture

LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
PACKET = {
    "verdict": "DROP_BLOCKLIST",
    "entry": {"prefix": "203.0.113.0/24", "owner": "feed:spam", "action": "drop", "reason": "scan"},
    "rule": None,
    "service": "web",
    "backend": None,
}


def test_packets_are_read_back(tmp_path: Path) -> None:
    """Bytes, lengths, nanoseconds, interface and comment are what was written, odd lengths and two interfaces too."""
    written = [
        (
            bytes(LINK / IP() / UDP() / Raw(b"x" * size)),
            1500,
            1_900_000_000_123_456_789 + size,
            name,
            f"Übung {size}",
        )
        for size, name in ((0, "eth0"), (1, "eth1"), (2, "eth0"), (3, "eth0"))
    ]
    stream = io.BytesIO()
    writer = PcapngWriter(stream, snap=256, application="sluice test")
    for data, length, time_ns, interface, comment in written:
        writer.write(data, length=length, time_ns=time_ns, interface=interface, comment=comment)
    file = tmp_path / "x.pcapng"
    file.write_bytes(stream.getvalue())

    with RawPcapNgReader(str(file)) as reader:
        found = list(reader)

    assert [data for data, _ in found] == [data for data, *_ in written]
    for (_, meta), (_, length, time_ns, interface, comment) in zip(found, written, strict=True):
        assert (meta.tshigh << 32 | meta.tslow, meta.tsresol) == (time_ns, 1_000_000_000)
        assert (meta.wirelen, meta.ifname.decode(), meta.comments) == (length, interface, [comment.encode()])
    assert [(each.data, each.length) for each in read_capture(stream.getvalue())] == [
        (data, length) for data, length, *_ in written
    ]


def test_comments_say_what_decided() -> None:
    """The verdict, then entry with owner and reason, then rule, service and backend where there are."""
    assert (
        comment_of(PACKET) == "DROP_BLOCKLIST; blocklist entry 203.0.113.0/24 (feed:spam: scan); service web"
    )
    more = {**PACKET, "entry": None, "rule": "flood", "backend": "10.0.0.11"}
    assert comment_of(more) == "DROP_BLOCKLIST; rule flood; service web; backend 10.0.0.11"
    counts = {**PACKET, "service": None, "entry": {**PACKET["entry"], "reason": "", "action": "count"}}  # type: ignore[dict-item]
    assert comment_of(counts) == "DROP_BLOCKLIST; blocklist entry 203.0.113.0/24 (feed:spam, only counts)"


def test_times_keep_their_nanoseconds() -> None:
    """A moment becomes nanoseconds since the epoch, whatever the machine's time zone."""
    assert nanoseconds("2030-03-17T17:46:40.000000001Z") == 1_900_000_000_000_000_001


LINES: list[tuple[Packet, str]] = [
    (
        IP(src="1.2.3.4", dst="5.6.7.8") / TCP(sport=1, dport=2, flags="SA"),
        "1.2.3.4:1 > 5.6.7.8:2: TCP [SA], length 0",
    ),
    (
        IP(src="1.2.3.4", dst="5.6.7.8") / UDP(sport=1, dport=2) / b"xyz",
        "1.2.3.4:1 > 5.6.7.8:2: UDP, length 3",
    ),
    (
        Dot1Q(vlan=7) / IP(src="1.2.3.4", dst="5.6.7.8") / ICMP(),
        "vlan 7 1.2.3.4 > 5.6.7.8: ICMP echo request, length 8",
    ),
    (
        Dot1AD(vlan=8) / Dot1Q(vlan=7) / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1, dport=2),
        "vlan 8 vlan 7 [2001:db8::1]:1 > [2001:db8::2]:2: UDP, length 0",
    ),
    (
        IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrHopByHop() / ICMPv6EchoRequest(),
        "2001:db8::1 > 2001:db8::2: ICMPv6 echo request, length 8",
    ),
    (
        IP(src="9.9.9.9", dst="8.8.8.8") / IP(src="1.2.3.4", dst="5.6.7.8") / TCP(sport=1, dport=2),
        "9.9.9.9 > 8.8.8.8: IPIP, 1.2.3.4:1 > 5.6.7.8:2: TCP [S], length 0",
    ),
    (
        IPv6(src="2001:db8::1", dst="2001:db8::2") / IP(src="1.2.3.4", dst="5.6.7.8") / UDP(sport=1, dport=2),
        "2001:db8::1 > 2001:db8::2: IPIP, 1.2.3.4:1 > 5.6.7.8:2: UDP, length 0",
    ),
    (
        IP(src="9.9.9.9", dst="8.8.8.8")
        / UDP(sport=50000, dport=6080)
        / IP(src="1.2.3.4", dst="5.6.7.8", proto=47),
        "9.9.9.9:50000 > 8.8.8.8:6080: GUE, 1.2.3.4 > 5.6.7.8: GRE, length 0",
    ),
    (
        IP(src="1.2.3.4", dst="5.6.7.8", frag=3) / Raw(b"12345678"),
        "1.2.3.4 > 5.6.7.8: fragment at 24, length 28",
    ),
    (ARP(psrc="1.2.3.4", pdst="5.6.7.8"), "ARP who has 5.6.7.8, from 1.2.3.4"),
    (IP(src="1.2.3.4", dst="5.6.7.8", proto=253), "1.2.3.4 > 5.6.7.8: protocol 253, length 0"),
]


@pytest.mark.parametrize(("packet", "line"), LINES, ids=[line[:40] for _, line in LINES])
def test_a_frame_in_a_line(packet: Packet, line: str) -> None:
    """Headers from the outside in; and the frame's length is what its IP header says."""
    frame = bytes(LINK / packet)

    assert frame_line(frame, len(frame)) == line
    assert ip_frame_length(frame) in (len(frame), None)


@pytest.mark.parametrize("size", range(42))
def test_a_frame_that_is_cut_off(size: int) -> None:
    """Wherever a frame ends, there is a line; and no length where it cannot be read."""
    frame = bytes(LINK / IP() / UDP())[:size]

    assert frame_line(frame, 42)
    assert ip_frame_length(frame) in (42, None)


def test_filters_are_libpcaps() -> None:
    """An expression means what tcpdump means by it, with lengths of the whole frame."""
    tcp, udp = bytes(LINK / IP() / TCP(dport=80)), bytes(LINK / IP() / UDP(dport=53))
    for expression, expected in (
        ("tcp port 80", (True, False)),
        ("udp and dst port 53", (False, True)),
        ("greater 1000", (False, True)),
        ("ether src 02:00:00:00:00:01", (True, True)),
    ):
        wanted = Filter(expression)
        assert (wanted.matches(tcp, len(tcp)), wanted.matches(udp, 1500)) == expected, expression
        wanted.close()


def test_a_bad_filter_has_libpcaps_words() -> None:
    """What is wrong is said as tcpdump says it."""
    with pytest.raises(FilterError, match="syntax error"):
        Filter("tcp port and")

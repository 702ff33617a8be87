"""Stage parse: what a frame is, wherever it is cut and whatever it claims; nothing broken slips past the deny list."""

import pytest
from frames import (
    CLIENT4,
    CLIENT6,
    CLIENT_MAC,
    ELSE4,
    ELSE6,
    LINK,
    OTHER_MAC,
    VIP4,
    VIP6,
    expect_encapsulated,
    network,
    patched,
    service,
    tcp,
    udp,
)
from rig import OUR_MAC, Rig
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    IPv6,
)
from scapy.layers.l2 import ARP, GRE, Ether

pytestmark = pytest.mark.root

WEB4, WEB6 = service("web4"), service("web6", vip=VIP6)
DNS4, DNS6 = service("dns4", protocol="udp"), service("dns6", vip=VIP6, protocol="udp")
SERVICES = [WEB4, WEB6, DNS4, DNS6]
DENY_CLIENTS = ["10.0.0.0/16", "fd00::/32"]
EXTENSIONS = {0, 43, 44, 51, 60}


NOT_IP = {
    "ARP": LINK / ARP(pdst=VIP4, psrc=CLIENT4),
    "LLDP": Ether(src=CLIENT_MAC, dst=OUR_MAC, type=0x88CC) / bytes.fromhex("02070402000000cc01060200780000"),
    "unknown ethertype": Ether(src=CLIENT_MAC, dst=OUR_MAC, type=0x88B5) / b"experiment",
    "MPLS": Ether(src=CLIENT_MAC, dst=OUR_MAC, type=0x8847) / bytes(network() / UDP()),
    "PPPoE": Ether(src=CLIENT_MAC, dst=OUR_MAC, type=0x8864) / bytes(network() / UDP()),
    "802.3 length": bytes(LINK)[:12] + b"\x00\x2e" + bytes(46),
    "nothing behind the ethertype": bytes(LINK)[:12] + b"\x08\x06",
}


@pytest.mark.parametrize("name", NOT_IP)
def test_what_is_not_ip_passes(rig: Rig, name: str) -> None:
    """ARP, LLDP and whatever else goes up unchanged, with a whole address space blocked."""
    rig.apply(services=SERVICES, block=["0.0.0.0/0", "::/0"])

    assert rig.verdict(NOT_IP[name]) == "PASS_NOT_IP"


OTHER_MACS = [
    OTHER_MAC,
    "ff:ff:ff:ff:ff:ff",
    "01:00:5e:00:00:01",
    "33:33:00:00:00:01",
    "03:00:00:00:aa:01",
    "02:00:00:00:aa:02",
]


@pytest.mark.parametrize("mac", OTHER_MACS)
def test_frames_for_another_mac_pass(rig: Rig, mac: str) -> None:
    """Broadcast, multicast and other hosts' frames are not ours to balance, though the address is a VIP."""
    rig.apply(services=SERVICES)
    frame = tcp()
    assert rig.verdict(frame) == "TX_IPIP"

    frame[Ether].dst = mac

    assert rig.verdict(frame) == "PASS_NOT_OUR_MAC"


@pytest.mark.parametrize("words", [1, 2, 5, 10])
def test_ipv4_options_are_stepped_over(rig: Rig, words: int) -> None:
    """A header with options is forwarded like one without, options and all; the deny list holds."""
    rig.apply(services=[WEB4])
    frame = tcp(options=[IPOption_NOP()] * (4 * words))
    assert bytes(frame)[14] == 0x45 + words

    expect_encapsulated(rig.run(frame), frame)
    assert rig.verdict(tcp(dport=81, options=[IPOption_NOP()] * (4 * words))) == "PASS_NO_SERVICE"
    rig.apply(block=DENY_CLIENTS)
    assert rig.verdict(frame) == "DROP_BLOCKLIST"


def test_options_hold_no_ports(rig: Rig) -> None:
    """What looks like a TCP header within the options is not taken for one."""
    rig.apply(services=[WEB4])
    decoy = (40000).to_bytes(2, "big") + (80).to_bytes(2, "big")

    options = [IPOption_RR(length=7, pointer=8, routers=[]), decoy]

    assert rig.verdict(tcp(dport=81, options=options)) == "PASS_NO_SERVICE"


@pytest.mark.parametrize("length", range(5))
def test_ipv4_header_below_five_words_is_dropped(rig: Rig, length: int) -> None:
    """An ihl that cannot be is an error, not a packet for a port read from within the IP header."""
    rig.apply(services=[WEB4])

    assert rig.verdict(patched(tcp(), 14, 0x40 | length)) == "DROP_BAD_IPV4"


@pytest.mark.parametrize("version", [v for v in range(16) if v != 4])
def test_version_must_be_that_of_the_ethertype_v4(rig: Rig, version: int) -> None:
    """Ethertype IPv4, and another version in the header: dropped."""
    rig.apply(services=[WEB4])

    assert rig.verdict(patched(tcp(), 14, version << 4 | 5)) == "DROP_BAD_IPV4"


@pytest.mark.parametrize("version", [v for v in range(16) if v != 6])
def test_version_must_be_that_of_the_ethertype_v6(rig: Rig, version: int) -> None:
    """Ethertype IPv6, and another version in the header: dropped."""
    rig.apply(services=[WEB6])

    assert rig.verdict(patched(tcp(dst=VIP6), 14, version << 4)) == "DROP_BAD_IPV6"


@pytest.mark.parametrize(
    ("length", "verdict"),
    [
        (0, "DROP_BAD_IPV4"),
        (19, "DROP_BAD_IPV4"),
        (20, "DROP_TRUNCATED"),
        (39, "DROP_TRUNCATED"),
        (40, "TX_IPIP"),
        (41, "DROP_TRUNCATED"),
        (65535, "DROP_TRUNCATED"),
    ],
)
def test_ipv4_total_length(rig: Rig, length: int, verdict: str) -> None:
    """The packet is as long as it says: more than the frame is a fault, and less must still hold its headers."""
    rig.apply(services=[WEB4])

    assert rig.verdict(patched(tcp(), 16, length, 2)) == verdict


def test_ipv4_total_length_must_hold_the_options(rig: Rig) -> None:
    """A header of 24 bytes in a packet of 23 is dropped."""
    rig.apply(services=[WEB4])
    frame = tcp(options=[IPOption_NOP()] * 4)

    assert rig.verdict(patched(frame, 16, 23, 2)) == "DROP_BAD_IPV4"
    assert rig.verdict(patched(frame, 16, 44, 2)) == "TX_IPIP"


@pytest.mark.parametrize(
    ("length", "verdict"),
    [
        (0, "DROP_TRUNCATED"),
        (19, "DROP_TRUNCATED"),
        (20, "TX_IPIP"),
        (21, "DROP_TRUNCATED"),
        (0xFFFF - 40, "DROP_TRUNCATED"),
        (0xFFFF - 39, "DROP_BAD_IPV6"),
        (0xFFFF, "DROP_BAD_IPV6"),
    ],
)
def test_ipv6_payload_length(rig: Rig, length: int, verdict: str) -> None:
    """The same for IPv6; what with its header exceeds 65535 cannot be right."""
    rig.apply(services=[WEB6])

    assert rig.verdict(patched(tcp(dst=VIP6), 18, length, 2)) == verdict


@pytest.mark.parametrize("vip", [VIP4, VIP6])
@pytest.mark.parametrize("offset", range(16))
def test_tcp_data_offset(rig: Rig, vip: str, offset: int) -> None:
    """Below five words, or beyond the packet: dropped. This packet has 20 bytes of header and 8 of data."""
    rig.apply(services=SERVICES)
    at = 46 if vip == VIP4 else 66

    verdict = rig.verdict(patched(tcp(dst=vip) / b"payload.", at, offset << 4))

    assert verdict == ("TX_IPIP" if 5 <= offset <= 7 else "DROP_BAD_TCP")


@pytest.mark.parametrize("length", [0, 7, 8, 9, 65535])
def test_udp_length_is_the_end_hosts_business(rig: Rig, length: int) -> None:
    """Only the IP length says where the packet ends; a wrong UDP length reaches the backend, which drops it."""
    rig.apply(services=[DNS4])
    frame = udp()
    frame[UDP].len = length

    expect_encapsulated(rig.run(frame), frame)


TUNNELS = {
    "4in4": network() / IP(src="10.9.9.9", dst=VIP4) / TCP(dport=80),
    "6in4": network() / IPv6(src="fd00:9::9", dst=VIP6) / TCP(dport=80),
    "4in6": network(dst=VIP6) / IP(src="10.9.9.9", dst=VIP4) / TCP(dport=80),
    "6in6": network(dst=VIP6) / IPv6(src="fd00:9::9", dst=VIP6) / TCP(dport=80),
    "GRE": network() / GRE() / IP(src="10.9.9.9", dst=VIP4) / TCP(dport=80),
}


@pytest.mark.parametrize("name", TUNNELS)
def test_tunnel_packets_pass(rig: Rig, name: str) -> None:
    """What arrives in a tunnel is not looked into: it passes unchanged, unless the outer source is blocked."""
    rig.apply(services=SERVICES, block=["10.9.9.9", "fd00:9::9"])
    frame = LINK / TUNNELS[name]

    assert rig.verdict(frame) == "PASS_PROTOCOL"
    rig.apply(block=DENY_CLIENTS)
    assert rig.verdict(frame) == "DROP_BLOCKLIST"


@pytest.mark.parametrize("to", [VIP4, ELSE4, VIP6, ELSE6])
def test_udp_tunnel_to_no_service_passes(rig: Rig, to: str) -> None:
    """GUE and VXLAN are UDP to a port that no service has: unchanged, whatever is inside and whoever sent that."""
    rig.apply(services=SERVICES, block=["10.9.9.9"])
    inside = bytes(IP(src="10.9.9.9", dst=VIP4) / TCP(dport=80))

    for port in (6080, 4789):
        frame = LINK / network(dst=to) / UDP(sport=50000, dport=port, chksum=0) / inside
        assert rig.verdict(frame) == "PASS_NO_SERVICE"


def test_every_other_protocol_passes_v4(rig: Rig) -> None:
    """256 protocol numbers: TCP and UDP go to the service, the others to the kernel; blocked, none passes."""
    rig.apply(services=SERVICES)
    frames = [bytes(patched(tcp(), 23, number)) for number in range(256)]

    verdicts = {number: rig.verdict(frame) for number, frame in enumerate(frames)}

    assert {n for n, v in verdicts.items() if v == "TX_IPIP"} == {6, 17}
    assert {v for n, v in verdicts.items() if n not in (6, 17)} == {"PASS_PROTOCOL"}
    rig.apply(block=DENY_CLIENTS)
    assert {rig.verdict(frame) for frame in frames} == {"DROP_BLOCKLIST"}


def test_every_other_protocol_passes_v6(rig: Rig) -> None:
    """The same for IPv6, where some numbers are extension headers."""
    rig.apply(services=SERVICES)
    frames = {n: patched(tcp(dst=VIP6), 20, n) for n in range(256) if n not in EXTENSIONS}

    verdicts = {number: rig.verdict(frame) for number, frame in frames.items()}

    assert {n for n, v in verdicts.items() if v == "TX_IPIP"} == {6, 17}
    assert {v for n, v in verdicts.items() if n not in (6, 17)} == {"PASS_PROTOCOL"}
    rig.apply(block=DENY_CLIENTS)
    assert {rig.verdict(frame) for frame in frames.values()} == {"DROP_BLOCKLIST"}


@pytest.mark.parametrize("address", [ELSE4, ELSE6])
def test_nothing_configured_passes_everything_whole(rig: Rig, address: str) -> None:
    """Without services and lists the balancer is not in the way; what is broken is dropped all the same."""
    assert rig.verdict(tcp(dst=address)) == "PASS_NO_SERVICE"
    assert rig.verdict(udp(dst=address)) == "PASS_NO_SERVICE"
    assert rig.verdict(bytes(tcp(dst=address))[:40]) == "DROP_TRUNCATED"
    assert rig.verdict(tcp(src=CLIENT6, dst=ELSE6)) == "PASS_NO_SERVICE"

"""xdp/decap.c, frame in and frame out, by BPF_PROG_TEST_RUN."""

import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.packet import Packet, Raw

from lb.dataplane import decap, libbpf

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "netns-lab"))

pytestmark = pytest.mark.root

XDP_PASS = 2
END4, END6 = "10.0.0.11", "fd00::11"
LINK = Ether(src="02:00:ba:1a:00:01", dst="02:00:ba:cc:00:01")
OUTER4 = IP(src="172.16.3.4", dst=END4, ttl=64, flags="DF")
OUTER6 = IPv6(src="100::3:4", dst=END6, hlim=64)
INNER4 = IP(src="10.0.1.1", dst="10.200.1.1", tos=0x8C) / TCP(sport=40000, dport=80, flags="S")
INNER6 = IPv6(src="fd00:0:0:1::1", dst="fc00:1::1", tc=0x8C) / UDP(sport=40000, dport=53) / b"question"

GUE = UDP(sport=50000, dport=6080, chksum=0)
"""Variant 1: the IP packet follows."""


def variant0(protocol: int, first: int = 0, flags: int = 0) -> Packet:
    """UDP and a GUE header of variant 0; first: its variant, control bit and options' length."""
    return GUE / Raw(bytes([first, protocol]) + flags.to_bytes(2, "big"))


Run = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def run() -> Run:
    """Runs the program on a frame, and returns the frame that goes up the stack."""
    _program, descriptor = decap.load([ip_address(END4), ip_address(END6)])

    def run_once(frame: bytes) -> bytes:
        action, out = libbpf.test_run(descriptor, frame)
        assert action == XDP_PASS
        return out

    run_once.keep = _program  # type: ignore[attr-defined]  # it owns the map
    return run_once


STRIPPED = {
    "4in4": (OUTER4 / INNER4, INNER4),
    "6in4": (OUTER4 / INNER6, INNER6),
    "4in6": (OUTER6 / INNER4, INNER4),
    "6in6": (OUTER6 / INNER6, INNER6),
    "4in4 with options in the outer header": (
        IP(src="172.16.3.4", dst=END4, options=[IPOption_NOP()] * 4) / INNER4,
        INNER4,
    ),
    "4in4 with options in the inner header": (
        OUTER4 / IP(src="10.0.1.1", dst="10.200.1.1", options=[IPOption_NOP()] * 8) / b"x",
        IP(src="10.0.1.1", dst="10.200.1.1", options=[IPOption_NOP()] * 8) / b"x",
    ),
    "GUE over IPv4, IPv4 inside": (OUTER4 / GUE / bytes(INNER4), INNER4),
    "GUE over IPv4, IPv6 inside": (OUTER4 / GUE / bytes(INNER6), INNER6),
    "GUE over IPv6, IPv4 inside": (OUTER6 / GUE / bytes(INNER4), INNER4),
    "GUE over IPv6, IPv6 inside": (OUTER6 / GUE / bytes(INNER6), INNER6),
    "GUE with a checksum": (OUTER4 / UDP(sport=50000, dport=6080) / bytes(INNER4), INNER4),
    "GUE with options in the outer header": (
        IP(src="172.16.3.4", dst=END4, options=[IPOption_NOP()] * 4) / GUE / bytes(INNER4),
        INNER4,
    ),
    "GUE variant 0 over IPv4, IPv4 inside": (OUTER4 / variant0(4) / bytes(INNER4), INNER4),
    "GUE variant 0 over IPv6, IPv6 inside": (OUTER6 / variant0(41) / bytes(INNER6), INNER6),
    "GUE in GUE, by one layer": (
        OUTER4 / GUE / bytes(OUTER4 / GUE / bytes(INNER4)),
        OUTER4 / GUE / bytes(INNER4),
    ),
    "a tunnel in a tunnel, by one layer": (OUTER4 / OUTER4 / INNER4, OUTER4 / INNER4),
}


@pytest.mark.parametrize("name", STRIPPED)
def test_tunnel_to_us_is_stripped(run: Run, name: str) -> None:
    """The outer header goes, the MACs stay, the ethertype becomes the inner packet's."""
    tunnelled, inner = STRIPPED[name]

    assert run(bytes(LINK / tunnelled)) == bytes(LINK / inner)


def test_padding_behind_the_packet_is_kept(run: Run) -> None:
    """What a network card padded stays behind the packet: the inner length tells the kernel to ignore it."""
    frame = bytes(LINK / OUTER4 / IP(src="10.0.1.1", dst="10.200.1.1") / b"y") + bytes(9)

    assert run(frame) == bytes(LINK / IP(src="10.0.1.1", dst="10.200.1.1") / b"y") + bytes(9)


UNTOUCHED: dict[str, Packet] = {
    "plain IPv4": INNER4,
    "plain IPv6": INNER6,
    "echo request to the backend": IP(src="10.0.1.1", dst=END4) / ICMP(),
    "ARP": ARP(pdst=END4),
    "unknown ethertype": Ether(type=0x88CC) / b"lldp",
    "4in4 to another address": IP(src="172.16.3.4", dst="10.0.0.12") / INNER4,
    "6in6 to another address": IPv6(src="100::1", dst="fd00::12") / INNER6,
    "6in6 to what looks like our IPv4 address": IPv6(src="100::1", dst="::10.0.0.11") / INNER6,
    "GRE": IP(src="172.16.3.4", dst=END4) / GRE() / INNER4,
    "UDP to the backend, another port": OUTER4 / UDP(sport=6080, dport=6081) / bytes(INNER4),
    "GUE to another address": IP(src="172.16.3.4", dst="10.0.0.12") / GUE / bytes(INNER4),
    "GUE to another IPv6 address": IPv6(src="100::1", dst="fd00::12") / GUE / bytes(INNER6),
    "GUE's port over TCP": OUTER4 / TCP(dport=6080) / bytes(INNER4),
    "GUE with nothing inside": OUTER4 / GUE,
    "GUE with something else inside": OUTER4 / GUE / b"\x50 neither version",
    "GUE of variant 2": OUTER4 / variant0(4, first=0x80) / bytes(INNER4),
    "GUE control message": OUTER4 / variant0(4, first=0x20) / bytes(INNER4),
    "GUE with options": OUTER4 / variant0(4, first=1, flags=1) / bytes(4) / bytes(INNER4),
    "GUE with flags": OUTER4 / variant0(4, flags=0x8000) / bytes(INNER4),
    "GUE that says IPv4, IPv6 inside": OUTER4 / variant0(4) / bytes(INNER6),
    "GUE that says UDP": OUTER4 / variant0(17) / GUE / bytes(INNER4),
    "first fragment of a GUE packet": IP(src="172.16.3.4", dst=END4, flags="MF") / GUE / bytes(INNER4),
    "later fragment of a GUE packet": IP(src="172.16.3.4", dst=END4, frag=10, proto=17)
    / bytes(GUE / bytes(INNER4)),
    "first fragment of a tunnel packet": IP(src="172.16.3.4", dst=END4, flags="MF") / INNER4,
    "later fragment of a tunnel packet": IP(src="172.16.3.4", dst=END4, frag=10, proto=4) / bytes(INNER4),
    "IPv6 fragment of a tunnel packet": OUTER6 / IPv6ExtHdrFragment(m=1) / INNER6,
    "outer IPv6 header with an extension": OUTER6 / IPv6ExtHdrDestOpt() / INNER6,
    "IPv4 said, IPv6 inside": IP(src="172.16.3.4", dst=END4, proto=4) / bytes(INNER6),
    "IPv6 said, IPv4 inside": IPv6(src="100::1", dst=END6, nh=41) / bytes(INNER4),
    "nothing inside": IP(src="172.16.3.4", dst=END4, proto=4),
    "impossible header length": IP(src="172.16.3.4", dst=END4, proto=4, ihl=4) / bytes(INNER4),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_everything_else_passes_as_it_came(run: Run, name: str) -> None:
    """What is no tunnel that ends here is left to the kernel, byte for byte."""
    packet = UNTOUCHED[name]
    link = Ether(src=LINK.src, dst=LINK.dst, type=packet.type) if isinstance(packet, Ether) else LINK
    payload = packet.payload if isinstance(packet, Ether) else packet
    frame = bytes(link / payload)

    assert run(frame) == frame


def test_tagged_tunnel_passes_as_it_came(run: Run) -> None:
    """VLAN tags are taken off by the card or by the kernel, not here."""
    frame = bytes(LINK / Dot1Q(vlan=7) / OUTER4 / INNER4)

    assert run(frame) == frame


@pytest.mark.parametrize("name", [name for name in STRIPPED if "layer" not in name])
def test_cut_at_every_byte(run: Run, name: str) -> None:
    """A frame cut anywhere is either stripped of its whole outer header or left as it was."""
    tunnelled, inner = STRIPPED[name]
    whole = bytes(LINK / tunnelled)
    outer_length = len(whole) - len(bytes(LINK / inner))
    link_of_inner = bytes(LINK / inner)[:14]
    stripped = 0

    for length in range(14, len(whole)):
        cut = whole[:length]
        if length > 14 + outer_length:
            stripped += 1
            assert run(cut) == link_of_inner + cut[14 + outer_length :], f"cut at {length}"
        else:
            assert run(cut) == cut, f"cut at {length}"

    assert stripped


def test_more_ends_than_fit_are_refused() -> None:
    """An address that would be forgotten is an error, not a tunnel that silently stays closed."""
    ends: list[Any] = [ip_address(0x0A000000 + n) for n in range(decap.ENDS_MAX + 1)]

    with pytest.raises(ValueError, match="64"):
        decap.load(ends)

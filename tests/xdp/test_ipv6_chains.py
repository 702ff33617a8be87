"""IPv6 extension headers: every chain is walked to its transport header, and none is a way round the deny list."""

from collections.abc import Sequence

import pytest
from frames import CLIENT6, ELSE6, LINK, VIP6, expect_encapsulated, network, service
from rig import Rig
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.packet import Packet, Raw

from lb.dataplane.layout import layout

pytestmark = pytest.mark.root

HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION = 0, 43, 44, 51, 60
NUMBERS = {
    "hop-by-hop": HOP_BY_HOP,
    "routing": ROUTING,
    "destination": DESTINATION,
    "AH": AH,
    "atomic fragment": FRAGMENT,
}
SEGMENT = TCP(sport=40000, dport=80, flags="S")
LIMIT = layout().constants["IPV6_EXTENSIONS_MAX"]
Extension = tuple[int, int]
"""A header's number, and its length in bytes."""


def chain(
    extensions: Sequence[Extension], last: Packet | bytes = SEGMENT, kind: int = 6, *, dst: str = VIP6
) -> Packet:
    """A frame whose IPv6 packet holds these extension headers, then `last` of protocol `kind`."""
    following = [*[number for number, _ in extensions[1:]], kind]
    parts = b""
    for (number, length), next_header in zip(extensions, following, strict=False):
        units = length // 4 - 2 if number == AH else length // 8 - 1
        parts += bytes([next_header, 0 if number == FRAGMENT else units, *bytes(length - 2)])
    first = extensions[0][0] if extensions else kind
    return LINK / network(dst=dst, nh=first) / Raw(parts + bytes(last))


@pytest.fixture
def web(rig: Rig) -> Rig:
    """TCP and UDP port 80 of the IPv6 VIP."""
    rig.apply(services=[service(vip=VIP6), service("dns", vip=VIP6, protocol="udp")])
    return rig


@pytest.mark.parametrize("name", NUMBERS)
def test_each_extension_alone(web: Rig, name: str) -> None:
    """Behind any one extension header the port is found, and the packet goes on with its chain whole."""
    for last, kind in ((SEGMENT, 6), (UDP(sport=40000, dport=80) / b"question", 17)):
        frame = chain([(NUMBERS[name], 8)], last, kind)
        expect_encapsulated(web.run(frame), frame)

    assert web.verdict(chain([(NUMBERS[name], 8)], TCP(dport=81))) == "PASS_NO_SERVICE"
    assert web.verdict(chain([(NUMBERS[name], 8)], dst=ELSE6)) == "PASS_NO_SERVICE"
    assert web.verdict(chain([(NUMBERS[name], 8)], ICMPv6EchoRequest(), 58)) == "PASS_PROTOCOL"


@pytest.mark.parametrize("name", ["hop-by-hop", "routing", "destination"])
@pytest.mark.parametrize("length", [8, 16, 64, 264, 1024])
def test_extension_lengths_in_eight_octets(web: Rig, name: str, length: int) -> None:
    """The transport header is looked for behind the whole extension (RFC 8200: in units of 8 beyond the first 8)."""
    frame = chain([(NUMBERS[name], length)])

    expect_encapsulated(web.run(frame), frame)


@pytest.mark.parametrize("length", [8, 12, 16, 24, 28, 44])
def test_ah_lengths_in_four_octets(web: Rig, length: int) -> None:
    """AH counts in units of 4, less 2 (RFC 4302)."""
    frame = chain([(AH, length)])

    expect_encapsulated(web.run(frame), frame)


def test_atomic_fragment_is_no_fragment(web: Rig) -> None:
    """A fragment header with offset 0 and nothing to follow holds the whole packet (RFC 6946)."""
    frame = chain([(FRAGMENT, 8)])

    expect_encapsulated(web.run(frame), frame)


@pytest.mark.parametrize(
    "extensions",
    [
        [(HOP_BY_HOP, 8), (DESTINATION, 16), (ROUTING, 24), (FRAGMENT, 8), (AH, 24), (DESTINATION, 8)],
        [(AH, 12), (AH, 28), (HOP_BY_HOP, 8)],
        [(DESTINATION, 8)] * LIMIT,
        [(HOP_BY_HOP, 8), (AH, 12)] * (LIMIT // 2),
    ],
)
def test_chains_up_to_the_limit(web: Rig, extensions: list[Extension]) -> None:
    """Any order of up to six headers is walked; a denied source is dropped at the end of it."""
    frame = chain(extensions)

    expect_encapsulated(web.run(frame), frame)
    web.apply(block=[CLIENT6])
    assert web.verdict(frame) == "DROP_BLOCKLIST"


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("dst", [VIP6, ELSE6])
def test_chain_beyond_the_limit_is_dropped(web: Rig, number: int, dst: str) -> None:
    """What cannot be looked through does not pass, for a VIP or not."""
    assert web.verdict(chain([(DESTINATION, 8)] * LIMIT + [(number, 8)], dst=dst)) == "DROP_IPV6_CHAIN"
    assert web.verdict(chain([(DESTINATION, 8)] * 20, dst=dst)) == "DROP_IPV6_CHAIN"
    assert web.run(chain([(DESTINATION, 8)] * LIMIT, dst=dst)).action != "drop"


@pytest.mark.parametrize("name", NUMBERS)
def test_chain_cut_by_the_packets_length(web: Rig, name: str) -> None:
    """A packet that ends within an extension, or before the header that it announces, is dropped."""
    whole = bytes(chain([(NUMBERS[name], 8)]))

    for kept in range(28):
        frame = whole[:18] + kept.to_bytes(2, "big") + whole[20:]
        assert web.verdict(frame) == "DROP_TRUNCATED", f"payload of {kept}"
        assert web.verdict(frame[: 54 + kept]) == "DROP_TRUNCATED", f"payload of {kept}, without padding"

    expect_encapsulated(web.run(whole), whole)


@pytest.mark.parametrize("name", ["hop-by-hop", "routing", "destination", "AH"])
@pytest.mark.parametrize("units", [16, 255])
def test_extension_longer_than_the_packet(web: Rig, name: str, units: int) -> None:
    """An extension that reaches beyond the packet is cut off: nothing behind the packet's end is read."""
    for kind in (6, 17, 58, 59, 60):
        whole = bytes(chain([(NUMBERS[name], 8)], kind=kind))
        frame = whole[:55] + bytes([units]) + whole[56:]

        assert web.verdict(frame) == "DROP_TRUNCATED"
        assert web.verdict(frame + bytes(2000)) == "DROP_TRUNCATED"


@pytest.mark.parametrize("kind", [50, 59, 135, 139, 140, 253])
def test_headers_that_end_the_walk_pass(web: Rig, kind: int) -> None:
    """ESP, no next header, mobility, HIP, Shim6 and the experimental ones are left to the kernel, unless blocked."""
    frame = chain([(HOP_BY_HOP, 8)], SEGMENT, kind)

    assert web.verdict(frame) == "PASS_PROTOCOL"
    web.apply(block=["fd00::/16"])
    assert web.verdict(frame) == "DROP_BLOCKLIST"


@pytest.mark.parametrize("name", NUMBERS)
def test_no_chain_is_a_bypass(web: Rig, name: str) -> None:
    """A blocked source stays blocked behind each header, whatever it hides and wherever it goes."""
    web.apply(block=["fd00:0:0:1::/64"])

    for count in range(1, LIMIT + 1):
        for dst in (VIP6, ELSE6):
            assert web.verdict(chain([(NUMBERS[name], 8)] * count, dst=dst)) == "DROP_BLOCKLIST"
    assert web.run(chain([(NUMBERS[name], 8)] * (LIMIT + 1))).action == "drop"


def test_traffic_class_and_flow_label_are_no_part_of_the_chain(web: Rig) -> None:
    """Any traffic class and flow label: the class is carried to the outer header, the label is not."""
    for traffic_class in (0, 1, 0x0F, 0x8C, 0xF0, 0xFF):
        frame = LINK / network(dst=VIP6, tc=traffic_class, fl=0xABCDE) / SEGMENT
        expect_encapsulated(web.run(frame), frame)

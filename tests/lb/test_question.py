"""Questions to explain: hex and five-tuples become frames, and each fault is named by its field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from lb.errors import InvalidError
from lb.model.question import LONGEST, SOURCE_PORT, TupleQuestion, frame_of_hex, frame_of_tuple, tuple_of

MAC = "02:00:00:00:aa:01"
LINK = Ether(dst=MAC, src="02:00:00:00:00:01")
FOUR, SIX = {"src": "198.51.100.7", "dst": "192.0.2.10"}, {"src": "2001:db8::7", "dst": "2001:db8::10"}
IP4 = LINK / IP(**FOUR, flags="DF", id=0)
IP6 = LINK / IPv6(**SIX, hlim=64)


def frame_of(src: str, dst: str, protocol: str, syn: bool = False) -> bytes:
    """From the question to the frame."""
    question = TupleQuestion(src=src, dst=dst, protocol=protocol, syn=syn)
    return frame_of_tuple(tuple_of(question), bytes.fromhex(MAC.replace(":", "")))


def faults(**fields: object) -> dict[str, str]:
    """What is wrong with a question, by field."""
    question = TupleQuestion.model_validate({**FOUR, "protocol": "tcp", **fields})
    with pytest.raises(InvalidError) as caught:
        tuple_of(question)
    return {error.pointer: error.detail for error in caught.value.errors}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            ("198.51.100.7:40001", "192.0.2.10:80", "tcp", True),
            IP4 / TCP(sport=40001, dport=80, flags="S", seq=1, window=65535),
        ),
        (
            ("198.51.100.7:40001", "192.0.2.10:80", "TCP", False),
            IP4 / TCP(sport=40001, dport=80, flags="A", seq=1, window=65535),
        ),
        (("198.51.100.7", "192.0.2.10:53", "udp"), IP4 / UDP(sport=SOURCE_PORT, dport=53)),
        (("198.51.100.7", "192.0.2.10", "icmp"), IP4 / ICMP(id=1, seq=1)),
        (
            ("[2001:db8::7]:0", "[2001:db8::10]:65535", "tcp", True),
            IP6 / TCP(sport=0, dport=65535, flags="S", seq=1, window=65535),
        ),
        (("2001:db8::7", "[2001:db8::10]:53", "udp"), IP6 / UDP(sport=SOURCE_PORT, dport=53)),
        (("2001:db8::7", "[2001:db8::10]", "icmp"), IP6 / ICMPv6EchoRequest(id=1, seq=1)),
        (("198.51.100.7:4242", "192.0.2.10", "icmp"), IP4 / ICMP(id=4242, seq=1)),
        (("[2001:db8::7]:0", "2001:db8::10", "icmp"), IP6 / ICMPv6EchoRequest(id=0, seq=1)),
    ],
)
def test_the_frame_is_as_scapy_makes_it(asked: tuple[str, str, str], expected: Packet) -> None:
    """To the interface's MAC, with every length and checksum right."""
    assert frame_of(*asked).hex() == bytes(expected).hex()


def test_a_source_port_that_is_not_given_is_known_to_be_made_up() -> None:
    """So that the answer can say it."""
    without = tuple_of(TupleQuestion(src="198.51.100.7", dst="192.0.2.10:80", protocol="tcp"))
    given_ = tuple_of(TupleQuestion(src=f"198.51.100.7:{SOURCE_PORT}", dst="192.0.2.10:80", protocol="tcp"))

    assert (without.source_port_given, given_.source_port_given) == (False, True)
    assert without.source_port == given_.source_port


@pytest.mark.parametrize(
    ("fields", "pointer", "says"),
    [
        ({}, "/dst", "tcp needs the port: write 192.0.2.10:80"),
        (
            {"dst": "192.0.2.10:80", "protocol": "sctp"},
            "/protocol",
            '"sctp" is not a known protocol: write tcp, udp',
        ),
        ({"dst": "192.0.2.10:80", "protocol": ""}, "/protocol", '"" is not a known protocol'),
        (
            {"dst": "2001:db8::10", "protocol": "icmp"},
            "/dst",
            "of different families: give both as IPv4 or both as IPv6",
        ),
        ({"dst": "192.0.2.10:99999"}, "/dst", '"99999" is not a port: 0 to 65535'),
        ({"dst": "192.0.2.10:"}, "/dst", '"" is not a port'),
        ({"dst": "192.0.2.10:http"}, "/dst", '"http" is not a port'),
        ({"dst": "www:80"}, "/dst", '"www:80" is not an address: write 192.0.2.10:80, [2001:db8::10]:80'),
        ({"dst": ""}, "/dst", '"" is not an address'),
        ({"dst": "[fe80::1%eth0]:80"}, "/dst", "leave out %eth0"),
        ({"dst": "192.0.2.10:1", "protocol": "icmp"}, "/dst", "icmp has no ports"),
        ({"dst": "192.0.2.10:53", "protocol": "udp", "syn": True}, "/syn", "udp has no SYN"),
    ],
)
def test_a_fault_is_named_by_its_field(fields: dict[str, object], pointer: str, says: str) -> None:
    """Where it is, what it is, and what to write."""
    found = faults(**fields)

    assert list(found) == [pointer]
    assert says in found[pointer]


def test_all_faults_are_named_at_once() -> None:
    """Nobody has to mend one to be told of the next."""
    assert faults(src="here", dst="there", protocol="pigeon").keys() == {"/src", "/dst", "/protocol"}


@given(st.binary(min_size=1, max_size=64))
def test_hex_in_every_spelling(frame: bytes) -> None:
    """As tcpdump, Wireshark, ip(8) and Python write it."""
    text = frame.hex()
    pairs = [text[at : at + 2] for at in range(0, len(text), 2)]
    spelt = (text, text.upper(), f" {text}\n", ":".join(pairs), " ".join(pairs), "-".join(pairs), f"0x{text}")

    assert {frame_of_hex(each) for each in (*spelt, " ".join(f"0x{p}" for p in pairs))} == {frame}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty: write a frame in hex"),
        (" : ", "it is empty"),
        ("abc", "it has 3 hex digits, but a byte takes two"),
        ("abxd", '"x" is not a hex digit'),
        ("ab\x1bd", "is not a hex digit"),
        ("é0", '"é" is not a hex digit'),
        ("00" * (LONGEST + 1), f"the frame has {LONGEST + 1} bytes, but at most {LONGEST} are possible"),
    ],
)
def test_hex_that_is_no_frame(text: str, says: str) -> None:
    """Odd, empty, not hex, too long: each says so, under /hex."""
    with pytest.raises(InvalidError) as caught:
        frame_of_hex(text)

    (fault,) = caught.value.errors
    assert fault.pointer == "/hex"
    assert says in fault.detail
    assert fault.detail.isprintable()

"""Captures: every form of pcap and pcapng is read as scapy wrote it, and what is wrong is named by its place."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap, wrpcapng

from lb.errors import InvalidError, MalformedError, SluiceError
from lb.model.capture import Captured, read_capture

FRAMES = [bytes(range(60)), b"\xff" * 14, bytes(1514)]
ORDERS = ("<", ">")
MICROSECONDS, NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D


def pcap(
    frames: list[bytes], order: str = "<", magic: int = MICROSECONDS, link: int = 1, more: int = 0
) -> bytes:
    """A pcap by the letter of its draft; more: bytes that each packet had beyond what was kept."""
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    return head + b"".join(struct.pack(order + "IIII", 1, 2, len(f), len(f) + more) + f for f in frames)


def block(order: str, kind: int, body: bytes) -> bytes:
    """A block of pcapng."""
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def section(order: str = "<", links: tuple[int, ...] = (1,), snap: int = 0) -> bytes:
    """A section's header, and its interfaces'."""
    head = block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    return head + b"".join(block(order, 1, struct.pack(order + "HHI", link, 0, snap)) for link in links)


def packet(order: str, frame: bytes, interface: int = 0, length: int | None = None) -> bytes:
    """An enhanced packet block."""
    head = struct.pack(order + "IIIII", interface, 0, 0, len(frame), len(frame) if length is None else length)
    return block(order, 6, head + frame)


def frames_of(data: bytes) -> list[bytes]:
    """The frames alone."""
    return [captured.data for captured in read_capture(data)]


@pytest.mark.parametrize("write", [wrpcap, wrpcapng])
def test_what_scapy_writes_is_read(tmp_path: Path, write: object) -> None:
    """The frames come out as they went in."""
    file = tmp_path / "capture"
    write(str(file), [Ether(frame) for frame in FRAMES])  # type: ignore[operator]

    assert frames_of(file.read_bytes()) == FRAMES


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("magic", [MICROSECONDS, NANOSECONDS])
def test_every_kind_of_pcap(order: str, magic: int) -> None:
    """Both byte orders, microseconds and nanoseconds; bits about checksums above the link type do not matter."""
    assert frames_of(pcap(FRAMES, order, magic)) == FRAMES
    assert frames_of(pcap(FRAMES, order, magic, link=0x14000001)) == FRAMES


@pytest.mark.parametrize("order", ORDERS)
def test_every_kind_of_packet_block(order: str) -> None:
    """Enhanced, simple and obsolete packets are read, other blocks passed over."""
    frame = FRAMES[0]
    simple = block(order, 3, struct.pack(order + "I", len(frame)) + frame)
    old = block(order, 2, struct.pack(order + "HHIIII", 0, 0, 0, 0, len(frame), len(frame)) + frame)
    names = block(order, 4, bytes(8))

    assert frames_of(section(order) + names + packet(order, frame) + simple + old) == [frame] * 3


def test_sections_of_both_byte_orders_in_one_file() -> None:
    """A new section sets the order, and its interfaces, anew."""
    data = b"".join(section(order) + packet(order, FRAMES[0]) for order in (">", "<"))

    assert frames_of(data) == [FRAMES[0]] * 2


def test_the_length_on_the_wire_is_kept() -> None:
    """Of a packet that was captured in part, both lengths are known."""
    frame = FRAMES[0]
    expected = [Captured(frame, len(frame) + 40)]

    assert list(read_capture(pcap([frame], more=40))) == expected
    assert list(read_capture(section() + packet("<", frame, length=len(frame) + 40))) == expected
    simple = block("<", 3, struct.pack("<I", len(frame) + 40) + frame)
    assert list(read_capture(section(snap=len(frame)) + simple)) == expected


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the capture is empty: send a pcap or pcapng file"),
        (b"GET / HTTP/1.1", "begins with 47455420, unlike any pcap or pcapng file"),
        (b"\x1f\x8b\x08\x00rest", "compressed: unpack it first"),
        (pcap([])[:20], "has 20 bytes, and a pcap header takes 24: it is cut off"),
        (pcap(FRAMES[:1])[:30], "packet 1 of the capture is cut off: 16 bytes from byte 24 on"),
        (
            pcap(FRAMES[:2])[:-1],
            "packet 2 of the capture is cut off: 14 bytes from byte 116 on are announced, but 13",
        ),
        (section()[:-2], "block at byte 28 says that it has 20 bytes, and 18 are left: it is cut off"),
        (section() + b"\x06\0\0\0", "block at byte 48 is cut off"),
        (
            section() + b"\x06\0\0\0\x0d\0\0\0" + bytes(20),
            "says that it has 13 bytes, which is impossible for a block",
        ),
        (section() + packet("<", FRAMES[0])[:-4] + bytes(4), "gives two lengths that differ"),
        (section(links=()) + packet("<", FRAMES[0]), "interface 0, which the capture has not described"),
        (section() + block("<", 6, bytes(4)), "is too short for a packet"),
        (section() + block("<", 1, bytes(4)), "is too short for an interface description"),
        (
            section() + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 99, 99)),
            "packet 1 of the capture is cut off",
        ),
        (b"\x0a\x0d\x0d\x0a\x1c\0\0\0" + bytes(20), "begins a section of no known byte order"),
    ],
)
def test_a_broken_capture_is_refused(data: bytes, says: str) -> None:
    """What is wrong, and where."""
    with pytest.raises(MalformedError) as caught:
        frames_of(data)
    assert says in str(caught.value)


@pytest.mark.parametrize("data", [pcap([], link=113), section(links=(113,)) + packet("<", b"")])
def test_another_link_type_is_refused(data: bytes) -> None:
    """Frames of Ethernet are wanted; "tcpdump -i any" does not make them, and the message says what does."""
    with pytest.raises(InvalidError, match=r"link type 113 .*tcpdump -i any.*capture on the one interface"):
        frames_of(data)


def test_an_interface_of_another_link_type_matters_only_to_its_packets() -> None:
    """Packets of the Ethernet interface beside it are read."""
    assert frames_of(section(links=(113, 1)) + packet("<", FRAMES[0], interface=1)) == [FRAMES[0]]


@pytest.mark.parametrize("data", [pcap([]), section()])
def test_a_capture_without_packets_is_refused(data: bytes) -> None:
    """A header alone explains nothing."""
    with pytest.raises(InvalidError, match="holds no packet"):
        frames_of(data)


@given(st.data())
def test_any_bytes_are_read_or_refused(data: st.DataObject) -> None:
    """A capture with bytes changed or cut off gives frames or an error of ours, and never another."""
    whole = bytearray(
        data.draw(st.sampled_from([pcap(FRAMES), pcap(FRAMES, ">"), section() + packet("<", FRAMES[0])]))
    )
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, min(len(whole) - 1, 140)))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        frames = list(read_capture(cut))
    except SluiceError:
        return

    assert sum(len(frame.data) for frame in frames) < len(cut)
    assert all(frame.length >= len(frame.data) for frame in frames)

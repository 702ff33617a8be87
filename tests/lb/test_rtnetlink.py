"""Netlink messages of neighbours, as the kernel would write them, and links, as it does."""

import socket
import struct
from pathlib import Path

from lb.dataplane.rtnetlink import Neighbour, events, links


def message(kind: int, body: bytes) -> bytes:
    """One netlink message, padded to four bytes."""
    whole = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return whole + bytes(-len(whole) % 4)


def neighbour(family: int, ifindex: int, state: int, *attributes: tuple[int, bytes]) -> bytes:
    """struct ndmsg and attributes."""
    body = struct.pack("=B3xiHBB", family, ifindex, state, 0, 1)
    for kind, value in attributes:
        body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    return body


def test_neighbours_are_read_among_other_messages() -> None:
    """Several messages in one datagram: neighbours with what they say, and None for what is none."""
    mac, four, six = b"\x02\0\0\0\0\x09", bytes([10, 0, 0, 9]), bytes(15) + b"\x09"
    data = (
        message(28, neighbour(2, 7, 0x02, (1, four), (2, mac), (3, bytes(16))))
        + message(16, bytes(16))
        + message(28, neighbour(10, 8, 0x20, (1, six)))
        + message(29, neighbour(2, 7, 0x04, (1, four), (2, mac)))
    )

    assert list(events(data)) == [
        Neighbour(7, four, mac, 0x02),
        None,
        Neighbour(8, six, b"", 0x20),
        Neighbour(7, four, mac, 0),
    ]


def test_a_message_that_is_cut_off_ends_the_reading() -> None:
    """Nothing is made up from half a header."""
    whole = message(28, neighbour(2, 7, 0x02, (1, bytes(4))))

    assert len(list(events(whole + whole[:10]))) == 1
    assert list(events(b"")) == []


def test_links_are_those_that_the_system_has() -> None:
    """Name, index, MAC, MTU and whether it is up are what /sys says, of every interface here."""
    told = {
        link.index: (link.name, link.mac.hex(":"), link.mtu, link.up)
        for name, link in links().items()
        if name == link.name
    }
    seen = {}
    for index, name in socket.if_nameindex():
        says = {
            key: Path(f"/sys/class/net/{name}/{key}").read_text().strip()
            for key in ("address", "mtu", "flags", "addr_len")
        }
        mac = says["address"] if says["addr_len"] == "6" else ""
        seen[index] = name, mac, int(says["mtu"]), bool(int(says["flags"], 16) & 1)

    assert told == seen

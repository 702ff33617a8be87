"""Neighbours and links by plain netlink, thousands in one message: a general library takes a millisecond for each.

Layouts are those of linux/netlink.h, linux/neighbour.h and linux/if_link.h, in the machine's byte order.
"""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_NEIGHBOUR = struct.Struct("=B3xiHBB")  # family, interface, state, flags, type
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_LINK = struct.Struct("=B3xiII")  # family, interface, flags, change
_NEW, _DELETE, _GET = 28, 29, 30
_GET_LINKS = 18
_ERROR, _DONE = 2, 3
_REQUEST, _REPLACE, _CREATE, _DUMP = 0x1, 0x100, 0x400, 0x300
_DST, _LLADDR = 1, 2
_ADDRESS, _NAME, _MTU, _EXT_MASK, _XDP = 1, 3, 4, 29, 43
_XDP_ATTACHED, _XDP_PROG_ID = 2, 4
_XDP_MODES = {1: "native", 2: "generic", 3: "offloaded", 4: "several"}
_IFF_UP, _IFF_LOWER_UP = 1, 1 << 16
_WITHOUT_COUNTERS = 8
_NESTED = 0x8000
_NTF_USE = 1
_AT_ONCE = 512
"""Questions in one message: far below the socket's buffer."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What the kernel knows of an address on a link. state: NUD_*, 0 if it is gone; mac is empty if unknown."""

    ifindex: int
    address: bytes
    mac: bytes
    state: int


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. mac is empty where it has none; carrier: its cable, or what stands for it, is plugged in."""

    index: int
    name: str
    mac: bytes
    mtu: int
    up: bool
    xdp_program_id: int | None
    xdp_mode: str
    carrier: bool = True

    @property
    def condition(self) -> str:
        """Whether packets come and go: up, down or no-carrier."""
        if not self.up:
            return "down"
        return "up" if self.carrier else "no-carrier"


def ask(targets: Iterable[tuple[int, bytes]]) -> None:
    """Have the kernel resolve these (interface, address). What it refuses (its table is full) is not told."""
    questions = [_question(ifindex, address) for ifindex, address in targets]
    with _socket() as asked:
        for start in range(0, len(questions), _AT_ONCE):
            asked.send(b"".join(questions[start : start + _AT_ONCE]))


def _question(ifindex: int, address: bytes) -> bytes:
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    body = (
        _NEIGHBOUR.pack(family, ifindex, 0, _NTF_USE, 0) + _ATTRIBUTE.pack(4 + len(address), _DST) + address
    )
    return _HEADER.pack(_HEADER.size + len(body), _NEW, _REQUEST | _CREATE | _REPLACE, 0, 0) + body


def neighbours(family: int) -> Iterator[Neighbour]:
    """All that the kernel knows. OSError if it does not say."""
    for data, kind, start, stop in _dump(_GET, _NEIGHBOUR.pack(family, 0, 0, 0, 0)):
        yield _neighbour(data, kind, start, stop)


def links() -> dict[str, Link]:
    """All interfaces by name. OSError if the kernel does not say."""
    mask = _ATTRIBUTE.pack(8, _EXT_MASK) + struct.pack("=I", _WITHOUT_COUNTERS)
    found = (
        _link(data, start, stop)
        for data, _, start, stop in _dump(_GET_LINKS, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0) + mask)
    )
    return {link.name: link for link in found}


def _dump(question: int, body: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """All messages of an answer: where they stand, their type, and where their content starts and stops."""
    with _socket() as asked:
        asked.send(_HEADER.pack(_HEADER.size + len(body), question, _REQUEST | _DUMP, 0, 0) + body)
        while True:
            data = asked.recv(1 << 18)
            for kind, start, stop in _messages(data):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", data, start)[0]
                    raise OSError(number, os.strerror(number))
                yield data, kind, start, stop


def events(data: bytes) -> Iterator[Neighbour | None]:
    """What was received after a change: a neighbour, or None for any other message."""
    for kind, start, stop in _messages(data):
        yield _neighbour(data, kind, start, stop) if kind in (_NEW, _DELETE) else None


def _messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Of each message its type, and where what follows its header starts and stops."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, at + _HEADER.size, at + length
        at += max(_HEADER.size, length + 3 & ~3)


def _neighbour(data: bytes, kind: int, start: int, stop: int) -> Neighbour:
    _, ifindex, state, _, _ = _NEIGHBOUR.unpack_from(data, start)
    found = _attributes(data, start + _NEIGHBOUR.size, stop)
    return Neighbour(ifindex, found.get(_DST, b""), found.get(_LLADDR, b""), state if kind == _NEW else 0)


def _link(data: bytes, start: int, stop: int) -> Link:
    _, index, flags, _ = _LINK.unpack_from(data, start)
    found = _attributes(data, start + _LINK.size, stop)
    mac, xdp = found.get(_ADDRESS, b""), found.get(_XDP, b"")
    program = _attributes(xdp, 0, len(xdp))
    program_id = program.get(_XDP_PROG_ID)
    return Link(
        index=index,
        name=os.fsdecode(found[_NAME].rstrip(b"\0")),
        mac=mac if len(mac) == 6 else b"",
        mtu=int.from_bytes(found.get(_MTU, b""), sys.byteorder),
        up=bool(flags & _IFF_UP),
        carrier=bool(flags & _IFF_LOWER_UP),
        xdp_program_id=None if program_id is None else int.from_bytes(program_id, sys.byteorder),
        xdp_mode=_XDP_MODES.get(int.from_bytes(program.get(_XDP_ATTACHED, b""), sys.byteorder), "none"),
    )


def _attributes(data: bytes, at: int, stop: int) -> dict[int, bytes]:
    """What stands behind a message's fixed part, by type."""
    found = {}
    while at + _ATTRIBUTE.size <= stop:
        length, name = _ATTRIBUTE.unpack_from(data, at)
        found[name & ~_NESTED] = data[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, length + 3 & ~3)
    return found


@contextlib.contextmanager
def _socket() -> Iterator[socket.socket]:
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as made:
        made.bind((0, 0))
        yield made

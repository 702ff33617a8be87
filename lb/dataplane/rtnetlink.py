"""Neighbours by plain netlink, thousands in one message: a general library takes a millisecond over each.

Layouts are those of linux/netlink.h and linux/neighbour.h, in the machine's byte order.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_NEIGHBOUR = struct.Struct("=B3xiHBB")  # family, interface, state, flags, type
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_NEW, _DELETE, _GET = 28, 29, 30
_ERROR, _DONE = 2, 3
_REQUEST, _REPLACE, _CREATE, _DUMP = 0x1, 0x100, 0x400, 0x300
_DST, _LLADDR = 1, 2
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
    with _socket() as asked:
        body = _NEIGHBOUR.pack(family, 0, 0, 0, 0)
        asked.send(_HEADER.pack(_HEADER.size + len(body), _GET, _REQUEST | _DUMP, 0, 0) + body)
        while True:
            data = asked.recv(1 << 18)
            for kind, start, stop in _messages(data):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", data, start)[0]
                    raise OSError(number, os.strerror(number))
                yield _neighbour(data, kind, start, stop)


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
    found = {_DST: b"", _LLADDR: b""}
    at = start + _NEIGHBOUR.size
    while at + _ATTRIBUTE.size <= stop:
        length, name = _ATTRIBUTE.unpack_from(data, at)
        if name in found:
            found[name] = data[at + 4 : at + length]
        at += max(4, length + 3 & ~3)
    return Neighbour(ifindex, found[_DST], found[_LLADDR], state if kind == _NEW else 0)


@contextlib.contextmanager
def _socket() -> Iterator[socket.socket]:
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as made:
        made.bind((0, 0))
        yield made

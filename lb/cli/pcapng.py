"""Packets as a pcapng file, each with a comment: what became of it, and why (draft-ietf-opsawg-pcapng)."""

from collections.abc import Mapping
from datetime import datetime
from struct import pack
from typing import Any, BinaryIO

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER, _NO_LENGTH = 0x1A2B3C4D, 0xFFFFFFFFFFFFFFFF
_ETHERNET = 1
_END, _COMMENT, _NAME, _RESOLUTION, _APPLICATION = 0, 1, 2, 9, 4
_NANOSECONDS = b"\x09"


class PcapngWriter:
    """Writes packets to a stream as they come. snap: bytes of each, at most."""

    def __init__(self, stream: BinaryIO, *, snap: int, application: str) -> None:
        self._stream, self._snap = stream, snap
        self._interfaces: dict[str, int] = {}
        options = _option(_APPLICATION, application.encode()) + _option(_END)
        self._block(_SECTION, pack("<IHHQ", _BYTE_ORDER, 1, 0, _NO_LENGTH) + options)

    def write(self, data: bytes, *, length: int, time_ns: int, interface: str, comment: str) -> None:
        """A packet. length: what it had on the wire; time_ns: since the epoch."""
        number = self._interfaces.get(interface)
        if number is None:
            number = self._interfaces[interface] = len(self._interfaces)
            options = _option(_NAME, interface.encode()) + _option(_RESOLUTION, _NANOSECONDS) + _option(_END)
            self._block(_INTERFACE, pack("<HHI", _ETHERNET, 0, self._snap) + options)
        head = pack("<IIIII", number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), max(length, len(data)))
        self._block(_PACKET, head + _padded(data) + _option(_COMMENT, comment.encode()) + _option(_END))
        self._stream.flush()

    def _block(self, kind: int, body: bytes) -> None:
        size = pack("<I", 12 + len(body))
        self._stream.write(pack("<I", kind) + size + body + size)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes = b"") -> bytes:
    return pack("<HH", code, len(value)) + _padded(value)


def nanoseconds(time: str) -> int:
    """Since the epoch, of an RFC 3339 text in UTC with nine digits after the point."""
    moment, _, rest = time.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(moment + "+00:00").timestamp()) * 1_000_000_000 + int(rest)


def comment_of(packet: Mapping[str, Any]) -> str:
    """A captured packet's verdict, and what decided, in words."""
    return "; ".join([packet["verdict"], *reasons_of(packet)])


def reasons_of(packet: Mapping[str, Any]) -> list[str]:
    """What decided, and for whom the packet was."""
    parts = []
    entry = packet["entry"]
    if entry is not None:
        why = f": {entry['reason']}" if entry["reason"] else ""
        counts = ", only counts" if entry["action"] == "count" else ""
        parts.append(f"blocklist entry {entry['prefix']} ({entry['owner']}{why}{counts})")
    for name in ("rule", "service", "backend"):
        if packet[name] is not None:
            parts.append(f"{name} {packet[name]}")
    return parts

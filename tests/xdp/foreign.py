"""A thousand frames of protocols that share the wire, each with the verdict that the documents give it.

The same thousand everywhere. They are what a network sends beside what is balanced, so none is forwarded.
"""

from dataclasses import dataclass
from functools import cache
from random import Random

import foreign_kinds
import foreign_strange
from foreign_kinds import Kind
from frames import CLIENT_MAC
from plane import OUR_MAC
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP

COUNT = 1000

_LINK = bytes.fromhex((OUR_MAC + CLIENT_MAC).replace(":", ""))
_ETHERTYPES = {IP: b"\x08\x00", IPv6: b"\x86\xdd", ARP: b"\x08\x06"}
_TAGS = (b"", b"\x81\x00\x00\x07", b"\x88\xa8\x00\x07\x81\x00\x00\x08")
"""None, one and two."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A frame to our MAC, the verdict on it, and the MAC that such a frame is really sent to."""

    name: str
    data: bytes
    verdict: str
    mac: str

    @property
    def as_sent(self) -> bytes:
        """To the MAC where it belongs."""
        return bytes.fromhex(self.mac.replace(":", "")) + self.data[6:]


@cache
def foreign_frames() -> tuple[Foreign, ...]:
    """The thousand: every kind in turn, untagged and tagged, each time with other fields and sizes."""
    kinds = [*foreign_kinds.kinds(), *foreign_strange.kinds()]
    return tuple(_made(kinds[n % len(kinds)], n // len(kinds), Random(n)) for n in range(COUNT))


def _made(kind: Kind, turn: int, chance: Random) -> Foreign:
    inner = kind.make(chance)
    if not isinstance(inner, bytes):
        inner = _ETHERTYPES[type(inner)] + bytes(inner)
    return Foreign(kind.name, _LINK + _TAGS[turn % 3] + inner, kind.verdict, kind.mac)

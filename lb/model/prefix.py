"""Address prefixes as integers, quick to parse and to sort.

A prefix is kept as one key whose order is that of (network, length): IPv4 in a u64 (network << 8 | length),
IPv6 in 17 bytes (16 of network, one of length, network byte order).
"""

import socket
from dataclasses import dataclass
from ipaddress import IPv6Network

BITS = {4: 32, 6: 128}
_MAPPED = 0xFFFF
"""The upper 96 bits of an IPv6 address that stands for an IPv4 one."""
_SHOWN = 60
"""Characters of a faulty text that a message repeats."""


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """family is 4 or 6, network an integer with the host bits clear, length in bits."""

    family: int
    network: int
    length: int

    @classmethod
    def parse(cls, text: object) -> "Prefix":
        """Read "192.0.2.0/24", "2001:db8::/32" or a bare address; ValueError says what was meant."""
        if not isinstance(text, str):
            raise ValueError("a prefix is a string such as 192.0.2.0/24")
        stripped = text.strip()
        address, slash, bits = stripped.partition("/")
        family = 6 if ":" in address else 4
        try:
            packed = socket.inet_pton(socket.AF_INET6 if family == 6 else socket.AF_INET, address)
        except (OSError, ValueError):
            raise ValueError(
                f"{_quoted(stripped)} is not an IPv4 or IPv6 prefix: write 192.0.2.0/24 or 2001:db8::/32"
            ) from None
        width = BITS[family]
        if slash and not (bits.isascii() and bits.isdigit() and len(bits) <= 3 and int(bits) <= width):
            raise ValueError(f"{_quoted(stripped)} has no valid prefix length: 0 to {width}")
        length = int(bits) if slash else width
        number = int.from_bytes(packed, "big")
        network = number >> (width - length) << (width - length)
        if network != number:
            raise ValueError(f"{stripped} has host bits set: the network is {cls(family, network, length)}")
        if family == 6 and length > 96 and network >> 32 == _MAPPED:
            meant = cls(4, network & 0xFFFFFFFF, length - 96)
            raise ValueError(f"{stripped} is an IPv4-mapped prefix, which no packet carries: write {meant}")
        return cls(family, network, length)

    @property
    def key(self) -> int | bytes:
        """The sort key: u64 for IPv4, 17 bytes for IPv6."""
        if self.family == 4:
            return self.network << 8 | self.length
        return self.network.to_bytes(16, "big") + bytes([self.length])

    @classmethod
    def from_key(cls, key: int | bytes) -> "Prefix":
        """The inverse of `key`."""
        if isinstance(key, bytes):
            key = key.ljust(17, b"\0")  # numpy strips zeros from the end
            return cls(6, int.from_bytes(key[:16], "big"), key[16])
        return cls(4, key >> 8, key & 0xFF)

    def contains(self, other: "Prefix") -> bool:
        """Whether every address of other is one of this prefix."""
        if self.family != other.family or self.length > other.length:
            return False
        shift = BITS[self.family] - self.length
        return self.network >> shift == other.network >> shift

    def shortened(self, length: int) -> "Prefix":
        """The prefix of that length, at most its own, that contains it."""
        shift = BITS[self.family] - length
        return Prefix(self.family, self.network >> shift << shift, length)

    def __str__(self) -> str:
        """The canonical text, always with its length."""
        n = self.network
        if self.family == 4:
            return f"{n >> 24}.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}/{self.length}"
        if n >> 48 == 0:  # inet_ntop would write the low 32 bits of these as IPv4
            return str(IPv6Network((n, self.length)))
        return f"{socket.inet_ntop(socket.AF_INET6, n.to_bytes(16, 'big'))}/{self.length}"


def _quoted(text: str) -> str:
    """The text in quotes, cut and without what would upset a terminal."""
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return '"' + "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown) + '"'

"""Internet checksums: whole (RFC 1071), and adjusted to what changed (RFC 1624)."""

from struct import unpack


def checksum(data: bytes) -> int:
    """The checksum of these bytes, an odd one filled up with a zero."""
    even = data + bytes(len(data) & 1)
    return _folded(sum(unpack(f">{len(even) // 2}H", even))) ^ 0xFFFF


def adjusted(before: int, old: int, new: int) -> int:
    """The checksum after one of its 16-bit words went from old to new: equation 3 of RFC 1624."""
    return _folded((before ^ 0xFFFF) + (old ^ 0xFFFF) + new) ^ 0xFFFF


def changed(before: int, old: bytes, new: bytes) -> int:
    """The checksum after old bytes of what it covers became new ones; both are filled up to whole words with zeros."""
    total = before ^ 0xFFFF
    for data, flip in ((old, 0xFFFF), (new, 0)):
        even = data + bytes(len(data) & 1)
        total += sum(word ^ flip for word in unpack(f">{len(even) // 2}H", even))
    return _folded(total) ^ 0xFFFF


def _folded(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total

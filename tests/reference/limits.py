"""Who is over a limit: one bucket for all that a rule matches, or for each source once it is heavy.

The clock is given, in nanoseconds: time stands still until somebody sets it.
"""

from collections import Counter

from tests.reference.packet import Packet
from tests.reference.rules import Document, Rule

SECOND = 1_000_000_000
LEAST_BYTES = 65535
"""The least burst of a limit of bytes that does not say its own."""

Bucket = tuple[str, bytes]
"""A rule's name, and the network of the source; no network where all share one bucket."""


class Limits:
    """Buckets and what each source has sent in this second, without an end to their room."""

    def __init__(self) -> None:
        self.now_ns = 0
        self._paid: dict[Bucket, int] = {}
        self._sent: Counter[tuple[int, Bucket]] = Counter()

    def clear(self) -> None:
        """Nobody has sent anything."""
        self._paid.clear()
        self._sent.clear()

    def is_over(self, rule: Rule, packet: Packet, frame_length: int) -> bool:
        """Whether a packet is over a rule's limit; if not, it pays."""
        limit = rule.limit
        assert limit is not None
        of_bytes = limit.get("unit") == "bytes"
        rate, units = limit["rate"], frame_length if of_bytes else 1
        burst = limit.get("burst") or max(rate, LEAST_BYTES if of_bytes else 1)
        if limit.get("per", "source") == "rule":
            return self._is_over((rule.name, b""), rate, burst, units)
        bucket = rule.name, _network(packet.source, limit)
        if bucket not in self._paid:
            second = self.now_ns // SECOND, bucket
            self._sent[second] += units
            heavy = max(min(rate, burst) // 2, 1)
            if self._sent[second] <= heavy:
                return False
            self._paid[bucket] = self.now_ns * rate + heavy * SECOND
        return self._is_over(bucket, rate, burst, units)

    def _is_over(self, bucket: Bucket, rate: int, burst: int, units: int) -> bool:
        # Time is counted in parts of a nanosecond of which a unit takes a whole number.
        now = self.now_ns * rate
        paid = max(self._paid.get(bucket, 0), now) + units * SECOND
        if paid > now + burst * SECOND:
            return True
        self._paid[bucket] = paid
        return False


def _network(source: bytes, limit: Document) -> bytes:
    length: int = limit.get("ipv4_length", 32) if len(source) == 4 else limit.get("ipv6_length", 64)
    free = 8 * len(source) - length
    return (int.from_bytes(source, "big") >> free << free).to_bytes(len(source), "big")

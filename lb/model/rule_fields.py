"""The match fields of a rule, as people write them: sets of numbers, TCP flags, IP protocols."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, PlainValidator

NUMBER_MAX = 65535
RANGES_MAX = 128
"""Ranges of one set, so that what is made of a thousand rules stays small."""
TCP, UDP = 6, 17
PROTOCOLS = {"icmp": 1, "tcp": TCP, "udp": UDP, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "sctp": 132}
"""Numbers of IANA's registry, by the names that are taken."""
_NAMES = {number: name for name, number in PROTOCOLS.items()}
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}
"""Bits of the TCP header's flags byte (RFC 9293, RFC 3168)."""


@dataclass(frozen=True, slots=True)
class NumberSet:
    """Numbers from 0 to 65535, as closed ranges (low, high) that are in order and apart."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, value: object) -> "NumberSet":
        """Read 53, "53", "1024-65535" or "80,443,8000-8080"; ValueError says what is wrong."""
        if isinstance(value, NumberSet):
            return value
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError('write a number, a range such as "8000-8080", or several with commas')
        found = [_range(part.strip()) for part in str(value).split(",")]
        joined = tuple(_joined(sorted(found)))
        if len(joined) > RANGES_MAX:
            raise ValueError(f"{len(joined)} ranges are too many: {RANGES_MAX} at most; write several rules")
        return cls(joined)

    def holds(self, other: "NumberSet") -> bool:
        """Whether every number of other is one of this set."""
        return all(any(low <= a and b <= high for low, high in self.ranges) for a, b in other.ranges)

    @property
    def greatest(self) -> int:
        """The greatest number."""
        return self.ranges[-1][1]

    def __str__(self) -> str:
        """The canonical text: in order, with no two ranges that touch."""
        return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in self.ranges)


def _range(text: str) -> tuple[int, int]:
    match = re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
    if not match:
        raise ValueError(f'"{text[:40]}" is neither a number nor a range: write 53, 8000-8080 or 80,443')
    low, high = int(match[1]), int(match[2] or match[1])
    if max(low, high) > NUMBER_MAX:
        raise ValueError(f"{max(low, high)} is out of range: 0 to {NUMBER_MAX}")
    if low > high:
        raise ValueError(f"the range {text} is backwards: write {high}-{low}")
    return low, high


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Sorted ranges, those that touch or overlap made one."""
    start = end = -2
    for low, high in ranges:
        if low <= end + 1:
            end = max(end, high)
            continue
        if end >= 0:
            yield start, end
        start, end = low, high
    yield start, end


@dataclass(frozen=True, slots=True)
class TcpFlags:
    """Flags that are looked at (mask), and those of them that have to be set (value)."""

    mask: int
    value: int

    @classmethod
    def parse(cls, value: object) -> "TcpFlags":
        """Read "syn,!ack": named means set, with "!" clear, others either; ValueError."""
        if isinstance(value, TcpFlags):
            return value
        if not isinstance(value, str):
            raise ValueError('TCP flags are a text such as "syn,!ack"')
        wanted: dict[int, bool] = {}
        for part in value.split(","):
            name = part.strip().lower()
            bit = FLAGS.get(name.removeprefix("!"))
            if bit is None:
                raise ValueError(
                    f'"{name[:40]}" is not a TCP flag: there are {", ".join(FLAGS)}, each with "!" for clear'
                )
            if wanted.setdefault(bit, not name.startswith("!")) is name.startswith("!"):
                raise ValueError(
                    f"{name.removeprefix('!')} cannot be both set and clear: leave one of them out"
                )
        return cls(sum(wanted), sum(bit for bit, is_set in wanted.items() if is_set))

    def holds(self, other: "TcpFlags") -> bool:
        """Whether every packet that fits other fits this too."""
        return self.mask & ~other.mask == 0 and other.value & self.mask == self.value

    def forbids(self, *, present: int = 0, absent: int = 0) -> bool:
        """Whether no packet that fits has all flags of present and none of absent."""
        return bool(self.mask & ~self.value & present or self.value & absent)

    def __str__(self) -> str:
        """The canonical text."""
        return ",".join(
            name if self.value & bit else f"!{name}" for name, bit in FLAGS.items() if self.mask & bit
        )


def parse_protocol(value: object) -> int:
    """An IP protocol's number, from it or from one of the names that are known; ValueError."""
    text = str(value).strip().lower()
    if text in PROTOCOLS:
        return PROTOCOLS[text]
    if isinstance(value, bool) or not re.fullmatch("[0-9]{1,3}", text) or int(text) > 255:
        raise ValueError(
            f'"{text[:40]}" is not an IP protocol: write {", ".join(PROTOCOLS)}, or a number from 0 to 255'
        )
    return int(text)


def show_protocol(number: int) -> int | str:
    """The name, or the number where there is none."""
    return _NAMES.get(number, number)


NumberSetField = Annotated[
    NumberSet,
    PlainValidator(NumberSet.parse, json_schema_input_type=int | str),
    PlainSerializer(str, return_type=str),
]
TcpFlagsField = Annotated[
    TcpFlags,
    PlainValidator(TcpFlags.parse, json_schema_input_type=str),
    PlainSerializer(str, return_type=str),
]
ProtocolField = Annotated[
    int,
    BeforeValidator(parse_protocol, json_schema_input_type=int | str),
    PlainSerializer(show_protocol, return_type=int | str),
]

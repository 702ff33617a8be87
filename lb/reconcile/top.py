"""Who sends the most: samples of all verdicts, counted by Space-Saving and scaled to what the verdict counters saw."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import Array
from lb.model.heavy import SpaceSaving
from lb.model.prefix import Prefix
from lb.reconcile.explained import address_text
from lb.reconcile.seen import Naming

COUNTERS = 8192
"""Of the sketch: a sender of more than one packet in so many that were seen is among them."""
PREFIX_BITS = {4: 24, 6: 64}
"""What a prefix of senders is."""
CONFIDENCE = 1.96
"""Standard deviations on either side that hold 95 %."""
NOBODY = "-"
"""Packets of which no address (or service) is known."""

_VERDICTS_MAX = layout().constants["VERDICTS_MAX"]


class By(StrEnum):
    """What packets are put together by."""

    SOURCE = "source"
    PREFIX = "prefix"
    SERVICE = "service"
    VERDICT = "verdict"


@dataclass(frozen=True, slots=True)
class Talker:
    """One line. share: of all packets, 0 to 1; uncertainty: how far it may be off either way, with 95 % confidence.

    verdicts: its packets a second by verdict, the most first.
    """

    key: str
    packets_per_second: float
    share: float
    uncertainty: float
    verdicts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Top:
    """What came in so many seconds. packets: all of them, exactly; sampled: those that were looked at."""

    by: By
    seconds: float
    packets: int
    sampled: int
    packets_per_second: float
    items: list[Talker]


class Talkers:
    """Counts samples (struct sample) by a key and their verdict."""

    def __init__(self, by: By) -> None:
        self._by = by
        self._sketch = SpaceSaving[tuple[object, int]](COUNTERS)
        self._sampled = np.zeros(_VERDICTS_MAX, np.int64)

    def add(self, rows: Array) -> None:
        """Records, shape (N,)."""
        verdicts = rows["verdict"].tolist()
        self._sampled += np.bincount(rows["verdict"], minlength=_VERDICTS_MAX)
        for pair in zip(self._keys(rows), verdicts, strict=True):
            self._sketch.add(pair)

    def _keys(self, rows: Array) -> list[object]:
        if self._by is By.SERVICE:
            return list(rows["service"].tolist())
        if self._by is By.VERDICT:
            return list(rows["verdict"].tolist())
        packed = np.ascontiguousarray(rows["source"]).tobytes()
        sizes = {4: 4, 6: 16}
        if self._by is By.PREFIX:
            sizes = {family: bits // 8 for family, bits in PREFIX_BITS.items()}
        return [
            (family, packed[16 * at : 16 * at + sizes.get(family, 0)])
            for at, family in enumerate(rows["family"].tolist())
        ]

    def top(self, came: Array, seconds: float, most: int, naming: Naming) -> Top:
        """The first so many. came: all packets by verdict number in these seconds, by the counters."""
        came = np.maximum(came, self._sampled)
        total = int(came.sum())
        by_key: dict[object, dict[int, tuple[float, float, float]]] = {}
        for heavy in self._sketch.top():
            key, verdict = heavy.key
            by_key.setdefault(key, {})[verdict] = self._estimate(
                heavy.count, heavy.error, int(self._sampled[verdict]), int(came[verdict])
            )
        sums = {key: sum(packets for packets, _, _ in parts.values()) for key, parts in by_key.items()}
        items = []
        for key in sorted(sums, key=lambda key: -sums[key])[:most]:
            parts = by_key[key]
            off = CONFIDENCE * math.sqrt(sum(variance for _, variance, _ in parts.values()))
            off += sum(error for _, _, error in parts.values())
            ordered = sorted(parts.items(), key=lambda part: -part[1][0])
            items.append(
                Talker(
                    key=self._name(key, naming),
                    packets_per_second=sums[key] / seconds,
                    share=sums[key] / total,
                    uncertainty=min(1.0, off / total),
                    verdicts={naming.verdict(v).name: packets / seconds for v, (packets, _, _) in ordered},
                )
            )
        return Top(self._by, seconds, total, int(self._sampled.sum()), total / seconds, items)

    @staticmethod
    def _estimate(count: int, error: int, sampled: int, came: int) -> tuple[float, float, float]:
        """Packets, the variance of that number, and what the sketch may have put too much into it.

        Of `came` packets of a verdict `sampled` were seen: a sample without replacement, hence the last factor.
        """
        scale, share = came / sampled, count / sampled
        variance = scale**2 * sampled * share * (1 - share) * (1 - sampled / came)
        return count * scale, variance, error * scale

    def _name(self, key: object, naming: Naming) -> str:
        if isinstance(key, int):
            if self._by is By.VERDICT:
                return naming.verdict(key).name
            return naming.service_of(key) or NOBODY
        assert isinstance(key, tuple)
        family, packed = key
        if not packed:
            return NOBODY
        if self._by is By.SOURCE:
            return address_text(packed)
        bits = 32 if family == 4 else 128
        network = int.from_bytes(packed, "big") << bits - 8 * len(packed)
        return str(Prefix(family, network, PREFIX_BITS[family]))

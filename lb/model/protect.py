"""Which addresses in use a change of the lists would lock out: the caller, gateways, backends and VIPs. Pure.

A few addresses are looked up in sorted columns, so a list of a million prefixes costs no more than a small one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lb.errors import ConflictError
from lb.model.address import AnyAddress
from lb.model.columns import FAMILIES, KEY_TYPE, Keys, Mask
from lb.model.config import Config
from lb.model.entries import PrefixList
from lb.model.owner import OPERATOR
from lb.model.prefix import BITS, Prefix

Array = npt.NDArray[Any]

SHOWN = 5
"""Addresses that a refusal names."""
REMEDY = "repeat it with force (--force, ?force=true), or allowlist the address first"


@dataclass(frozen=True, slots=True)
class Protected:
    """An address that is in use. role: what it is; cut: what a block of it would take away. Words of a sentence.

    length: of a VIP that is a prefix, else of the whole address.
    """

    address: AnyAddress
    role: str
    cut: str
    length: int = 128

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.address.version

    @property
    def prefix(self) -> Prefix:
        """The address, or the prefix that a VIP is."""
        return Prefix(self.family, int(self.address), min(self.length, BITS[self.family]))


@dataclass(frozen=True, slots=True)
class Lockout:
    """An address that the lists drop, and the entry that does."""

    protected: Protected
    prefix: Prefix
    owners: tuple[str, ...]

    def __str__(self) -> str:
        """What is wrong, without what to do."""
        who = self.protected
        return f"{self.prefix} ({', '.join(self.owners)}) covers {who.address}, {who.role}: {who.cut} would be dropped"


def check(
    before: Config, after: Config, in_use: Sequence[Protected], is_new: Sequence[bool], now: float
) -> list[str]:
    """What a change does to addresses in use.

    is_new: for each address whether the change itself brings it into use: what is blocked already is then a warning.
    ConflictError: an entry that drops one is new, or one is dropped that was not. The warnings are returned.
    """
    refused: list[Lockout] = []
    warned: list[Lockout] = []
    for family in FAMILIES:
        some = [(one, new) for one, new in zip(in_use, is_new, strict=True) if one.family == family]
        if not some:
            continue
        protected = [one for one, _ in some]
        old, new = _Look(before, protected, family, now), _Look(after, protected, family, now)
        for at in np.flatnonzero(new.is_cut).tolist():
            added = next((n for n in new.drops if new.drops[n][at] and not old.has_drop(n, at)), None)
            if added is not None:
                refused.append(new.lockout(at, added))
            elif not old.is_cut[at]:
                refused.append(new.lockout(at, new.deciding(at)))
            elif some[at][1]:
                warned.append(new.lockout(at, new.deciding(at)))
    if refused:
        more = ", ".join(str(one.protected.address) for one in refused[1:SHOWN])
        others = (
            f" (and {len(refused) - 1} more: {more}{', …' if len(refused) > SHOWN else ''})" if more else ""
        )
        raise ConflictError(f"{refused[0]}{others}; {REMEDY}")
    return [f"{one}; unblock or allowlist it if this is not intended" for one in warned]


class _Look:
    """What the lists of a config say of some addresses of one family, shape (n,)."""

    def __init__(self, config: Config, protected: Sequence[Protected], family: int, now: float) -> None:
        self._config, self._protected, self._family, self._now = config, protected, family, now
        self._size = len(protected)
        packed = b"".join(one.address.packed for one in protected)
        self._addresses: Array = (
            np.frombuffer(packed, ">u4").astype(np.uint64)
            if family == 4
            else np.frombuffer(packed, np.uint8).reshape(-1, 16)
        )
        self._fits = np.array([one.length for one in protected], np.int64)
        self.drops: dict[int, Mask] = {}
        """By length, the longest first: who has an entry that drops."""
        decided = np.zeros(self._size, bool)
        self.is_cut = np.zeros(self._size, bool)
        self._deciding = np.zeros(self._size, np.int64)
        for length, (drop, count) in self._by_length(config.blocklist):
            self.drops[length] = drop
            now_decided = (drop | count) & ~decided
            self.is_cut[now_decided] = drop[now_decided]
            self._deciding[now_decided] = length
            decided |= now_decided
        for _, (allowed, _) in self._by_length(config.allowlist):
            self.is_cut &= ~allowed

    def has_drop(self, length: int, at: int) -> bool:
        """Whether an entry of that length drops an address."""
        return length in self.drops and bool(self.drops[length][at])

    def deciding(self, at: int) -> int:
        """The length of the entry that decides of an address."""
        return int(self._deciding[at])

    def lockout(self, at: int, length: int) -> Lockout:
        """That entry, and what it cuts."""
        prefix = Prefix.from_key(self._keys(length)[at].item())
        entry = self._config.blocklist.get(prefix, self._now)
        return Lockout(self._protected[at], prefix, entry.owners if entry else ())

    def _by_length(self, entries: PrefixList) -> Iterator[tuple[int, tuple[Mask, Mask]]]:
        """For each length who has an entry that drops, and who one that only counts; by whose word counts."""
        lengths = {n for layer in entries.layers.values() for n in layer.lengths[self._family]}
        for length in sorted(lengths, reverse=True):
            keys = self._keys(length)
            drop, count, settled = (np.zeros(self._size, bool) for _ in range(3))
            for owner, layer in entries.layers.items():
                if length not in layer.lengths[self._family]:
                    continue
                held, counting = layer.active_among(self._family, keys, self._now)
                drop |= held & ~counting & ~settled
                count |= counting & ~settled
                if owner == OPERATOR:
                    settled = held
            fits = length <= self._fits
            yield length, (drop & fits, count & ~drop & fits)

    def _keys(self, length: int) -> Keys:
        """The prefix of that length around each address."""
        if self._family == 4:
            bits = np.uint64(32 - length)
            return self._addresses >> bits << bits << np.uint64(8) | np.uint64(length)
        mask = ((1 << 128) - (1 << 128 - length)).to_bytes(16, "big")
        rows = np.full((self._size, 17), length, np.uint8)
        rows[:, :16] = self._addresses & np.frombuffer(mask, np.uint8)
        return np.frombuffer(rows.tobytes(), KEY_TYPE[6])

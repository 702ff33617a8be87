"""The service tables: buckets of one cache line in mapped memory, and a hash for keys that find no room in theirs.

A lookup is one cache line, and a change is one aligned word that becomes visible last: readers need no lock.
"""

from collections import Counter

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import U64, Array, Table, dtype_of
from lb.errors import CapacityError

_C = layout().constants
MORE, USED = _C["SERVICE_MORE"], _C["SERVICE6_USED"]
_MIX4, _MIX6 = np.uint64(_C["SERVICE4_MIX"]), np.uint64(_C["SERVICE6_MIX"])
_HALF, _FILTER_SHIFT = np.uint64(32), np.uint64(51)


class ServiceTable:
    """A Table over buckets. slots: shape (buckets, ways); bits: the row of vip_bits; more: where the rest goes."""

    def __init__(self, slots: Array, bits: U64, more: Table, capacity: int, *, family: int) -> None:
        self._slots, self._bits, self._more, self.capacity = slots, bits, more, capacity
        self._family = family
        self._key_dtype = dtype_of(f"service{family}_key")
        self._keys: U64 = slots["key"]
        """A view: its words are the slots' own."""
        self._places: dict[bytes, int | None] = {}
        """Of each key its slot (bucket * ways + way), None if it is among the rest."""
        self._rest: Counter[int] = Counter()
        """How many of each bucket are among the rest."""
        self._adopt()

    def _adopt(self) -> None:
        """Learn what is in memory."""
        ways = self._slots.shape[1]
        used = np.argwhere((self._keys != 0) & (self._keys != np.uint64(MORE)))
        keys = self._slot_keys(self._slots[used[:, 0], used[:, 1]])
        self._places = {k.tobytes(): int(b) * ways + int(w) for k, (b, w) in zip(keys, used, strict=True)}
        rest, _ = self._more.read()
        # A key that is in both was being moved when the writer ended: readers find the slot.
        twice = np.array([key.tobytes() in self._places for key in rest], bool)
        if twice.any():
            self._more.delete(rest[twice])
            rest = rest[~twice]
        self._places |= dict.fromkeys((key.tobytes() for key in rest), None)
        self._rest = Counter(self._buckets(rest).tolist())

    def _slot_keys(self, slots: Array) -> Array:
        """The keys of slots, as struct service4_key or service6_key."""
        if self._family == 4:
            return np.array(slots["key"]).view(self._key_dtype)
        keys = np.zeros(len(slots), self._key_dtype)
        keys["vip"] = np.ascontiguousarray(slots["vip"]).view(keys.dtype["vip"].base).reshape(-1, 4)
        tail = slots["key"] & np.uint64(USED - 1)
        keys["port"] = (tail & np.uint64(0xFFFF)).astype("<u2").view(">u2")
        keys["protocol"], keys["prefix"] = tail >> np.uint64(16) & np.uint64(0xFF), tail >> np.uint64(24)
        return keys

    def _words(self, keys: Array) -> tuple[U64, U64, U64]:
        """The high and low half of each VIP (IPv6 alone), and the word that marks the slot as used."""
        raw = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, self._key_dtype.itemsize)
        if self._family == 4:
            word = raw.view("<u8")[:, 0]
            return word, word, word
        vips = np.ascontiguousarray(raw[:, :16]).view("<u8")
        tail = np.ascontiguousarray(raw[:, 16:20]).view("<u4")[:, 0].astype(np.uint64)
        return vips[:, 0], vips[:, 1], tail | np.uint64(USED)

    def _buckets(self, keys: Array) -> U64:
        high, low, word = self._words(keys)
        mixed = word * _MIX4 if self._family == 4 else ((high ^ word) * _MIX4 ^ low) * _MIX6
        return mixed >> _HALF & np.uint64(len(self._slots) - 1)

    def read(self) -> tuple[Array, Array]:
        """All entries, learnt anew: after a write that was refused, memory is what counts."""
        self._adopt()
        rest_keys, rest_values = self._more.read()
        used = (self._keys != 0) & (self._keys != np.uint64(MORE))
        slots = self._slots[used]
        return _joined(self._slot_keys(slots), rest_keys), _joined(slots["service"], rest_values)

    def write(self, keys: Array, values: Array) -> None:
        """Put entries in; CapacityError if they do not fit, and nothing is changed."""
        names = [key.tobytes() for key in keys]
        if len(self._places.keys() | set(names)) > self.capacity:
            raise CapacityError(f"the service table is full: it holds {self.capacity} entries")
        self._bits |= self._bits_of(keys)
        words = np.ascontiguousarray(values).view("<u8")
        rest: list[int] = []
        for at, (name, bucket) in enumerate(zip(names, self._buckets(keys).tolist(), strict=True)):
            if not self._put(name, int(bucket), keys[at : at + 1], words[at]):
                rest.append(at)
        if rest:
            self._more.write(keys[rest], values[rest])

    def _put(self, name: bytes, bucket: int, key: Array, value: np.uint64) -> bool:
        """Write one entry into its bucket; False if it belongs among the rest."""
        ways = self._slots.shape[1]
        known = name in self._places
        place = self._places.get(name)
        if place is not None:
            self._slots["service"].view("<u8")[divmod(place, ways)] = value
            return True
        if known:
            return False
        free = np.flatnonzero(self._keys[bucket] == 0)
        if not len(free):
            if self._keys[bucket, -1] != np.uint64(MORE):
                self._make_way(bucket)
            self._places[name] = None
            self._rest[bucket] += 1
            return False
        way = int(free[0])
        high, low, word = self._words(key)
        slot = self._slots[bucket, way : way + 1]
        slot["service"].view("<u8")[0] = value
        if self._family == 6:
            slot["vip"][0] = high[0], low[0]
        self._keys[bucket, way] = word[0]
        self._places[name] = bucket * ways + way
        return True

    def _make_way(self, bucket: int) -> None:
        """The last slot's entry goes to the rest, then the slot sends readers there."""
        slot = self._slots[bucket, -1:]
        key = self._slot_keys(slot)
        self._more.write(key, slot["service"].copy())
        self._keys[bucket, -1] = MORE
        self._places[key[0].tobytes()] = None
        self._rest[bucket] += 1

    def delete(self, keys: Array) -> None:
        """Take keys out; those that are not there are passed over."""
        ways = self._slots.shape[1]
        gone = []
        for at, (key, bucket) in enumerate(zip(keys, self._buckets(keys).tolist(), strict=True)):
            name = key.tobytes()
            if name not in self._places:
                continue
            place = self._places.pop(name)
            if place is None:
                gone.append(at)
                self._rest[int(bucket)] -= 1
            else:
                self._keys[divmod(place, ways)] = 0
        if gone:
            self._more.delete(keys[gone])
            for bucket in np.unique(self._buckets(keys[gone])).tolist():
                if not self._rest[bucket]:
                    self._keys[bucket, -1] = 0
        if ((keys["port"] == 0) & (keys["protocol"] == 0)).any():
            self._bits[:] = self._bits_of(np.frombuffer(b"".join(self._places), self._key_dtype))

    def _hashes(self, keys: Array) -> U64:
        """Which bit stands for each key's VIP."""
        high, low, word = self._words(keys)
        address = word & np.uint64(0xFFFFFFFF) if self._family == 4 else high ^ low
        return address * _MIX4 >> _FILTER_SHIFT

    def _bits_of(self, keys: Array) -> U64:
        """The row of vip_bits for the VIPs among these keys."""
        marks = keys[(keys["port"] == 0) & (keys["protocol"] == 0)]
        bits = np.zeros(8192, np.uint8)
        bits[self._hashes(marks).astype(np.int64)] = 1
        return np.packbits(bits, bitorder="little").view(np.uint64)


def _joined(first: Array, second: Array) -> Array:
    """One after the other; np.concatenate would turn network order into the machine's."""
    return np.frombuffer(first.tobytes() + second.tobytes(), first.dtype)

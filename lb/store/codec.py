"""Layers of prefixes as bytes: raw numpy columns behind a short JSON header, and a checksum."""

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lb.model.columns import FAMILIES, KEY_TYPE, Column, Ids, Keys
from lb.model.layers import Action, Attributes, Layer

_LENGTH = struct.Struct("<I")
_ID_TYPES = ("<u1", "<u2", "<u4")
KEY_BYTES = {4: 5, 6: 17}
"""What a key takes when stored: of IPv4 the network and the length, of IPv6 all 17 bytes."""
_ATTRIBUTES_BYTES = 64
"""What one set of attributes takes, about."""


def encode(put: Layer, gone: Mapping[int, Keys]) -> bytes:
    """Entries to put (a whole layer, or those that differ), and keys to take out."""
    put = put.canonical
    id_type = next(t for t in _ID_TYPES if len(put.attributes) <= np.iinfo(t).max + 1)
    header = {
        "put": [len(put.columns[f]) for f in FAMILIES],
        "gone": [len(gone.get(f, ())) for f in FAMILIES],
        "ids": id_type,
        "attributes": [
            (a.action.value, a.reason, a.created_at, a.ttl_seconds, a.expires_at) for a in put.attributes
        ],
    }
    packed = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 1)
    parts = [_LENGTH.pack(len(packed)), packed]
    for family in FAMILIES:
        column = put.columns[family]
        parts += _pack_keys(family, column.keys)
        parts.append(column.ids.astype(id_type).tobytes())
        if family in gone:
            parts += _pack_keys(family, gone[family])
    body = b"".join(parts)
    return body + _LENGTH.pack(zlib.crc32(body))


def decode(data: bytes) -> tuple[Layer, dict[int, Keys]]:
    """The inverse of encode; ValueError if the bytes are damaged."""
    body = memoryview(data)[: -_LENGTH.size]
    if len(data) < 2 * _LENGTH.size or _LENGTH.unpack(data[-_LENGTH.size :])[0] != zlib.crc32(body):
        raise ValueError("a checksum does not fit")
    (size,) = _LENGTH.unpack_from(body)
    header = json.loads(zlib.decompress(body[_LENGTH.size : _LENGTH.size + size]))
    reader = _Reader(body[_LENGTH.size + size :])
    columns: dict[int, Column] = {}
    gone: dict[int, Keys] = {}
    for family, put_count, gone_count in zip(FAMILIES, header["put"], header["gone"], strict=True):
        keys = reader.keys(family, put_count)
        columns[family] = Column(keys, reader.array(header["ids"], put_count).astype(np.uint32))
        gone[family] = reader.keys(family, gone_count)
    attributes = tuple(Attributes(Action(action), *rest) for action, *rest in header["attributes"])
    return Layer(columns, attributes), gone


def size_of(layer: Layer) -> int:
    """About how many bytes encode would make of a whole layer."""
    keys = sum(len(layer.columns[f]) * (KEY_BYTES[f] + 1) for f in FAMILIES)
    return keys + len(layer.attributes) * _ATTRIBUTES_BYTES


def replay(bodies: Sequence[bytes]) -> Layer:
    """The layer that a whole one, and then changes of it in order, lead to; ValueError if one is damaged."""
    base, _ = decode(bodies[0])
    changes = [decode(body) for body in bodies[1:]]
    if not changes:
        return base
    # All changes as one: of each key the last word counts, a number of attributes from 1, or 0 for gone.
    attributes: list[Attributes] = []
    keys: dict[int, list[Keys]] = {f: [] for f in FAMILIES}
    words: dict[int, list[Ids]] = {f: [] for f in FAMILIES}
    for put, gone in changes:
        for f in FAMILIES:
            keys[f] += [gone[f], put.columns[f].keys]
            first = np.uint32(len(attributes) + 1)
            words[f] += [np.zeros(len(gone[f]), np.uint32), put.columns[f].ids + first]
        attributes += put.attributes
    last = {f: Column.of(np.concatenate(keys[f]), np.concatenate(words[f])) for f in FAMILIES}
    out = {f: column.keys[column.ids == 0] for f, column in last.items()}
    changed = {f: column.where(column.ids > 0) for f, column in last.items()}
    added = Layer({f: Column(c.keys, c.ids - np.uint32(1)) for f, c in changed.items()}, tuple(attributes))
    return base.without_keys(out).united(added).canonical


def _pack_keys(family: int, keys: Keys) -> Iterable[bytes]:
    if family == 6:
        return [keys.tobytes()]
    numbers = keys.view(np.uint64)
    return [(numbers >> np.uint64(8)).astype("<u4").tobytes(), numbers.astype("<u1").tobytes()]


class _Reader:
    """Takes arrays from a run of bytes."""

    def __init__(self, body: memoryview) -> None:
        self._body = body

    def array(self, kind: str, count: int) -> npt.NDArray[np.generic]:
        found = np.frombuffer(self._body, kind, count)
        self._body = self._body[found.nbytes :]
        return found

    def keys(self, family: int, count: int) -> Keys:
        if family == 6:
            return self.array(KEY_TYPE[6].str, count).copy()
        networks = self.array("<u4", count).astype(np.uint64)
        return networks << np.uint64(8) | self.array("<u1", count).astype(np.uint64)

"""Entries as text that can be imported again, in pieces: a million of them are never in memory at once."""

import json
from collections.abc import Iterator

import numpy as np

from lb.model.columns import FAMILIES, KEY_TYPE, Keys, sorted_unique
from lb.model.entries import PrefixList
from lb.model.entry_view import wish_document
from lb.model.layers import Action, Layer
from lb.model.owner import OPERATOR
from lb.model.prefix import Prefix

_PIECE = 10_000
"""Entries that are written at a time."""


def exported(entries: PrefixList, now: float, form: str) -> Iterator[str]:
    """plain: every prefix that is in force and does not only count, a line each; json: the entries of each owner."""
    return _json(entries, now) if form == "json" else _plain(entries, now)


def _plain(entries: PrefixList, now: float) -> Iterator[str]:
    for family in FAMILIES:
        parts = [_acting(layer, family, now) for layer in entries.layers.values()]
        keys = sorted_unique(
            np.concatenate([np.empty(0, KEY_TYPE[family]), *(acting for acting, _ in parts)])
        )
        if OPERATOR in entries.layers:  # whose word counts: what it only counts passes
            counted = _acting(entries.layers[OPERATOR], family, now)[1]
            keys = keys[~np.isin(keys, counted)]
        for start in range(0, len(keys), _PIECE):
            yield "".join(f"{Prefix.from_key(key)}\n" for key in keys[start : start + _PIECE].tolist())


def _acting(layer: Layer, family: int, now: float) -> tuple[Keys, Keys]:
    """The keys in force that do more than count, and those that only count."""
    column = layer.active(family, now)
    counting = np.array([a.action is Action.COUNT for a in layer.attributes], bool)
    if not counting.any():
        return column.keys, column.keys[:0]
    return column.keys[~counting[column.ids]], column.keys[counting[column.ids]]


def _json(entries: PrefixList, now: float) -> Iterator[str]:
    yield '{"items": ['
    between = "\n"
    for owner, layer in entries.layers.items():
        whose = {} if owner == OPERATOR else {"owner": owner}
        # What stands behind the prefix, written once for all entries that say the same.
        rest = [json.dumps({"": 0, **whose, **wish_document(a)})[len('{"": 0') :] for a in layer.attributes]
        for family in FAMILIES:
            column = layer.active(family, now)
            for start in range(0, len(column), _PIECE):
                part = column.part(start, start + _PIECE)
                pairs = zip(part.keys.tolist(), part.ids.tolist(), strict=True)
                yield between + ",\n".join(f'{{"prefix": "{Prefix.from_key(k)}"{rest[n]}' for k, n in pairs)
                between = ",\n"
    yield "\n]}\n"

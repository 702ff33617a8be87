"""Entries of the blocklist and allowlist as people write them, one or many."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from lb.errors import FieldError, InvalidError
from lb.model.columns import FAMILIES, Column, Keys, Positions
from lb.model.fields import OneLine, Strict, faults, field_errors
from lb.model.layers import Action, Attributes, Layer
from lb.model.listfile import parse_each
from lb.model.prefix import Prefix
from lb.model.times import SECONDS_MAX, format_moment, parse_duration, parse_moment

FAULTS_SHOWN = 100
"""Faulty entries of one request that are reported."""
REASON_MAX = 200
_ANY = Prefix(4, 0, 0)
"""Stands in where only what is beside the prefix is looked at."""
_OVER = -1
"""In the place of a number of attributes: the entry has expired already."""


def _prefix(value: object) -> Prefix:
    return value if isinstance(value, Prefix) else Prefix.parse(value)


PrefixField = Annotated[
    Prefix,
    PlainValidator(_prefix, json_schema_input_type=str),
    PlainSerializer(str, return_type=str),
]
Duration = Annotated[int, BeforeValidator(parse_duration, json_schema_input_type=int | str)]
Moment = Annotated[
    float,
    BeforeValidator(parse_moment, json_schema_input_type=str),
    PlainSerializer(format_moment, return_type=str),
]


class AllowlistInput(Strict):
    """An entry of the allowlist to be. Without ttl_seconds or expires_at it stays until it is removed."""

    prefix: PrefixField = Field(description="a prefix or an address", examples=["203.0.113.0/24"])
    reason: OneLine = Field("", max_length=REASON_MAX, description="reason, on one line")
    ttl_seconds: Duration | None = Field(
        None, description='time to live in seconds, or a text such as "1h"', examples=[3600]
    )
    expires_at: Moment | None = Field(
        None, description="when it expires, in RFC 3339", examples=["2030-01-31T12:00:00Z"]
    )

    @model_validator(mode="after")
    def _check_deadline(self) -> "AllowlistInput":
        if self.ttl_seconds is not None and self.expires_at is not None:
            faults([(("expires_at",), "ttl_seconds and expires_at contradict each other: give one of them")])
        return self

    def attributes(self, now: float) -> Attributes:
        """What an entry made at that time (seconds since the epoch) says beside its prefix.

        InvalidError if expires_at is not in the future, or further off than a TTL may reach.
        """
        created_at = round(now, 3)
        if self.ttl_seconds is not None:
            return Attributes(
                reason=self.reason,
                created_at=created_at,
                ttl_seconds=self.ttl_seconds,
                expires_at=created_at + self.ttl_seconds,
            )
        if self.expires_at is not None and not now < self.expires_at <= now + SECONDS_MAX:
            given = format_moment(self.expires_at)
            raise InvalidError.one(
                "/expires_at",
                f"{given} is in the past: give a time in the future"
                if self.expires_at <= now
                else f"{given} is over 10 years ahead: leave expires_at out for an entry that stays",
            )
        return Attributes(reason=self.reason, created_at=created_at, expires_at=self.expires_at)

    def entry(self, now: float) -> tuple[Prefix, Attributes]:
        """The prefix with its attributes; InvalidError as from attributes."""
        return self.prefix, self.attributes(now)


class BlocklistInput(AllowlistInput):
    """An entry of the blocklist to be. Without ttl_seconds or expires_at it stays until it is removed."""

    action: Action = Field(Action.DROP, description="count: its packets are counted, and pass")

    def attributes(self, now: float) -> Attributes:
        """What an entry made at that time says beside its prefix; InvalidError as in an AllowlistInput."""
        return replace(super().attributes(now), action=self.action)


def read_entries(
    kind: type[AllowlistInput],
    items: Sequence[object],
    *,
    now: float,
    at: str = "",
    places: Sequence[int] | None = None,
    drop_expired: bool = False,
) -> Layer:
    """Many entries, each a mapping with the keys of that kind of input, or just the text of a prefix.

    at: the JSON pointer of items, for the faults; places: where each stands there, if these are some of more.
    drop_expired: an expires_at in the past is no fault; that
    entry is left out. InvalidError names every fault, up to FAULTS_SHOWN; and once each entry is right by
    itself, each prefix that is given twice and says different things.
    """
    shown = range(len(items)) if places is None else places
    reader = _Reader(kind, items, now=now, at=at, places=shown, drop_expired=drop_expired)
    layer = reader.layer()
    if reader.faults:
        reader.faults.sort(key=lambda fault: fault[0])
        raise InvalidError([fault for _, fault in reader.faults[:FAULTS_SHOWN]])
    return layer


class _Reader:
    """Reads what stands beside the prefixes once for all entries that say the same there."""

    def __init__(
        self,
        kind: type[AllowlistInput],
        items: Sequence[object],
        *,
        now: float,
        at: str,
        places: Sequence[int],
        drop_expired: bool,
    ) -> None:
        self.faults: list[tuple[int, FieldError]] = []
        self._kind, self._items = kind, items
        self._now, self._at, self._places, self._drop_expired = now, at, places, drop_expired
        self._known: dict[Hashable, int] = {}
        self._numbers: dict[Attributes, int] = {}

    def layer(self) -> Layer:
        """All entries; those with faults may be among them."""
        texts: list[object] = []
        numbers: list[int] = []
        for place, item in enumerate(self._items):
            if isinstance(item, Mapping):
                said = dict(item)
                texts.append(said.pop("prefix", None))
            else:
                texts.append(item)
                said = {}
            numbers.append(self._number(place, said))
        parsed = parse_each(texts)
        for place, sentence in parsed.faults[:FAULTS_SHOWN]:
            step = "/prefix" if isinstance(self._items[place], Mapping) else ""
            self._fault(place, step, sentence)

        ids = np.array(numbers, np.int64)
        sound = not self.faults
        columns = {}
        for family in FAMILIES:
            keys, places = parsed.keys[family], parsed.places[family]
            kept = ids[places] != _OVER
            columns[family] = Column.of(keys[kept], ids[places[kept]].astype(np.uint32))
            if sound and len(columns[family]) < kept.sum():
                self._refuse_contradictions(keys[kept], places[kept], ids)
        return Layer(columns, tuple(self._numbers))

    def _number(self, place: int, said: dict[str, Any]) -> int:
        """Of what an entry says beside its prefix."""
        words = (*said.items(), type(said.get("ttl_seconds")))  # the type, for True is equal to 1
        try:
            known = self._known.get(words)
        except TypeError:  # a list or a mapping where a text belongs: the kind says so
            known, words = None, ()
        if known is not None:
            return known
        number = self._validated(place, said)
        if number is None:
            return 0
        self._known[words] = number
        return number

    def _validated(self, place: int, said: dict[str, Any]) -> int | None:
        if len(self.faults) >= FAULTS_SHOWN:
            return None
        try:
            wanted = self._kind.model_validate({**said, "prefix": _ANY})
            if self._drop_expired and wanted.expires_at is not None and wanted.expires_at <= self._now:
                return _OVER
            attributes = wanted.attributes(self._now)
        except ValidationError as error:
            self.faults += [(place, fault) for fault in field_errors(error, self._pointer(place))]
        except InvalidError as error:
            for fault in error.errors:
                self._fault(place, fault.pointer, fault.detail)
        else:
            return self._numbers.setdefault(attributes, len(self._numbers))
        return None

    def _refuse_contradictions(self, keys: Keys, places: Positions, ids: npt.NDArray[np.int64]) -> None:
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], places[order]
        twice = (keys[1:] == keys[:-1]) & (ids[places[1:]] != ids[places[:-1]])
        for at in np.flatnonzero(twice)[:FAULTS_SHOWN].tolist():
            earlier, later = int(places[at]), int(places[at + 1])
            prefix = Prefix.from_key(keys[at].item())
            self._fault(
                later,
                "",
                f"{prefix} is given twice and says different things (see item {self._places[earlier]})",
            )

    def _fault(self, place: int, step: str, sentence: str) -> None:
        self.faults.append((place, FieldError(self._pointer(place) + step, sentence)))

    def _pointer(self, place: int) -> str:
        return f"{self._at}/{self._places[place]}"

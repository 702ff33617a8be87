"""Adds one or many items of a kind in one request: all of them, or none with the faults of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from api.inputs import items_of, validated
from lb.errors import ConflictError, FieldError, InvalidError
from lb.model import Config

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Added(Generic[T]):
    """What is to be added. at: the pointer of the items; None where it is one by itself."""

    values: tuple[T, ...]
    at: str | None

    @classmethod
    def read(cls, kind: type[T], data: Any) -> "Added[T]":
        """One document, an array, or `{"items": […]}`; InvalidError names each fault of each item."""
        if (isinstance(data, Mapping) and "items" not in data) or not isinstance(data, Mapping | list):
            return cls((validated(TypeAdapter(kind), data),), None)
        items, at = items_of(data)
        return cls(validated(TypeAdapter(tuple[kind, ...]), items, at), at)  # type: ignore[valid-type]

    @property
    def is_single(self) -> bool:
        """Whether it is one by itself, which is answered with itself."""
        return self.at is None

    def added(self, config: Config, add: Callable[[Config, T], Config]) -> Config:
        """The config with each, in their order. ConflictError, InvalidError: none is added, and why not for each."""
        if self.at is None:
            return add(config, self.values[0])
        faults: list[FieldError] = []
        clashes = False
        for index, value in enumerate(self.values):
            where = f"{self.at}/{index}"
            try:
                config = add(config, value)
            except InvalidError as error:
                faults += [replace(fault, pointer=where + fault.pointer) for fault in error.errors]
            except ConflictError as error:
                faults.append(FieldError(where, str(error)))
                clashes = True
        if not faults:
            return config
        if not clashes:
            raise InvalidError(faults)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ConflictError(f"{faults[0].pointer}: {faults[0].detail}{more}", faults)

"""From decoded JSON to values of the model, every fault with its pointer into the request."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from lb.errors import FieldError, InvalidError
from lb.model.fields import field_errors, pointer, unknown_key

T = TypeVar("T")

_COLLECTION_KEYS = frozenset({"items", "total", "next"})


def object_of(data: Any) -> dict[str, Any]:
    """The JSON object; InvalidError if it is anything else."""
    if not isinstance(data, dict):
        raise InvalidError.one("", "the body must be a JSON object")
    return data


def items_of(data: Any) -> tuple[list[Any], str]:
    """The items of an array, or of a collection as GET gives it, and the pointer they stand under.

    InvalidError for anything else, and for one page of several: taken for the whole, it would drop the rest.
    """
    if isinstance(data, list):
        return data, ""
    if not isinstance(data, dict) or not isinstance(data.get("items"), list):
        raise InvalidError.one("", 'the body must be an array, or an object with an array "items"')
    unknown = sorted(data.keys() - _COLLECTION_KEYS)
    if unknown:
        raise InvalidError([FieldError(pointer(key), unknown_key(key, _COLLECTION_KEYS)) for key in unknown])
    if data.get("next") is not None:
        raise InvalidError.one("/next", "this is one page of several: send the items of all, with next null")
    return data["items"], "/items"


def validated(kind: TypeAdapter[T], data: Any, at: str = "") -> T:
    """The data as that kind of value; InvalidError names each fault by its pointer, which begins with at."""
    try:
        return kind.validate_python(data)
    except ValidationError as error:
        raise InvalidError(field_errors(error, at)) from None

"""What the models share: single-line text, faults inside a value, and pydantic's errors in our own words."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from lb.errors import FieldError

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_KEYS = set[str]()
"""Of all that is written by people."""


class Strict(BaseModel):
    """What people write: it does not change, and a key that is not known is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Note its keys, for whoever mistypes one."""
        _KEYS.update(cls.model_fields)


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("it holds a control character or a line break: write plain text on one line")
    return text


OneLine = Annotated[str, AfterValidator(_one_line)]
"""Text that is safe to print: no control characters."""


def faults(found: Iterable[tuple[tuple[int | str, ...], str]]) -> None:
    """Raises what a validator found wrong inside its value: pairs of a path and a sentence, or none."""
    details = [
        InitErrorDetails(type=PydanticCustomError("fault", "{says}", {"says": says}), loc=path, input=None)
        for path, says in found
    ]
    if details:
        raise ValidationError.from_exception_data("value", details)


def token(step: object) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    return str(step).replace("~", "~0").replace("/", "~1")


def pointer(*steps: object) -> str:
    """A JSON pointer (RFC 6901) of these steps; "" for none."""
    return "".join(f"/{token(step)}" for step in steps)


def field_errors(error: ValidationError, at: str = "") -> list[FieldError]:
    """The faults pydantic found, each with a JSON pointer that begins with at."""
    return [
        FieldError(at + pointer(*(s for s in detail["loc"] if s != "[key]")), _sentence(detail))
        for detail in error.errors(include_url=False, include_context=False)
    ]


def like(name: str, known: Iterable[str]) -> str:
    """A clause that names what may have been meant; "" if nothing is like it."""
    known = sorted(known)
    close = get_close_matches(name, known, 1, 0.7) if name not in known else []
    return f' (did you mean "{close[0]}"?)' if close else ""


def unknown_key(name: str, known: Iterable[str]) -> str:
    """What is said of a key that is not among these."""
    return f"this key is not known here{like(name, known)}: correct it or leave it out"


def _sentence(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return "this key is needed"
    if detail["type"] == "extra_forbidden":
        return unknown_key(str(detail["loc"][-1]), _KEYS)
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if detail["type"] in ("model_type", "dataclass_type"):
        return "it should be an object, with a key for each field" + _given(detail)
    if detail["type"] == "tuple_type":
        return "it should be a list" + _given(detail)
    if detail["type"] in ("too_long", "too_short") and (bound := re.search(r"at (?:most|least) \d+", text)):
        of = "character" if isinstance(detail["input"], str) else "item"
        return f"it should have {bound[0]} {of}{'' if bound[0].endswith(' 1') else 's'}, not {len(detail['input'])}"
    if text.startswith("Input should "):
        return "it should " + text.removeprefix("Input should ") + _given(detail)
    return (
        text[:1].lower() + text[1:]
        if text.startswith(("String ", "List ", "Dictionary ", "Tuple "))
        else text
    )


def _given(detail: ErrorDetails) -> str:
    value = detail["input"]
    if value is None or isinstance(value, bool | int | float):
        return f", not {'null' if value is None else str(value).lower()}"
    return f', not "{value}"' if isinstance(value, str) and len(value) <= 40 and value.isprintable() else ""

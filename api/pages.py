"""Pages of collections that are small enough to be held whole; and the filters on labels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from api.problems import parameter_error

PAGE_MOST = 10_000

LimitDep = Annotated[int, Query(ge=1, le=PAGE_MOST, description="items per page, at most")]
AfterDep = Annotated[str | None, Query(description="the `next` of the previous page: starts after that item")]
LabelsDep = Annotated[
    list[str] | None,
    Query(
        description="only items with this label: `KEY=VALUE`, or `KEY` with any value; may be repeated",
        examples=[["team=edge"]],
    ),
]

T = TypeVar("T")


def page(
    items: Sequence[T], name: Callable[[T], str], after: str | None, limit: int
) -> tuple[list[T], str | None]:
    """The page behind the item of that name, and the name to go on after, None on the last page."""
    start = 0
    if after is not None:
        names = [name(item) for item in items]
        if after not in names:
            raise parameter_error(
                "query", "after", f'"{after}" is no longer among them: begin again without it'
            )
        start = names.index(after) + 1
    found = list(items[start : start + limit])
    return found, name(found[-1]) if start + limit < len(items) else None


def has_labels(labels: Mapping[str, str], wanted: Sequence[str] | None) -> bool:
    """Whether all of the labels asked for are there."""
    for each in wanted or ():
        key, equals, value = each.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True

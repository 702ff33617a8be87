"""What /capture and /top share: the selection of verdicts, and a watcher that ends with its request."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import Query
from starlette.concurrency import run_in_threadpool

from api.problems import parameter_error
from api.streams import Wake
from lb.reconcile.loop import Reconciler
from lb.reconcile.observed import VerdictInfo
from lb.reconcile.watch import Watcher

_GROUPS = {"pass": {"pass"}, "tx": {"tx", "redirect"}, "redirect": {"redirect"}, "drop": {"drop"}}

VerdictsQuery = Annotated[
    list[str] | None,
    Query(
        description="only these: a verdict's name, or pass, tx (including redirect), drop",
        examples=[["drop"]],
    ),
]


def numbers_of(words: Sequence[str], verdicts: Sequence[VerdictInfo]) -> frozenset[int]:
    """The numbers of the verdicts that are meant; without a word all. RequestValidationError: there is none such."""
    found = set[int]()
    for word in words:
        actions = _GROUPS.get(word.lower(), set())
        some = {v.number for v in verdicts if v.action in actions or v.name == word.upper()}
        if not some:
            shown = word if word.isprintable() else "what is given"
            raise parameter_error(
                "query",
                "verdict",
                f"{shown} is not a verdict: GET /v1/verdicts lists them; or write pass, tx or drop",
            )
        found |= some
    return frozenset(found) if words else frozenset(v.number for v in verdicts)


@contextlib.asynccontextmanager
async def looking(
    reconciler: Reconciler, numbers: frozenset[int], wake: Wake, *, rate: int, octets: int
) -> AsyncIterator[Watcher]:
    """A watcher, opened on a thread: the first one waits for the compiler."""
    watcher = await run_in_threadpool(reconciler.watch.open, numbers, wake, rate=rate, octets=octets)
    try:
        yield watcher
    finally:
        reconciler.watch.end(watcher)

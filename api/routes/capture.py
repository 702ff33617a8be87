"""/capture: packets as they come, with what became of each and why, one JSON document a line."""

import asyncio
import base64
import json
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from api.deps import HoldDep, PrefixText, ReconcilerDep, prefix_of
from api.looking import VerdictsQuery, looking, numbers_of
from api.observed_schemas import CaptureRecord
from api.openapi import OBSERVED, answers, documented
from api.streams import NDJSON, Wake, streaming
from lb.reconcile.loop import Reconciler
from lb.reconcile.seen import Naming, Seen, Wanted
from lb.reconcile.watch import BYTES_MOST, RATE_MOST, Watcher

router = APIRouter(prefix="/v1", tags=[OBSERVED])

PROGRESS_SECONDS = 1.0
SETTLE_SECONDS = 0.2
"""After this, what was in the queue has come out of it."""


@dataclass(slots=True)
class _Asked:
    """What a request wants, and how far it is. rate: packets a second; count: in all."""

    numbers: frozenset[int]
    wanted: Wanted
    rate: int
    octets: int
    count: float
    seconds: float
    sent: int = 0
    over_rate: int = 0
    by_second: Counter[int] = field(default_factory=Counter)


@router.get(
    "/capture",
    summary="Packets as they come",
    response_class=Response,
    dependencies=[HoldDep],
    responses=documented(404, 422, 429, 503)
    | {200: {"description": "one document a line", "content": answers({NDJSON: CaptureRecord})}},
)
async def capture(
    *,
    reconciler: ReconcilerDep,
    verdict: VerdictsQuery = None,
    service: Annotated[str | None, Query(description="only packets for this service")] = None,
    prefix: Annotated[
        PrefixText | None,
        Query(description="only packets from this prefix or address", examples=["203.0.113.0/24"]),
    ] = None,
    count: Annotated[int | None, Query(ge=1, description="stop after this many packets")] = None,
    seconds: Annotated[
        float | None,
        Query(gt=0, le=86400, description="stop after this time; default: when the caller hangs up"),
    ] = None,
    octets: Annotated[
        int, Query(alias="bytes", ge=0, le=BYTES_MOST, description="of each packet, at most")
    ] = BYTES_MOST,
    rate: Annotated[int, Query(ge=1, le=RATE_MOST, description="packets a second, at most")] = 1000,
) -> Response:
    """Records: `began`, then a `packet` for each, `progress` every second, and `end`; each a JSON document on a line.

    A packet is shown as it leaves: if forwarded, with its outer header. The last two records count what was not shown.
    The first watcher waits a second or more, because sampling must be compiled into the program.
    """
    numbers = numbers_of(verdict or [], reconciler.verdicts())
    if service is not None:
        reconciler.desired.config.service(service)
    source = None if prefix is None else prefix_of("query", "prefix", prefix)
    asked = _Asked(numbers, Wanted(service, source), rate, octets, count or math.inf, seconds or math.inf)
    return await streaming(_records(reconciler, asked), NDJSON)


async def _records(reconciler: Reconciler, asked: _Asked) -> AsyncGenerator[str, None]:
    wake = Wake()
    async with looking(reconciler, asked.numbers, wake, rate=asked.rate, octets=asked.octets) as watcher:
        naming, revision = await run_in_threadpool(reconciler.naming), reconciler.desired.revision
        began = told = time.monotonic()
        names = sorted(v.name for v in reconciler.verdicts() if v.number in asked.numbers)
        yield _line({"record": "began", "verdicts": names, "rate": asked.rate, "bytes": asked.octets})
        why = None
        while why is None:
            await wake.wait(max(0.0, min(told + PROGRESS_SECONDS, began + asked.seconds) - time.monotonic()))
            now = time.monotonic()
            if now >= began + asked.seconds:
                why = "seconds"
                await asyncio.sleep(SETTLE_SECONDS)
            elif watcher.failure or reconciler.events.is_closed:
                why = watcher.failure or "the daemon is being stopped"
            if reconciler.desired.revision != revision:
                naming, revision = await run_in_threadpool(reconciler.naming), reconciler.desired.revision
            text = await run_in_threadpool(_packets, watcher, naming, asked)
            if text:
                yield text
            if asked.sent >= asked.count:
                why = "count"
            elif why is None and now >= told + PROGRESS_SECONDS:
                told = now
                yield _line(
                    {"record": "progress", **await run_in_threadpool(_figures, reconciler, watcher, asked)}
                )
        yield _line(
            {"record": "end", "why": why, **await run_in_threadpool(_figures, reconciler, watcher, asked)}
        )


def _packets(watcher: Watcher, naming: Naming, asked: _Asked) -> str:
    """The lines of what has come, no more than are asked for."""
    lines = []
    for seen in naming.seen(watcher.take(), time.time_ns() - time.monotonic_ns(), asked.wanted):
        if asked.sent >= asked.count:
            break
        second = seen.time_ns // 1_000_000_000
        if asked.by_second[second] >= asked.rate:
            asked.over_rate += 1
            continue
        if second not in asked.by_second and len(asked.by_second) > 60:
            asked.by_second.clear()
        asked.by_second[second] += 1
        asked.sent += 1
        lines.append(_line({"record": "packet", **_document(seen, asked.octets)}))
    return "".join(lines)


def _figures(reconciler: Reconciler, watcher: Watcher, asked: _Asked) -> dict[str, int]:
    """What came, what was shown, and what was not, and why."""
    seen = watcher.seen.copy()
    came = watcher.came(reconciler.watch.totals())
    return {
        "packets": asked.sent,
        "came": int(came.sum()),
        "unseen": int((came - seen).clip(0).sum()),
        "lost": watcher.lost,
        "over_rate": asked.over_rate,
    }


def _document(seen: Seen, octets: int) -> dict[str, Any]:
    entry = None
    if seen.entry is not None:
        said = seen.entry.attributes
        entry = {
            "prefix": str(seen.entry.prefix),
            "owner": seen.entry.owners[0],
            "action": str(said.action),
            "reason": said.reason,
        }
    return {
        "time": _moment(seen.time_ns),
        "verdict": seen.verdict.name,
        "action": seen.verdict.action,
        "source": seen.source,
        "entry": entry,
        "rule": seen.rule,
        "service": seen.service,
        "backend": seen.backend,
        "interface": seen.interface,
        "length": seen.length,
        "bytes": base64.b64encode(seen.data[:octets]).decode(),
    }


def _moment(time_ns: int) -> str:
    """RFC 3339 to the nanosecond."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document) + "\n"

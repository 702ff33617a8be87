"""/top: who sends the most, just now."""

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool

from api.deps import HoldDep, ReconcilerDep
from api.looking import VerdictsQuery, looking, numbers_of
from api.observed_schemas import TopTalkers
from api.openapi import OBSERVED, documented
from api.streams import Wake
from lb.reconcile.top import By, Talkers
from lb.reconcile.watch import RATE_MOST

router = APIRouter(prefix="/v1", tags=[OBSERVED])

_SETTLE_SECONDS = 0.05


@router.get("/top", summary="Who sends the most", dependencies=[HoldDep], responses=documented(422, 429, 503))
async def get_top(
    *,
    reconciler: ReconcilerDep,
    by: Annotated[By, Query(description="what packets are grouped by; prefix: /24 or /64")] = By.SOURCE,
    seconds: Annotated[float, Query(ge=0.1, le=60, description="how long to sample")] = 1.0,
    limit: Annotated[int, Query(ge=1, le=1000, description="lines, at most")] = 10,
    verdict: VerdictsQuery = None,
) -> TopTalkers:
    """Samples for that long, then answers. Up to 10,000 packets a second are sampled, and scaled to all that came.

    The first request waits a second or more, because sampling must be compiled into the program; it stays there if the
    next request comes within ten seconds.
    """
    numbers = numbers_of(verdict or [], reconciler.verdicts())
    wake, talkers = Wake(), Talkers(by)
    loop = asyncio.get_running_loop()
    async with looking(reconciler, numbers, wake, rate=RATE_MOST, octets=0) as watcher:
        began = loop.time()
        while (left := began + seconds - loop.time()) > 0 and not reconciler.events.is_closed:
            await wake.wait(left)
            await run_in_threadpool(talkers.add, watcher.take())
        came = await run_in_threadpool(lambda: watcher.came(reconciler.watch.totals()))
        took = loop.time() - began
        await asyncio.sleep(_SETTLE_SECONDS)
        await run_in_threadpool(talkers.add, watcher.take())
        naming = await run_in_threadpool(reconciler.naming)
    found = await run_in_threadpool(talkers.top, came, took, limit, naming)
    return TopTalkers.model_validate(asdict(found))

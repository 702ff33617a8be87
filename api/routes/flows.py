"""/flows: the flow table, as far as it can be shown."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import AddressText, ReconcilerDep, address_of
from api.openapi import OBSERVED, documented
from api.schemas import Collection
from lb.reconcile.flow_list import FlowGroup, FlowSeen

router = APIRouter(prefix="/v1", tags=[OBSERVED])


class Flows(Collection[FlowSeen]):
    """A page of flows, in order of slot, mode nat last; with the first one, how many there are of each kind."""

    summary: list[FlowGroup]


@router.get("/flows", summary="The flow table, a page at a time", responses=documented(404, 422))
def list_flows(
    *,
    reconciler: ReconcilerDep,
    service: Annotated[str | None, Query(description="only flows of this service", examples=["web"])] = None,
    backend: Annotated[
        AddressText | None,
        Query(description="only flows of the backend with this address", examples=["10.0.0.11"]),
    ] = None,
    after: Annotated[
        int | None, Query(ge=0, le=2**63 - 1, description="the `next` of the previous page", examples=[4711])
    ] = None,
    limit: Annotated[int, Query(ge=0, le=10000, description="flows per page; 0: only the summary")] = 1000,
) -> Flows:
    """How many flows each backend holds, and for how long these have been silent; then flow by flow.

    A flow has no addresses here: the table holds a keyed hash of them (`tag`), which nothing turns back. Whether it has
    a certain flow is a question for /explain: `via` is then `flow`. Entries of mode `nat` come behind the flow table's,
    and do have their addresses, on both sides. State is `new` until a later packet came (TCP: one
    without SYN), then `established`, and `closed` for a few seconds after the client's FIN or RST; new flows are the
    first to be evicted. Idle ones, and those of services that are gone, are left out. The summary comes with the first
    page.
    """
    packed = None if backend is None else address_of("query", "backend", backend).packed
    found = reconciler.flows(service, packed, after, limit)
    following = None if found.following is None else str(found.following)
    return Flows(items=found.flows, total=found.total, next=following, summary=found.groups)

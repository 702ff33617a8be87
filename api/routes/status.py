"""Observed state, read only: /status, /services/{name}/status, /stats, /verdicts."""

from fastapi import APIRouter, Response
from pydantic import TypeAdapter

from api.bodies import Media
from api.deps import NameDep, ReconcilerDep
from api.observed_schemas import RuleCounts, Stats, Verdicts
from api.openapi import OBSERVED, documented
from lb.reconcile.observed import ServiceStatus, Status, Tally

router = APIRouter(prefix="/v1", tags=[OBSERVED])


_STATUS = TypeAdapter(Status)


def _as_it_is(document: bytes | str) -> Response:
    """An answer that is not looked through once more: with 400 services that would be half of its time."""
    return Response(document, media_type=Media.JSON)


@router.get("/status", summary="The observed state", response_model=Status, responses=documented())
def get_status(reconciler: ReconcilerDep) -> Response:
    """Interfaces, program, services with their backends, tables; and why it is not ready, if it is not."""
    return _as_it_is(_STATUS.dump_json(reconciler.status()))


@router.get("/services/{name}/status", summary="The observed state of a service", responses=documented(404))
def get_service_status(name: NameDep, reconciler: ReconcilerDep) -> ServiceStatus:
    """Health, effective state, flows, packets and share of the ring of each backend; whether it is under attack."""
    return reconciler.service_status(name)


@router.get("/stats", summary="Packet counters", response_model=Stats, responses=documented())
def get_stats(reconciler: ReconcilerDep) -> Response:
    """Packets and bytes of each verdict, service, backend, rule and blocklist owner since the attach."""
    counters = reconciler.counters()
    backends: dict[str, dict[str, Tally]] = {}
    for (service, address), tally in counters.backends.items():
        backends.setdefault(service, {})[address] = tally
    stats = Stats.model_construct(
        verdicts=counters.verdicts,
        services=counters.services,
        backends=backends,
        owners=counters.owners,
        flow_table=counters.flow_table,
        quic=counters.quic,
        nat=counters.nat,
        rules={name: RuleCounts.of(tally) for name, tally in counters.rules.items()},
        flood_protection=counters.flood_protection,
    )
    return _as_it_is(stats.model_dump_json())


@router.get("/verdicts", summary="The verdict list", responses=documented())
def get_verdicts(reconciler: ReconcilerDep) -> Verdicts:
    """What can become of a packet: name, number, action and what it means. Numbers are never reused."""
    verdicts = reconciler.verdicts()
    return Verdicts(items=verdicts, total=len(verdicts))

"""/metrics: the Prometheus exposition; OpenMetrics where the scraper asks for it."""

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from api.deps import AcceptDep
from api.openapi import OBSERVED, documented

router = APIRouter(tags=[OBSERVED])

_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "the exposition", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get("/metrics", summary="Metrics", response_class=Response, responses=documented() | _TEXT)
def get_metrics(request: Request, accept: AcceptDep = "") -> Response:
    """For Prometheus: everything is read at the time of the scrape."""
    encode, media_type = choose_encoder(accept)
    # A Content-Type header instead of media_type: Starlette would add a second charset.
    return Response(encode(request.app.state.metrics), headers={"Content-Type": media_type})

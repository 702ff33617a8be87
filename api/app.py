"""The API: puts the routers, the problem documents and the envelope of every answer together."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from api import problems
from api.access.control import AccessControl, AccessMiddleware, control_of
from api.collector import registry_of
from api.envelope import Envelope
from api.followers import Followers
from api.observations import Observations
from api.openapi import ACCESS, DESIRED, OBSERVED, document_of
from api.routes import (
    allowlist,
    audit,
    backends,
    blocklist,
    capture,
    config,
    dashboard,
    dataplane,
    doctor,
    drains,
    events,
    explain,
    feeds,
    flows,
    health,
    history,
    metrics,
    operations,
    rules,
    services,
    status,
    tokens,
    top,
    whoami,
)
from lb import __version__
from lb.feeds.schedule import Feeds
from lb.health.checker import Checker
from lb.reconcile.loop import Reconciler

_DESCRIPTION = """\
Desired state (services, backends, blocklist, allowlist, rules, feeds) has verbs; observed state is read only.
A write returns after the BPF maps hold it.
Errors are RFC 9457 `application/problem+json`; nothing changes on an error.
ETags name the state of one resource: send them back as `If-Match` to write only what you have seen.
"""
_TAGS = [
    {"name": DESIRED, "description": "what the operator wants"},
    {"name": OBSERVED, "description": "what is"},
    {"name": ACCESS, "description": "who may use the API, and who has done so"},
]


def create_app(
    reconciler: Reconciler,
    refresher: Feeds | None = None,
    checker: Checker | None = None,
    access: AccessControl | None = None,
) -> FastAPI:
    """The application over one reconciler. It starts nothing and holds nothing but counts of its requests.

    refresher: who refreshes feeds; without, nobody does. checker: who checks backends, likewise. access: who may do
    what; without, everyone all.
    """
    observations, refresher, checker = Observations(), refresher or Feeds(reconciler), checker or Checker()
    reconciler.events.listen(observations.on_event)
    app = FastAPI(
        title="Sluice",
        version=__version__,
        summary="An XDP layer-4 load balancer and packet dropper",
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        # Both pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # /services/ is not /services: a redirect would hide the mistake from scripts that do not follow it.
        redirect_slashes=False,
        separate_input_output_schemas=False,
        default_response_class=JSONResponse,
    )
    app.state.reconciler = reconciler
    app.state.feeds = refresher
    app.state.access = access or control_of(reconciler)
    app.state.metrics = registry_of(reconciler, observations, refresher, checker)
    app.state.followers = Followers(reconciler.events)
    problems.install(app)
    app.add_middleware(AccessMiddleware, control=app.state.access)
    app.add_middleware(Envelope, revision=lambda: reconciler.desired.revision, observations=observations)
    for module in (
        services,
        backends,
        drains,
        blocklist,
        allowlist,
        rules,
        feeds,
        config,
        doctor,
        history,
        status,
        flows,
        dataplane,
        explain,
        events,
        capture,
        top,
        operations,
        health,
        metrics,
        dashboard,
        whoami,
        tokens,
        audit,
    ):
        app.include_router(module.router)
    app.openapi = document_of(app)  # type: ignore[method-assign]  # FastAPI's own way of completing the document
    return app

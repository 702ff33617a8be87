"""How a check reaches one backend by the data path: a mark that names its place, and our address for the answer."""

from collections.abc import Mapping

from lb.dataplane.layout import layout
from lb.dataplane.protocol import DataPlane, NextHop
from lb.errors import DataPlaneError, NotFoundError
from lb.model import Mode
from lb.reconcile.services import ServicePlans

_C = layout().constants
_MODES = {Mode.IPIP: 0, Mode.L2: _C["PROBE_L2"], Mode.GUE: _C["PROBE_GUE"]}


def probe_way(
    dataplane: DataPlane,
    plans: ServicePlans,
    hops: Mapping[bytes, NextHop],
    *,
    service: str,
    backend: bytes,
    family: int,
) -> tuple[int, str]:
    """Mark and source, for a VIP of that family. NotFoundError: nobody answers for its next hop; DataPlaneError."""
    plan = plans.by_name.get(service)
    place = plan.place(backend) if plan else None
    if plan is None or place is None or plan.service.mode not in _MODES:
        raise DataPlaneError(f'service "{service}" has no path to it in the data plane at present')
    hop = hops.get(backend)
    if hop is None or hop.mac is None:
        raise NotFoundError("its next hop is not known: there is no route to it, or nobody answers there")
    if plan.service.mode is Mode.L2 and hop.gateway:
        raise NotFoundError("it is behind a router, where mode l2 does not reach: use mode ipip or gue")
    mark = _C["PROBE_MARK"] | _MODES[plan.service.mode] << _C["PROBE_MODE_SHIFT"] | plan.start + place
    return mark, dataplane.probe_source(hop.ifindex, family)

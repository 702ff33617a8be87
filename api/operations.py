"""Drains as operations: named by what they drain and computed from what is seen; nothing is kept."""

from ipaddress import IPv4Address, IPv6Address

from api.schemas import Operation, OperationState
from lb.errors import NotFoundError
from lb.model import AdminState, Config
from lb.reconcile.loop import Reconciler

# "~" can stand in a URL as it is, and in no service name or address.
_SEPARATOR = "~"
_KIND = "drain"


def drain_id(service: str, address: IPv4Address | IPv6Address) -> str:
    """The operation of draining that backend."""
    return _SEPARATOR.join((_KIND, service, str(address)))


def drain_operation(operation_id: str, config: Config, reconciler: Reconciler) -> Operation:
    """How far a drain is; NotFoundError if the backend is gone, or takes new flows again."""
    kind, _, rest = operation_id.partition(_SEPARATOR)
    name, _, address = rest.partition(_SEPARATOR)
    service = config.services.get(name) if kind == _KIND else None
    backend = next((b for b in service.backends if str(b.address) == address), None) if service else None
    if backend is None or backend.admin_state is AdminState.ENABLED:
        raise NotFoundError(
            f'there is no operation "{operation_id}": there is one as long as its backend is draining'
        )
    flows = reconciler.live_flows(name, backend.address) if backend.admin_state is AdminState.DRAINING else 0
    state = OperationState.RUNNING if flows else OperationState.DONE
    return Operation(id=operation_id, state=state, service=name, address=address, flows=flows)

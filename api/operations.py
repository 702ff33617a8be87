"""Drains and refreshes as operations: named after their subject and computed from observed state; nothing is kept."""

from ipaddress import IPv4Address, IPv6Address

from api.schemas import Operation, OperationState, RefreshOperation
from lb.errors import NotFoundError
from lb.feeds.schedule import Feeds
from lb.model import AdminState, Config
from lb.reconcile.loop import Reconciler

# "~" can stand in a URL as it is, and in no service name or address.
_SEPARATOR = "~"
_KIND = "drain"
REFRESH = "refresh"
_DIGITS = 19


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
    return Operation(
        id=operation_id,
        state=state,
        service=name,
        address=address,
        admin_state=backend.admin_state,
        flows=flows,
    )


def refresh_id(feed: str, number: int) -> str:
    """The operation of refreshing that feed for the so-manieth time since the daemon started."""
    return _SEPARATOR.join((REFRESH, feed, str(number)))


def refresh_operation(operation_id: str, config: Config, feeds: Feeds) -> RefreshOperation:
    """How far a refresh is; NotFoundError if its feed is gone, or it was never asked for.

    Of one long past the newest outcome is told.
    """
    kind, _, rest = operation_id.partition(_SEPARATOR)
    name, _, number = rest.partition(_SEPARATOR)
    is_number = number.isascii() and number.isdigit() and len(number) < _DIGITS
    known = kind == REFRESH and name in config.feeds and is_number and feeds.was_asked(name, int(number))
    if not known:
        raise NotFoundError(
            f'there is no operation "{operation_id}": there is one as long as its feed is there, and the daemon runs'
        )
    if not feeds.wait(name, int(number), 0):
        return RefreshOperation(id=operation_id, state="running", feed=name)
    error = feeds.state(name).error
    return RefreshOperation(
        id=operation_id, state="done" if error is None else "failed", feed=name, error=error
    )

"""Which backend of a service a packet goes to: the one its connection id names, else its flow's, else the ring's."""

from collections import Counter
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np
import numpy.typing as npt

from lb.model import AdminState, Backend, Service
from lb.reconcile.ring import build_ring, ring_slot
from tests.reference import quic
from tests.reference.packet import ACK, RST, SYN, Flow

Known = dict[Flow, tuple[str, IPv4Address | IPv6Address]]
"""For each flow the service and the backend it is with. There is no end to its room: use few flows."""


class Balancer:
    """Remembers flows, and counts what connection ids named: by_id, unknown, without."""

    def __init__(self) -> None:
        self.flows: Known = {}
        self.quic: Counter[str] = Counter()

    def choose(self, service: Service, flow: Flow, flags: int, datagram: bytes) -> Backend | None:
        """The backend for a packet, None if no backend takes new flows; remembers the flow.

        flags: of TCP, 0 in UDP; datagram: what follows a UDP header, asked only for a QUIC service.
        """
        backend = self._by_id(service, datagram) if service.quic else None
        if backend is None:
            opening = flags & (SYN | ACK) == SYN
            backend = None if opening else self._held(service, flow)
            if backend is not None:
                return backend
            backend = _by_ring(service, flow)
        if backend is not None and not flags & RST:
            self.flows[flow] = service.name, backend.address
        return backend

    def choose_for_quoted(self, service: Service, flow: Flow) -> Backend | None:
        """The backend for an error that quotes a flow; remembers nothing."""
        return self._held(service, flow) or _by_ring(service, flow)

    def _by_id(self, service: Service, datagram: bytes) -> Backend | None:
        number = quic.backend_id(datagram)
        if number is None:
            self.quic["without"] += 1
            return None
        named = next((b for b in service.backends if b.quic_id == number), None)
        if named is None or named.admin_state is AdminState.DISABLED:
            self.quic["unknown"] += 1
            return None
        self.quic["by_id"] += 1
        return named

    def _held(self, service: Service, flow: Flow) -> Backend | None:
        """The backend a flow is with, unless it was removed or disabled since, or the flow may leave it."""
        name, address = self.flows.get(flow, (None, None))
        if name != service.name or address is None:
            return None
        backend = service.backend(address)
        if backend is None or backend.admin_state is AdminState.DISABLED:
            return None
        return None if service.udp_migration and not backend.ring_weight else backend


def _by_ring(service: Service, flow: Flow) -> Backend | None:
    takers = tuple(sorted((b.address.packed, b.ring_weight) for b in service.backends if b.ring_weight))
    if not takers:
        return None
    slot = ring_slot(*flow, affinity=service.affinity)
    return service.backend(ip_address(takers[_ring(takers)[slot]][0]))


@lru_cache(maxsize=256)
def _ring(takers: tuple[tuple[bytes, int], ...]) -> npt.NDArray[np.uint16]:
    return build_ring(takers)

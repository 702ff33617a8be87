"""Which backend of a service a packet goes to: the one its connection id names, else its flow's, else the ring's."""

from collections import Counter
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np
import numpy.typing as npt

from lb.model import AdminState, Backend, Service
from lb.reconcile.ring import build_ring, ring_slot
from tests.reference import quic
from tests.reference.packet import RST, Flow, Packet

Known = dict[Flow, tuple[str, IPv4Address | IPv6Address]]
"""For each flow the service and the backend it is with. There is no end to its room: use few flows."""


class Balancer:
    """Remembers flows, and counts what connection ids named: by_id, unknown, without."""

    def __init__(self) -> None:
        self.flows: Known = {}
        self.opened: set[Flow] = set()
        """Those whose SYN came by here, and nothing since."""
        self.quic: Counter[str] = Counter()

    def forget(self) -> None:
        """No flow was ever seen."""
        self.flows.clear()
        self.opened.clear()

    def by_id(self, service: Service, packet: Packet, datagram: bytes) -> Backend | None:
        """The backend that a QUIC packet's connection id names, None if none; datagram: what follows the UDP header."""
        number = quic.backend_id(datagram)
        if number is None:
            self.quic["without"] += 1
            return None
        named = next((b for b in service.backends if b.quic_id == number), None)
        if named is None or named.admin_state is AdminState.DISABLED:
            self.quic["unknown"] += 1
            return None
        self.quic["by_id"] += 1
        self._remember(service, packet, named)
        return named

    def is_known(self, service: Service, packet: Packet) -> bool:
        """Whether a packet is of a flow that the service has seen, and opens no other."""
        name, _ = self.flows.get(packet.flow, (None, None))
        return name == service.name and not packet.opens

    def held(self, service: Service, packet: Packet) -> Backend | None:
        """The backend that a known flow is with, None if it can or may not stay there."""
        return self._held(service, packet.flow)

    def goes_on(self, packet: Packet) -> bool:
        """Whether this is the first packet that a flow's backend gets after the SYN that opened it here."""
        if packet.flow not in self.opened:
            return False
        self.opened.discard(packet.flow)
        return True

    def by_ring(self, service: Service, packet: Packet, *, remember: bool) -> Backend | None:
        """The backend for a packet of a flow that is not known, None if no backend takes new flows."""
        backend = _by_ring(service, packet.flow)
        if backend is not None and remember:
            self._remember(service, packet, backend)
        return backend

    def by_ring_alone(self, service: Service, flow: Flow) -> Backend | None:
        """The ring's backend for a flow, which is remembered elsewhere."""
        return _by_ring(service, flow)

    def _remember(self, service: Service, packet: Packet, backend: Backend) -> None:
        if packet.flags & RST:
            return
        self.flows[packet.flow] = service.name, backend.address
        self.opened.discard(packet.flow)
        if packet.opens:
            self.opened.add(packet.flow)

    def choose_for_quoted(self, service: Service, flow: Flow) -> Backend | None:
        """The backend for an error that quotes a flow; remembers nothing."""
        return self._held(service, flow) or _by_ring(service, flow)

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

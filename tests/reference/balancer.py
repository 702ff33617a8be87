"""Which service a packet is for, and which backend it goes to: the flow it belongs to, else the ring."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np
import numpy.typing as npt

from lb.model import AdminState, Backend, Config, Service
from lb.reconcile.ring import build_ring, ring_slot
from tests.reference.packet import ACK, RST, SYN, TCP, UDP, Packet

Address = IPv4Address | IPv6Address
Tuple = tuple[bytes, int, bytes, int, int]
"""Source, source port, destination, destination port, protocol."""
Known = dict[Tuple, tuple[str, Address]]
"""For each flow the service and the backend it is with. There is no end to its room: use few flows."""

NUMBERS = {"tcp": TCP, "udp": UDP}


class Balancer:
    """The services of one desired state, over flows that outlive it."""

    def __init__(self, config: Config, flows: Known) -> None:
        self._flows = flows
        self._vips = {service.vip.packed for service in config.services.values()}
        self._ports: dict[tuple[bytes, int, int], Service] = {}
        self._any: dict[tuple[bytes, int], Service] = {}
        for service in config.services.values():
            vip, protocol = service.vip.packed, NUMBERS[service.protocol]
            if service.port.is_any:
                self._any[vip, protocol] = service
                continue
            for port in range(service.port.low, service.port.high + 1):
                self._ports[vip, port, protocol] = service

    def is_vip(self, address: bytes) -> bool:
        """Whether any service has this address."""
        return address in self._vips

    def service(self, packet: Packet) -> Service | None:
        """The service that takes a packet: its port's, else the one for any port."""
        exact = self._ports.get((packet.destination, packet.port, packet.protocol))
        return exact or self._any.get((packet.destination, packet.protocol))

    def choose(self, service: Service, packet: Packet) -> Backend | None:
        """The backend for a packet, None if no backend takes new flows; remembers the flow."""
        flow = (packet.source, packet.source_port, packet.destination, packet.port, packet.protocol)
        opening = packet.flags & (SYN | ACK) == SYN
        backend = None if opening else self._held(service, flow)
        if backend is None:
            backend = _by_ring(service, flow)
            if backend is not None and not packet.flags & RST:
                self._flows[flow] = service.name, backend.address
        return backend

    def _held(self, service: Service, flow: Tuple) -> Backend | None:
        """The backend a flow is with, unless it was removed or disabled since."""
        name, address = self._flows.get(flow, (None, None))
        if name != service.name or address is None:
            return None
        backend = service.backend(address)
        return backend if backend is not None and backend.admin_state is not AdminState.DISABLED else None


def _by_ring(service: Service, flow: Tuple) -> Backend | None:
    takers = tuple(sorted((b.address.packed, b.ring_weight) for b in service.backends if b.ring_weight))
    if not takers:
        return None
    slot = ring_slot(*flow, affinity=service.affinity)
    return service.backend(ip_address(takers[_ring(takers)[slot]][0]))


@lru_cache(maxsize=256)
def _ring(takers: tuple[tuple[bytes, int], ...]) -> npt.NDArray[np.uint16]:
    return build_ring(takers)

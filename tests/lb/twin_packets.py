"""Packets over a twin's memory: which backend a flow's next packet goes to, as xdp/select.h has it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.twin import TwinDataPlane
from lb.model import Affinity, Settings
from lb.reconcile.ring import SLOTS

_C = layout().constants
_ACTIVE, _IN_RING = _C["BACKEND_ACTIVE"], _C["BACKEND_IN_RING"]
_ESTABLISHED, _UDP = _C["FLOW_ESTABLISHED"], _C["FLOW_UDP"]
_MIGRATION, _SOURCE, _PORT = (
    _C[f"SERVICE_{name}"] for name in ("UDP_MIGRATION", "SOURCE_AFFINITY", "PORT_AFFINITY")
)
TCP, UDP = 6, 17
Services = dict[tuple[bytes, int, int], np.void]
Kind = tuple[str, int, int]
"""Packets of one VIP, port and protocol."""


@dataclass
class Flow:
    """A client's flow: its packets' destination, where it stands in the flow table, and its ring slot by affinity."""

    vip: str
    port: int
    protocol: int
    index: int
    slots: dict[Affinity, int]


@dataclass(frozen=True)
class Lead:
    """Where a packet goes: the service's number and the backend's address (None: nowhere); by the flow table or not.

    left: the number of the service that its flow's entry is of, if that takes the flow's packets no more.
    """

    service: int | None = None
    backend: str | None = None
    by_table: bool = False
    left: int | None = None


@dataclass
class Packets:
    """Sends packets through a twin."""

    twin: TwinDataPlane
    flows: list[Flow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._table = self.twin.tables.arrays.flows.reshape(-1)

    def send(self, settings: Settings) -> list[Lead]:
        """A packet of each flow, which is then remembered where it went."""
        found = self.lead(settings)
        for flow, lead in zip(self.flows, found, strict=True):
            if lead.backend is not None:
                self._remember(flow, lead)
        return found

    def lead(self, settings: Settings) -> list[Lead]:
        """Where a packet of each flow would go."""
        services = self._services()
        return [self._lead(flow, services, settings) for flow in self.flows]

    def takers(self, kinds: Iterable[Kind]) -> dict[Kind, tuple[int, Affinity]]:
        """The number and affinity of the service that takes packets of each of these kinds, where there is one."""
        services = self._services()
        found = {kind: _taker(services, *kind) for kind in kinds}
        return {
            kind: (int(service["number"]), _affinity(int(service["flags"])))
            for kind, service in found.items()
            if service is not None
        }

    def _services(self) -> Services:
        """By VIP, port and protocol; without the keys that only mark a VIP, whose number is nobody's."""
        keys, values = self.twin.tables.services4.read()
        return {
            (int(key["vip"]).to_bytes(4), int(key["port"]), int(key["protocol"])): value
            for key, value in zip(keys, values, strict=True)
            if key["protocol"]
        }

    def _lead(self, flow: Flow, services: Services, settings: Settings) -> Lead:
        service = _taker(services, flow.vip, flow.port, flow.protocol)
        left = self._entry_of(flow)
        if service is None:
            return Lead(left=left)
        number, flags, first = (int(service[name]) for name in ("number", "flags", "backends"))
        held = self._held(flow, number, first, flags, settings)
        if held is not None:
            return Lead(number, held, by_table=True)
        left = None if left == number else left
        arrays = self.twin.tables.arrays
        ring = int(arrays.service_rings["ring"][number])
        if not ring:
            return Lead(number, left=left)
        slot = flow.slots[_affinity(flags)]
        return Lead(number, self._address(first + int(arrays.rings[ring, slot])), left=left)

    def _entry_of(self, flow: Flow) -> int | None:
        entry = self._table[flow.index]
        return int(entry["state"]) >> 16 & 0xFFFF if entry["tag_backend"] else None

    def _held(self, flow: Flow, number: int, first: int, flags: int, settings: Settings) -> str | None:
        """The backend that the flow table has for it, if it may stay there."""
        entry = self._table[flow.index]
        state = int(entry["state"])
        idle = settings.udp_idle_seconds if state & _UDP else settings.tcp_idle_seconds
        if not entry["tag_backend"] or state >> 16 & 0xFFFF != number:
            return None
        if self.twin.clock_seconds() - (state >> 32) > idle:
            return None
        place = first + (int(entry["tag_backend"]) & 0xFFFF)
        is_what = int(self.twin.tables.arrays.backends["state"][place])
        if not is_what & _ACTIVE or (flags & _MIGRATION and not is_what & _IN_RING):
            return None
        return self._address(place)

    def _address(self, place: int) -> str:
        return str(ip_address(self.twin.tables.arrays.backends["address"][place].tobytes()[:4]))

    def _remember(self, flow: Flow, lead: Lead) -> None:
        arrays = self.twin.tables.arrays
        service = next(each for each in self._services().values() if int(each["number"]) == lead.service)
        first, room = int(service["backends"]), 1 << int(service["room"])
        rows = arrays.backends[first : first + room]
        place = next(
            at for at in np.flatnonzero(rows["state"] & _ACTIVE) if self._address(first + at) == lead.backend
        )
        kind = _ESTABLISHED | (_UDP if flow.protocol == UDP else 0)
        self._table[flow.index]["state"] = (
            self.twin.clock_seconds() << 32 | int(lead.service or 0) << 16 | kind
        )
        self._table[flow.index]["tag_backend"] = (flow.index + 1) << 16 | int(place)

    def ring(self, number: int) -> np.ndarray:
        """For each slot of a service's ring the address that it leads to as a number; zeros: it has none."""
        arrays = self.twin.tables.arrays
        ring = int(arrays.service_rings["ring"][number])
        every = self._services().values()
        first = next((int(each["backends"]) for each in every if int(each["number"]) == number), None)
        if not ring or first is None:
            return np.zeros(SLOTS, np.uint32)
        return arrays.backends["address"][first + arrays.rings[ring, :SLOTS].astype(np.int64), 0]


def _taker(services: Services, vip: str, port: int, protocol: int) -> np.void | None:
    packed = ip_address(vip).packed
    return services.get((packed, port, protocol), services.get((packed, 0, protocol)))


def _affinity(flags: int) -> Affinity:
    if flags & _SOURCE:
        return Affinity.SOURCE
    return Affinity.DESTINATION_PORT if flags & _PORT else Affinity.FLOW

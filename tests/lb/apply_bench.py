"""Services written into the twin's memory, and what the packet path finds there."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from ipaddress import ip_address

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.protocol import NextHop
from lb.dataplane.tables import Tables
from lb.dataplane.twin import SMALL, TwinDataPlane
from lb.model import Affinity, Service
from lb.reconcile.apply import ServiceMemory
from lb.reconcile.ring import ring_slot
from lb.reconcile.services import ServicePlans, plan_services

ACTIVE, RESOLVED = layout().constants["BACKEND_ACTIVE"], layout().constants["BACKEND_RESOLVED"]
Flow = tuple[str, int, str, int, int]
"""Source, source port, VIP, port, protocol."""


def ways(services: Mapping[str, Service], **changes: object) -> dict[bytes, NextHop]:
    """A resolved way to every backend."""
    twin = TwinDataPlane(replace(SMALL, deny_hosts=4, deny_dense=1))
    found = twin.next_hops({b.address.packed for s in services.values() for b in s.backends})
    return {address: replace(hop, **changes) for address, hop in found.items()}  # type: ignore[arg-type]


class Bench:
    """Memory, and the plans that went into it."""

    def __init__(self, twin: TwinDataPlane | None = None, tables: Tables | None = None) -> None:
        self.twin = twin or TwinDataPlane()
        self.services = ServiceMemory(tables or self.twin.tables)
        self.plans = ServicePlans()

    def put(
        self,
        services: Mapping[str, Service],
        hops: Mapping[bytes, NextHop] | None = None,
        *,
        all_rows: bool = False,
    ) -> None:
        """One change."""
        after = plan_services(services, self.plans, self.twin.sizes)
        self.services.put(self.plans, after, ways(services) if hops is None else hops, all_rows=all_rows)
        self.plans = after

    def adopt(self, services: Mapping[str, Service], hops: Mapping[bytes, NextHop] | None = None) -> "Bench":
        """A new owner of the same memory, which makes it what is wanted."""
        new = Bench(self.twin)
        new.plans = new.services.adopt(services, self.twin.sizes)
        new.put(services, hops, all_rows=True)
        return new


class Memory:
    """The packet path's view of what is in memory now, each table read once: right until the next write."""

    def __init__(self, tables: Tables) -> None:
        self._arrays = tables.arrays
        self._services = {}
        for length, table in ((4, tables.services4), (16, tables.services6)):
            keys, values = table.read()
            self._services[length] = {key.tobytes(): at for at, key in enumerate(keys)}, keys.dtype, values
        entries, prefixes = tables.vip_prefixes6.read()
        self._prefixes = {
            (int(e["length"]), e["address"].tobytes()): p for e, p in zip(entries, prefixes, strict=True)
        }

    def choice(self, flow: Flow) -> object:
        """What the packet path finds for a new flow: the way it goes, or why it goes none."""
        _, _, vip, port, protocol = flow
        value = self._service(ip_address(vip).packed, port, protocol)
        if value is None:
            return "no service"
        ring = int(self._arrays.service_rings[int(value["number"])]["ring"])
        if not ring:
            return "no backend"
        source_affinity = bool(value["flags"] & layout().constants["SERVICE_SOURCE_AFFINITY"])
        slot = slot_of(flow, Affinity.SOURCE if source_affinity else Affinity.FLOW)
        row = self._arrays.backends[int(value["backends"]) + int(self._arrays.rings[ring, slot])]
        return way(row) if row["state"] & RESOLVED else "no next hop"

    def _service(self, vip: bytes, port: int, protocol: int) -> np.void | None:
        """Struct service of the exact address, then of the longest prefix; of each the port before any port."""
        places, dtype, values = self._services[len(vip)]
        for network, length in [(vip, 0), *(self._network(vip) if len(vip) == 16 else ())]:
            for asked in (port, 0):
                at = places.get(key_of(dtype, network, length, asked, protocol))
                if at is not None:
                    return values[at]  # type: ignore[no-any-return]
        return None

    def _network(self, vip: bytes) -> list[tuple[bytes, int]]:
        """What the trie says of the longest prefix that holds the address; nothing if none does."""
        number = int.from_bytes(vip, "big")
        for length in sorted({length for length, _ in self._prefixes}, reverse=True):
            network = (number >> 128 - length << 128 - length).to_bytes(16, "big")
            if (prefix := self._prefixes.get((length, network))) is not None:
                return [(prefix["network"].tobytes(), int(prefix["length"]))]
        return []


@cache
def key_of(dtype: np.dtype[np.void], network: bytes, length: int, port: int, protocol: int) -> bytes:
    """A key of services4 or services6 as it lies in memory."""
    key = np.zeros(1, dtype)
    field = key["vip"]
    field[:] = np.frombuffer(network, field.dtype).reshape(field.shape)
    key["port"], key["protocol"] = port, protocol
    if len(network) == 16:
        key["prefix"] = length
    return key.tobytes()


@cache
def slot_of(flow: Flow, affinity: Affinity) -> int:
    """The flow's slot in any ring."""
    source, source_port, vip, port, protocol = flow
    return ring_slot(
        ip_address(source).packed, source_port, ip_address(vip).packed, port, protocol, affinity=affinity
    )


def choices(tables: Tables, flows: Iterable[Flow]) -> dict[Flow, object]:
    """Where each of these new flows would go now."""
    seen = Memory(tables)
    return {flow: seen.choice(flow) for flow in flows}


def way(row: np.void) -> tuple[bytes, ...]:
    """All that a packet to this backend is sent with."""
    return tuple(row[name].tobytes() for name in ("address", "mac", "ifindex"))


def kept(tables: Tables, services: Mapping[str, Service], number: int, place: int) -> object:
    """Where a flow that remembers its place goes."""
    for table in (tables.services4, tables.services6):
        keys, values = table.read()
        for key, value in zip(keys, values, strict=True):
            if key["protocol"] and int(value["number"]) == number:
                row = tables.arrays.backends[int(value["backends"]) + place]
                return row["address"].tobytes() if row["state"] & ACTIVE else "by the ring"
    return "no service"


def flows(vip: str = "10.200.1.1", port: int = 80, *, count: int = 12, protocol: int = 6) -> list[Flow]:
    net = "192.0.2." if ":" not in vip else "2001:db8::"
    return [(f"{net}{n + 1}", 1000 + 7 * n, vip, port, protocol) for n in range(count)]


def remember(bench: Bench, slot: int, number: int, place: int) -> None:
    """A flow in the flow table."""
    flow = bench.twin.tables.arrays.flows.reshape(-1)[slot]
    flow["tag_backend"], flow["state"] = (slot + 1) << 16 | place, 1 << 32 | number << 16 | 2


def remembered(bench: Bench) -> list[int]:
    """The slots that hold a flow."""
    return np.flatnonzero(bench.twin.tables.arrays.flows.reshape(-1)["tag_backend"]).tolist()

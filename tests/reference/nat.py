"""Flows of mode nat: which port of which pool address each has, and what is known of it. Time stands still here."""

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from lb.model import AdminState, Backend, Config, Mode, Service
from lb.model.nat import pool_addresses, uses_pool
from lb.model.service import NatSource
from tests.reference.icmp import number_in
from tests.reference.packet import FIN, RST, SYN, TCP, Flow, Packet

RUNS, RUN = 4, 8
"""So many runs of so many ports are looked at for one new flow, a quarter of all ports apart."""
KEEP = 0
"""The family of entries that have no pool address."""

Slot = tuple[bytes, int]
"""A pool address and a port of it; for `keep`, nothing and a number."""
Tuple = tuple[bytes, int, bytes, int, int]
"""Source, source port, destination, destination port, protocol of a backend's packets."""


@dataclass
class Entry:
    """A flow: as the client sends it, where it goes, and what was seen of each direction.

    Of echo the identifier is the client's port, and the other port 0.
    """

    slot: Slot
    flow: Flow
    service: str
    backend: IPv4Address | IPv6Address
    backend_port: int
    client_mac: bytes
    sent: int = 0
    """Flags of TCP that came from the client, and ACK for a packet without SYN; likewise below."""
    answered: int = 0

    @property
    def is_closing(self) -> bool:
        """Whether both have ended, or one has broken off."""
        return bool((self.sent | self.answered) & RST or self.sent & self.answered & FIN)

    @property
    def source(self) -> tuple[bytes, int]:
        """Whom the backend sees."""
        address, port = self.slot
        return (address, port) if address else (self.flow.client, self.flow.client_port)

    @property
    def reply(self) -> Tuple:
        """What the backend's packets have."""
        protocol = number_in(self.flow.protocol, len(self.backend.packed))
        return self.backend.packed, self.backend_port, *self.source, protocol


@dataclass
class Nat:
    """All entries, and the pools of the desired state in force."""

    entries: dict[Slot, Entry] = field(default_factory=dict)
    _by_flow: dict[Flow, Slot] = field(default_factory=dict)
    _cursors: Counter[int] = field(default_factory=Counter)
    _pools: dict[int, list[bytes]] = field(default_factory=dict)
    _first: int = 0
    _ports: int = 1
    _services: dict[str, Service] = field(default_factory=dict)

    def configure(self, config: Config) -> None:
        """Take pools and services; entries of what is gone end, and of what is disabled, as by the next sweep."""
        ports = config.settings.nat_ports
        self._first, self._ports = ports.low, ports.high - ports.low + 1
        self._pools = {4: [], 16: []}
        # While no service sends from the pools, their addresses are like any other.
        used = any(uses_pool(service) for service in config.services.values())
        for address in pool_addresses(config.settings.nat_pools) if used else ():
            self._pools[len(address.packed)].append(address.packed)
        self._services = {s.name: s for s in config.services.values() if s.mode is Mode.NAT}
        for entry in list(self.entries.values()):
            address, _ = entry.slot
            is_of_pool = not address or address in self._pools[len(address)]
            backend = self._backend(entry)
            source = NatSource.POOL if address else NatSource.KEEP
            is_other = backend is not None and (
                self._services[entry.service].nat_source is not source
                or (backend.port or entry.flow.port) != entry.backend_port
            )
            if not is_of_pool or is_other or backend is None or backend.admin_state is AdminState.DISABLED:
                self._end(entry)

    def forget(self) -> None:
        """No flow was ever seen, and no port ever asked for."""
        self.entries.clear()
        self._by_flow.clear()
        self._cursors.clear()

    def is_pool(self, address: bytes) -> bool:
        """Whether an address is one that replies come to."""
        return address in self._pools[len(address)]

    def backend(self, entry: Entry) -> Backend | None:
        """The backend of an entry, if it may have packets still."""
        found = self._backend(entry)
        if found is None or found.admin_state is AdminState.DISABLED:
            return None
        migrates = self._services[entry.service].udp_migration
        return None if migrates and not found.ring_weight else found

    def _backend(self, entry: Entry) -> Backend | None:
        service = self._services.get(entry.service)
        return None if service is None else service.backend(entry.backend)

    def find(self, flow: Flow) -> Entry | None:
        """The entry of what a client sends."""
        slot = self._by_flow.get(flow)
        return None if slot is None else self.entries[slot]

    def leave(self, flow: Flow) -> None:
        """Nothing that a client sends in this flow finds its entry any more, if it has one; replies do."""
        self._by_flow.pop(flow, None)

    def of_reply(self, packet: Packet, ports: tuple[int, int] | None) -> Entry | None:
        """The entry that a backend's packet to a pool address is of.

        ports: source and destination, or what stands for them; None if it cannot be a reply.
        """
        entry = None if ports is None else self.entries.get((packet.destination, ports[1]))
        if ports is None or entry is None:
            return None
        came = (packet.source, ports[0], packet.destination, ports[1], packet.protocol)
        return entry if entry.reply == came else None

    def of_kept(self, packet: Packet, ports: tuple[int, int] | None) -> Entry | None:
        """The same of a backend's packet to a client that is kept."""
        if ports is None:
            return None
        return self.kept((packet.source, ports[0], packet.destination, ports[1], packet.protocol))

    def kept(self, reply: Tuple) -> Entry | None:
        """The entry without a pool address that such a reply is of."""
        return next((e for e in reversed(self.entries.values()) if not e.slot[0] and e.reply == reply), None)

    def open(self, service: Service, flow: Flow, backend: Backend, client_mac: bytes) -> Entry | str:
        """A new entry for a flow, or the verdict that there can be none."""
        port = backend.port or flow.port
        entry = Entry((b"", 0), flow, service.name, backend.address, port, client_mac)
        if service.nat_source is NatSource.KEEP:
            clash = any(
                e.reply == entry.reply and e.flow != flow for e in self.entries.values() if not e.slot[0]
            )
            if clash:
                return "DROP_NAT_CLASH"
            taken = {port for address, port in self.entries if not address}
            entry.slot = b"", next(number for number in range(len(taken) + 1) if number not in taken)
        else:
            slot = self._free_slot(len(backend.address.packed))
            if slot is None:
                return "DROP_NAT_PORTS"
            entry.slot = slot
        self.entries[entry.slot] = entry
        self._by_flow[flow] = entry.slot
        return entry

    def _free_slot(self, size: int) -> Slot | None:
        row = [(address, self._first + n) for address in self._pools[size] for n in range(self._ports)]
        apart = max(len(row) // RUNS, RUN)
        began = self._cursors[size]
        for number in range(RUNS * RUN):
            place = began + number // RUN * apart + number % RUN
            slot = row[place % len(row)]
            if slot not in self.entries:
                self._cursors[size] = place + 1
                return slot
        self._cursors[size] = began + RUN
        return None

    def _end(self, entry: Entry) -> None:
        del self.entries[entry.slot]
        if self._by_flow.get(entry.flow) == entry.slot:
            del self._by_flow[entry.flow]


def seen_flags(packet: Packet) -> int:
    """What a packet adds to the flags of its direction."""
    if packet.protocol != TCP:
        return SYN
    without_syn = 0 if packet.flags & SYN else 0x10
    return packet.flags & (SYN | FIN | RST) | without_syn

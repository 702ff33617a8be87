"""Gathers what the doctor examines: the machine, the packet path's tables and counters, and the backends' answers."""

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.packets import outer_bytes, packed
from lb.dataplane.protocol import BackendQuestion, DataPlane, NextHop
from lb.dataplane.tables import Array
from lb.doctor.backends import FULL_PACKET
from lb.doctor.examine import examine
from lb.doctor.facts import (
    BackendFacts,
    DaemonFacts,
    Facts,
    InterfaceFacts,
    PoolFacts,
    TableFacts,
    TrafficFacts,
    VerdictFacts,
    VipFacts,
)
from lb.doctor.finding import Report
from lb.doctor.interfaces import STRICT
from lb.errors import NotFoundError
from lb.model import AdminState, Backend, Config, Mode, Service
from lb.model.nat import pool_addresses, uses_pool
from lb.model.service import NatSource
from lb.reconcile import doctor_nat
from lb.reconcile.doctor_nat import NatReplies
from lb.reconcile.nat import NatMemory
from lb.reconcile.observed import Status
from lb.reconcile.probing import Probing, Way, WayOf
from lb.reconcile.services import ServicePlan, ServicePlans

_C = layout().constants
ASKED_MOST = 256
"""Backends of services that are tried with packets, at most."""
CARRIED = frozenset({"ipip", "gue", "l2"})
"""Modes in which a backend answers for the VIP itself."""
SETTLED_SECONDS, LATELY_SECONDS = 2, 300
"""How old a flow must be for its client to have heard an answer, and how old it may be to tell anything."""
TABLE_OPTIONS = {
    "flows": "flow-slots",
    "services": "services",
    "backends": "backends",
    "rings": "rings",
    "deny4_lines": "deny-hosts",
    "deny4_dense": "deny-dense",
    "deny6": "deny-ipv6",
    "allow4": "allow",
    "allow6": "allow",
    "nat_keep": "nat-slots",
}
"""The option of `sluice serve` that makes a table of /status larger."""


class Doctor:
    """Looks at a running data plane. It changes nothing, and takes no lock while it waits for answers."""

    def __init__(
        self,
        dataplane: DataPlane,
        status: Callable[[], Status],
        present: Callable[[], tuple[Config, ServicePlans]],
        probing: Probing,
    ) -> None:
        """present: what is desired, and what of it is in the maps."""
        self._dataplane, self._status, self._present = dataplane, status, present
        self.probing = probing

    def look(self, service: str | None = None, address: str | None = None, *, seconds: float = 1.0) -> Report:
        """Everything; or a service's backends, or one of them. seconds: how long to look at what packets become.

        NotFoundError: there is no such service, or it has no such backend.
        """
        began, before = time.monotonic(), self._dataplane.tables.verdict_counters.read()
        config, plans = self._present()
        services = _chosen(config, service, address)
        found = self._backends(services, plans)
        machine = self._dataplane.machine({"lo", *(one.interface for one in found if one.interface)})
        vips = tuple(self._vips(services, plans, machine.interfaces))
        strict = any(one.served and one.rp_filter == STRICT for one in machine.interfaces)
        unheard = {one.vip for one in vips if strict or one.deaf}
        backends = self._ask(found, config.settings.gue_port, unheard)
        if service is not None:
            return examine(Facts(backends=tuple(backends), vips=vips))
        status = self._status()
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        return examine(
            Facts(
                host=machine.host,
                daemon=DaemonFacts(tuple(status.reasons), machine.serve_command),
                interfaces=machine.interfaces,
                tables=tuple(
                    TableFacts(
                        *(one.name, one.entries, one.capacity, TABLE_OPTIONS.get(one.name)),
                        to=2 * self._dataplane.sizes.nat_slots if one.name == "nat_keep" else None,
                    )
                    for one in status.tables
                ),
                backends=tuple(backends),
                vips=vips,
                pools=self._pools(config, machine.interfaces),
                traffic=self._traffic(before, time.monotonic() - began),
            )
        )

    def _pools(self, config: Config, interfaces: Sequence[InterfaceFacts]) -> tuple[PoolFacts, ...]:
        """The addresses that services send from."""
        arrays = self._dataplane.tables.arrays
        blocks = NatMemory(arrays).adopt().blocks
        used = any(uses_pool(service) for service in config.services.values())
        there = [
            (address, blocks[address.packed])
            for address in (pool_addresses(config.settings.nat_pools) if used else ())
            if address.packed in blocks
        ]
        replies = NatReplies.of(arrays, self._dataplane.clock_seconds())
        return tuple(doctor_nat.pools(there, replies, interfaces))

    def _traffic(self, before: Array, seconds: float) -> TrafficFacts:
        after = self._dataplane.tables.verdict_counters.read()
        return TrafficFacts(
            seconds,
            tuple(
                VerdictFacts(
                    verdict.name,
                    verdict.action,
                    verdict.sentence,
                    int(after[verdict.number]["packets"]),
                    int(after[verdict.number]["packets"]) - int(before[verdict.number]["packets"]),
                )
                for verdict in self._dataplane.verdicts
            ),
        )

    def _backends(self, services: Sequence[Service], plans: ServicePlans) -> list[BackendFacts]:
        """Each backend of these services, before it is asked."""
        hops = self._dataplane.next_hops({b.address.packed for s in services for b in s.backends})
        flows = Flows.of(self._dataplane)
        replies = NatReplies.of(self._dataplane.tables.arrays, self._dataplane.clock_seconds())
        served = tuple(one.name for one in self._dataplane.interfaces())
        facts = []
        for service in services:
            plan = plans.by_name.get(service.name)
            for backend in service.backends:
                one = replace(_backend(service, backend, hops.get(backend.address.packed)), served=served)
                place = plan.at.get(backend.address.packed) if plan else None
                if plan is not None and place is not None:
                    is_nat = service.mode is Mode.NAT
                    proven, unproven = (replies if is_nat else flows).heard(plan.number, place)
                    one = replace(one, proven=proven, unproven=unproven)
                facts.append(one)
        return facts

    def _ask(
        self, backends: Sequence[BackendFacts], gue_port: int, unheard: Collection[str]
    ) -> list[BackendFacts]:
        """Each backend with its answers. unheard: VIPs whose answers would not be let in here: they are not asked."""
        at = [index for index, one in enumerate(backends) if one.active and one.resolved][:ASKED_MOST]
        asked = [backends[index] for index in at]
        heard = any(one.vip not in unheard for one in asked)
        with self.probing.open() if heard else contextlib.nullcontext(_no_way) as way_of:
            ways = [_no_way if one.vip in unheard else way_of for one in asked]
            questions = [_question(one, gue_port, way) for one, way in zip(asked, ways, strict=True)]
            answers = self._dataplane.ask_backends(questions)
        known = dict(zip(at, answers, strict=True))
        return [replace(one, answers=known.get(index, one.answers)) for index, one in enumerate(backends)]

    def _vips(
        self, services: Iterable[Service], plans: ServicePlans, interfaces: Sequence[InterfaceFacts]
    ) -> Iterator[VipFacts]:
        """Each VIP once, with what has come for all its services."""
        flows = Flows.of(self._dataplane)
        packets: dict[str, int] = {}
        seen: dict[str, float] = {}
        for service in services:
            vip, plan = str(service.vip), plans.by_name.get(service.name)
            if plan is None:
                continue
            packets[vip] = packets.get(vip, 0) + self._packets(plan)
            ago = flows.last_seen_seconds(plan.number)
            if ago is not None:
                seen[vip] = min(seen.get(vip, ago), ago)
        served = [one for one in interfaces if one.served]
        places = {vip: _where(vip, interfaces, served) for vip in packets}
        claimed = self._dataplane.claims((vip, on_link) for vip, (on_link, _) in places.items() if on_link)
        for vip, count in packets.items():
            on_link, local = places[vip]
            deaf = local and any(one.name == on_link and one.accept_local is False for one in served)
            yield VipFacts(
                vip, count, seen.get(vip), on_link, local, claimed.get(vip, ()), deaf and ":" not in vip
            )

    def _packets(self, plan: ServicePlan) -> int:
        tables = self._dataplane.tables
        places = list(range(plan.start, plan.start + (1 << plan.room)))
        rows = tables.backend_counters.read_some(places), tables.service_counters.read_some([plan.number])
        return sum(int(some["packets"].sum()) for some in rows)


class Flows:
    """The flow table, as far as it tells whether clients hear answers."""

    def __init__(self, state: Array, backend: Array, now_s: int) -> None:
        self._service = (state >> np.uint64(16) & np.uint64(0xFFFF)).astype(np.int64)
        self._place = (backend & np.uint64(0xFFFF)).astype(np.int64)
        self._age = now_s - (state >> np.uint64(32)).astype(np.int64)
        self._is_tcp = (state & np.uint64(_C["FLOW_UDP"])) == 0
        self._is_new = (state & np.uint64(_C["FLOW_ESTABLISHED"])) == 0

    @classmethod
    def of(cls, dataplane: DataPlane) -> "Flows":
        """As they are now."""
        flows = dataplane.tables.arrays.flows.ravel()
        used = flows[flows["tag_backend"] != 0]
        return cls(used["state"], used["tag_backend"], dataplane.clock_seconds())

    def last_seen_seconds(self, service: int) -> float | None:
        """How long ago the last packet of a service's flows came."""
        ages = self._age[self._service == service]
        return float(max(0, ages.min())) if len(ages) else None

    def heard(self, service: int, place: int) -> tuple[int, int]:
        """TCP flows whose client has gone on after its SYN; and those, later than all of these, whose has not."""
        mine = (self._service == service) & (self._place == place) & self._is_tcp
        mine &= self._age <= LATELY_SECONDS
        proven = self._age[mine & ~self._is_new]
        since = int(proven.min()) if len(proven) else LATELY_SECONDS + 1
        unproven = mine & self._is_new & (self._age >= SETTLED_SECONDS) & (self._age < since)
        return len(proven), int(unproven.sum())


def _chosen(config: Config, name: str | None, address: str | None) -> list[Service]:
    """The services to look at, with the backends to look at."""
    if name is None:
        return list(config.services.values())
    service = config.service(name)
    if address is None:
        return [service]
    found = [backend for backend in service.backends if str(backend.address) == address]
    if not found:
        raise NotFoundError(f'service "{name}" has no backend {address}: see "sluice backend list {name}"')
    return [service.model_copy(update={"backends": tuple(found)})]


def _backend(service: Service, backend: Backend, hop: NextHop | None) -> BackendFacts:
    mode = str(service.mode)
    return BackendFacts(
        service=service.name,
        vip=str(service.vip),
        port=backend.port or service.port.to_json() or 0,
        protocol=str(service.protocol),
        mode=mode,
        address=str(backend.address),
        active=backend.admin_state is not AdminState.DISABLED,
        overhead=outer_bytes(mode, backend.address.version),
        interface=hop.interface if hop else None,
        mtu=hop.mtu if hop else 0,
        resolved=bool(hop and hop.mac),
        gateway=bool(hop and hop.gateway),
        keeps_source=mode == "nat" and service.nat_source is NatSource.KEEP,
    )


def _question(one: BackendFacts, gue_port: int, way_of: WayOf) -> BackendQuestion:
    need, vip = FULL_PACKET + one.overhead, one.vip.partition("/")[0]
    family = 6 if ":" in vip else 4
    carried = one.mode in CARRIED
    return BackendQuestion(
        address=one.address,
        vip=vip,
        port=one.port if isinstance(one.port, int) else int(one.port.partition("-")[0].replace("any", "0")),
        protocol=one.protocol,
        mode=one.mode,
        gue_port=gue_port,
        full_size=need if one.mtu >= need else 0,
        way=way_of(one.service, packed(one.address), family) if carried else None,
    )


def _no_way(_service: str, _backend: bytes, _family: int) -> Way | None:
    return None


def _where(
    vip: str, interfaces: Sequence[InterfaceFacts], served: Sequence[InterfaceFacts]
) -> tuple[str | None, bool]:
    """The served interface in whose network a VIP lies, and whether it is one of this machine's own addresses."""
    if "/" in vip or not served:
        return None, False
    address = ip_address(vip)
    for one in interfaces:
        if any(address == ip_interface(own).ip for own in one.addresses):
            return one.name if one.served else served[0].name, True
    for one in served:
        if any(address in ip_interface(own).network for own in one.addresses):
            return one.name, False
    return None, False

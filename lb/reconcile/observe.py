"""Observed state: the tables and counters of the data plane, in the operator's terms."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lb import __version__
from lb.dataplane.layout import layout
from lb.dataplane.protocol import DataPlane, NextHop, ProgramState
from lb.dataplane.tables import Array
from lb.dataplane.tables import Counters as CounterTable
from lb.model import AdminState, Backend, Mode, Prefix, Settings
from lb.model.columns import FAMILIES
from lb.model.standing import Report
from lb.reconcile import guards
from lb.reconcile.flows import LiveFlows
from lb.reconcile.lists import ListPlan, Part, rules_of
from lb.reconcile.nat_flows import live_nat_flows, nat_usage
from lb.reconcile.observed import (
    BackendStatus,
    Counters,
    FlowTableStats,
    Hits,
    InterfaceStatus,
    NatStats,
    PendingStatus,
    ProgramStatus,
    QuicStats,
    RuleTally,
    ServiceStatus,
    Status,
    TableStatus,
    Tally,
)
from lb.reconcile.rule_tables import RulePlan
from lb.reconcile.services import ServicePlan, ServicePlans

_C = layout().constants
ReportsOf = Callable[[str], Mapping[bytes, Report]]
"""Reports of the checks of a service's backends, by packed address."""
_NOBODY_CHECKS = Report()


def no_reports(_: str) -> Mapping[bytes, Report]:
    """Where nobody checks."""
    return {}


def _tally(row: Array) -> Tally:
    return Tally(int(row["packets"]), int(row["bytes"]))


def _sum(rows: Array) -> Tally:
    return Tally(int(rows["packets"].sum()), int(rows["bytes"].sum()))


def _tally_list(rows: Array) -> list[Tally]:
    return [Tally(packets, octets) for packets, octets in rows.tolist()]


def live_flows(dataplane: DataPlane, settings: Settings) -> LiveFlows:
    """The flows that are live now."""
    arrays, now_s = dataplane.tables.arrays, dataplane.clock_seconds()
    live = LiveFlows.of(arrays.flows, now_s, settings)
    return replace(live, of_nat=live_nat_flows(arrays, settings, now_s))


def services(
    dataplane: DataPlane,
    plans: Iterable[ServicePlan],
    hops: Mapping[bytes, NextHop],
    settings: Settings,
    now: float,
    *,
    reports_of: ReportsOf = no_reports,
) -> list[ServiceStatus]:
    """Each service with its backends; now: seconds since the epoch."""
    plans = list(plans)
    flows, floods = live_flows(dataplane, settings).by_backend(), guards.statuses(dataplane, plans, now)
    found = []
    for plan, block, rest in _tallies(dataplane, plans):
        service = plan.service
        shares = {place: weight for _, weight, place in plan.recipe.parts} if plan.recipe else {}
        total, reports = sum(shares.values()), reports_of(service.name)
        backends = []
        for backend in service.backends:
            place, hop = plan.at[backend.address.packed], hops.get(backend.address.packed)
            report = reports.get(backend.address.packed, _NOBODY_CHECKS)
            backends.append(
                BackendStatus(
                    address=str(backend.address),
                    weight=backend.weight,
                    admin_state=str(backend.admin_state),
                    effective_state=_effective_state(backend, plan, hop),
                    health=str(report.health),
                    flows=flows.get((plan.number, place), 0),
                    packets=block[place].packets,
                    bytes=block[place].bytes,
                    ring_share=shares.get(place, 0) / total if total else 0.0,
                    next_hop_mac=hop.mac.hex(":") if hop and hop.mac else None,
                    interface=hop.interface if hop else None,
                    quic_id=backend.quic_id,
                    health_since=report.since,
                    health_error=report.error or report.unable,
                    health_held=report.held,
                    health_checked_at=report.checked_at,
                    health_check_seconds=report.duration_seconds,
                    syn_retries=report.syn_retries,
                    unreachables=report.unreachables,
                )
            )
        found.append(
            ServiceStatus(
                name=service.name,
                vip=str(service.vip),
                port=service.port.to_json(),
                protocol=str(service.protocol),
                mode=str(service.mode),
                flows=sum(flows.get((plan.number, place), 0) for place in range(1 << plan.room)),
                packets=sum(tally.packets for tally in block) + rest.packets,
                bytes=sum(tally.bytes for tally in block) + rest.bytes,
                flood_protection=floods.get(plan.number),
                backends=backends,
            )
        )
    return found


def _tallies(
    dataplane: DataPlane, plans: Sequence[ServicePlan]
) -> Iterator[tuple[ServicePlan, list[Tally], Tally]]:
    """For each service, the counters of its places, and what was counted for it at places that it has left."""
    tables = dataplane.tables
    places, own = tables.backend_counters, tables.service_counters
    if len(plans) == 1:  # one among many: all counters of all CPUs are megabytes
        (plan,) = plans
        block = places.read_some(list(range(plan.start, plan.start + (1 << plan.room))))
        yield plan, _tally_list(block), _tally(own.read_some([plan.number])[0])
        return
    every, rests = places.read(), own.read()
    for plan in plans:
        yield plan, _tally_list(every[plan.start : plan.start + (1 << plan.room)]), _tally(rests[plan.number])


def _effective_state(backend: Backend, plan: ServicePlan, hop: NextHop | None) -> str:
    if backend.admin_state is not AdminState.ENABLED:
        return str(backend.admin_state)
    if hop is None or hop.mac is None or (plan.service.mode is Mode.L2 and hop.gateway):
        return "unresolved"
    return "unhealthy" if plan.standing.is_out(backend.address.packed) else "active"


def status(
    dataplane: DataPlane,
    plans: ServicePlans,
    hops: Mapping[bytes, NextHop],
    lists: Mapping[str, tuple[int, int]],
    *,
    settings: Settings,
    revision: int,
    pending: PendingStatus | None,
    reasons: list[str],
    started_at: float,
    now: float,
    reports_of: ReportsOf = no_reports,
) -> Status:
    """The document of GET /v1/status."""
    programs = [program_status(state) for state in dataplane.programs()]
    sizes, flows = dataplane.sizes, dataplane.tables.arrays.flows
    tables = {
        "flows": (int(np.count_nonzero(flows["tag_backend"])), sizes.flow_slots),
        "services": (len(plans.by_name), sizes.services),
        "backends": (plans.places.used(), sizes.backends),
        "rings": (len(plans.rings), sizes.rings - 1),
        **nat_usage(dataplane.tables.arrays),
        **lists,
    }
    return Status(
        version=__version__,
        revision=revision,
        pending=pending,
        ready=not reasons,
        reasons=reasons,
        started_at=started_at,
        interfaces=[
            InterfaceStatus(
                name=s.name,
                index=s.index,
                mac=s.mac,
                mtu=s.mtu,
                attached=s.attached,
                xdp_mode=s.xdp_mode,
                xdp_mode_reason=s.xdp_mode_reason,
                link=s.link,
                program_id=s.program_id,
            )
            for s in dataplane.interfaces()
        ],
        program=next((program for program in programs if program.in_force), None),
        programs=programs,
        services=services(dataplane, plans.by_name.values(), hops, settings, now, reports_of=reports_of),
        tables=[TableStatus(name, used, room) for name, (used, room) in tables.items()],
    )


def program_status(state: ProgramState) -> ProgramStatus:
    """How a program is shown."""
    return ProgramStatus(
        state.interface,
        state.in_force,
        sorted(state.features),
        state.instructions,
        state.jited_bytes,
        state.verified,
        state.stack_bytes,
        state.compiled_at,
        state.compile_seconds,
        state.load_seconds,
        state.check_seconds,
        state.id,
        state.name,
        state.tag,
    )


def counters(
    dataplane: DataPlane,
    plans: ServicePlans,
    deny: ListPlan,
    rule_plan: RulePlan,
    *,
    nat: NatStats,
    now: float,
) -> Counters:
    """The document of GET /v1/stats."""
    tables = dataplane.tables
    verdicts = tables.verdict_counters.read()
    entries = tables.deny_counters.read()
    flow, quic = tables.flow_counters.read()[0], tables.quic_counters.read()[0]
    by_service: dict[str, Tally] = {}
    by_backend: dict[tuple[str, str], Tally] = {}
    for plan, block, rest in _tallies(dataplane, list(plans.by_name.values())):
        name = plan.service.name
        packets, octets = sum(tally.packets for tally in block), sum(tally.bytes for tally in block)
        by_service[name] = Tally(packets + rest.packets, octets + rest.bytes)
        for backend in plan.service.backends:
            by_backend[name, str(backend.address)] = block[plan.at[backend.address.packed]]
    owners = {owner: _sum(entries[part.numbers]) for owner, part in deny.parts.items()}
    forwarded = sum(
        int(verdicts[v.number]["packets"]) for v in dataplane.verdicts if v.action in ("tx", "redirect")
    )
    return Counters(
        verdicts={v.name: _tally(verdicts[v.number]) for v in dataplane.verdicts},
        services=by_service,
        backends=by_backend,
        owners=owners,
        flow_table=FlowTableStats(
            hits=max(0, forwarded - int(flow["misses"])),
            misses=int(flow["misses"]),
            evictions=int(flow["evictions"]),
            untracked=int(flow["untracked"]),
        ),
        quic=QuicStats(int(quic["by_id"]), int(quic["unknown"]), int(quic["without"])),
        nat=nat,
        rules=rules(dataplane, rule_plan, now),
        flood_protection=guards.stats(dataplane, plans.by_name.values()),
    )


def rules(dataplane: DataPlane, plan: RulePlan, now: float) -> dict[str, RuleTally]:
    """What each rule has matched; the data plane's clock is turned into the epoch's."""
    numbers = [plan.numbers[rule.name] for rule in plan.order]
    rows = dataplane.tables.rule_counters.read()[numbers]
    booted = now - dataplane.clock_seconds()
    return {
        rule.name: RuleTally(
            packets=packets,
            bytes=octets,
            dropped_packets=dropped,
            dropped_bytes=dropped_octets,
            last_match_at=booted + last_s if packets else None,
            position=position,
        )
        for position, (rule, (packets, octets, dropped, dropped_octets, last_s)) in enumerate(
            zip(plan.order, rows.tolist(), strict=True), start=1
        )
    }


def hits(
    plan: ListPlan | Part | None, table: CounterTable, prefixes: list[Prefix], epoch: Callable[[], float]
) -> list[Hits]:
    """What each entry has decided. epoch: when the data plane's clock began; asked only if it is needed."""
    if plan is None or not prefixes:
        return [Hits()] * len(prefixes)
    rules = [0] * len(prefixes)
    for family in FAMILIES:
        places = [at for at, prefix in enumerate(prefixes) if prefix.family == family]
        found = rules_of(plan, family, [prefixes[at].key for at in places]) if places else []
        for at, rule in zip(places, found, strict=True):
            rules[at] = rule
    rows = table.read_some(rules).tolist()
    began = epoch() if any(packets for packets, *_ in rows) else 0.0
    return [
        Hits(packets, octets, began + last_s if packets else None, rule in plan.shared) if rule else Hits()
        for rule, (packets, octets, last_s) in zip(rules, rows, strict=True)
    ]

"""Decodes traces: struct trace of xdp/trace.h as Python values, addresses packed, ports in host order. Pure."""

from dataclasses import dataclass

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import Array

_C = layout().constants
NONE = _C["NONE"]
"""No service, no place."""
STAGES = {
    _C["STAGE_PARSE"]: "parse",
    _C["STAGE_ADMIT"]: "admit",
    _C["STAGE_ICMP"]: "icmp",
    _C["STAGE_SERVICE"]: "service",
    _C["STAGE_SELECT"]: "select",
    _C["STAGE_FORWARD"]: "forward",
    _C["STAGE_NAT"]: "nat",
}
"""By number, in the order of a packet's way."""
VIAS = {_C["VIA_FLOW"]: "flow", _C["VIA_RING"]: "ring", _C["VIA_QUIC"]: "quic-cid"}
"""How a backend was chosen, by number."""

NAT_WAYS = {
    _C["NAT_REQUEST"]: "request",
    _C["NAT_REPLY"]: "reply",
    _C["NAT_ICMP"]: "icmp",
    _C["NAT_KEPT"]: "kept",
}
"""As what the second program took a packet, by number."""
GUARDS = {
    _C["GUARD_PEACE"]: "peace",
    _C["GUARD_KNOWN"]: "known",
    _C["GUARD_PROVEN"]: "proven",
    _C["GUARD_TESTED"]: "tested",
    _C["GUARD_WITHIN"]: "within",
    _C["GUARD_REFUSED"]: "refused",
}
"""How a guarded service took a new flow, by number."""


@dataclass(frozen=True, slots=True)
class TracedFlow:
    """Addresses and ports as a stage read them. family: 4, 6, or 0 where no IP header was read."""

    source: bytes
    source_port: int
    destination: bytes
    port: int
    family: int
    protocol: int
    tcp_flags: int
    has_ports: bool
    is_fragment: bool
    is_quoted: bool


@dataclass(frozen=True, slots=True)
class FlowSlot:
    """A flow's entry in the flow table. age_s: since its last packet."""

    age_s: int
    service: int
    established: bool
    udp: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """What became of one frame. verdict: its number; stage: the last it came to; via: None if no backend was chosen.

    deny_entry, allow_entry and quic_id are 0 for none, service, place and rule NONE. rule: that decided, or whose limit
    did; guard: one of GUARDS, or None if no guard was asked.
    """

    parsed: TracedFlow
    wanted: TracedFlow
    verdict: int
    stage: str
    ip_offset: int
    ip_length: int
    deny_entry: int
    allow_entry: int
    service: int
    place: int
    via: str | None
    quic_id: int
    rule: int
    guard: str | None
    slot: FlowSlot | None
    nat_way: str | None = None
    """One of NAT_WAYS; None: it is none of NAT's."""
    nat_slot: int = 0
    """Of NAT's entry; 0: none was found or could be given."""
    nat_states: tuple[int, int] = (0, 0)
    """Of both directions; zeros: the entry is new."""


def decode(rows: Array) -> list[Trace]:
    """Rows of struct trace, shape (N,)."""
    columns = {
        name: rows[name].tolist() for name in rows.dtype.names or () if name not in ("parsed", "wanted")
    }
    parsed, wanted = _flows(rows["parsed"]), _flows(rows["wanted"])
    traces = []
    for at in range(len(rows)):
        state = columns["flow_state"][at]
        slot = None
        if state:
            slot = FlowSlot(
                age_s=max(0, columns["now_s"][at] - (state >> 32)),
                service=state >> 16 & 0xFFFF,
                established=bool(state & _C["FLOW_ESTABLISHED"]),
                udp=bool(state & _C["FLOW_UDP"]),
            )
        traces.append(
            Trace(
                parsed=parsed[at],
                wanted=wanted[at],
                verdict=columns["verdict"][at],
                stage=STAGES[columns["stage"][at]],
                ip_offset=columns["l3"][at],
                ip_length=columns["l3_length"][at],
                deny_entry=columns["deny_entry"][at],
                allow_entry=columns["allow_entry"][at],
                service=columns["service"][at],
                place=columns["place"][at],
                via=VIAS.get(columns["via"][at]),
                quic_id=columns["quic_id"][at],
                rule=columns["rule"][at],
                guard=GUARDS.get(columns["guard"][at]),
                slot=slot,
                nat_way=NAT_WAYS.get(columns["nat_way"][at]),
                nat_slot=columns["nat_slot"][at],
                nat_states=(columns["nat_forward_state"][at], columns["nat_reply_state"][at]),
            )
        )
    return traces


def _flows(rows: Array) -> list[TracedFlow]:
    sources, destinations = (np.ascontiguousarray(rows[n]).tobytes() for n in ("source", "destination"))
    names = ("source_port", "port", "family", "protocol", "tcp_flags", "marks")
    flows = []
    for at, fields in enumerate(zip(*(rows[name].tolist() for name in names), strict=True)):
        source_port, port, family, protocol, tcp_flags, marks = fields
        first, end = 16 * at, 16 * at + (4 if family == 4 else 16)
        flows.append(
            TracedFlow(
                source=sources[first:end],
                source_port=source_port,
                destination=destinations[first:end],
                port=port,
                family=family,
                protocol=protocol,
                tcp_flags=tcp_flags,
                has_ports=bool(marks & _C["TRACE_PORTS"]),
                is_fragment=bool(marks & _C["TRACE_FRAGMENT"]),
                is_quoted=bool(marks & _C["TRACE_QUOTED"]),
            )
        )
    return flows

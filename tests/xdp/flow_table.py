"""The flow table's memory in the hands of tests: read slot by slot, and written as time or other flows would."""

from dataclasses import dataclass
from typing import Any

from frames import BACKENDS4, VIP4, VIP6, expect_encapsulated, service
from rig import Rig
from scapy.packet import Packet

from lb.dataplane.layout import layout
from lb.reconcile.observed import FlowTableStats

_C = layout().constants
OPENED, CLOSED, CLOSED_S = _C["FLOW_OPENED"], _C["FLOW_CLOSED"], _C["FLOW_CLOSED_S"]
PROBATION, ESTABLISHED, UDP = _C["FLOW_PROBATION"], _C["FLOW_ESTABLISHED"], _C["FLOW_UDP"]
WAYS, PROTECT_S = _C["FLOW_WAYS"], _C["FLOW_PROTECT_S"]
UDP_IDLE_S, TCP_IDLE_S = 30, 3600


@dataclass(frozen=True)
class Slot:
    """What a slot of the flow table says."""

    tag: int
    place: int
    seconds: int
    service: int
    kind: int


def slots(rig: Rig) -> list[Slot]:
    """All slots in use; that a SYN opened a flow is left out of its kind."""
    used = rig.flows[rig.flows["tag_backend"] != 0]
    pairs = zip(used["tag_backend"].tolist(), used["state"].tolist(), strict=True)
    return [Slot(t >> 16, t & 0xFFFF, s >> 32, s >> 16 & 0xFFFF, s & 0xFFFF & ~OPENED) for t, s in pairs]


def put(
    rig: Rig, bucket: int, way: int, *, kind: int, age: int, place: int = 0, tag: int | None = None
) -> int:
    """Write a slot, seen so many seconds ago; returns its tag."""
    tag = 0xABC000 + way if tag is None else tag
    rig.flows[bucket, way]["state"] = (rig.plane.clock_seconds() - age) << 32 | kind
    rig.flows[bucket, way]["tag_backend"] = tag << 16 | place
    return tag


def where(rig: Rig) -> tuple[int, int]:
    """Bucket and way of the only flow there is."""
    ((bucket, way),) = zip(*rig.flows["tag_backend"].nonzero(), strict=True)
    return int(bucket), int(way)


def make_older(rig: Rig, seconds: int) -> None:
    """As if the only flow had been seen so much earlier."""
    bucket, way = where(rig)
    state = int(rig.flows[bucket, way]["state"])
    rig.flows[bucket, way]["state"] = state - (seconds << 32)


def go(rig: Rig, frame: Packet) -> str:
    """The backend that a frame goes to."""
    return expect_encapsulated(rig.run(frame), frame)


def but_for(backend: str, **fields: Any) -> list[dict[str, Any]]:
    """The three backends, one of them changed."""
    return [{"address": b, **(fields if b == backend else {})} for b in BACKENDS4]


def web_services(backends: list[Any]) -> list[dict[str, Any]]:
    """Two TCP services and two UDP ones, IPv4 and IPv6, on port 80."""
    return [
        service(f"{protocol}{n}", vip=vip, protocol=protocol, backends=backends)
        for n, vip in ((4, VIP4), (6, VIP6))
        for protocol in ("tcp", "udp")
    ]


def stats(rig: Rig) -> FlowTableStats:
    """What became of flows since the test began."""
    return rig.reconciler.counters().flow_table

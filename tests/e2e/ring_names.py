"""The backend that the ring's own computation names for a flow, by its name in the lab."""

from ipaddress import ip_address
from typing import Any

import traffic
from place import Lab
from topology import Role

from lb.model import Affinity
from lb.reconcile.ring import build_ring, ring_slot

IP_PROTOCOL = {"tcp": 6, "udp": 17}


def ring_names(lab: Lab, service: dict[str, Any], flows: list[traffic.Flow]) -> list[str]:
    """The backend that the ring computes for each flow."""
    backends = [(ip_address(b["address"]).packed, b["weight"]) for b in service["backends"]]
    ring = build_ring(backends)
    names = {
        ip_address(h.address(f)).packed: h.label
        for h in lab.configuration.of_role(Role.BACKEND)
        for f in (4, 6)
    }
    slots = [
        ring_slot(
            ip_address(flow.source).packed,
            flow.source_port,
            ip_address(flow.destination).packed,
            flow.destination_port,
            IP_PROTOCOL[flow.protocol],
            affinity=Affinity(service.get("affinity", "flow")),
        )
        for flow in flows
    ]
    return [names[backends[ring[slot]][0]] for slot in slots]

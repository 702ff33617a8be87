"""Samples as packets would make them, for the twin of the data plane."""

import time
from ipaddress import ip_address
from typing import Any

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.samples import RECORD
from lb.dataplane.twin import TwinDataPlane

NUMBER = {v.name: v.number for v in layout().verdicts}
NONE = layout().constants["NONE"]


def sample(verdict: str, source: str | None = None, data: bytes = b"frame", **fields: Any) -> np.ndarray:
    """One record, of now. fields: other members of struct sample."""
    row = np.zeros(1, RECORD)
    row["kind"], row["verdict"], row["time_ns"] = 1, NUMBER[verdict], time.monotonic_ns()
    row["rule"] = row["service"] = row["place"] = NONE
    row["frame_length"], row["captured"], row["ifindex"] = 60, len(data), 1
    row["bytes"][0, : len(data)] = np.frombuffer(data, np.uint8)
    if source is not None:
        address = ip_address(source)
        row["family"] = address.version
        row["source"] = np.frombuffer(address.packed.ljust(16, b"\0"), "<u4")
    for name, value in fields.items():
        row[name] = value
    return row


def pass_by(plane: TwinDataPlane, *rows: np.ndarray) -> None:
    """Packets that are counted, and handed out now (or later, if they say so)."""
    for row in rows:
        row["time_ns"] = max(int(row["time_ns"][0]), time.monotonic_ns())
        plane.tables.verdict_counters.add(int(row["verdict"][0]), 1, 60)
    plane.queue.put(np.concatenate(rows))

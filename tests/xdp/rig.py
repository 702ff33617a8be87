"""The packet path under test: filled by the real control plane, run frame by frame."""

import ctypes
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from plane import EVERYTHING, OUR_IFINDEX, OUR_MAC, Programs, RigDataPlane, next_hop_mac

from lb.dataplane import libbpf
from lb.dataplane.build import Program
from lb.dataplane.layout import layout
from lb.dataplane.tables import Array
from lb.model import Prefix
from lb.model.document import from_mapping
from lb.reconcile.guard import Guard
from lb.reconcile.loop import Reconciler
from lb.reconcile.observed import Hits
from lb.reconcile.services import ServicePlan
from lb.store import SqliteStore

__all__ = [
    "EVERYTHING",
    "OUR_IFINDEX",
    "OUR_MAC",
    "XDP_ACTIONS",
    "Outcome",
    "Programs",
    "Rig",
    "RigDataPlane",
    "next_hop_mac",
]

XDP_ACTIONS = {"drop": 1, "pass": 2, "tx": 3, "redirect": 4}

_BY_NUMBER = {v.number: v for v in layout().verdicts}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one frame. action: pass, tx, redirect or drop; frame_out: the frame as it left."""

    verdict: str
    action: str
    frame_out: bytes


def _test_run(fd: int, frame: bytes, metadata: int) -> tuple[int, bytes]:
    """A test run with a context: metadata lies in the headroom, which is that much smaller."""
    end = metadata + len(frame)
    context = ctypes.create_string_buffer(struct.pack("=6I", metadata, end, 0, 0, 0, 0), 24)  # struct xdp_md
    data = ctypes.create_string_buffer(bytes(metadata) + frame, end)
    out = ctypes.create_string_buffer(end + 512)
    opts = libbpf._TestRunOpts(
        sz=ctypes.sizeof(libbpf._TestRunOpts),
        data_in=ctypes.cast(data, ctypes.c_void_p),
        data_size_in=end,
        data_out=ctypes.cast(out, ctypes.c_void_p),
        data_size_out=len(out),
        ctx_in=ctypes.cast(context, ctypes.c_void_p),
        ctx_size_in=len(context),
        repeat=1,
    )
    libbpf._check(libbpf._lib().bpf_prog_test_run_opts(fd, ctypes.byref(opts)), "test run")
    return int(opts.retval), out.raw[metadata : opts.data_size_out]


class Rig:
    """A balancer on the bench: say what is wanted, run a frame, see what became of it."""

    def __init__(self, plane: RigDataPlane) -> None:
        self.plane = plane
        self.now = 1_900_000_000.0
        self._store = SqliteStore(":memory:")
        self.reconciler = Reconciler(self._store, plane, clock=lambda: self.now)
        self._document: dict[str, Any] = {}
        self.reconciler.start()

    def close(self) -> None:
        """Stop the control plane."""
        self.reconciler.stop()
        self._store.close()

    def apply(
        self,
        *,
        services: list[dict[str, Any]] | None = None,
        block: list[Any] | None = None,
        allow: list[Any] | None = None,
        rules: list[dict[str, Any]] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Make the desired state so; what is not named stays. Entries are documents or bare prefixes."""
        named = {"services": services, "rules": rules, "settings": settings}
        lists = {"blocklist": block, "allowlist": allow}
        self._document |= {key: value for key, value in named.items() if value is not None}
        for key, entries in lists.items():
            if entries is not None:
                self._document[key] = [{"prefix": e} if isinstance(e, str) else e for e in entries]
        self.reconciler.change(
            lambda config: from_mapping(self._document, now=self.now, have=config),
            actor="test",
            summary="test",
            guard=Guard(force=True),  # a bench has nobody to lock out
        )

    def advance(self, seconds: float) -> None:
        """Let the control plane's clock go on, and do what is due then."""
        self.now += seconds
        self.follow(hops_changed=False)

    def follow(self, *, hops_changed: bool = True) -> None:
        """One turn of the reconciler's loop, in this thread: what it does next does not depend on luck."""
        with self.reconciler._lock:
            self.reconciler._follow_once(hops_changed)

    def forget_nat(self) -> None:
        """NAT has no flow, and no port was ever asked for."""
        arrays = self.plane.tables.arrays
        arrays.nat_index[:] = 0
        for name in ("nat_forward", "nat_reply"):
            rows = getattr(arrays, name)
            rows[np.flatnonzero(rows.view("u8").reshape(len(rows), -1).any(axis=1))] = 0
        arrays.nat_cursors.view("u1")[:] = 0

    def sweep(self) -> int:
        """Free NAT's entries that are over, as the daemon does once a second; how many."""
        return self.reconciler._nat.sweep()

    @property
    def program(self) -> Program:
        """The program in force."""
        assert self.plane.running is not None
        return self.plane.running

    @property
    def flows(self) -> Array:
        """The flow table: struct flow, shape (buckets, ways)."""
        return self.plane.tables.arrays.flows

    def plan(self, service: str) -> ServicePlan:
        """Where a service lies in the maps."""
        return self.reconciler._plans.services.by_name[service]

    def rule_number(self, name: str) -> int:
        """The number by which a rule counts."""
        return self.reconciler._plans.rules.numbers[name]

    def rule(self, name: str) -> tuple[int, int]:
        """How many packets a rule has matched, and how many of them it has dropped or, count-only, would have."""
        row = self.plane.tables.rule_counters.read_some([self.rule_number(name)])[0]
        return int(row["packets"]), int(row["dropped_packets"])

    def hits(self, prefix: str, *, allow: bool = False) -> Hits:
        """What an entry has decided."""
        return self.reconciler.hits([Prefix.parse(prefix)], allow=allow)[0]

    def matched(self, rule: str) -> tuple[int, int]:
        """Packets that a rule has matched and dropped."""
        tally = self.reconciler.rule_tally(rule)
        return tally.packets, tally.dropped_packets

    def run(self, frame: Any, *, metadata: int = 0) -> Outcome:
        """Run one frame, and prove that it was counted: once, by one verdict, with its length as it came.

        frame is bytes or a scapy packet; metadata: bytes of headroom that the driver has used up, a multiple of 4.
        What is passed or dropped must have been left as it was.
        """
        data = bytes(frame)
        before = self._verdicts()
        action, out = (
            _test_run(self.program.fd, data, metadata) if metadata else libbpf.test_run(self.program.fd, data)
        )
        packets, octets = self._verdicts() - before
        counted = np.flatnonzero(packets)

        assert [int(packets[n]) for n in counted] == [1], f"counted as {counted.tolist()}"
        verdict = _BY_NUMBER[int(counted[0])]
        assert octets[counted[0]] == len(data)
        assert octets.sum() == len(data)
        assert XDP_ACTIONS[verdict.action] == action, verdict.name
        if verdict.action in ("pass", "drop"):
            assert out == data, f"{verdict.name} changed the frame"
        return Outcome(verdict.name, verdict.action, out)

    def verdict(self, frame: Any) -> str:
        """The name alone."""
        return self.run(frame).verdict

    def burst(self, frames: Iterable[bytes]) -> list[bytes]:
        """Run many frames, all of which are forwarded; the frames that left."""
        outs = []
        for frame in frames:
            action, out = libbpf.test_run(self.program.fd, frame)
            assert action == XDP_ACTIONS["tx"]
            outs.append(out)
        return outs

    def _verdicts(self) -> Any:
        """Packets and bytes by verdict number, shape (2, 64)."""
        rows = self.plane.tables.verdict_counters.read()
        return np.array([rows["packets"], rows["bytes"]], np.int64)

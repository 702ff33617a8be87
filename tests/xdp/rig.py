"""The packet path under test: real maps and programs, filled by the real control plane, run frame by frame."""

import contextlib
import ctypes
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np

from lb.dataplane import libbpf
from lb.dataplane.build import Build, Program, compile_program
from lb.dataplane.kernel_tables import open_tables
from lb.dataplane.layout import Verdict, layout
from lb.dataplane.protocol import InterfaceState, NextHop, ProgramState, ProgramWish
from lb.dataplane.tables import Array, Tables, size_flags
from lb.model.document import from_mapping
from lb.reconcile.loop import Reconciler
from lb.reconcile.observed import Hits
from lb.reconcile.services import ServicePlan
from lb.settings import TableSizes
from lb.store import SqliteStore

BPFFS = Path("/sys/fs/bpf")
PIN_PREFIX = "sluice-test-"
OUR_MAC, OUR_IFINDEX = "02:00:00:00:aa:01", 7
EVERYTHING = frozenset(layout().features) - {"HAVE_FRAGS"}
XDP_ACTIONS = {"drop": 1, "pass": 2, "tx": 3, "redirect": 4}
FLOW_KEY0, FLOW_KEY1 = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03

_MAC = bytes.fromhex(OUR_MAC.replace(":", ""))
_COARSE_CLOCK = 6
_BY_NUMBER = {v.number: v for v in layout().verdicts}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one frame. action: pass, tx, redirect or drop; frame_out: the frame as it left."""

    verdict: str
    action: str
    frame_out: bytes


@contextlib.contextmanager
def pin_root() -> Iterator[Path]:
    """This process's own directory in bpffs, and an end to those of processes that are no more."""
    for left in BPFFS.glob(f"{PIN_PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(PIN_PREFIX)).exists():
            shutil.rmtree(left)
    root = BPFFS / f"{PIN_PREFIX}{os.getpid()}"
    root.mkdir(mode=0o700)
    try:
        yield root
    finally:
        shutil.rmtree(root)


class Programs:
    """One set of maps, and the programs over it: each is compiled once, however many tests ask for it."""

    def __init__(self, pins: Path, sizes: TableSizes) -> None:
        pins.mkdir(mode=0o700)
        self.pins, self.sizes = pins, sizes
        self._programs: dict[str, Program] = {}
        self._tables: Tables | None = None

    @property
    def tables(self) -> Tables:
        """The maps, which the first program makes."""
        if self._tables is None:
            self._tables = open_tables(self.pins, self.sizes)
        return self._tables

    def get(self, wish: ProgramWish) -> Program:
        """The loaded program that can do exactly this."""
        constants = {
            **size_flags(self.sizes),
            **dict(wish.constants),
            "OUR_IFINDEX": OUR_IFINDEX,
            "OUR_MAC_FIRST4": int.from_bytes(_MAC[:4], "little"),
            "OUR_MAC_LAST2": int.from_bytes(_MAC[4:], "little"),
            "FLOW_KEY0": FLOW_KEY0,
            "FLOW_KEY1": FLOW_KEY1,
        }
        build = Build(wish.features, constants, self.pins)
        if build.digest() not in self._programs:
            self._programs[build.digest()] = compile_program(build)
        return self._programs[build.digest()]

    def wipe(self) -> None:
        """Empty maps, as at a first start; counters that get an owner are cleared by the control plane."""
        arrays = self.tables.arrays
        for name in ("service_rings", "backends", "flows"):
            getattr(arrays, name).view("u1")[:] = 0
        for name in ("deny4_cells", "deny4_runs", "deny4_lines", "deny4_dense", "deny_owners", "allow_owners"):
            getattr(arrays, name)[:] = 0
        for table in (getattr(self.tables, n) for n in ("services4", "services6", "deny6", "allow4", "allow6")):
            table.delete(table.read()[0])
        self.tables.flow_counters.clear([0])
        self.tables.verdict_counters.clear([v.number for v in layout().verdicts])


class RigDataPlane:
    """A DataPlane over real maps whose frames come by BPF_PROG_TEST_RUN; next hops are made up as the twin's are.

    exact: the program has what is wished for and no more; otherwise it has everything, and one serves all tests.
    """

    def __init__(self, programs: Programs, *, exact: bool = False, frags: bool = False) -> None:
        self._programs, self._exact, self._frags = programs, exact, frags
        self.sizes = programs.sizes
        self.unresolved: set[str] = set()
        self.unreachable: set[str] = set()
        self.behind_gateway: set[str] = set()
        self.ifindex: dict[str, int] = {}
        """Backends behind another interface."""
        self.mtu = 1500
        self.running: Program | None = None
        self._changed: list[Callable[[], None]] = []
        programs.get(ProgramWish(EVERYTHING))  # makes the maps

    @property
    def tables(self) -> Tables:
        return self._programs.tables

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return layout().verdicts

    def require(self, wish: ProgramWish, *, exactly: bool = False) -> None:
        features = wish.features if self._exact else EVERYTHING
        if self._frags:
            features |= {"HAVE_FRAGS"}
        self.running = self._programs.get(replace(wish, features=features))

    def prepare(self, wish: ProgramWish) -> None:
        """Nothing: `require` finds every program that was compiled once."""

    def next_hops(self, addresses: Iterable[bytes]) -> Mapping[bytes, NextHop]:
        return {
            packed: NextHop(
                interface="rig0" if str(address) not in self.ifindex else "rig1",
                ifindex=self.ifindex.get(str(address), OUR_IFINDEX),
                source_mac=_MAC,
                mac=None if str(address) in self.unresolved else next_hop_mac(str(address)),
                mtu=self.mtu,
                gateway=str(address) in self.behind_gateway,
            )
            for packed in addresses
            if str(address := ip_address(packed)) not in self.unreachable
        }

    def watch(self, changed: Callable[[], None]) -> None:
        self._changed.append(changed)

    def interfaces(self) -> list[InterfaceState]:
        return [InterfaceState("rig0", OUR_IFINDEX, OUR_MAC, self.mtu, True, "native", 1)]

    def program(self) -> ProgramState | None:
        if self.running is None:
            return None
        info = self.running.info
        return ProgramState(self.running.build.features, info.instructions, info.jited_bytes, 0.0, 0.0)

    def clock_seconds(self) -> int:
        return (time.clock_gettime_ns(_COARSE_CLOCK) >> 20) * 4503600 >> 32

    def close(self) -> None:
        pass


def next_hop_mac(address: str) -> bytes:
    """The MAC by which the made-up link reaches an address."""
    return b"\x02\x10" + ip_address(address).packed[-4:]


def _test_run(fd: int, frame: bytes, metadata: int) -> tuple[int, bytes]:
    """A test run with a context: metadata lies in the headroom, which is that much smaller."""
    context = struct.pack("=6I", metadata, metadata + len(frame), 0, 0, 0, 0)  # struct xdp_md
    data, out = bytes(metadata) + frame, ctypes.create_string_buffer(len(frame) + 512)
    opts = libbpf._TestRunOpts(
        sz=ctypes.sizeof(libbpf._TestRunOpts),
        data_in=ctypes.cast(data, ctypes.c_void_p),
        data_size_in=len(data),
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
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Make the desired state so; what is not named stays. Entries are documents or bare prefixes."""
        named = {"services": services, "settings": settings}
        lists = {"blocklist": block, "allowlist": allow}
        self._document |= {key: value for key, value in named.items() if value is not None}
        for key, entries in lists.items():
            if entries is not None:
                self._document[key] = [{"prefix": e} if isinstance(e, str) else e for e in entries]
        self.reconciler.change(
            lambda config: from_mapping(self._document, now=self.now, have=config), actor="test", summary="test"
        )

    def advance(self, seconds: float) -> None:
        """Let the control plane's clock go on, and do what is due then."""
        self.now += seconds
        self.follow(hops_changed=False)

    def follow(self, *, hops_changed: bool = True) -> None:
        """One turn of the reconciler's loop, in this thread: what it does next does not depend on luck."""
        with self.reconciler._lock:
            self.reconciler._follow_once(hops_changed)

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

    def hits(self, prefix: str, *, allow: bool = False) -> Hits:
        """What an entry has decided."""
        from lb.model import Prefix  # noqa: PLC0415

        return self.reconciler.hits([Prefix.parse(prefix)], allow=allow)[0]

    def run(self, frame: Any, *, metadata: int = 0) -> Outcome:
        """Run one frame, and prove that it was counted: once, by one verdict, with its length as it came.

        frame is bytes or a scapy packet; metadata: bytes of headroom that the driver has used up, a multiple of 4.
        What is passed or dropped must have been left as it was.
        """
        data = bytes(frame)
        before = self._verdicts()
        action, out = _test_run(self.program.fd, data, metadata) if metadata else libbpf.test_run(self.program.fd, data)
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

"""A data plane without an interface: real maps and programs, in a pin directory of this process's own."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

import leftovers

from lb.dataplane import clock
from lb.dataplane.build import Build, Program, compile_program
from lb.dataplane.explain import TracedProgram, Tracers
from lb.dataplane.kernel_tables import open_tables
from lb.dataplane.layout import Verdict, layout
from lb.dataplane.protocol import InterfaceState, NextHop, ProgramState, ProgramWish
from lb.dataplane.samples import PIN, RingBuffer
from lb.dataplane.tables import Tables, size_flags
from lb.settings import TableSizes

OUR_MAC, OUR_IFINDEX = "02:00:00:00:aa:01", 7
EVERYTHING = frozenset(layout().features) - {"HAVE_FRAGS"}
NAT = frozenset(name for name in EVERYTHING if name.startswith("HAVE_NAT"))
"""What comes with the first service of mode nat: a second program, which nobody else waits for."""
EVERYTHING -= NAT
AROUND_NAT = NAT | {
    "HAVE_VIP4",
    "HAVE_VIP6",
    "HAVE_ANY_PORT",
    "HAVE_REDIRECT",
    "HAVE_TOO_BIG",
    "HAVE_SPOOF",
    "HAVE_ECHO",
    "HAVE_IPIP",
}
CACHE = Path(where) if (where := os.environ.get("SLUICE_CACHE_DIR")) else None
"""Where compiled programs are kept between tests."""
PROGRAMS_KEPT = 200
"""Loaded at once: each holds a descriptor."""
TABLES = ("services4", "services6", "vip_prefixes6", "quic_ids", "deny6", "allow4", "allow6", "rule_sources4",
          "rule_sources6", "rule_targets4", "rule_targets6")  # fmt: skip
STILL_SECONDS = 1_000_000
STILL = (("JIFFIES", (STILL_SECONDS << 32) // clock.jiffy_share() + 1), ("CLOCK_NS", STILL_SECONDS * 10**9))
"""Both clocks of the packet path, as constants."""
FLOW_KEY0, FLOW_KEY1 = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03

_MAC = bytes.fromhex(OUR_MAC.replace(":", ""))


@contextlib.contextmanager
def pin_root() -> Iterator[Path]:
    """This process's own directory in bpffs, and an end to those of processes that are no more."""
    leftovers.pins()
    root = leftovers.BPFFS / f"{leftovers.PINS}{os.getpid()}"
    root.mkdir(mode=0o700)
    try:
        yield root
    finally:
        shutil.rmtree(root)


class Programs:
    """One set of maps, and the programs over it: each is compiled once, however many tests ask for it."""

    def __init__(self, pins: Path, sizes: TableSizes) -> None:
        pins.mkdir(mode=0o700)
        self.pins, self.sizes, self.tables = pins, sizes, open_tables(pins, sizes)
        self._programs: dict[ProgramWish, Program] = {}
        self.tracers = Tracers()

    def get(self, wish: ProgramWish) -> Program:
        """The loaded program that can do exactly this."""
        if wish in self._programs:
            self._programs[wish] = self._programs.pop(wish)  # the one last asked for comes last
        else:
            if len(self._programs) == PROGRAMS_KEPT:
                os.close(self._programs.pop(next(iter(self._programs))).fd)
                self.tracers.keep([program.build for program in self._programs.values()])
            self._programs[wish] = self.make(wish)
        return self._programs[wish]

    def make(self, wish: ProgramWish) -> Program:
        """One that is compiled now, even if there is one like it."""
        constants = {
            **size_flags(self.sizes),
            "OUR_IFINDEX": OUR_IFINDEX,
            "OUR_MAC_FIRST4": int.from_bytes(_MAC[:4], "little"),
            "OUR_MAC_LAST2": int.from_bytes(_MAC[4:], "little"),
            "FLOW_KEY0": FLOW_KEY0,
            "FLOW_KEY1": FLOW_KEY1,
            **dict(wish.constants),
        }
        return compile_program(Build(wish.features, constants, self.pins, kept=CACHE))

    def wipe(self) -> None:
        """Empty maps, as at a first start; counters that get an owner are cleared by the control plane."""
        arrays = self.tables.arrays
        for name in (
            "service_rings",
            "service_owners",
            "backends",
            "flows",
            "service_guards",
            "known_sources",
            "syn_tests",
        ):
            getattr(arrays, name).view("u1")[:] = 0
        for name in (
            "deny4_cells",
            "deny4_runs",
            "deny4_lines",
            "deny4_dense",
            "deny_owners",
            "allow_owners",
            "rule_cells",
            "rule_owners",
            "nat_index",
            "nat_addresses",
        ):
            getattr(arrays, name)[:] = 0
        for name in (
            "rule_bank",
            "rule_sets",
            "rule_actions",
            "limit_totals",
            "limit_buckets",
            "limit_sketch",
            "nat_forward",
            "nat_reply",
            "nat_pools",
            "nat_lists",
            "nat_cursors",
            "nat_interfaces",
        ):
            getattr(arrays, name).view("u1")[:] = 0
        for name in TABLES:
            table = getattr(self.tables, name)
            table.delete(table.read()[0])
        self.tables.flow_counters.clear([0])
        self.tables.quic_counters.clear([0])
        self.tables.nat_counters.clear([0])
        self.tables.verdict_counters.clear([v.number for v in layout().verdicts])


class RigDataPlane:
    """A DataPlane over real maps whose frames come by BPF_PROG_TEST_RUN; next hops are made up as the twin's are.

    exact: the program has what is wished for and no more; otherwise it has everything, and one serves all tests.
    still: the packet path's clocks stand, so that what it does with a frame does not depend on the machine.
    """

    def __init__(
        self,
        programs: Programs,
        *,
        exact: bool = False,
        frags: bool = False,
        still: bool = False,
        features: frozenset[str] = EVERYTHING,
    ) -> None:
        self._programs, self._exact, self._frags, self._still = programs, exact, frags, still
        self.sizes = programs.sizes
        self.unresolved: set[str] = set()
        self.unreachable: set[str] = set()
        self.behind_gateway: set[str] = set()
        self.ifindex: dict[str, int] = {}
        """Backends behind another interface."""
        self._features = features
        self.mtu = 1500
        self.ahead = 0
        self.running: Program | None = None
        self.wished = ProgramWish(frozenset())
        self._changed: list[Callable[[], None]] = []

    @property
    def tables(self) -> Tables:
        return self._programs.tables

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return layout().verdicts

    def former(self) -> None:
        """There is none."""

    def forget_former(self, lost: int = 0) -> None:
        pass

    @property
    def flow_key(self) -> tuple[int, int]:
        return FLOW_KEY0, FLOW_KEY1

    def require(self, wish: ProgramWish, *, exactly: bool = False) -> None:
        self.wished = wish
        features = (
            wish.features if self._exact else self._features | (NAT if wish.features & NAT else frozenset())
        )
        features -= _switched_off(wish)
        if self._frags:
            features |= {"HAVE_FRAGS"}
        constants = (*wish.constants, *STILL) if self._still else wish.constants
        self.running = self._programs.get(ProgramWish(features, constants))

    def lacks(self, wish: ProgramWish) -> None:
        """See `prepare`."""

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

    def remember(self, macs: Mapping[bytes, bytes]) -> None:
        pass

    def watch(self, changed: Callable[[], None]) -> None:
        self._changed.append(changed)

    def interfaces(self) -> list[InterfaceState]:
        return [InterfaceState("rig0", OUR_IFINDEX, OUR_MAC, self.mtu, True, "native", 1)]

    def programs(self) -> list[ProgramState]:
        if self.running is None:
            return []
        info = self.running.info
        return [ProgramState(self.running.build.features, info.instructions, info.jited_bytes, "rig0")]

    def tracer(self, interface: str) -> TracedProgram:
        assert self.running is not None
        # One for each build, and not for each interface: sessions go to and fro between a few.
        return self._programs.tracers.get(self.running.build.name, self.running.build)

    def samples(self) -> RingBuffer:
        return RingBuffer(self._programs.pins / PIN)

    @property
    def pins(self) -> Path:
        """Where the maps are pinned."""
        return self._programs.pins

    def clock_seconds(self) -> int:
        return (STILL_SECONDS if self._still else clock.seconds()) + self.ahead

    def later(self, seconds: int) -> None:
        """Let the control plane see the flow table's clock so much later; packets see it as it is."""
        self.ahead += seconds

    def close(self) -> None:
        pass


def _switched_off(wish: ProgramWish) -> set[str]:
    """What settings turned off, and is not just without use."""
    off = {"HAVE_SPOOF", "HAVE_ECHO", "HAVE_PROBES"} - wish.features
    if dict(wish.constants).get("TOO_BIG_PER_SECOND") == 0:
        off.add("HAVE_TOO_BIG")
    return off


def next_hop_mac(address: str) -> bytes:
    """The MAC by which the made-up link reaches an address."""
    return b"\x02\x10" + ip_address(address).packed[-4:]

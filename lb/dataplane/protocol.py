"""The protocol of a data plane; the kernel's (kernel.py) and the twin (twin.py) both implement it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lb.dataplane.former import Former
from lb.dataplane.layout import Verdict
from lb.dataplane.samples import SampleQueue
from lb.dataplane.tables import Array, Tables
from lb.doctor.facts import BackendAnswers, HostFacts, InterfaceFacts
from lb.settings import TableSizes


@dataclass(frozen=True, slots=True)
class ProgramWish:
    """What the program must be able to do. features: names of config.h; constants: its values, as integers."""

    features: frozenset[str]
    constants: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class NextHop:
    """The way to an address. mac: the next hop's, None while it is not known; mtu: of the IP packet, 0 unknown.

    gateway: it is a router's MAC, not the address's own; via: the packed address of that router.
    """

    interface: str
    ifindex: int
    source_mac: bytes
    mac: bytes | None
    mtu: int
    gateway: bool
    via: bytes | None = None


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """One interface as it is. xdp_mode: native, generic or none; xdp_mode_reason: why, in a clause.

    pins: paths of its program and its link; link: up, down, no-carrier or gone. unpinned: its program is in force, and
    nothing but this process keeps it there.
    """

    name: str
    index: int | None
    mac: str | None
    mtu: int | None
    attached: bool
    xdp_mode: str
    program_id: int | None
    pins: tuple[str, ...] = ()
    xdp_mode_reason: str = ""
    link: str = "up"
    unpinned: bool = False

    @property
    def problem(self) -> str | None:
        """Why packets are not served there, in a sentence; None if they are."""
        if self.link == "gone" or self.index is None:
            return f"interface {self.name} is not there"
        if not self.attached:
            return f"interface {self.name} is not attached"
        if self.unpinned:
            return (
                f"the pins of interface {self.name} were removed: its program ends with this daemon, and so do its "
                "flows; restart it at a quiet time, which pins them anew"
            )
        told = {"down": "is down", "no-carrier": "has no carrier"}.get(self.link)
        return f"interface {self.name} {told}" if told else None


@dataclass(frozen=True, slots=True)
class ProgramState:
    """A loaded program: in force on its interface, or kept ready for it. id, name and tag are the kernel's.

    instructions: after the verifier; verified: those it went through, every path by itself.

    Times in seconds: to compile, to load, to check with known frames. What an earlier run compiled has no times and
    no stack_bytes (None).
    """

    features: frozenset[str]
    instructions: int
    jited_bytes: int
    interface: str = ""
    in_force: bool = True
    verified: int = 0
    stack_bytes: int | None = None
    compiled_at: float = 0.0
    compile_seconds: float = 0.0
    load_seconds: float = 0.0
    check_seconds: float = 0.0
    id: int = 0
    name: str = ""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class MapState:
    """A map, shared by all programs. Sizes are in bytes; memory_bytes is what the kernel charges for it.

    entries: in use, where entries are put in and taken out; null of an array or a ring, which has all of them.
    """

    name: str
    kind: str
    id: int
    key_bytes: int
    value_bytes: int
    capacity: int
    entries: int | None
    memory_bytes: int
    pin: str | None


@dataclass(frozen=True, slots=True)
class Traces:
    """What became of N frames. rows: struct trace, shape (N,); frames_out: each as the program left it."""

    rows: Array
    frames_out: list[bytes]


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What the doctor asks of the machine. serve_command: how the daemon was started, word by word."""

    host: HostFacts
    interfaces: tuple[InterfaceFacts, ...] = ()
    serve_command: tuple[str, ...] = ("sluice", "serve")


@dataclass(frozen=True, slots=True)
class BackendQuestion:
    """A backend that is to be tried with real packets.

    port: of the service, 0 if it has many; full_size: how long a full-sized packet of clients is in its outer header,
    0 where the interface does not take it; way: mark and source of packets for the VIP that are carried to it; None:
    the VIP is not asked.
    """

    address: str
    vip: str
    port: int
    protocol: str
    mode: str
    gue_port: int
    full_size: int
    way: tuple[int, str] | None = None


class Tracer(Protocol):
    """A program like the one in force, that tells what it does and changes nothing."""

    def run(self, frames: Sequence[bytes]) -> Traces:
        """Run each frame once. DataPlaneError: one is of a size that cannot be run."""


class DataPlane(Protocol):
    """The packet path, as memory and a program."""

    @property
    def tables(self) -> Tables:
        """Its memory."""

    @property
    def sizes(self) -> TableSizes:
        """The capacity of each table."""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict list."""

    def former(self) -> Former | None:
        """Tables of another layout or size that are in force until the next `require`; None if there are none."""

    @property
    def flow_key(self) -> tuple[int, int]:
        """What the packet path's hashes of flows are keyed with."""

    def forget_former(self, lost: int = 0) -> None:
        """All that matters of them was taken over; lost: connections of mode nat for which there was no room."""

    def require(self, wish: ProgramWish, *, exactly: bool = False) -> None:
        """Return when the program in force can do what is wished, and (exactly) no more.

        CompileError: the old one stays.
        """

    def lacks(self, wish: ProgramWish) -> ProgramWish | None:
        """What is to be prepared so that a `require` of this does not compile; None: nothing."""

    def prepare(self, wish: ProgramWish) -> None:
        """Compile what a later `require` will ask for; takes seconds, and changes nothing that is in force."""

    def next_hops(self, addresses: Iterable[bytes]) -> Mapping[bytes, NextHop]:
        """The way to each packed address; one without a route is left out. Starts resolving what is unknown."""

    def remember(self, macs: Mapping[bytes, bytes]) -> None:
        """Next hops' MACs by packed address that were good before; used until the kernel says more."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Call back, from another thread, when next hops or interfaces may have changed."""

    def interfaces(self) -> list[InterfaceState]:
        """The interfaces served."""

    def programs(self) -> list[ProgramState]:
        """The programs that are loaded, those in force first."""

    def maps(self) -> list[MapState]:
        """The maps that the programs share."""

    def tracer(self, interface: str) -> Tracer:
        """What explains frames that come in by an interface. DataPlaneError: no program is in force there.

        The first time, and after the program has changed, it takes a second.
        """

    def samples(self) -> SampleQueue:
        """What packets hand out while a program with HAVE_SAMPLES or HAVE_BANS is in force. OSError."""

    def machine(self, others: Iterable[str]) -> MachineFacts:
        """What there is to know of the machine, the interfaces served, and the others named."""

    def ask_backends(self, questions: Sequence[BackendQuestion]) -> list[BackendAnswers]:
        """Try each backend with real packets, all at once; takes a second or two."""

    def claims(self, asked: Iterable[tuple[str, str]]) -> Mapping[str, tuple[str, ...]]:
        """Of these (VIP, interface), who answers for a VIP in that network beside us: MACs by VIP."""

    def probe_source(self, ifindex: int, family: int) -> str:
        """An address of ours for checks that take the data path to a backend behind an interface.

        DataPlaneError: there is none. NotYetError: it is being made.
        While a wish has HAVE_PROBES: packets marked with PROBE_MARK, mode and place are carried to that backend.
        """

    def clock_seconds(self) -> int:
        """Now, by the clock of the flow table and the hit counters."""

    def close(self) -> None:
        """Let go. What is attached and pinned stays."""

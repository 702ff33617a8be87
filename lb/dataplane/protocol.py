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
    """What the program must have. features: names of config.h; constants: its values, as integers."""

    features: frozenset[str]
    constants: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class NextHop:
    """The next hop of an address. mac: the next hop's, None while it is not known; mtu: of the IP packet, 0 unknown.

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

    pins: paths of its program and its link; link: up, down, no-carrier or gone. unpinned: its program is in force, but
    only this process keeps it there.
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
    """The traces of N frames. rows: struct trace, shape (N,); frames_out: each as the program left it."""

    rows: Array
    frames_out: list[bytes]


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """The doctor's facts about the machine. serve_command: how the daemon was started, word by word."""

    host: HostFacts
    interfaces: tuple[InterfaceFacts, ...] = ()
    serve_command: tuple[str, ...] = ("sluice", "serve")


@dataclass(frozen=True, slots=True)
class BackendQuestion:
    """A backend to be tested with real packets.

    port: of the service, 0 if it has many; full_size: length of a client's full-sized packet in its outer header, 0 if
    the interface does not take it; way: mark and source of packets for the VIP that are sent to it; None: the VIP is
    not tested.
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
    """A program like the one in force that records what it does and changes nothing."""

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
        """The key of the packet path's flow hash."""

    def forget_former(self, lost: int = 0) -> None:
        """Remove them, since their content was taken over; lost: connections of mode nat that found no room."""

    def require(self, wish: ProgramWish, *, exactly: bool = False) -> None:
        """Return when the program in force has the wished features, and (exactly) no more.

        CompileError: the old one stays.
        """

    def lacks(self, wish: ProgramWish) -> ProgramWish | None:
        """What must be prepared so that `require` of this does not compile; None: nothing."""

    def prepare(self, wish: ProgramWish) -> None:
        """Compile what a later `require` will need; takes seconds, and changes nothing that is in force."""

    def next_hops(self, addresses: Iterable[bytes]) -> Mapping[bytes, NextHop]:
        """The next hop of each packed address; one without a route is left out. Starts resolving unknown ones."""

    def remember(self, macs: Mapping[bytes, bytes]) -> None:
        """Previously valid MACs by packed address; used until the kernel has resolved them again."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Call back, from another thread, when next hops or interfaces may have changed."""

    def interfaces(self) -> list[InterfaceState]:
        """The interfaces served."""

    def programs(self) -> list[ProgramState]:
        """The programs that are loaded, those in force first."""

    def maps(self) -> list[MapState]:
        """The maps that the programs share."""

    def tracer(self, interface: str) -> Tracer:
        """The traced program for an interface. DataPlaneError: no program is in force there.

        The first time, and after the program has changed, it takes a second.
        """

    def samples(self) -> SampleQueue:
        """The reader of samples while a program with HAVE_SAMPLES or HAVE_BANS is in force. OSError."""

    def machine(self, others: Iterable[str]) -> MachineFacts:
        """The doctor's facts about the machine, the interfaces served, and the others named."""

    def ask_backends(self, questions: Sequence[BackendQuestion]) -> list[BackendAnswers]:
        """Test all backends concurrently with real packets; takes a second or two."""

    def claims(self, asked: Iterable[tuple[str, str]]) -> Mapping[str, tuple[str, ...]]:
        """For these (VIP, interface): who else answers for the VIP in that network: MACs by VIP."""

    def probe_source(self, ifindex: int, family: int) -> str:
        """Our source address for checks through the data path to a backend behind an interface.

        DataPlaneError: there is none. NotYetError: it is being made.
        While a wish has HAVE_PROBES: packets marked with PROBE_MARK, mode and place are carried to that backend.
        """

    def clock_seconds(self) -> int:
        """Now, by the clock of the flow table and the hit counters."""

    def close(self) -> None:
        """Close. What is attached and pinned stays."""

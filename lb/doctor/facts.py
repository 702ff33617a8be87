"""Facts about the machine, the packet path and the backends: plain values, gathered at the edge.

Standard library only: deploy/probe.py asks with it before there is a venv. None stands for what could not be learned.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The machine, as far as one process can see it.

    kernel_lacks: features by name, with the kernel's word for why. bcc_fault: why it cannot be imported, or does not
    compile. headers: the tree that bcc compiles against; headers_chosen: BCC_KERNEL_SOURCE names it.
    lacks_capabilities: of those that a daemon needs. clock_synchronised: by NTP, as the kernel knows.
    """

    release: str
    kernel_lacks: Mapping[str, str] = field(default_factory=dict)
    bcc_fault: str | None = None
    headers: str | None = None
    headers_complete: bool = False
    headers_chosen: bool = False
    bpffs: str = "/sys/fs/bpf"
    bpffs_mounted: bool = True
    can_mount: bool = True
    lacks_capabilities: tuple[str, ...] = ()
    clock_synchronised: bool | None = None
    clock_stepped_seconds: float | None = None
    python: str = "python3"


@dataclass(frozen=True, slots=True)
class CardFacts:
    """A device by which an interface's packets come in, and what it does to them before any program sees them."""

    name: str
    lro: bool | None = None
    hardware_gro: bool | None = None
    gro: bool | None = None
    rxvlan: bool | None = None


@dataclass(frozen=True, slots=True)
class InterfaceFacts:
    """One interface.

    served: Sluice is to serve it; asked_mode: auto, native or generic. foreign_program: what is attached and is not
    ours. kind: of a device that is no card, as `ip -d link` names it: bond, vlan, … cards: what it stands on; a card
    stands on itself. vlans: VLAN interfaces on top. packets_by_cpu: what the program has counted on each CPU.
    addresses: with the length of their network, ADDRESS/LENGTH.
    """

    name: str
    there: bool = True
    up: bool = True
    mtu: int = 1500
    served: bool = True
    attached: bool = True
    asked_mode: str = "auto"
    xdp_mode: str = "native"
    foreign_program: str | None = None
    driver: str | None = None
    kind: str | None = None
    cards: tuple[CardFacts, ...] = ()
    vlans: tuple[str, ...] = ()
    rp_filter: int | None = None
    accept_local: bool | None = None
    rx_queues: int | None = None
    rx_queues_most: int | None = None
    cpus: int = 1
    packets_by_cpu: tuple[int, ...] = ()
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableFacts:
    """How full a table is; option: of `sluice serve`, that makes it larger; to: its value, if not by the capacity."""

    name: str
    entries: int
    capacity: int
    option: str | None = None
    to: int | None = None


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """The daemon itself. reasons: why it is not ready; serve_command: how it was started, word by word.

    unreachable: why no answer was had from it; expected: one was to be there, as its pins or socket are.
    """

    reasons: tuple[str, ...] = ()
    serve_command: tuple[str, ...] = ("sluice", "serve")
    unreachable: str | None = None
    expected: bool = True


class Answer(StrEnum):
    """What came back for a packet that was sent to a backend."""

    YES = "yes"
    REFUSED = "refused"
    """A reset, or an ICMP error."""
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class BackendAnswers:
    """What a backend answered to real packets; None: not asked, or it could not be.

    ping: to its own address. full_size: a ping as long as a full-sized packet in its outer header. unwrapped: a
    ping to its own address, in the outer header. vip_there, vip: a SYN to a port of the VIP that nobody serves, and to
    the service's own, in the outer header; refused is an answer too.
    """

    ping: Answer | None = None
    full_size: Answer | None = None
    unwrapped: Answer | None = None
    vip_there: Answer | None = None
    vip: Answer | None = None


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """One backend of one service.

    overhead: bytes of the outer header. interface, mtu, resolved, gateway: the way there; interface None: no route.
    proven, unproven: of its TCP flows of the last minutes, those whose client has heard an answer (it sent more than a
    SYN; mode nat: the answer came by here), and those that came later than all of these and whose client has not, for
    seconds. keeps_source: mode nat leaves it the client's address. served: the interfaces that Sluice serves.
    """

    service: str
    vip: str
    port: int | str
    protocol: str
    mode: str
    address: str
    active: bool = True
    overhead: int = 0
    interface: str | None = None
    mtu: int = 0
    resolved: bool = True
    gateway: bool = False
    proven: int = 0
    unproven: int = 0
    keeps_source: bool = False
    served: tuple[str, ...] = ()
    answers: BackendAnswers = BackendAnswers()


@dataclass(frozen=True, slots=True)
class VipFacts:
    """One VIP. packets: that came for it since the attach; last_seen_seconds: how long ago the last flow was seen.

    on_link: the served interface in whose own network it lies; local: the address is this machine's; deaf: and so
    the kernel drops what has it as source. answered_by: MACs that answer for it in that network, beside ours.
    """

    vip: str
    packets: int
    last_seen_seconds: float | None = None
    on_link: str | None = None
    local: bool = False
    answered_by: tuple[str, ...] = ()
    deaf: bool = False


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """One address that mode nat sends from.

    on_link: the served interface in whose own network it lies; local: the interface of this machine that has it.
    answered, unanswered: connections of the last minutes to whose packets answers came back to it, and those that
    came later than all of these and have none, for seconds.
    """

    address: str
    on_link: str | None = None
    local: str | None = None
    local_is_served: bool = False
    answered: int = 0
    unanswered: int = 0


@dataclass(frozen=True, slots=True)
class VerdictFacts:
    """How often a verdict was given: since the attach, and during the last `seconds` of TrafficFacts."""

    name: str
    action: str
    sentence: str
    total: int
    lately: int


@dataclass(frozen=True, slots=True)
class TrafficFacts:
    """What came, and what became of it."""

    seconds: float
    verdicts: tuple[VerdictFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. host is None where only backends are looked at."""

    host: HostFacts | None = None
    daemon: DaemonFacts = DaemonFacts()
    interfaces: tuple[InterfaceFacts, ...] = ()
    tables: tuple[TableFacts, ...] = ()
    backends: tuple[BackendFacts, ...] = ()
    vips: tuple[VipFacts, ...] = ()
    pools: tuple[PoolFacts, ...] = ()
    traffic: TrafficFacts | None = None

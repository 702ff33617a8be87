"""Observed state of the running data plane, apart from desired state. Counters are totals since attach."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tally:
    """Packets, and bytes of their frames as received."""

    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class VerdictInfo:
    """One line of xdp/verdicts.h. action is pass, tx, redirect or drop."""

    number: int
    name: str
    action: str
    sentence: str


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One backend of one service, as it is.

    effective_state: active, draining, disabled, unresolved (no next hop) or unhealthy (checks keep it from new flows).
    Of checks: health is unknown, healthy or unhealthy, since when (epoch seconds); health_error: why the last one
    failed, or could not be made; health_held: it would be unhealthy, but for the mass failure guard. syn_retries and
    unreachables: what clients' packets showed in the last window; null where nobody looks.
    """

    address: str
    weight: int
    admin_state: str
    effective_state: str
    health: str
    flows: int
    packets: int
    bytes: int
    ring_share: float
    next_hop_mac: str | None
    interface: str | None
    quic_id: int | None
    health_since: float | None = None
    health_error: str | None = None
    health_held: bool = False
    health_checked_at: float | None = None
    health_check_seconds: float | None = None
    syn_retries: int | None = None
    unreachables: int | None = None


@dataclass(frozen=True, slots=True)
class GuardStats:
    """New flows of a guarded service under attack, and the sources that it has learned, under attack or not.

    known: of known sources, passed. tested: SYNs dropped, to be sent again. proven: SYNs that were, passed.
    refused: over the budget, dropped.
    """

    known: int = 0
    tested: int = 0
    proven: int = 0
    refused: int = 0
    learned: int = 0


@dataclass(frozen=True, slots=True)
class FloodStatus:
    """How a guarded service is. attack_began_at: epoch seconds; both times are null in peace.

    attack_ends_in_seconds: if it is calm from now on. attacks: how often one began. new_flows_last_second: asked for
    in the last whole second.
    """

    under_attack: bool
    attack_began_at: float | None
    attack_ends_in_seconds: int | None
    attacks: int
    new_flows_last_second: int
    known: int
    tested: int
    proven: int
    refused: int
    learned: int


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service, as it is; packets and bytes are those that came for it. flood_protection: null if it has none."""

    name: str
    vip: str
    port: int | str | None
    protocol: str
    mode: str
    flows: int
    packets: int
    bytes: int
    flood_protection: FloodStatus | None
    backends: list[BackendStatus]


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """One interface Sluice was told to serve. xdp_mode is native, generic or none; xdp_mode_reason: why, in a clause.

    link: up, down, no-carrier or gone.
    """

    name: str
    index: int | None
    mac: str | None
    mtu: int | None
    attached: bool
    xdp_mode: str
    xdp_mode_reason: str
    link: str
    program_id: int | None


@dataclass(frozen=True, slots=True)
class TableStatus:
    """How full a table is."""

    name: str
    entries: int
    capacity: int


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """A loaded program, in force or kept ready: the features compiled in, its size, and what it took.

    verified_instructions: what the verifier went through, every path by itself (the kernel's limit is a million).
    Seconds are to compile, to load, and to check with known frames. Of a program that an earlier run of the daemon
    compiled, seconds are 0 and stack_bytes is null. id, name and tag are the kernel's, as bpftool shows them.
    """

    interface: str
    in_force: bool
    features: list[str]
    instructions: int
    jited_bytes: int
    verified_instructions: int
    stack_bytes: int | None
    compiled_at: float
    compile_seconds: float
    load_seconds: float
    check_seconds: float
    id: int
    name: str
    tag: str


@dataclass(frozen=True, slots=True)
class PendingStatus:
    """A revision that waits to be confirmed; back_to: the one that comes back unless it is in time, 0: nothing."""

    revision: int
    back_to: int
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Status:
    """The document of GET /v1/status. program: that in force on the first interface; programs: all that are loaded.

    pending: null if nothing waits to be confirmed.
    """

    version: str
    revision: int
    pending: PendingStatus | None
    ready: bool
    reasons: list[str]
    started_at: float
    interfaces: list[InterfaceStatus]
    program: ProgramStatus | None
    programs: list[ProgramStatus]
    services: list[ServiceStatus]
    tables: list[TableStatus]


@dataclass(frozen=True, slots=True)
class FlowTableStats:
    """What became of flow lookups: hit, missed (the ring chose and a slot was written), or missed with no slot free."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    untracked: int = 0


@dataclass(frozen=True, slots=True)
class QuicStats:
    """Packets of services with quic: led by a backend's id, with an unknown id, or without one.

    Those of the last two kinds went by the flow table and the ring.
    """

    by_id: int = 0
    unknown: int = 0
    without: int = 0


@dataclass(frozen=True, slots=True)
class NatRefusals:
    """New flows of mode nat that found no free port, by whose address they would have left with."""

    ipv4: int = 0
    ipv6: int = 0
    keep: int = 0


@dataclass(frozen=True, slots=True)
class NatStats:
    """What became of flows of mode nat.

    opened; reopened: by a SYN while it was closing; no_port: refused; taken_over: one that was over gave its port to a
    new one, as happens while no daemon runs; raced: opened by two CPUs at once, of which one gave way. Since the
    daemon's start: ended, and of them ended_early, as ports were short.
    """

    opened: int = 0
    reopened: int = 0
    no_port: NatRefusals = NatRefusals()
    taken_over: int = 0
    raced: int = 0
    ended: int = 0
    ended_early: int = 0


@dataclass(frozen=True, slots=True)
class Hits:
    """Packets that a blocklist or allowlist entry decided, and when the last came (epoch seconds).

    shared: the numbers are those of the whole feed, not of this entry alone.
    """

    packets: int = 0
    bytes: int = 0
    last_hit_at: float | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class RuleTally:
    """What a rule matched, and of it what was dropped, or would have been in count-only mode.

    last_match_at: epoch seconds. position: the rule's place in the order of evaluation, from 1.
    """

    packets: int
    bytes: int
    dropped_packets: int
    dropped_bytes: int
    last_match_at: float | None
    position: int


@dataclass(frozen=True, slots=True)
class Counters:
    """The document of GET /v1/stats. verdicts by name, services by name, backends by (service, address).

    owners: blocklist hits by owner ("operator", "feed:NAME"). rules by name, in the order in which they are asked.
    flood_protection: by service, of those that have it.
    """

    verdicts: dict[str, Tally] = field(default_factory=dict)
    services: dict[str, Tally] = field(default_factory=dict)
    backends: dict[tuple[str, str], Tally] = field(default_factory=dict)
    owners: dict[str, Tally] = field(default_factory=dict)
    flow_table: FlowTableStats = FlowTableStats()
    quic: QuicStats = QuicStats()
    nat: NatStats = NatStats()
    rules: dict[str, RuleTally] = field(default_factory=dict)
    flood_protection: dict[str, GuardStats] = field(default_factory=dict)

"""The data plane in plain memory: the same tables without a kernel, for tests and dry runs."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lb.dataplane.former import Former
from lb.dataplane.joined import join_tables
from lb.dataplane.layout import Verdict, layout
from lb.dataplane.protocol import (
    BackendQuestion,
    InterfaceState,
    MachineFacts,
    MapState,
    NextHop,
    ProgramState,
    ProgramWish,
    Tracer,
    Traces,
)
from lb.dataplane.samples import SampleQueue, TwinQueue
from lb.dataplane.tables import (
    ARRAY_NAMES,
    COUNTER_STRUCTS,
    TABLE_STRUCTS,
    Array,
    Ints,
    Tables,
    array_bytes,
    arrays_over,
    capacities,
    dtype_of,
)
from lb.dataplane.trace import NONE
from lb.doctor.facts import BackendAnswers, HostFacts, InterfaceFacts
from lb.errors import CapacityError, DataPlaneError
from lb.settings import TableSizes

SMALL = TableSizes(
    flow_slots=4096,
    services=256,
    service_ports=1024,
    backends=4096,
    rings=32,
    deny_hosts=4096,
    deny_dense=16,
    deny_ipv6=4096,
    allow=1024,
    nat_slots=2 << 16,
)
"""Sizes for tests."""


class TwinTable:
    """A table as a dict."""

    def __init__(self, name: str, capacity: int) -> None:
        self.name, self.capacity = name, capacity
        key, value = TABLE_STRUCTS[name]
        self._key, self._value = dtype_of(key), dtype_of(value)
        self._entries: dict[bytes, bytes] = {}

    def read(self) -> tuple[Array, Array]:
        """All entries."""
        keys = np.frombuffer(b"".join(self._entries), self._key)
        return keys, np.frombuffer(b"".join(self._entries.values()), self._value)

    def write(self, keys: Array, values: Array) -> None:
        """Put entries in."""
        new = {key.tobytes(): value.tobytes() for key, value in zip(keys, values, strict=True)}
        if len(self._entries.keys() | new.keys()) > self.capacity:
            raise CapacityError(f"table {self.name} is full: it holds {self.capacity} entries")
        self._entries.update(new)

    def delete(self, keys: Array) -> None:
        """Take keys out."""
        for key in keys:
            self._entries.pop(key.tobytes(), None)


class TwinCounters:
    """Counters as one array: tests write it as packets would."""

    def __init__(self, name: str, capacity: int) -> None:
        self.values = np.zeros(capacity, dtype_of(COUNTER_STRUCTS[name]))

    def read(self) -> Array:
        """All entries."""
        return self.values.copy()

    def read_some(self, indexes: list[int]) -> Array:
        """Some entries."""
        return self.values[indexes]

    def by_cpu(self) -> Ints:
        """All on one CPU."""
        return np.array([self.values["packets"].sum()], np.int64)

    def clear(self, indexes: list[int]) -> None:
        """Set entries to zero."""
        self.values[indexes] = 0

    def put(self, indexes: list[int], rows: Array) -> None:
        """Write entries."""
        self.values[indexes] = rows

    def add(self, index: int, packets: int, octets: int) -> None:
        """Add to one entry."""
        self.values[index]["packets"] += packets
        self.values[index]["bytes"] += octets


class TwinTracer:
    """Says the same of every frame: what a test has written into `row`, at first that it is not of IP."""

    def __init__(self) -> None:
        self.row = np.zeros(1, layout().structs["trace"])
        self.row["verdict"] = next(v.number for v in layout().verdicts if v.name == "PASS_NOT_IP")
        self.row["stage"] = layout().constants["STAGE_PARSE"]
        self.row["service"] = self.row["place"] = self.row["rule"] = NONE
        self.frames: list[bytes] = []

    def run(self, frames: Sequence[bytes]) -> Traces:
        """Remember the frames; they leave as they came."""
        self.frames += frames
        return Traces(np.repeat(self.row, len(frames)), list(frames))


class TwinDataPlane:
    """A DataPlane whose packets never come. Every address is on one link, its MAC made from its last four bytes."""

    def __init__(self, sizes: TableSizes = SMALL) -> None:
        self.sizes = sizes
        entries = capacities(sizes)
        # numpy's zeros are pages that the kernel gives when they are first written; most never are.
        memory = {name: np.zeros(array_bytes(name, sizes), np.uint8) for name in ARRAY_NAMES}
        self._keyed = {name: TwinTable(name, entries[name]) for name in TABLE_STRUCTS}
        maps: dict[str, Any] = dict(self._keyed)
        maps |= {name: TwinCounters(name, entries[name]) for name in COUNTER_STRUCTS}
        self.tables: Tables = join_tables(arrays_over(memory, sizes), maps, sizes)
        self.unresolved: set[bytes] = set()
        self.unreachable: set[bytes] = set()
        self.wishes: list[ProgramWish] = []
        self.tracers: dict[str, Tracer] = {}
        self.facts = MachineFacts(
            HostFacts("twin", headers="/twin", headers_complete=True), (InterfaceFacts("twin0"),)
        )
        self.answers: dict[str, BackendAnswers] = {}
        self.claimed: dict[str, tuple[str, ...]] = {}
        self.questions: list[BackendQuestion] = []
        """All that was asked."""
        self.queue = TwinQueue()
        """What tests put in as packets would."""
        self._changed: list[Callable[[], None]] = []
        self._former: Former | None = None
        self.lost = 0
        self.flow_key = (1 << 63, 1 << 63)
        self.remembered: dict[bytes, bytes] = {}

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The list of xdp/verdicts.h."""
        return layout().verdicts

    def former(self) -> Former | None:
        """What `take_over_from` named."""
        return self._former

    def take_over_from(self, twin: "TwinDataPlane") -> None:
        """Its tables are in force until ours are."""
        self._former = Former.of(twin.tables)

    def forget_former(self, lost: int = 0) -> None:
        """Ours are."""
        self._former, self.lost = None, lost

    def require(self, wish: ProgramWish, *, exactly: bool = False) -> None:
        """Remember the wish."""
        if not self.wishes or exactly or not wish.features <= self.wishes[-1].features:
            self.wishes.append(wish)

    def lacks(self, wish: ProgramWish) -> ProgramWish | None:
        """Nothing, ever."""

    def prepare(self, wish: ProgramWish) -> None:
        """There is nothing to compile."""

    def next_hops(self, addresses: Iterable[bytes]) -> Mapping[bytes, NextHop]:
        """A made-up way to each address."""
        return {
            address: NextHop(
                interface="twin0",
                ifindex=1,
                source_mac=b"\x02\x00\x00\x00\x00\x01",
                mac=None if address in self.unresolved else b"\x02\x10" + address[-4:],
                mtu=1500,
                gateway=False,
            )
            for address in addresses
            if address not in self.unreachable
        }

    def remember(self, macs: Mapping[bytes, bytes]) -> None:
        """Tests look at them."""
        self.remembered |= macs

    def watch(self, changed: Callable[[], None]) -> None:
        """Remember whom to call."""
        self._changed.append(changed)

    def touch(self) -> None:
        """Say that next hops may have changed."""
        for changed in self._changed:
            changed()

    def interfaces(self) -> list[InterfaceState]:
        """One interface that is always there."""
        return [InterfaceState("twin0", 1, "02:00:00:00:00:01", 1500, True, "native", 1)]

    def programs(self) -> list[ProgramState]:
        """What was last wished for."""
        return [ProgramState(self.wishes[-1].features, 0, 0, "twin0")] if self.wishes else []

    def maps(self) -> list[MapState]:
        """Plain memory: it is nowhere pinned, and has no numbers."""
        found = []
        for name, capacity in capacities(self.sizes).items():
            kind = "array" if name in ARRAY_NAMES else "hash" if name in TABLE_STRUCTS else "percpu_array"
            entries = len(self._keyed[name].read()[0]) if name in TABLE_STRUCTS else None
            octets = array_bytes(name, self.sizes) if name in ARRAY_NAMES else 0
            found.append(MapState(name, kind, 0, 4, 8, capacity, entries, octets, None))
        return found

    def tracer(self, interface: str) -> Tracer:
        """There is no program to run: DataPlaneError, unless a test has put one in `tracers`."""
        if interface not in self.tracers:
            raise DataPlaneError(
                "the twin of the data plane runs no frames: ask a daemon that has an interface"
            )
        return self.tracers[interface]

    def samples(self) -> SampleQueue:
        """What tests put into `queue`."""
        return self.queue

    def machine(self, others: Iterable[str]) -> MachineFacts:
        """What a test has put in `facts`."""
        return self.facts

    def ask_backends(self, questions: Sequence[BackendQuestion]) -> list[BackendAnswers]:
        """What a test has put in `answers`, by address; the others are not asked."""
        self.questions += questions
        return [self.answers.get(one.address, BackendAnswers()) for one in questions]

    def claims(self, asked: Iterable[tuple[str, str]]) -> Mapping[str, tuple[str, ...]]:
        """What a test has put in `claimed`, of what is asked."""
        return {vip: self.claimed[vip] for vip, _ in asked if vip in self.claimed}

    def probe_source(self, ifindex: int, family: int) -> str:
        """Nothing leaves here."""
        raise DataPlaneError("the twin of the data plane carries no checks")

    def clock_seconds(self) -> int:
        """The machine's monotonic clock."""
        return int(time.monotonic())

    def close(self) -> None:
        """Nothing to let go of."""

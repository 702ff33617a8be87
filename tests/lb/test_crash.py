"""A daemon that is killed anywhere between store and maps: the next one makes maps = store = what was acknowledged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address

import numpy as np
import pytest
from service_samples import addresses, service
from test_deny4 import lookup
from watched import WatchedTable, watch_arrays

from lb.dataplane.layout import layout
from lb.dataplane.tables import Counters
from lb.dataplane.twin import SMALL, TwinDataPlane
from lb.model import Config
from lb.model.document import from_mapping
from lb.reconcile.loop import Reconciler
from lb.reconcile.ring import SLOTS
from lb.store import SqliteStore

SIZES = replace(
    SMALL, flow_slots=64, rings=8, backends=256, services=16, deny_hosts=64, deny_ipv6=64, allow=64
)
ACTIVE = layout().constants["BACKEND_ACTIVE"]
PROBES = [
    int(IPv4Address(text)) for text in ("198.18.1.3", "198.18.1.9", "198.19.0.1", "192.0.2.1", "203.0.113.1")
]
WRITTEN = {
    **{"service_rings": 1, "service_owners": 1, "backends": 8, "rings": SLOTS, "rule_bank": 1},
    **{"deny4_cells": 1 << 24, "deny4_lines": 1 << 20, "deny_owners": 1 << 16, "allow_owners": 1 << 16},
    **{"rule_cells": 1 << 20, "rule_sets": 1 << 20, "rule_actions": 2048, "rule_owners": 1024},
}
"""Arrays at whose writes the daemon may be killed, and how many elements are one write."""
TABLES = (
    *("services4", "services6", "vip_prefixes6", "quic_ids", "deny6", "allow4", "allow6"),
    *("rule_sources4", "rule_sources6", "rule_targets4", "rule_targets6"),
)
COUNTERS = ("backend_counters", "service_counters", "deny_counters", "allow_counters", "rule_counters")


class KilledError(BaseException):
    """Nothing catches it: whatever the daemon would still have done is not done."""


class Fate:
    """Kills at the n-th step from when it is set; counts steps while it is not."""

    def __init__(self) -> None:
        self.left: int | None = None

    def __call__(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KilledError


class Mortal:
    """Counters, and a store, before and after each of whose changes the daemon may be killed."""

    def __init__(self, inner: Counters | SqliteStore, fate: Fate, names: tuple[str, ...]) -> None:
        self._inner, self._fate, self._names = inner, fate, names

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        def call(*args: object, **how: object) -> object:
            self._fate()
            done = found(*args, **how)
            self._fate()
            return done

        return call


def mortal(twin: TwinDataPlane, fate: Fate) -> TwinDataPlane:
    """The same memory, in which each write may be the last."""
    tables = {name: WatchedTable(getattr(twin.tables, name), fate) for name in TABLES}
    counters = {name: Mortal(getattr(twin.tables, name), fate, ("clear", "add", "put")) for name in COUNTERS}
    arrays = watch_arrays(twin.tables.arrays, fate, elements=WRITTEN)
    seen = TwinDataPlane(replace(SIZES, deny_hosts=4, deny_dense=1))
    seen.sizes = twin.sizes
    seen.tables = replace(twin.tables, arrays=arrays, **tables, **counters)  # type: ignore[arg-type]
    return seen


@contextmanager
def daemon(store: object, plane: TwinDataPlane) -> Iterator[Reconciler]:
    control = Reconciler(store, plane, clock=lambda: 1_000_000.0)  # type: ignore[arg-type]
    try:
        control.start()
        yield control
    finally:
        control.stop()


def meaning(twin: TwinDataPlane) -> dict[str, object]:
    """What packets meet, whatever numbers and places it has."""
    arrays, tables = twin.tables.arrays, twin.tables
    found: dict[str, object] = {}
    for table in (tables.services4, tables.services6):
        for key, value in zip(*table.read(), strict=True):
            if not key["protocol"]:
                found[f"vip {key['vip'].tobytes()!r}"] = True
                continue
            start, number = int(value["backends"]), int(value["number"])
            rows = arrays.backends[start : start + (1 << int(value["room"]))]
            ring = int(arrays.service_rings["ring"][number])
            found[key.tobytes().hex()] = (
                int(value["flags"]),
                {row["address"].tobytes(): int(row["state"]) for row in rows if row["state"] & ACTIVE},
                hash(rows["address"][arrays.rings[ring, :SLOTS]].tobytes()) if ring else None,
                int(arrays.service_owners["backends"][number]) == start,
            )
    found["denied"] = [int(arrays.deny_owners[lookup(arrays, address)]) for address in PROBES]
    for name, owners in (
        ("deny6", arrays.deny_owners),
        ("allow4", arrays.allow_owners),
        ("allow6", arrays.allow_owners),
    ):
        keys, numbers = getattr(tables, name).read()
        found[name] = {
            key.tobytes(): int(owners[int(n) & 0x7FFF]) for key, n in zip(keys, numbers, strict=True)
        }
    bank = arrays.rule_bank["bank"][0] & 1
    actions = arrays.rule_actions[bank].copy()
    actions["number"] = 0
    found["rules"] = actions.tobytes() + arrays.rule_cells[bank].tobytes()
    used = np.flatnonzero(arrays.service_owners["identity"])
    found["services"] = sorted(arrays.service_owners["identity"][used].tolist())
    return found


def document(services: list[object], **more: object) -> Callable[[Config], Config]:
    text = {"services": [each.model_dump(mode="json") for each in services], **more}  # type: ignore[attr-defined]
    return lambda have: from_mapping(text, now=1_000_000.0, have=have)


WEB = service("web", *addresses(5))
SIX = service("six", "fd00::1", "fd00::2", vip="fc00:1::2")
BLOCKED = [{"prefix": p} for p in ("198.18.0.0/15", "192.0.2.1", "2001:db8::/32")]
OTHERS_BLOCKED = [{"prefix": "198.18.1.0/24"}, {"prefix": "198.18.1.3", "action": "count"}]
ALLOWED = [{"prefix": "198.18.1.9"}, {"prefix": "fd00::/8"}]
RULES = [
    {"name": "drop", "action": "drop", "source": "198.18.0.0/15"},
    {"name": "count", "action": "count", "ports": "80", "protocol": "tcp"},
]
GROWN = service("web", *addresses(12)[2:])
NEW = service("new", "10.9.0.1", port=81)
CHANGES = {
    "services": (document([WEB, SIX]), document([GROWN, NEW])),
    "lists": (
        document([WEB], blocklist=BLOCKED),
        document([WEB], blocklist=OTHERS_BLOCKED, allowlist=ALLOWED),
    ),
    "rules": (document([WEB], rules=RULES[:1]), document([WEB], rules=RULES[::-1])),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_killed_anywhere(name: str) -> None:
    """At whichever step of a change: the next daemon desires all of it or nothing, and packets meet just that; what
    was acknowledged before is there in either case."""
    before, after = CHANGES[name]
    expected = []
    for edits in ((before,), (before, after)):
        twin = TwinDataPlane(SIZES)
        with daemon(SqliteStore(":memory:"), twin) as control:
            for edit in edits:
                control.change(edit, actor="test", summary="test")
        expected.append(meaning(twin))
    assert expected[0] != expected[1]

    step, ended, outcomes = 0, False, set[int]()
    while not ended:
        twin, fate, store = TwinDataPlane(SIZES), Fate(), SqliteStore(":memory:")
        watched = Mortal(store, fate, ("commit",))
        with daemon(watched, mortal(twin, fate)) as control:
            acknowledged = control.change(before, actor="test", summary="test")
            fate.left = step
            try:
                control.change(after, actor="test", summary="test")
                ended = True
            except KilledError:
                pass
            fate.left = None
        with daemon(store, twin) as control:
            revision = control.desired.revision

            assert revision in (acknowledged.revision, acknowledged.revision + 1)
            assert meaning(twin) == expected[revision - acknowledged.revision]
            assert control.readiness() == []
            outcomes.add(revision)
        store.close()
        step += 1
    assert len(outcomes) == 2  # before the store had it, and after
    assert step > 10

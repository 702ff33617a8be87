"""Whatever is changed, tried, taken back or confirmed: what was acknowledged is in force, and moved as foretold."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twin_memory import memory
from twin_packets import TCP, UDP, Flow, Kind, Lead, Packets

from lb.dataplane.twin import TwinDataPlane
from lb.errors import BudgetError, ConflictError
from lb.model import Affinity, Config
from lb.model.document import from_mapping, to_document
from lb.model.layers import Attributes
from lb.model.prefix import Prefix
from lb.model.rule_match import ip_protocol
from lb.reconcile.disruption import ServiceMove
from lb.reconcile.loop import Reconciler
from lb.reconcile.ring import SLOTS
from lb.reconcile.terms import Terms
from lb.store import SqliteStore

VIPS = ("192.0.2.10", "192.0.2.11")
BACKENDS = [f"10.0.0.{n}" for n in range(1, 7)]
PREFIXES = ("203.0.113.0/24", "198.51.100.7/32")
KINDS = list(product(VIPS, (9, 80, 81, 82), (TCP, UDP)))
TELL = Terms(tell_moves=True)
Document = dict[str, Any]

backends = st.lists(
    st.fixed_dictionaries(
        {
            "address": st.sampled_from(BACKENDS),
            "weight": st.sampled_from([0, 1, 1, 3]),
            "admin_state": st.sampled_from(["enabled", "enabled", "enabled", "draining", "disabled"]),
        }
    ),
    max_size=4,
    unique_by=lambda backend: backend["address"],
)
services = st.fixed_dictionaries(
    {
        "vip": st.sampled_from(VIPS),
        "protocol": st.sampled_from(["tcp", "udp"]),
        "port": st.sampled_from([80, "80-81", "any"]),
        "affinity": st.sampled_from(["flow", "flow", "source"]),
        "udp_migration": st.booleans(),
        "backends": backends,
    }
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Services that can be side by side, entries with and without an end, and idle times."""
    found, taken = [], set()
    for name in draw(st.lists(st.sampled_from(["a", "b", "c"]), unique=True)):
        service = {"name": name, **draw(services)}
        service["udp_migration"] = service["udp_migration"] and service["protocol"] == "udp"
        key = service["vip"], service["protocol"], service["port"] == "any"
        if key not in taken:
            taken.add(key)
            found.append(service)
    entries = [
        {"prefix": prefix, "ttl_seconds": ttl}
        for prefix in draw(st.lists(st.sampled_from(PREFIXES), unique=True))
        for ttl in [draw(st.sampled_from([None, 5, 50]))]
    ]
    idle = {"udp_idle_seconds": draw(st.sampled_from([30, 30, 10]))}
    return {"services": found, "blocklist": entries, "settings": idle}


@dataclass(frozen=True)
class Said:
    """What a revision was acknowledged to say: its services, and when each of the operator's entries ends."""

    services: tuple[str, ...]
    idle: int
    entries: dict[str, tuple[int | None, float | None]]


class Changes(RuleBasedStateMachine):
    """A daemon without a kernel, a record of what it acknowledged, and clients whose flows go on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.store, self.twin = SqliteStore(":memory:"), TwinDataPlane()
        self.twin.clock_seconds = lambda: int(self.now) - 900_000  # type: ignore[method-assign]
        self.packets = Packets(self.twin)
        self.said: dict[int, Said] = {0: Said((), 30, {})}
        self.present = self.said[0]
        self.bans: set[str] = set()
        self.pending: tuple[int, float] | None = None
        self.rng = np.random.default_rng(1)

    @initialize()
    def start(self) -> None:
        self.reconciler = Reconciler(self.store, self.twin, clock=lambda: self.now)
        self.reconciler.start()

    def teardown(self) -> None:
        self.reconciler.stop()
        self.store.close()

    # What happens.

    @rule(document=documents())
    def apply(self, document: Document) -> None:
        """A dry run changes nothing, and foretells what then moves."""
        self.change(lambda config: from_mapping(document, now=self.now, have=config))

    @precondition(lambda self: self.reconciler.desired.config.services)
    @rule(data=st.data())
    def alter_a_backend(self, data: st.DataObject) -> None:
        """One field of one backend, or of its service, while there are clients: what happens most."""
        self.arrive(8)
        document = to_document(self.reconciler.desired.config, now=self.now)
        service = data.draw(st.sampled_from(document["services"]))
        if service["backends"]:
            backend = data.draw(st.sampled_from(service["backends"]))
            backend["admin_state"] = data.draw(st.sampled_from(["enabled", "draining", "disabled"]))
            backend["weight"] = data.draw(st.sampled_from([0, 1, 2]))
        service["udp_migration"] = service["protocol"] == "udp" and data.draw(st.booleans())
        self.change(lambda config: from_mapping(document, now=self.now, have=config))

    @precondition(lambda self: self.reconciler.desired.config.services)
    @rule(data=st.data(), name=st.sampled_from(["d", "e"]))
    def rename(self, data: st.DataObject, name: str) -> None:
        """A service that has clients gets another name, perhaps another port and affinity with it."""
        self.arrive(8)
        document = to_document(self.reconciler.desired.config, now=self.now)
        service = data.draw(st.sampled_from(document["services"]))
        if name not in {each["name"] for each in document["services"]}:
            service["name"] = name
        if service["port"] == "80-81":
            service["port"] = data.draw(st.sampled_from(["80-81", "80-82", 80]))
        service["affinity"] = data.draw(st.sampled_from([service["affinity"], "flow"]))
        self.change(lambda config: from_mapping(document, now=self.now, have=config))

    @rule(document=documents(), seconds=st.sampled_from([3, 40]))
    def apply_and_wait(self, document: Document, seconds: int) -> None:
        """Applied until it is confirmed."""
        base = self.reconciler.desired.revision
        terms = Terms(tell_moves=True, confirm_within=seconds)
        if self.change(lambda config: from_mapping(document, now=self.now, have=config), terms):
            self.pending = base, self.now + seconds

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        """To any revision: what it said, but for what is over."""
        kept = [info.revision for info in self.reconciler.history.revisions()]
        if not kept:
            return
        revision = data.draw(st.sampled_from(kept))
        expected = self.back_to(self.said[revision])
        self.pending = None
        terms = Terms(tell_moves=True, is_rollback=True)
        self.change(self.reconciler.history.back_to(revision), terms)
        assert self.present == expected

    @precondition(lambda self: self.pending)
    @rule()
    def confirm(self) -> None:
        """What waits stays for good."""
        self.reconciler.history.confirm(None, actor="test")
        self.pending = None

    @rule(prefix=st.sampled_from(["192.0.2.200/32", "192.0.2.201/32"]))
    def ban(self, prefix: str) -> None:
        """Another owner's entry, which nothing of all this touches."""

        def edit(config: Config) -> Config:
            held = config.blocklist.layer("fail2ban")
            layer = held.with_entries([(Prefix.parse(prefix), Attributes(created_at=self.now))])
            return Config(**{**vars(config), "blocklist": config.blocklist.with_layer("fail2ban", layer)})

        done = self.reconciler.change(edit, actor="test", summary="ban")
        self.bans.add(prefix)
        self.said.setdefault(done.revision, self.present)

    @rule(seconds=st.sampled_from([0.5, 4.0, 9.0, 45.0]))
    def wait(self, seconds: float) -> None:
        """Time passes: what is over goes, and what nobody confirmed in time."""
        self.now += seconds
        with self.reconciler._lock:
            self.reconciler._follow_once(hops_changed=False)
        self.over()
        self.packets.send(self.settings)

    @rule(seconds=st.sampled_from([0.0, 45.0]))
    def restart(self, seconds: float) -> None:
        """Killed, and started again later."""
        self.reconciler.stop()
        self.now += seconds
        self.start()
        self.over()
        self.packets.send(self.settings)

    @rule(there=st.booleans(), count=st.sampled_from([5, 20]))
    def connect(self, there: bool, count: int) -> None:
        """New flows, to services that there are, or to anything."""
        self.arrive(count, there=there)

    # What is expected of it.

    def arrive(self, count: int, *, there: bool = True) -> None:
        services = list(self.reconciler.desired.config.services.values())
        for _ in range(count):
            vip, protocol = self.rng.choice(VIPS), int(self.rng.choice([TCP, UDP]))
            if there and services:
                service = services[int(self.rng.integers(len(services)))]
                vip, protocol = str(service.vip), ip_protocol(service)
            slots = {affinity: int(self.rng.integers(SLOTS)) for affinity in Affinity}
            port = int(self.rng.choice([80, 80, 81]))
            self.packets.flows.append(Flow(str(vip), port, protocol, len(self.packets.flows), slots))
        self.packets.send(self.settings)

    @property
    def settings(self) -> Any:
        return self.reconciler.desired.config.settings

    def over(self) -> None:
        """In the record too: entries end, and what was not confirmed in time is as before."""
        self.present = self.without_over(self.present)
        if self.pending and self.pending[1] <= self.now:
            self.present = self.back_to(self.said[self.pending[0]])
            self.pending = None
        self.said.setdefault(self.reconciler.desired.revision, self.present)

    def without_over(self, said: Said) -> Said:
        left = {
            prefix: (ttl, end) for prefix, (ttl, end) in said.entries.items() if end is None or end > self.now
        }
        return Said(said.services, said.idle, left)

    def back_to(self, said: Said) -> Said:
        """An entry that is there, and asks for the same, keeps its time."""
        have = self.without_over(self.present).entries
        then = self.without_over(said)
        entries = {
            prefix: have[prefix] if prefix in have and have[prefix][0] == one[0] else one
            for prefix, one in then.entries.items()
        }
        return Said(then.services, then.idle, entries)

    def change(self, edit: Any, terms: Terms = TELL) -> bool:
        """Tried, foretold, made and compared. Whether anything was."""
        before = self.reconciler.desired
        held = memory(self.twin)
        foretold = self.reconciler.check(edit, terms=terms)
        assert memory(self.twin) == held
        assert self.reconciler.desired is before
        self.refused_beyond(edit, foretold.moves, held)
        plans = {name: plan.number for name, plan in self.reconciler._plans.services.by_name.items()}
        rings = {name: self.packets.ring(number) for name, number in plans.items()}
        leads, took = self.packets.lead(before.config.settings), self.packets.takers(KINDS)
        if self.pending and not terms.is_rollback:
            return self.refused_while_pending(edit, before)
        done = self.reconciler.change(edit, actor="test", summary="test", terms=terms)
        if done.revision == before.revision:
            assert done.config is before.config
            assert not foretold.moves
            return False
        assert done.moves == foretold.moves
        self.moved_as_foretold(done.moves, plans, rings, leads)
        self.slots_as_foretold(done.moves, plans, rings, took)
        self.present = self.what_is_there(done.config)
        assert self.present == self.what_is_there(foretold.after)
        self.said[done.revision] = self.present
        return True

    def refused_beyond(self, edit: Any, moves: tuple[ServiceMove, ...], held: dict[str, object]) -> None:
        """With a bound that is a little too small it is refused, and nothing changes; with one that fits it is not."""
        most = max((move.percent for move in moves), default=0.0)
        self.reconciler.check(edit, terms=Terms(max_moved_percent=most))
        if most > 0:
            revision = self.reconciler.desired.revision
            bound = Terms(max_moved_percent=most * 0.999, is_rollback=True)
            try:
                self.reconciler.change(edit, actor="test", summary="test", terms=bound)
            except BudgetError as error:
                assert max(move.percent for move in error.moves) == most
            else:
                raise AssertionError("it was not refused")
            assert (self.reconciler.desired.revision, memory(self.twin)) == (revision, held)

    def refused_while_pending(self, edit: Any, before: Any) -> bool:
        """While one waits, no other is made; one that is none is no conflict."""
        try:
            assert self.reconciler.change(edit, actor="test", summary="test").revision == before.revision
        except ConflictError as error:
            assert "sluice confirm" in str(error)
        assert self.reconciler.desired is before
        return False

    def moved_as_foretold(
        self,
        moves: tuple[ServiceMove, ...],
        numbers: dict[str, int],
        rings: dict[str, np.ndarray],
        leads: list[Lead],
    ) -> None:
        """Flows by their next packet; what is not named keeps its ring too."""
        foretold = {move.service: move for move in moves}
        now = self.packets.send(self.settings)
        for name, number in numbers.items():
            mine = [at for at, lead in enumerate(leads) if lead.by_table and lead.service == number]
            moved = sum(leads[at].backend != now[at].backend for at in mine)
            move = foretold.get(name)
            if move is None:
                assert moved == 0
                assert np.array_equal(rings[name], self.packets.ring(number))
                continue
            left = sum(
                lead.left == number for lead in leads
            )  # it cannot be told that they are another's by now
            assert len(mine) <= move.flows <= len(mine) + left
            assert moved <= move.flows_moved
            assert move.flows_moved <= moved + left or not move.exact

    def slots_as_foretold(
        self,
        moves: tuple[ServiceMove, ...],
        numbers: dict[str, int],
        rings: dict[str, np.ndarray],
        took: dict[Kind, tuple[int, Affinity]],
    ) -> None:
        """What differs between a service's ring and that of the one that takes all its packets now, itself or an heir.

        All of it where they are led by other fields, or by several.
        """
        after, takes = self.reconciler._plans.services.by_name, self.packets.takers(KINDS)
        for move in moves:
            number, was = numbers[move.service], rings[move.service]
            every = int(np.count_nonzero(was))

            def differing(other: int, was: np.ndarray = was) -> int:
                return int(np.count_nonzero((was != self.packets.ring(other)) & (was != 0)))

            mine = {kind: affinity for kind, (taker, affinity) in took.items() if taker == number}
            expected, heirs = {every}, {takes.get(kind) for kind in mine}
            if move.service in after:
                expected.add(differing(number))
            if len(heirs) == 1 and (heir := heirs.pop()):
                moved = differing(heir[0]) if heir[1] in mine.values() else every
                is_sure = move.service not in after or heir[0] == number
                expected = {moved} if is_sure else expected | {moved}
            assert move.ring_slots_moved in expected
            assert move.ring_share_moved == move.ring_slots_moved / SLOTS

    def what_is_there(self, config: Config) -> Said:
        document = to_document(config, now=self.now)
        entries = {
            str(entry.prefix): (entry.said[0].ttl_seconds, entry.said[0].expires_at)
            for entry in config.blocklist.only("operator").page(self.now)
        }
        services = tuple(sorted(map(repr, document["services"])))
        return Said(services, config.settings.udp_idle_seconds, entries)

    @invariant()
    def what_was_acknowledged_is_stored_and_in_force(self) -> None:
        if not hasattr(self, "reconciler"):
            return
        desired = self.reconciler.desired
        revision, stored = self.store.load()
        assert revision == desired.revision
        assert (
            self.what_is_there(desired.config)
            == self.what_is_there(stored)
            == self.without_over(self.present)
        )
        bans = {str(entry.prefix) for entry in desired.config.blocklist.only("fail2ban").page(self.now)}
        assert bans == self.bans
        pending = self.reconciler.history.pending
        assert (pending is None) == (self.pending is None)
        if pending and self.pending:
            assert (pending.back_to, pending.seconds_left) == (self.pending[0], self.pending[1] - self.now)

    @invariant()
    def every_revision_says_what_it_said(self) -> None:
        if not hasattr(self, "reconciler"):
            return
        for info in self.reconciler.history.revisions(5):
            said = self.what_is_there(self.reconciler.history.config_at(info.revision))
            assert said == self.without_over(self.said[info.revision])


TestChanges = Changes.TestCase
TestChanges.__doc__ = "Any sequence of changes, dry runs, rollbacks, confirmations, waits and restarts."
TestChanges.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)

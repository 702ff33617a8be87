"""Whatever happens to a blocklist, it holds what a plain dictionary would, and packets find just that."""

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_deny4 import lookup

from api.entries import cleared, put, replace_layer, take
from lb.dataplane.twin import TwinDataPlane
from lb.events import Events
from lb.model import Action, Config, Prefix
from lb.model.entries import OPERATOR, PrefixList
from lb.model.layers import Attributes, Layer
from lb.reconcile.apply_lists import ListMemory
from lb.reconcile.lists import ListPlan, plan_list, rules_of
from lb.reconcile.loop import Reconciler
from lb.reconcile.numbering import DENY
from lb.settings import TableSizes
from lb.store import SqliteStore

COUNT_FROM = DENY.ranges[Action.COUNT][0]
PREFIXES = [
    Prefix.parse(text)
    for text in (
        *(
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.0/23",
            "10.1.2.0/24",
            "10.1.2.0/25",
            "10.1.2.128/26",
        ),
        *("10.1.2.3/32", "10.1.2.129/32", "10.1.3.7/32", "192.0.2.0/28", "192.0.2.1/32"),
        *("2001:db8::/32", "2001:db8::/64", "2001:db8::1/128", "::/0"),
    )
]
PROBES = [
    Prefix.parse(text).network
    for text in (
        "10.1.2.3",
        "10.1.2.129",
        "10.1.2.200",
        "10.1.3.7",
        "10.1.9.9",
        "10.9.9.9",
        "192.0.2.1",
        "203.0.113.1",
    )
]
OWNERS = (OPERATOR, "fail2ban", "rule:ssh", "feed:a", "feed:b")
Said = tuple[Action, float | None]


class Lives(RuleBasedStateMachine):
    """A daemon without a kernel beside a dictionary: by prefix and owner the action, and when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.store, self.twin, self.events = SqliteStore(":memory:"), TwinDataPlane(), Events()
        self.model: dict[tuple[Prefix, str], Said] = {}
        self.ended = 0

    @initialize()
    def start(self) -> None:
        self.reconciler = Reconciler(self.store, self.twin, clock=lambda: self.now, events=self.events)
        self.reconciler.start()

    def teardown(self) -> None:
        self.reconciler.stop()
        self.store.close()

    def change(self, edit: Any) -> None:
        def apply(config: Config) -> Config:
            return Config(blocklist=edit(config.blocklist))

        self.reconciler.change(apply, actor="test", summary="test")

    def attributes(self, action: Action, ttl: int | None) -> Attributes:
        ends = None if ttl is None else self.now + ttl
        return Attributes(action, created_at=self.now, ttl_seconds=ttl, expires_at=ends)

    entries = st.lists(st.sampled_from(PREFIXES), max_size=6, unique=True)
    owners = st.sampled_from(OWNERS)
    actions = st.sampled_from(Action)
    ttls = st.sampled_from([None, None, 1, 2, 5, 60])

    @rule(prefixes=entries, owner=owners, action=actions, ttl=ttls)
    def add(self, prefixes: list[Prefix], owner: str, action: Action, ttl: int | None) -> None:
        said = self.attributes(action, ttl)
        layer = Layer.of((prefix, said) for prefix in prefixes)
        self.change(lambda have: put(have, owner, layer, self.now).result)
        self.model |= {(prefix, owner): (action, said.expires_at) for prefix in prefixes}

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        prefix, owner = data.draw(st.sampled_from(sorted(self.model)))
        everyone = data.draw(st.booleans())
        whose = "*" if everyone else owner
        self.change(lambda have: take(have, prefix, whose, self.now, "blocklist"))
        gone = [key for key in self.model if key[0] == prefix and (everyone or key[1] == owner)]
        for key in gone:
            del self.model[key]

    @rule(prefixes=entries, owner=st.sampled_from(["feed:a", "feed:b"]), action=actions)
    def replace_feed(self, prefixes: list[Prefix], owner: str, action: Action) -> None:
        layer = Layer.of((prefix, self.attributes(action, None)) for prefix in prefixes)
        self.change(lambda have: replace_layer(have, owner, layer, self.now).result)
        self.drop_from_model(owner)
        self.model |= {(prefix, owner): (action, None) for prefix in prefixes}

    @rule(owner=owners)
    def drop(self, owner: str) -> None:
        self.change(lambda have: cleared(Config(), have, owner))
        self.drop_from_model(owner)

    def drop_from_model(self, owner: str) -> None:
        self.model = {key: said for key, said in self.model.items() if key[1] != owner}

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        with self.reconciler._lock:
            self.reconciler._follow_once(hops_changed=False)
        left = {key: said for key, said in self.model.items() if said[1] is None or said[1] > self.now}
        self.ended += len(self.model) - len(left)
        self.model = left
        told = [event for event in self.events.since(0) if event.kind == "entry.expired"]
        assert sum(event.facts["count"] for event in told) == self.ended

    @rule()
    def restart(self) -> None:
        self.reconciler.stop()
        self.start()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "reconciler"):
            return
        blocklist = self.reconciler.desired.config.blocklist
        held = {
            (entry.prefix, owner): (said.action, said.expires_at)
            for entry in blocklist.page(self.now)
            for owner, said in zip(entry.owners, entry.said, strict=True)
        }
        assert held == self.model

    @invariant()
    def packets_find_what_the_model_says(self) -> None:
        if not hasattr(self, "reconciler"):
            return
        foremost: dict[Prefix, Action] = {}
        for prefix in {prefix for prefix, _ in self.model}:
            words = {owner: said[0] for (p, owner), said in self.model.items() if p == prefix}
            drops = Action.DROP in words.values()
            foremost[prefix] = words.get(OPERATOR, Action.DROP if drops else Action.COUNT)
        for probe in PROBES:
            holding = [p for p in foremost if p.contains(Prefix(4, probe, 32))]
            expected = foremost[max(holding, key=lambda p: p.length)] if holding else None
            number = lookup(self.twin.tables.arrays, probe)
            found = None if not number else Action.COUNT if number >= COUNT_FROM else Action.DROP
            assert found is expected
        keys, _ = self.twin.tables.deny6.read()
        assert len(keys) == sum(prefix.family == 6 for prefix in foremost)


TestLives = Lives.TestCase
TestLives.__doc__ = (
    """Any sequence of additions, removals, ends, feeds and restarts leaves what a dictionary would hold."""
)
TestLives.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)

MANY = 200_000
"""Of each of three owners; with a million it is a case of the bench."""


def random_keys(rng: np.random.Generator, count: int) -> np.ndarray:
    """Distinct /32s and /24s, sorted."""
    addresses = rng.integers(1 << 24, 1 << 26, count * 2, dtype=np.uint64)
    lengths = rng.choice(np.array([24, 32], np.uint64), count * 2)
    networks = np.where(lengths == 24, addresses >> np.uint64(8) << np.uint64(8), addresses)
    return np.sort(rng.permutation(np.unique(networks << np.uint64(8) | lengths))[:count])


def test_three_large_owners_that_overlap() -> None:
    """Entries of three owners, 10,000 of them with TTLs: ends, and one owner's leaving, are exact to the prefix."""
    rng, now = np.random.default_rng(7), 1000.0
    pool = random_keys(rng, MANY * 2)
    held = {owner: rng.permutation(pool)[:MANY] for owner in (OPERATOR, "feed:a", "fail2ban")}
    ends = {int(key): now + 1 + n % 100 * 0.1 for n, key in enumerate(held["fail2ban"][:10_000])}
    lists = PrefixList()
    for owner, keys in held.items():
        lists = lists.with_layer(owner, Layer().with_keys({4: keys}, Attributes(created_at=now)))
    timed = [
        (Prefix.from_key(key), Attributes(created_at=now, ttl_seconds=60, expires_at=end))
        for key, end in ends.items()
    ]
    lists = lists.with_layer("fail2ban", lists.layer("fail2ban").with_entries(timed))
    twin = TwinDataPlane(TableSizes(flow_slots=4, services=1, service_ports=1, backends=1, rings=1))
    memory = ListMemory(twin.tables)
    allow = ListPlan(owners=twin.tables.arrays.allow_owners.copy())
    plan = ListPlan(owners=twin.tables.arrays.deny_owners.copy())
    probes = np.concatenate(
        [rng.choice(pool, 1000), rng.integers(1 << 24, 1 << 26, 500, dtype=np.uint64) << np.uint64(8)]
    )

    for moment, gone in [
        (now, None),
        (now + 3, None),
        (now + 7.5, None),
        (now + 8, "feed:a"),
        (now + 20, None),
    ]:
        if gone is not None:
            held.pop(gone)
            lists = lists.with_layer(gone, Layer())
        plan = plan_list(lists, plan, DENY, moment)
        assert plan.wanted is not None
        lists = plan.wanted
        memory.prepare(plan, allow)
        memory.put()

        over = np.array([key for key, end in ends.items() if end <= moment], np.uint64)
        left = {o: np.setdiff1d(k, over) if o == "fail2ban" else np.sort(k) for o, k in held.items()}
        every = np.unique(np.concatenate(list(left.values())))
        assert np.array_equal(plan.ipv4 >> np.uint64(16), every)
        assert lists.count(moment) == len(every)
        known = set(every.tolist())
        for key in probes.tolist():
            address = key >> 8
            longest = next((k for n in (32, 24) if (k := address >> 32 - n << 40 - n | n) in known), None)
            number = lookup(twin.tables.arrays, address)
            assert number == (0 if longest is None else rules_of(plan, 4, [longest])[0])

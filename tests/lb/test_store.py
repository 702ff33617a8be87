"""The store: every revision comes back equal, nothing is half kept, and the file stays small."""

import sqlite3
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import NOW, QUICK, configs, entries, few_prefixes, layers, owners

from lb.errors import NotFoundError
from lb.model import Config, Prefix, PrefixList, Rule, Service
from lb.model.columns import FAMILIES
from lb.model.delta import compare, restricted
from lb.model.entries import FEED_PREFIX, OPERATOR
from lb.model.layers import Attributes, Layer
from lb.store import RevisionInfo, SqliteStore, Store
from lb.store.codec import decode, encode, replay

P = Prefix.parse


def commit(store: Store, config: Config, before: Config, summary: str = "") -> int:
    return store.commit(config, before=before, actor="uid 0", summary=summary, now=NOW)


def blocking(config: Config, *texts: str, owner: str = OPERATOR) -> Config:
    """With these prefixes in the blocklist."""
    layer = config.blocklist.layer(owner).with_entries((P(t), Attributes(created_at=NOW)) for t in texts)
    return replace(config, blocklist=config.blocklist.with_layer(owner, layer))


def web(port: int) -> Config:
    service = {"name": "web", "vip": "192.0.2.1", "port": port, "protocol": "tcp"}
    return Config().with_service(Service.model_validate(service))


def test_a_new_store_is_empty(store: SqliteStore, path: Path) -> None:
    """Revision 0 is nothing; the file and its directory are for their owner only."""
    assert store.load() == (0, Config())
    assert store.revisions() == []
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@st.composite
def histories(draw: st.DrawFn) -> list[Config]:
    """States in a row: some from nothing, most by a change of the one before."""
    states = [Config()]
    for _ in range(draw(st.integers(1, 8))):
        last = states[-1]
        match draw(st.sampled_from(["whole", "add", "remove", "replace", "services", "same"])):
            case "whole":
                last = draw(configs())
            case "services":
                last = replace(last, services=draw(configs()).services)
            case "add" | "remove" | "replace" as what:
                name, owner = draw(st.sampled_from(["blocklist", "allowlist"])), draw(owners)
                found: PrefixList = getattr(last, name)
                layer = found.layer(owner)
                if what == "add":
                    layer = layer.with_entries(draw(entries))
                elif what == "remove":
                    layer = layer.without(draw(st.lists(few_prefixes)))
                else:
                    layer = draw(layers)
                last = replace(last, **{name: found.with_layer(owner, layer)})  # type: ignore[arg-type]
        states.append(last)
    return states


@QUICK
@given(histories(), st.integers(0, 4096))
def test_every_revision_comes_back_equal(states: list[Config], row_weight: int) -> None:
    """Whether stored whole or as changes, a revision is what it was, with the order of its services."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lb.store.layers._ROW_WEIGHT", row_weight)
        store = SqliteStore(":memory:")
        kept = {commit(store, after, before): after for before, after in pairwise(states)}
        for revision, config in kept.items():
            found = store.config_at(revision)
            assert found == config
            assert list(found.services) == list(config.services)
            assert list(found.blocklist.layers) == list(config.blocklist.layers)
        assert store.load() == (max(kept), states[-1])
        store.close()


@QUICK
@given(histories(), st.integers(1, 5), st.integers(0, 4096))
def test_the_oldest_revisions_go(states: list[Config], keep: int, row_weight: int) -> None:
    """Of many revisions the newest are kept, each still whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lb.store.layers._ROW_WEIGHT", row_weight)
        store = SqliteStore(":memory:", keep=keep)
        for number, (before, after) in enumerate(pairwise(states), 1):
            assert commit(store, after, before) == number
            shown = [info.revision for info in store.revisions()]
            assert shown == list(range(number, max(number - keep, 0), -1))
            for revision in shown:
                assert store.config_at(revision) == states[revision]
        for revision in range(1, max(len(states) - keep, 1)):
            with pytest.raises(NotFoundError):
                store.config_at(revision)
        store.close()


def test_it_survives_being_closed(store: SqliteStore, path: Path) -> None:
    """What was committed is there after the next start, layers and shared attributes apart as they were."""
    shared = Attributes(created_at=NOW, reason="import")
    keys = {4: np.array([P(f"10.0.0.{n}").key for n in range(50)], np.uint64)}
    config = blocking(web(80), "10.0.0.1", "2001:db8::/32")
    config = replace(
        config, blocklist=config.blocklist.with_layer(FEED_PREFIX + "drop", Layer().with_keys(keys, shared))
    )
    commit(store, config, Config())
    store.close()
    again = SqliteStore(path)
    found = again.load()[1]

    assert found == config
    assert found.blocklist.layer(FEED_PREFIX + "drop").attributes == (shared,)
    assert found.blocklist.get(P("10.0.0.1"), NOW).owners == (OPERATOR, "feed:drop")  # type: ignore[union-attr]
    again.close()


def test_history(store: SqliteStore) -> None:
    """Who did what and when is told newest first, page by page."""
    for port in range(1, 6):
        commit(store, web(port), web(port - 1) if port > 1 else Config(), f"port {port}")

    assert store.revisions(1) == [RevisionInfo(5, NOW, "uid 0", "port 5")]
    assert [info.revision for info in store.revisions(2, before=4)] == [3, 2]
    assert [info.revision for info in store.revisions(10**30, before=10**30)] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("revision", [0, -1, 2, 10**30])
def test_unknown_revisions(store: SqliteStore, revision: int) -> None:
    """A revision that never was is not found."""
    commit(store, web(80), Config())
    with pytest.raises(NotFoundError, match=f"there is no revision {revision}, or it is no longer kept"):
        store.config_at(revision)


def test_a_discarded_number_is_not_used_again(store: SqliteStore, path: Path) -> None:
    """After a discard the state is the one before, and the next number is a new one, even after a restart."""
    first = commit(store, blocking(web(80), "10.0.0.1"), Config())
    second = commit(store, blocking(web(81), "10.0.0.2"), blocking(web(80), "10.0.0.1"))
    store.discard(second)
    assert store.load() == (first, blocking(web(80), "10.0.0.1"))
    with pytest.raises(NotFoundError):
        store.config_at(second)

    store.close()
    again = SqliteStore(path)
    third = commit(again, blocking(web(82), "10.0.0.1", "10.0.0.3"), blocking(web(80), "10.0.0.1"))
    assert third > second
    assert again.load() == (third, blocking(web(82), "10.0.0.1", "10.0.0.3"))
    again.discard(third)
    again.discard(first)
    assert again.load() == (0, Config())
    again.close()


def test_only_the_newest_can_be_discarded(store: SqliteStore) -> None:
    """Taking back an older revision would change what later ones say."""
    first = commit(store, web(80), Config())
    commit(store, web(81), web(80))
    with pytest.raises(ValueError, match="not the newest"):
        store.discard(first)
    assert store.load()[1] == web(81)


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.iterdir())


def test_a_small_change_of_a_long_list_is_small(store: SqliteStore, path: Path) -> None:
    """One prefix beside 300,000 does not write them again."""
    keys = {4: (np.arange(300_000, dtype=np.uint64) << np.uint64(8)) | np.uint64(32)}
    whole = Layer().with_keys(keys, Attributes(created_at=NOW))
    config = replace(Config(), blocklist=PrefixList().with_layer(OPERATOR, whole))
    commit(store, config, Config())
    before = size_of(path)
    for n in range(20):
        changed = blocking(config, f"10.0.0.{n}")
        commit(store, changed, config)
        config = changed

    assert size_of(path) - before < 1_000_000
    assert store.load()[1] == config


def test_a_long_history_does_not_outweigh_the_list(path: Path) -> None:
    """Changes without end of a list that stays short leave a short file, and few rows to replay."""
    store = SqliteStore(path, keep=50)
    config = Config()
    for n in range(400):
        changed = blocking(config, f"10.0.0.{n % 5}", f"10.1.{n % 7}.0/24")
        changed = replace(
            changed,
            blocklist=changed.blocklist.with_layer(
                OPERATOR, changed.blocklist.layer(OPERATOR).without([P(f"10.0.0.{(n + 2) % 5}")])
            ),
        )
        commit(store, changed, config)
        config = changed
    assert store.load()[1] == config
    store.close()
    with sqlite3.connect(path) as db:
        (rows,) = db.execute("SELECT count(*) FROM layers").fetchone()
    db.close()

    assert rows <= 60
    assert size_of(path) < 300_000


def test_history_gives_way_to_room(path: Path) -> None:
    """Where revisions take too much room, the older ones go, and the state stays."""
    store = SqliteStore(path, history_bytes=2_000_000)
    config = Config()
    for n in range(12):
        keys = {4: (np.arange(60_000, dtype=np.uint64) + np.uint64(n << 20)) << np.uint64(8) | np.uint64(32)}
        layer = Layer().with_keys(keys, Attributes(created_at=NOW))
        changed = replace(config, blocklist=PrefixList().with_layer(OPERATOR, layer))
        commit(store, changed, config)
        config = changed

    assert 1 <= len(store.revisions()) < 8
    assert store.load()[1] == config
    store.close()
    assert size_of(path) < 4_000_000


def test_a_wrong_before_does_no_harm(store: SqliteStore) -> None:
    """If a layer is not the one that was stored, the whole is kept instead of a change."""
    commit(store, blocking(Config(), *(f"10.0.0.{n}" for n in range(200))), Config())
    wrong = blocking(Config(), *(f"10.0.1.{n}" for n in range(201)))
    after = blocking(wrong, "10.9.9.9")
    commit(store, after, wrong)

    assert store.load()[1] == after


def test_threads(store: SqliteStore) -> None:
    """Several threads may read while one writes; each sees whole revisions."""
    states = [Config(), *(blocking(web(port), f"10.0.0.{port}") for port in range(1, 40))]
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            revision, config = store.load()
            if config != states[revision]:
                wrong.append(revision)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for before, after in pairwise(states):
        commit(store, after, before)
    done.set()
    for reader in readers:
        reader.join()

    assert wrong == []
    assert store.load() == (39, states[-1])


@QUICK
@given(layers, st.lists(layers, max_size=5))
def test_replay(first: Layer, later: list[Layer]) -> None:
    """A whole layer and changes in order lead to the last layer."""
    states = [first, *later]
    bodies = [encode(first, {})]
    for old, new in zip(states, later, strict=False):
        delta = compare(old, new)
        put = {f: np.sort(np.concatenate([delta.added[f], delta.altered[f]])) for f in FAMILIES}
        bodies.append(encode(restricted(new, put), delta.gone))

    assert replay(bodies) == states[-1]


@QUICK
@given(layers, st.data())
def test_a_changed_byte_is_noticed(layer: Layer, data: st.DataObject) -> None:
    """No byte of what is stored can change unnoticed."""
    body = bytearray(encode(layer, {}))
    assert decode(bytes(body))[0] == layer
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))

    with pytest.raises(ValueError, match="checksum"):
        decode(bytes(body))


@pytest.mark.parametrize("count", [1, 256, 257, 65537])
def test_many_attributes(count: int) -> None:
    """However many different attributes there are, each prefix keeps its own."""
    layer = Layer.of((Prefix(4, n, 32), Attributes(created_at=n / 1000)) for n in range(count))

    assert decode(encode(layer, {}))[0] == layer


def test_rules_are_kept_by_revision(store: SqliteStore) -> None:
    """A rule that is added, changed and removed is there as each revision had it; before the first there are none."""
    states = [web(80)]
    for edit in (
        lambda c: c.with_rule(Rule.model_validate({"name": "a", "action": "drop", "ports": 53})),
        lambda c: c.with_rule(Rule.model_validate({"name": "b", "action": "drop", "service": "web"})),
        lambda c: c.with_rule(Rule.model_validate({"name": "a", "action": "count"})),
        lambda c: c.without_rule("b"),
    ):
        states.append(edit(states[-1]))
    for before, after in pairwise([Config(), *states]):
        commit(store, after, before)

    assert [store.config_at(number) for number in range(1, 6)] == states
    assert store.load() == (5, states[-1])


def test_a_change_costs_the_same_however_long_the_history_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the steps of SQLite's machine: no row of former revisions is read."""
    steps: list[int] = []

    class Counting(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.set_progress_handler(lambda: steps.append(1), 1)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, **more, factory=Counting))
    store, costs, before = SqliteStore(path), [], Config()
    for number in range(200):
        steps.clear()
        after = web(1 + number)
        commit(store, after, before)
        before = after
        costs.append(len(steps))
    store.close()

    assert costs[-1] <= costs[10] + 10

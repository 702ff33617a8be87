"""Lists of prefixes: every operation on numpy columns does what it would do on a plain dict."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import NOW, QUICK, any_prefixes, attributes, entries, few_prefixes, layers, prefix_lists

from lb.model import Action, Prefix, PrefixList
from lb.model.columns import FAMILIES, KEY_TYPE, Keys
from lb.model.delta import compare, exactly, restricted, settled, wish
from lb.model.entries import FEED_PREFIX, OPERATOR, differing
from lb.model.layers import Attributes, Layer

Entries = list[tuple[Prefix, Attributes]]
P = Prefix.parse
FEED = FEED_PREFIX + "drop"


def said(layer: Layer) -> dict[Prefix, Attributes]:
    """A layer as a plain dict; checks on the way that its columns are sorted and unique."""
    found: dict[Prefix, Attributes] = {}
    for column in layer.columns.values():
        prefixes = [Prefix.from_key(key) for key in column.keys.tolist()]
        assert prefixes == sorted(set(prefixes))
        found |= {p: layer.attributes[i] for p, i in zip(prefixes, column.ids.tolist(), strict=True)}
    return found


def keys_of(prefixes: list[Prefix]) -> dict[int, Keys]:
    return {f: np.array([p.key for p in prefixes if p.family == f], KEY_TYPE[f]) for f in FAMILIES}


@QUICK
@given(entries, entries)
def test_adding_is_a_dict_update(first: Entries, second: Entries) -> None:
    """Of a prefix given twice the last counts, in one call or in two."""
    layer = Layer().with_entries(first).with_entries(second)

    assert said(layer) == dict(first) | dict(second)
    assert len(layer) == len(dict(first) | dict(second))


@QUICK
@given(layers, st.lists(few_prefixes), attributes())
def test_importing_is_a_dict_update(layer: Layer, prefixes: list[Prefix], shared: Attributes) -> None:
    """Keys in any order and more than once become entries with the same attributes."""
    assert said(layer.with_keys(keys_of(prefixes), shared)) == said(layer) | dict.fromkeys(prefixes, shared)


@QUICK
@given(layers, st.lists(few_prefixes))
def test_removing_passes_over_what_is_not_there(layer: Layer, prefixes: list[Prefix]) -> None:
    """What is left is what was not named."""
    expected = {p: a for p, a in said(layer).items() if p not in prefixes}

    assert said(layer.without(prefixes)) == expected
    assert said(layer.without_keys(keys_of(prefixes))) == expected


@QUICK
@given(layers, layers)
def test_union_and_restriction(one: Layer, two: Layer) -> None:
    """United, the second counts; restricted to the keys of the second, the union is the second."""
    union = one.united(two)

    assert said(union) == said(one) | said(two)
    assert restricted(union, {f: two.columns[f].keys for f in FAMILIES}) == two


@QUICK
@given(entries, few_prefixes)
def test_lookup(pairs: Entries, prefix: Prefix) -> None:
    """A prefix is found by itself, not by one that contains it."""
    assert Layer.of(pairs).get(prefix) == dict(pairs).get(prefix)


@QUICK
@given(layers)
def test_expiry(layer: Layer) -> None:
    """At its deadline an entry is over."""
    expected = {p: a for p, a in said(layer).items() if a.expires_at is None or a.expires_at > NOW}

    assert said(layer.without_expired(NOW)) == expected
    assert layer.count(NOW) == len(expected)
    left = layer.without_expired(NOW)
    assert left.without_expired(NOW) is left
    for family in FAMILIES:
        assert len(layer.active(family, NOW)) == sum(p.family == family for p in expected)


@QUICK
@given(layers)
def test_canonical_layers(layer: Layer) -> None:
    """The canonical form says the same, and holds each set of attributes once and only if it is used."""
    canonical = layer.canonical

    assert said(canonical) == said(layer)
    assert len(set(canonical.attributes)) == len(canonical.attributes)
    assert set(canonical.attributes) == set(said(layer).values())


@QUICK
@given(entries, entries)
def test_equality_looks_at_content(first: Entries, second: Entries) -> None:
    """Layers made in different ways are equal, with equal digests, exactly if they say the same."""
    one = Layer().with_entries(first).with_entries(second)
    merged = dict(first) | dict(second)
    two = Layer().with_entries(reversed(merged.items()))
    three = Layer.of(second)

    assert one == two
    assert one.digest == two.digest
    assert (one == three) == (said(one) == said(three))
    assert (one.digest == three.digest) == (said(one) == said(three))
    assert one != said(one)


def test_attributes_that_nothing_uses_are_left_out() -> None:
    """A prefix blocked over and over keeps its layer small."""
    layer = Layer()
    for n in range(200):
        layer = layer.with_entries([(P("192.0.2.1"), Attributes(created_at=float(n)))])

    assert len(layer.attributes) <= 20
    assert layer.get(P("192.0.2.1")) == Attributes(created_at=199.0)


def test_nothing_may_hash_a_layer() -> None:
    """A layer is not hashable, for its equality looks at every prefix."""
    with pytest.raises(TypeError):
        hash(Layer())


@QUICK
@given(layers, layers, st.sampled_from([exactly, wish]))
def test_comparison(old: Layer, new: Layer, by: Callable[[Attributes], object]) -> None:
    """What is added, altered and gone is what two dicts would tell."""
    before, after = said(old), said(new)
    delta = compare(old, new, by=by)

    def found(keys: object) -> set[Prefix]:
        return {Prefix.from_key(k) for some in keys.values() for k in some.tolist()}  # type: ignore[attr-defined]

    assert found(delta.added) == after.keys() - before.keys()
    assert found(delta.gone) == before.keys() - after.keys()
    assert found(delta.altered) == {p for p in before.keys() & after.keys() if by(before[p]) != by(after[p])}
    assert len(delta) == len(found(delta.added) | found(delta.gone) | found(delta.altered))


@QUICK
@given(layers, entries, st.lists(few_prefixes, max_size=3))
def test_comparison_of_a_layer_with_one_made_from_it(old: Layer, more: Entries, less: list[Prefix]) -> None:
    """Put onto the old layer, the difference makes the new one, though both share their attributes."""
    new = old.with_entries(more).without(less)
    delta = compare(old, new)
    put = {f: np.sort(np.concatenate([delta.added[f], delta.altered[f]])) for f in FAMILIES}

    assert old.without_keys(delta.gone).united(restricted(new, put)) == new


@QUICK
@given(layers, layers)
def test_settling_keeps_the_age_of_what_stays_the_same(have: Layer, want: Layer) -> None:
    """An entry that asks for the same as before keeps its attributes; all else is as wanted."""
    before = said(have)
    expected = {
        p: before[p] if p in before and before[p].wish == a.wish else a for p, a in said(want).items()
    }

    assert said(settled(have, want)) == expected
    assert (settled(have, want) is have) == (expected == before)


@QUICK
@given(layers, entries)
def test_differing(have: Layer, want: Entries) -> None:
    """What to add and what to remove makes of a layer what settling makes."""
    add, remove = differing(have, want)

    assert have.without(remove).with_entries(add) == settled(have, Layer.of(want))


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (Attributes(created_at=1.0), Attributes(created_at=2.0), True),
        (Attributes(ttl_seconds=60, expires_at=61.0), Attributes(ttl_seconds=60, expires_at=99.0), True),
        (Attributes(ttl_seconds=60, expires_at=61.0), Attributes(expires_at=61.0), False),
        (Attributes(expires_at=61.0), Attributes(expires_at=62.0), False),
        (Attributes(reason="a"), Attributes(reason="b"), False),
        (Attributes(), Attributes(Action.COUNT), False),
    ],
)
def test_same_wish(one: Attributes, two: Attributes, same: bool) -> None:
    """A TTL counts by its length, a deadline by its moment; the creation time does not count."""
    assert (one.wish == two.wish) == same


def held(found: PrefixList) -> dict[Prefix, list[tuple[str, Attributes]]]:
    """All unexpired entries as a plain dict."""
    result: dict[Prefix, list[tuple[str, Attributes]]] = {}
    for owner, layer in found.layers.items():
        for prefix, said_of in said(layer).items():
            if said_of.is_active(NOW):
                result.setdefault(prefix, []).append((owner, said_of))
    return result


@QUICK
@given(prefix_lists(), few_prefixes)
def test_an_entry_names_its_owners(found: PrefixList, prefix: Prefix) -> None:
    """The foremost owner that holds it unexpired speaks for it, and all such owners are named."""
    expected = held(found).get(prefix)
    entry = found.get(prefix, NOW)

    if expected is None:
        assert entry is None
    else:
        assert entry is not None
        assert (entry.prefix, entry.attributes) == (prefix, expected[0][1])
        assert entry.owners == tuple(owner for owner, _ in expected)


@QUICK
@given(prefix_lists(), st.integers(1, 5))
def test_pages_in_a_row_are_the_whole(found: PrefixList, limit: int) -> None:
    """Read page by page, each prefix comes once, in order, and none that has expired."""
    seen = []
    after = None
    while page := found.page(NOW, after, limit):
        assert len(page) <= limit
        seen += page
        after = page[-1].prefix

    assert [e.prefix for e in seen] == sorted(held(found))
    assert seen == [found.get(e.prefix, NOW) for e in seen]
    assert found.count(NOW) == len(seen)


@QUICK
@given(prefix_lists(), any_prefixes | few_prefixes)
def test_covering(found: PrefixList, prefix: Prefix) -> None:
    """Every entry that contains a prefix is found, the longest first."""
    expected = sorted((p for p in held(found) if p.contains(prefix)), key=lambda p: -p.length)

    assert [e.prefix for e in found.covering(prefix, NOW)] == expected


@QUICK
@given(prefix_lists(), any_prefixes | few_prefixes)
def test_overlapping(found: PrefixList, prefix: Prefix) -> None:
    """What is left of a list is what contains a prefix or lies in it, each owner's as it was, and counted so."""
    some = found.overlapping(prefix)

    expected = {p: said for p, said in held(found).items() if p.contains(prefix) or prefix.contains(p)}
    assert held(some) == expected
    assert some.count(NOW) == len(expected)
    assert [e.prefix for e in some.page(NOW)] == sorted(expected)[:1000]
    assert found.overlapping(None) is found


@QUICK
@given(prefix_lists())
def test_next_expiry(found: PrefixList) -> None:
    """The earliest deadline to come is known; what is over by then is left out."""
    deadlines = [a.expires_at for some in held(found).values() for _, a in some if a.expires_at is not None]
    assert found.next_expiry(NOW) == min(deadlines, default=None)

    left = found.without_expired(NOW)
    assert held(left) == held(found)
    assert len(left) == sum(len(some) for some in held(found).values())
    assert left.without_expired(NOW) is left


@QUICK
@given(prefix_lists(), prefix_lists())
def test_digests_name_the_content(one: PrefixList, two: PrefixList) -> None:
    """Lists are equal, and have equal digests, exactly if each owner holds the same."""
    same = {o: said(layer) for o, layer in one.layers.items()} == {
        o: said(layer) for o, layer in two.layers.items()
    }

    assert (one == two) == same
    assert (one.digest() == two.digest()) == same


def test_owners_keep_apart() -> None:
    """An operator's entry and a feed's for one prefix live side by side; the operator's is foremost."""
    prefix = P("192.0.2.0/24")
    found = (
        PrefixList()
        .with_layer(FEED, Layer.of([(prefix, Attributes(reason="feed"))]))
        .with_layer(OPERATOR, Layer.of([(prefix, Attributes(reason="mine"))]))
    )
    assert list(found.layers) == [OPERATOR, FEED]
    assert found.get(prefix, NOW).attributes.reason == "mine"  # type: ignore[union-attr]

    without = found.with_layer(OPERATOR, found.layer(OPERATOR).without([prefix]))
    assert list(without.layers) == [FEED]
    assert without.get(prefix, NOW).attributes.reason == "feed"  # type: ignore[union-attr]


def test_a_million_prefixes() -> None:
    """At a size where shortcuts are taken, one change among a million is still told exactly."""
    keys = {4: (np.arange(1_000_000, dtype=np.uint64) * np.uint64(4000)) << np.uint64(8) | np.uint64(32)}
    old = Layer().with_keys(keys, Attributes(reason="import"))
    new = old.with_entries([(P("1.2.3.5"), Attributes(reason="one"))]).without([P("0.0.15.160")])
    delta = compare(old, new)

    assert [Prefix.from_key(k) for k in delta.added[4].tolist()] == [P("1.2.3.5")]
    assert [Prefix.from_key(k) for k in delta.gone[4].tolist()] == [P("0.0.15.160")]
    assert len(delta) == 2
    assert PrefixList().with_layer(OPERATOR, new).count(NOW) == 1_000_000

"""Which prefix has which rule number: exact for the operator's own, shared for a feed's, and stable."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import NOW, QUICK, prefix_lists

from lb.errors import CapacityError
from lb.model import Action, Prefix, PrefixList
from lb.model.entries import FEED_PREFIX, OPERATOR
from lb.model.layers import Attributes, Layer
from lb.reconcile.lists import ListPlan, plan_list, rules_of
from lb.reconcile.numbering import ALLOW, DENY, Numbering

FEED = FEED_PREFIX + "drop"
COUNT_FROM = DENY.ranges[Action.COUNT][0]
NOTHING = ListPlan(owners=np.zeros(DENY.size, np.uint64))


def hosts(count: int, *, first: int = 0) -> list[Prefix]:
    """That many /32s."""
    return [Prefix(4, 0x0A000000 + n, 32) for n in range(first, first + count)]


def listed(*, count: Iterable[Prefix] = (), **owners: Iterable[Prefix]) -> PrefixList:
    """A list with these prefixes by owner ("feed" for the feed); `count` are the operator's that only count."""
    found = PrefixList()
    for owner, prefixes in owners.items():
        entries = [(prefix, Attributes()) for prefix in prefixes]
        if owner == OPERATOR:
            entries += [(prefix, Attributes(Action.COUNT)) for prefix in count]
        found = found.with_layer(FEED if owner == "feed" else owner, Layer.of(entries))
    return found


def numbers(plan: ListPlan, prefixes: Iterable[Prefix]) -> list[int]:
    """The rule number of each prefix, 0 for none."""
    return [rules_of(plan, prefix.family, [prefix.key])[0] for prefix in prefixes]


@given(prefix_lists())
@QUICK
def test_each_prefix_has_the_number_of_its_foremost_owner(wanted: PrefixList) -> None:
    """Whatever the list: a prefix is numbered if it has not expired, once, in the range of its action, by its owner."""
    plan = plan_list(wanted, NOTHING, DENY, NOW)

    listed = wanted.page(NOW, limit=1000)
    assert len(plan.ipv4) + len(plan.ipv6) == len(listed)
    assert (plan.ipv4[1:] > plan.ipv4[:-1]).all()
    assert (plan.ipv6[1:] > plan.ipv6[:-1]).all()
    for entry, number in zip(listed, numbers(plan, [entry.prefix for entry in listed]), strict=True):
        low, high = DENY.ranges[entry.attributes.action]
        assert low <= number < high
        assert plan.shared.get(number, OPERATOR) == entry.owners[0]
        assert plan.owners[number] != 0
    own = [n for n in numbers(plan, [entry.prefix for entry in listed]) if n not in plan.shared]
    assert len(own) == len(set(own))


@given(st.lists(prefix_lists(), min_size=2, max_size=4))
@QUICK
def test_numbers_stay_and_do_not_change_hands_at_once(lists: list[PrefixList]) -> None:
    """From one plan to the next an identity keeps its number, and no number passes to another identity."""
    before = NOTHING
    for wanted in lists:
        after = plan_list(wanted, before, DENY, NOW)
        both = (before.owners != 0) & (after.owners != 0)
        assert (before.owners[both] == after.owners[both]).all()
        stay = np.intersect1d(before.owners[before.owners != 0], after.owners)
        assert np.isin(stay, after.owners[both]).all()
        before = after


@given(st.lists(prefix_lists(), min_size=2, max_size=4))
@QUICK
def test_what_has_not_changed_is_passed_over_and_nothing_else(lists: list[PrefixList]) -> None:
    """A plan that goes on from the one before is the one that numbers every entry anew."""
    before = NOTHING
    for wanted in lists:
        for step in (wanted, *(wanted.with_layer(OPERATOR, layer) for layer in _grown(wanted))):
            after = plan_list(step, before, DENY, NOW)
            anew = plan_list(step, ListPlan(owners=before.owners), DENY, NOW)

            assert (after.ipv4 == anew.ipv4).all()
            assert (after.ipv6 == anew.ipv6).all()
            assert (after.ipv6_rules == anew.ipv6_rules).all()
            assert (after.owners == anew.owners).all()
            assert after.shared == anew.shared
            before = after


def _grown(wanted: PrefixList) -> list[Layer]:
    """The operator's layer with an entry more in the midst, with another that counts, and with the first changed."""
    layer = wanted.layer(OPERATOR)
    more = layer.with_entries(
        [(Prefix.parse("77.1.2.3"), Attributes()), (Prefix.parse("2001:db8:7::"), Attributes())]
    )
    other = more.with_entries([(Prefix.parse("78.0.0.0/9"), Attributes(Action.COUNT, "why"))])
    return [more, other, other.without([Prefix.parse("77.1.2.3")])]


def test_a_restart_finds_the_same_numbers() -> None:
    """The owners that the maps remember are enough to number every entry as before."""
    web, mail, net = Prefix.parse("10.0.0.1"), Prefix.parse("2001:db8::1"), Prefix.parse("10.0.0.0/8")
    first = plan_list(listed(operator=[web], feed=[net]), NOTHING, DENY, NOW)
    second = plan_list(listed(operator=[web, mail], feed=[net], count=[net]), first, DENY, NOW)

    again = plan_list(
        listed(operator=[web, mail], feed=[net], count=[net]), ListPlan(owners=second.owners), DENY, NOW
    )

    assert (again.ipv4 == second.ipv4).all()
    assert (again.ipv6_rules == second.ipv6_rules).all()
    assert (again.owners == second.owners).all()


def test_a_feed_has_one_number_and_the_operator_goes_before_it() -> None:
    """Entries of a feed share a number; where the operator has the same prefix, the operator's counts."""
    common, other, third = hosts(3)
    plan = plan_list(listed(operator=[common], feed=[common, other, third]), NOTHING, DENY, NOW)

    own, *shared = numbers(plan, [common, other, third])
    assert own not in plan.shared
    assert len(set(shared)) == 1
    assert plan.shared == {shared[0]: FEED}

    without = plan_list(listed(feed=[common, other, third]), plan, DENY, NOW)
    assert numbers(without, [common, other, third]) == [shared[0]] * 3


@pytest.mark.parametrize(("mine", "theirs"), [(1, 500), (500, 1)])
def test_large_and_small_layers_join_alike(mine: int, theirs: int) -> None:
    """The operator goes before a feed whichever of the two holds more."""
    plan = plan_list(listed(operator=hosts(mine), feed=hosts(theirs)), NOTHING, DENY, NOW)

    assert len(plan.ipv4) == 500
    assert all(n not in plan.shared for n in numbers(plan, hosts(mine)))
    assert all(n in plan.shared for n in numbers(plan, hosts(500 - mine, first=mine)))


def test_one_more_or_less_beside_many_that_share() -> None:
    """Where all numbers are taken a new entry shares, the others keep theirs, and what is gone is gone."""
    many = hosts(DENY.own(Action.DROP) + 100)
    first = plan_list(listed(operator=many), NOTHING, DENY, NOW)
    (new,) = hosts(1, first=1 << 20)

    second = plan_list(listed(operator=[*many, new]), first, DENY, NOW)
    third = plan_list(listed(operator=many[:-1]), second, DENY, NOW)

    assert numbers(second, many) == numbers(first, many)
    assert numbers(second, [new])[0] in second.shared
    assert numbers(third, many[:-1]) == numbers(first, many[:-1])
    assert numbers(third, [many[-1], new]) == [0, 0]
    assert third.shared == first.shared


def test_counting_entries_have_numbers_that_let_pass() -> None:
    """An entry that only counts has a number of the range that the program lets pass, another than if it dropped."""
    (prefix,) = hosts(1)
    drop = plan_list(listed(operator=[prefix]), NOTHING, DENY, NOW)
    count = plan_list(listed(operator=[], count=[prefix]), drop, DENY, NOW)

    assert numbers(drop, [prefix])[0] < COUNT_FROM <= numbers(count, [prefix])[0]


def test_over_8192_entries_of_the_operator() -> None:
    """As many as fit half the range have exact hits; those that come after share a number, and push nobody out."""
    most = DENY.own(Action.DROP)
    first = plan_list(listed(operator=hosts(9000)), NOTHING, DENY, NOW)

    own = [n for n in numbers(first, hosts(9000)) if n not in first.shared]
    assert len(set(own)) == len(own) == most > 7000
    assert set(first.shared.values()) == {OPERATOR}
    assert len(first.ipv4) == 9000

    exact = [prefix for prefix in hosts(9000) if numbers(first, [prefix])[0] not in first.shared]
    before = [Prefix(4, 0x01000000 + n, 32) for n in range(50)]  # they sort before all of them
    second = plan_list(listed(operator=[*before, *hosts(9000)]), first, DENY, NOW)
    assert numbers(second, exact) == numbers(first, exact)
    assert {n in second.shared for n in numbers(second, before)} == {True}

    third = plan_list(listed(operator=[*before, *exact[10:]]), second, DENY, NOW)
    assert sum(n not in third.shared for n in numbers(third, before)) == 10


def test_a_wholly_new_list_has_exact_hits_too() -> None:
    """Numbers of entries that go are not used at once, and there are enough beside them."""
    most = DENY.own(Action.DROP)
    first = plan_list(listed(operator=hosts(most)), NOTHING, DENY, NOW)
    second = plan_list(listed(operator=hosts(most, first=20000)), first, DENY, NOW)

    assert second.shared == {}
    assert not set(numbers(second, hosts(most, first=20000))) & set(numbers(first, hosts(most)))


def test_an_ipv6_entry_keeps_its_number_when_thousands_of_ipv4_come() -> None:
    """Those that have a number of their own go before newcomers of either family."""
    six = Prefix.parse("2001:db8::1")
    first = plan_list(listed(operator=[six]), NOTHING, DENY, NOW)
    second = plan_list(listed(operator=[six, *hosts(9000)]), first, DENY, NOW)

    assert numbers(second, [six]) == numbers(first, [six])
    assert numbers(second, [six])[0] not in second.shared


def test_the_same_list_is_the_same_plan_until_an_entry_ends() -> None:
    """Nothing is worked out twice; from the first deadline on the entry is out."""
    stays, ends = hosts(2)
    layer = Layer.of([(stays, Attributes()), (ends, Attributes(expires_at=NOW + 60))])
    wanted = PrefixList().with_layer(OPERATOR, layer)
    plan = plan_list(wanted, NOTHING, DENY, NOW)

    assert plan.until == NOW + 60
    assert plan_list(wanted, plan, DENY, NOW + 59.9) is plan
    later = plan_list(wanted, plan, DENY, NOW + 60)
    assert numbers(later, [stays, ends]) == [numbers(plan, [stays])[0], 0]
    assert later.until == float("inf")


def test_more_owners_than_numbers() -> None:
    """CapacityError when feeds need more numbers than there are."""
    few = Numbering({Action.DROP: (1, 4)}, 8)
    lists = PrefixList()
    for n in range(4):
        lists = lists.with_layer(f"{FEED_PREFIX}{n}", Layer.of([(Prefix(4, n << 8, 24), Attributes())]))

    with pytest.raises(CapacityError, match="feed"):
        plan_list(lists, ListPlan(owners=np.zeros(8, np.uint64)), few, NOW)


def test_allowlist_numbers_are_in_their_range() -> None:
    """The allowlist has counters of its own, fewer of them, and entries beyond share one."""
    plan = plan_list(
        listed(operator=hosts(3000)), ListPlan(owners=np.zeros(ALLOW.size, np.uint64)), ALLOW, NOW
    )

    assert min(numbers(plan, hosts(3000))) > 0
    assert max(numbers(plan, hosts(3000))) < ALLOW.size
    assert list(plan.shared.values()) == [OPERATOR]


def test_the_rule_of_a_prefix_is_that_of_exactly_it() -> None:
    """Neither a longer nor a shorter prefix, nor one of the other family, is taken for it."""
    inside = [Prefix.parse(text) for text in ("10.0.0.0/8", "10.0.0.0/24", "::/0", "2001:db8::/32")]
    outside = [
        Prefix.parse(text) for text in ("10.0.0.0/16", "0.0.0.0/0", "10.0.0.0/32", "::/1", "2001:db8::/33")
    ]
    plan = plan_list(listed(operator=inside), NOTHING, DENY, NOW)

    assert 0 not in numbers(plan, inside)
    assert numbers(plan, outside) == [0] * len(outside)


@given(st.lists(prefix_lists(), min_size=2, max_size=4), st.data())
@QUICK
def test_a_plan_made_from_parts_is_the_plan_made_anew(lists: list[PrefixList], data: st.DataObject) -> None:
    """Layers that stay are not numbered again, and the result is the same as if they were."""
    before, wanted = NOTHING, lists[0]
    for other in lists:
        owner = data.draw(st.sampled_from([OPERATOR, FEED, *other.layers]))
        wanted = wanted.with_layer(owner, other.layer(owner))
        anew = plan_list(wanted, ListPlan(owners=before.owners), DENY, NOW)
        after = plan_list(wanted, before, DENY, NOW)
        assert (after.ipv4 == anew.ipv4).all()
        assert (after.ipv6 == anew.ipv6).all()
        assert (after.ipv6_rules == anew.ipv6_rules).all()
        assert (after.owners == anew.owners).all()
        assert (after.shared, after.until) == (anew.shared, anew.until)
        stay = [
            n for n, layer in wanted.layers.items() if n in before.parts and before.parts[n].layer is layer
        ]
        assert all(after.parts[n] is before.parts[n] for n in stay)
        before = after

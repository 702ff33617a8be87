"""What is over leaves the plan with work for what is due alone, and is told of once for each owner."""

from hypothesis import given
from hypothesis import strategies as st
from model_strategies import NOW, QUICK, prefix_lists
from test_lists_plan import NOTHING, hosts

from lb.events import Events
from lb.model import Action, Prefix, PrefixList
from lb.model.entries import OPERATOR
from lb.model.layers import Attributes, Layer
from lb.reconcile import expiry
from lb.reconcile.lists import ListPlan, plan_list, rules_of
from lb.reconcile.numbering import DENY


@given(prefix_lists(), st.lists(st.floats(0.1, 50), min_size=1, max_size=4))
@QUICK
def test_what_is_left_is_what_a_plan_made_then_has(wanted: PrefixList, waits: list[float]) -> None:
    """The same entries, in the range of their action, and of each that stays foremost the number it had."""
    wanted = listed = wanted.without_expired(NOW)
    plan, now = plan_list(wanted, NOTHING, DENY, NOW), NOW
    for wait in waits:
        now += wait
        before, plan = plan, plan_list(listed, plan, DENY, now)
        assert plan.wanted is not None
        listed = plan.wanted

        left = wanted.page(now, limit=1000)
        assert plan.until > now
        assert len(plan.ipv4) + len(plan.ipv6) == len(left)
        for entry in left:
            family, keys = entry.prefix.family, [entry.prefix.key]
            (number,) = rules_of(plan, family, keys)
            low, high = DENY.ranges[entry.attributes.action]
            assert low <= number < high
            assert plan.owners[number] != 0
            owner = entry.owners[0]
            assert rules_of(plan.parts[owner], family, keys) == rules_of(before.parts[owner], family, keys)
        if plan is not before:
            assert listed == wanted.without_expired(now)


def test_the_next_owner_comes_to_the_fore() -> None:
    """Under an entry that is over, another's of the same prefix goes on, by its own action."""
    (prefix,) = hosts(1)
    wanted = PrefixList().with_layer(
        OPERATOR, Layer.of([(prefix, Attributes(Action.COUNT, expires_at=NOW + 5))])
    )
    wanted = wanted.with_layer("feed:a", Layer.of([(prefix, Attributes())]))
    first = plan_list(wanted, NOTHING, DENY, NOW)

    later = plan_list(wanted, first, DENY, NOW + 5)

    count_from = DENY.ranges[Action.COUNT][0]
    assert rules_of(first, 4, [prefix.key])[0] >= count_from
    assert 0 < rules_of(later, 4, [prefix.key])[0] < count_from
    assert later.shared == {rules_of(later, 4, [prefix.key])[0]: "feed:a"}


def test_an_event_names_the_first_of_many() -> None:
    """One for each owner: how many, and the first ten prefixes; none while nothing is over."""
    ends = Attributes(expires_at=NOW + 5)
    layers = {"fail2ban": hosts(12), OPERATOR: [Prefix.parse("2001:db8::/32")]}
    wanted = PrefixList()
    for owner, prefixes in layers.items():
        wanted = wanted.with_layer(owner, Layer.of((prefix, ends) for prefix in prefixes))
    plans: dict[str, ListPlan] = {"blocklist": plan_list(wanted, NOTHING, DENY, NOW)}
    events = Events()

    expiry.tell(plans, NOW + 4, events)
    assert events.since(0) == []
    expiry.tell(plans, NOW + 5, events)

    told = {event.facts["owner"]: dict(event.facts) for event in events.since(0)}
    assert {event.kind for event in events.since(0)} == {"entry.expired"}
    assert told["fail2ban"] == {
        "list": "blocklist",
        "owner": "fail2ban",
        "count": 12,
        "prefixes": [str(prefix) for prefix in hosts(10)],
    }
    assert told[OPERATOR]["prefixes"] == ["2001:db8::/32"]

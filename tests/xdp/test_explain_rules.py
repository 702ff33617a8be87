"""What explain says of rules: the one that decided, in words and as the entry."""

from typing import Any

import pytest
from frames import VIP4, service, tcp, udp
from rig import Rig

from lb.dataplane.layout import layout
from lb.reconcile.explained import Explained, ListEntry, MetRule

pytestmark = pytest.mark.root

_C = layout().constants


def explain(rig: Rig, frame: Any) -> Explained:
    """What becomes of one frame, which then becomes of it."""
    (answer,) = rig.reconciler.explain([bytes(frame)])
    assert answer.verdict.name == rig.verdict(frame)
    return answer


def detail(answer: Explained, stage: str) -> str:
    (found,) = [step.detail for step in answer.steps if step.stage == stage]
    return found


def test_a_rule_that_drops(rig: Rig) -> None:
    """It is named with its reason, and is the entry, with what it has matched so far."""
    rig.apply(
        services=[service()],
        rules=[{"name": "http", "action": "drop", "ports": 80, "reason": "closed"}],
    )
    rig.run(tcp())
    answer = explain(rig, tcp())

    assert detail(answer, "admit") == 'no blocklist entry holds 10.0.1.1; rule "http" (closed) drops it'
    assert isinstance(answer.entry, MetRule)
    assert (answer.entry.rule.name, answer.entry.tally.dropped_packets) == ("http", 1)


def test_a_rule_that_allows(rig: Rig) -> None:
    """It is named with the blocklist entry that it beats."""
    allow = {"name": "in", "action": "allow", "destination": VIP4}
    rig.apply(services=[service()], block=["10.0.1.0/24"], rules=[allow])
    answer = explain(rig, tcp())

    assert detail(answer, "admit") == (
        'blocklist entry 10.0.1.0/24 (operator) holds 10.0.1.1, and rule "in" allows it'
    )
    assert answer.verdict.name == "TX_IPIP"
    assert isinstance(answer.entry, MetRule)


def test_a_limit(rig: Rig) -> None:
    """Within it nothing is said; over it, whose it is and what it is."""
    limit = {"rate": 1, "burst": 2, "per": "rule"}
    rig.apply(services=[service()], rules=[{"name": "r", "action": "limit", "limit": limit}])

    first = explain(rig, tcp())
    assert detail(first, "admit") == "no blocklist entry holds 10.0.1.1"
    assert first.entry is None
    rig.run(tcp())
    answer = explain(rig, tcp())
    assert answer.verdict.name == "DROP_LIMIT"
    assert detail(answer, "admit").endswith(
        '; all packets that it matches are over the limit of rule "r": 1 packets a second'
    )


def test_a_limit_of_new_udp_flows(rig: Rig) -> None:
    """It is asked where the backend is chosen, and told there."""
    limit = {"rate": 1, "unit": "new-flows", "burst": 1, "per": "rule"}
    rig.apply(services=[service(protocol="udp")], rules=[{"name": "r", "action": "limit", "limit": limit}])
    rig.run(udp(sport=1))
    answer = explain(rig, udp(sport=2))

    assert answer.steps[-1].stage == "select"
    assert detail(answer, "select") == (
        "the flow table does not have it, and all packets that it matches are over the limit of rule "
        '"r": 1 new-flows a second'
    )
    assert isinstance(answer.entry, MetRule)


def test_the_allowlist_keeps_rules_away(rig: Rig) -> None:
    """Whoever is on it meets no rule, and explain says why."""
    rig.apply(services=[service()], allow=["10.0.1.1"], rules=[{"name": "all", "action": "drop"}])
    answer = explain(rig, tcp())

    assert detail(answer, "admit") == (
        "no blocklist entry holds 10.0.1.1, and allowlist entry 10.0.1.1/32 (operator) lets it skip all rules"
    )
    assert isinstance(answer.entry, ListEntry)

"""A rule that bans: who goes over its limit is on the blocklist a moment later, and only that one."""

import time
from typing import Any

import pytest
from frames import ELSE4, VIP6, tcp
from rig import Rig

from lb.model import Prefix

pytestmark = pytest.mark.root


def flood(**more: Any) -> dict[str, Any]:
    """A rule that lets each source send ten packets, and bans who sends more."""
    limit = {"rate": 1, "burst": 10, "per": "source"}
    return {"name": "flood", "action": "limit", "limit": limit, "ban_seconds": 600, **more}


def send(rig: Rig, source: str, *, until: str) -> int:
    """Packets until one has this verdict; how many there were."""
    destination = VIP6 if ":" in source else ELSE4
    deadline = time.monotonic() + 30
    number = 0
    while rig.verdict(tcp(src=source, dst=destination)) != until:
        number += 1
        assert time.monotonic() < deadline
    return number


def layer(rig: Rig) -> list[str]:
    """The prefixes that the rule has banned, once the first ban is told: the maps have it before."""
    while not any(event.kind == "entry.banned" for event in rig.reconciler.events.since(0)):
        rig.reconciler.events.wait(rig.reconciler.events.last, 1)
    held = rig.reconciler.desired.config.blocklist.layer("rule:flood")
    return [str(Prefix.from_key(key)) for f in (4, 6) for key in held.columns[f].keys.tolist()]


def test_who_is_over_is_blocked(rig: Rig) -> None:
    """Its packets are dropped by the limit at first and by the blocklist then; a source that is quiet is not banned."""
    rig.apply(rules=[flood()])

    assert rig.verdict(tcp(src="198.51.100.8", dst=ELSE4)) == "PASS_NO_SERVICE"
    assert send(rig, "198.51.100.7", until="DROP_LIMIT") >= 10
    send(rig, "198.51.100.7", until="DROP_BLOCKLIST")

    assert layer(rig) == ["198.51.100.7/32"]
    entry = rig.reconciler.desired.config.blocklist.get(Prefix.parse("198.51.100.7/32"), rig.now)
    assert entry is not None
    assert (entry.owners, entry.attributes.ttl_seconds) == (("rule:flood",), 600)
    assert entry.attributes.reason == "over the limit of rule flood"
    (event,) = [e for e in rig.reconciler.events.since(0) if e.kind == "entry.banned"]
    assert (event.facts["prefix"], event.facts["rule"]) == ("198.51.100.7/32", "flood")
    assert rig.verdict(tcp(src="198.51.100.8", dst=ELSE4)) == "PASS_NO_SERVICE"


def test_a_ban_has_the_limits_length_and_ends(rig: Rig) -> None:
    """All of an IPv6 /64 go together; when the time is over they may come again."""
    rig.apply(rules=[flood()])
    send(rig, "2001:db8::1", until="DROP_BLOCKLIST")

    assert layer(rig) == ["2001:db8::/64"]
    assert rig.verdict(tcp(src="2001:db8::2", dst=VIP6)) == "DROP_BLOCKLIST"
    rig.advance(601)
    assert rig.verdict(tcp(src="2001:db8::2", dst=VIP6)) != "DROP_BLOCKLIST"


def test_who_is_allowed_is_not_banned(rig: Rig) -> None:
    """A source in use is limited and stays off the blocklist; another's ban comes after its reports were read."""
    rig.apply(rules=[flood()], allow=["203.0.113.0/24"])
    for _ in range(30):
        assert rig.verdict(tcp(src="203.0.113.1", dst=ELSE4)) == "PASS_NO_SERVICE"
    send(rig, "198.51.100.7", until="DROP_BLOCKLIST")

    assert layer(rig) == ["198.51.100.7/32"]


def test_reports_are_read_only_while_a_rule_bans(rig: Rig) -> None:
    """Without such a rule no thread reads the queue, and nothing is asked of the packet path."""
    rig.apply(rules=[flood(ban_seconds=None)])
    assert rig.plane.tables.arrays.watching["most"].tolist() == [0, 0]
    rig.apply(rules=[flood()])
    assert rig.plane.tables.arrays.watching["most"][1] > 0
    rig.apply(rules=[])
    assert rig.plane.tables.arrays.watching["most"].tolist() == [0, 0]
    assert rig.reconciler.watch.features == frozenset()

"""Back to what a document said: the operator's part of an earlier state over the present one."""

from dataclasses import replace

from test_store import blocking, web

from lb.model import Config, Feed, Prefix, Rule
from lb.model.layers import Attributes
from lb.model.restore import restored, same_document

NOW = 1000.0


def entries(config: Config, owner: str = "operator") -> dict[str, float | None]:
    """An owner's entries, those that are over too, and when each ends."""
    layer = config.blocklist.layer(owner)
    texts = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
    found = {text: layer.get(Prefix.parse(text)) for text in texts}
    return {text: said.expires_at for text, said in found.items() if said is not None}


def timed(config: Config, text: str, ttl: int, ends: float) -> Config:
    """With one entry of the operator's that ends."""
    said = Attributes(created_at=ends - ttl, ttl_seconds=ttl, expires_at=ends)
    layer = config.blocklist.layer("operator").with_entries([(Prefix.parse(text), said)])
    return replace(config, blocklist=config.blocklist.with_layer("operator", layer))


def test_what_is_over_stays_over() -> None:
    """Not even for a moment is an entry of the past back whose time has come."""
    then = timed(timed(blocking(web(80), "192.0.2.1"), "192.0.2.2", 60, NOW), "192.0.2.3", 60, NOW + 1)

    assert entries(restored(Config(), then, NOW)) == {"192.0.2.1": None, "192.0.2.3": NOW + 1}


def test_who_asks_for_the_same_keeps_its_time() -> None:
    """As with apply: an entry that is there with the same TTL goes on as it is."""
    then, present = timed(web(80), "192.0.2.1", 60, NOW + 5), timed(web(81), "192.0.2.1", 60, NOW + 50)
    assert entries(restored(present, then, NOW)) == {"192.0.2.1": NOW + 50}

    other = timed(web(81), "192.0.2.1", 90, NOW + 80)
    assert entries(restored(other, then, NOW)) == {"192.0.2.1": NOW + 5}


def test_what_others_hold_stays() -> None:
    """Neither what they had then comes back, nor does what they have by now go."""
    then = blocking(web(80), "192.0.2.1", owner="fail2ban")
    present = blocking(web(81), "192.0.2.2", owner="fail2ban")

    back = restored(present, then, NOW)

    assert (entries(back, "fail2ban"), back.services) == ({"192.0.2.2": None}, web(80).services)
    assert same_document(back, then) and not same_document(back, present)


def test_feeds_and_rules_that_come_back_bring_what_they_had() -> None:
    """One that is gone by then takes its entries along; one that stayed keeps what it has."""
    feed = Feed.model_validate({"name": "spam", "file": "/list"})
    rule = Rule.model_validate({"name": "ssh", "action": "drop", "count_only": True})
    bare = replace(web(80), feeds={"spam": feed}, rules={"ssh": rule})
    then = blocking(blocking(bare, "192.0.2.1", owner="feed:spam"), "192.0.2.2", owner="rule:ssh")
    gone = web(80)

    back = restored(gone, then, NOW)
    assert (entries(back, "feed:spam"), entries(back, "rule:ssh")) == (
        {"192.0.2.1": None},
        {"192.0.2.2": None},
    )
    assert restored(then, gone, NOW) == gone

    newer = blocking(bare, "192.0.2.3", owner="feed:spam")
    assert entries(restored(newer, then, NOW), "feed:spam") == {"192.0.2.3": None}

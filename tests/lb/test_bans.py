"""What reports of sources over a limit become, and how they are gathered."""

import threading
import time

import numpy as np

from lb.dataplane.samples import RECORD
from lb.events import Events
from lb.model import Config, Prefix, Rule
from lb.model.document import from_mapping
from lb.model.layers import Attributes
from lb.reconcile.bans import Ban, Banned, Banner, entries_of, tell_bans, with_bans

NOW = 1_900_000_000.0


def rule(ban_seconds: int | None = 600, **limit: object) -> Rule:
    """A rule that bans who sends more than ten packets."""
    said = {"rate": 1, "burst": 10, "per": "source", **limit}
    return Rule.model_validate(
        {"name": "flood", "action": "limit", "limit": said, "ban_seconds": ban_seconds}
    )


def source(text: str) -> tuple[int, bytes]:
    prefix = Prefix.parse(text)
    return prefix.family, prefix.network.to_bytes(4 if prefix.family == 4 else 16, "big")


def ban(text: str, rule: int = 7) -> Ban:
    return (*source(text), rule)


def prefixes(banned: list[Banned]) -> list[str]:
    return [str(each.prefix) for each in banned]


def test_the_prefix_has_the_limits_length() -> None:
    """What shares a bucket is blocked together, once, in its rule's layer, with its TTL and why."""
    rules = {7: rule(ipv4_length=24, ipv6_length=56)}
    bans = [ban("198.51.100.7"), ban("198.51.100.8"), ban("2001:db8:1:2::9")]

    banned = entries_of(bans, rules, Config(), NOW)

    assert prefixes(banned) == ["198.51.100.0/24", "2001:db8:1::/56"]
    said = Attributes(
        reason="over the limit of rule flood", created_at=NOW, ttl_seconds=600, expires_at=NOW + 600
    )
    layer = with_bans(Config(), banned).blocklist.layer("rule:flood")
    assert [layer.get(each.prefix) for each in banned] == [said, said]
    assert len(layer) == 2


def test_who_is_not_banned() -> None:
    """Not by a rule that is gone or bans no longer, not twice, nor who is allowed as a whole, nor what is in use."""
    allowed = Config().allowlist.with_layer(
        "operator",
        Config().allowlist.layer("operator").with_entries([(Prefix.parse("203.0.113.0/24"), Attributes())]),
    )
    config = with_bans(Config(allowlist=allowed), entries_of([ban("192.0.2.1")], {7: rule()}, Config(), NOW))

    assert entries_of([ban("192.0.2.1")], {7: rule()}, config, NOW) == []
    assert entries_of([ban("203.0.113.9")], {7: rule()}, config, NOW) == []
    assert entries_of([ban("192.0.2.2")], {8: rule()}, config, NOW) == []
    used = [Prefix.parse("10.0.0.11")]
    for each, length in (("10.0.0.11", 32), ("10.0.0.7", 24)):
        assert entries_of([ban(each)], {7: rule(ipv4_length=length)}, config, NOW, used) == []
    assert entries_of([ban("192.0.2.2")], {7: rule(None)}, config, NOW) == []
    assert prefixes(entries_of([ban("192.0.2.1")], {7: rule()}, config, NOW + 600)) == ["192.0.2.1/32"]


def test_every_ban_is_told() -> None:
    """An event names prefix, rule and revision."""
    events = Events()

    tell_bans(events, entries_of([ban("192.0.2.1")], {7: rule()}, Config(), NOW), 12)

    (event,) = events.since(0)
    assert (event.kind, event.text) == (
        "entry.banned",
        "192.0.2.1/32 is blocked for 600 s: over the limit of rule flood",
    )
    assert (event.facts["prefix"], event.facts["rule"], event.facts["revision"]) == (
        "192.0.2.1/32",
        "flood",
        12,
    )


def records(*bans: Ban) -> np.ndarray:
    rows = np.zeros(len(bans), RECORD)
    for row, (family, packed, rule) in zip(rows, bans, strict=True):
        row["family"], row["rule"] = family, rule
        row["source"] = np.frombuffer(packed.ljust(16, b"\0"), "<u4")
    return rows


def test_reports_are_gathered() -> None:
    """Reports that come while a batch is worked on are the next one, each source once; without an address, none."""
    got: list[list[Ban]] = []
    first, second, go_on = threading.Event(), threading.Event(), threading.Event()

    def take(bans: list[Ban]) -> None:
        got.append(bans)
        (second if first.is_set() else first).set()
        assert go_on.wait(60)

    banner = Banner(take)
    one, two, six = ban("192.0.2.1"), ban("192.0.2.2"), ban("2001:db8::1")
    banner.add(records(one, one))
    assert first.wait(60)
    banner.add(records(two, six))
    banner.add(records(two, (0, b"", 7)))
    go_on.set()
    assert second.wait(60)
    banner.close()

    assert got == [[one], [two, six]]


def test_a_batch_that_fails_is_not_the_last() -> None:
    """What goes wrong with one batch does not end the banning."""
    done = threading.Event()
    tried: list[int] = []

    def take(bans: list[Ban]) -> None:
        tried.append(len(bans))
        if len(tried) == 1:
            raise OSError("no room")
        done.set()

    banner = Banner(take)
    banner.add(records(ban("192.0.2.1")))
    while not tried:
        done.wait(0.01)
    banner.add(records(ban("192.0.2.2")))

    assert done.wait(60)
    banner.close()


def test_what_holds_or_lies_in_what_is_in_use() -> None:
    """A VIP that is a prefix, backends of both families, and bans of any length: as if each were compared."""
    used = [
        Prefix.parse(each) for each in ("2001:db8:5::/64", "2001:db8:9::1", "2001:db8:9:1::1", "10.0.0.9")
    ]

    for length, banned in ((128, "2001:db8:5::77"), (48, "2001:db8:5:1::"), (64, "2001:db8:9:1::5")):
        assert entries_of([ban(banned)], {7: rule(ipv6_length=length)}, Config(), NOW, used) == []
    bans = [ban("2001:db8:5:1::1"), ban("2001:db8:9:2::1"), ban("10.0.0.1")]
    assert len(entries_of(bans, {7: rule(ipv6_length=64)}, Config(), NOW, used)) == 3


def test_many_bans_beside_many_backends() -> None:
    """The writer's lock is held meanwhile: ten thousand are looked at beside twenty thousand addresses in use."""
    used = [Prefix(4, 0x0A000000 + n, 32) for n in range(20_000)]
    bans = [(4, (0xCB007100 + n).to_bytes(4, "big"), 7) for n in range(10_000)]

    began = time.process_time()
    found = entries_of(bans, {7: rule()}, Config(), NOW, used)

    assert len(found) == 10_000
    assert time.process_time() - began < 10


def test_a_rule_takes_its_bans_along() -> None:
    """Whom a rule has banned is free again when it goes."""
    banned = entries_of([ban("192.0.2.1")], {7: rule()}, Config(), NOW)
    config = with_bans(Config().with_rule(rule()), banned)
    assert len(config.blocklist.layer("rule:flood")) == 1

    assert len(config.without_rule("flood").blocklist.layer("rule:flood")) == 0
    assert len(from_mapping({}, now=NOW, have=config).blocklist.layer("rule:flood")) == 0

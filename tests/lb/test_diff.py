"""What differs between two desired states, as people are shown it."""

from typing import Any

from hypothesis import given
from model_strategies import NOW, QUICK, configs

from lb.model import Config, Prefix, Rule
from lb.model.diff import ENTRIES_SHOWN, KINDS, diff
from lb.model.document import from_mapping, to_document
from lb.model.entries import FEED_PREFIX
from lb.model.layers import Attributes, Layer

WEB = {"name": "web", "vip": "192.0.2.10", "port": 80, "protocol": "tcp"}


def config(**document: Any) -> Config:
    return from_mapping(document, now=NOW, have=Config())


def changes(have: Config, want: Config) -> list[tuple[str, str, str, Any, Any]]:
    return [(c.op, c.kind, c.name, c.before, c.after) for c in diff(have, want, now=NOW).changes]


def test_services_and_backends() -> None:
    """A service and a backend come, go, or change in the fields that are named."""
    have = config(
        services=[
            {**WEB, "backends": [{"address": "10.0.0.1"}, {"address": "10.0.0.2"}]},
            {**WEB, "name": "old", "port": 81},
        ]
    )
    want = config(
        services=[
            {
                **WEB,
                "port": "any",
                "backends": [{"address": "10.0.0.2", "weight": 3}, {"address": "10.0.0.3"}],
            },
            {**WEB, "name": "new", "port": 82},
        ]
    )
    old, new = (to_document(c, now=NOW)["services"][1] for c in (have, want))

    assert changes(have, want) == [
        ("change", "service", "web", {"port": 80}, {"port": "any"}),
        (
            "remove",
            "backend",
            "web/10.0.0.1",
            {"address": "10.0.0.1", "weight": 1, "admin_state": "enabled", "quic_id": None, "port": None},
            None,
        ),
        ("change", "backend", "web/10.0.0.2", {"weight": 1}, {"weight": 3}),
        (
            "add",
            "backend",
            "web/10.0.0.3",
            None,
            {"address": "10.0.0.3", "weight": 1, "admin_state": "enabled", "quic_id": None, "port": None},
        ),
        ("remove", "service", "old", old, None),
        ("add", "service", "new", None, new),
    ]


def test_settings_and_entries() -> None:
    """Settings are told one by one, entries by what they ask for."""
    have = config(blocklist=["10.0.0.1", "10.0.0.2"], allowlist=["10.9.0.0/16"])
    want = config(
        blocklist=[{"prefix": "10.0.0.2", "ttl_seconds": 60}, {"prefix": "10.0.0.3", "reason": "scan"}],
        settings={"udp_idle_seconds": 60},
    )
    found = diff(have, want)

    assert [(c.op, c.kind, c.name, c.before, c.after) for c in found.changes] == [
        ("change", "setting", "udp_idle_seconds", 30, 60),
        ("remove", "allowlist", "10.9.0.0/16", {}, None),
        ("add", "blocklist", "10.0.0.3/32", None, {"reason": "scan"}),
        ("remove", "blocklist", "10.0.0.1/32", {}, None),
        ("change", "blocklist", "10.0.0.2/32", {}, {"ttl_seconds": 60}),
    ]
    assert not found.same
    assert {kind: c.model_dump() for kind, c in found.counts.items()} == {
        "service": {"add": 0, "remove": 0, "change": 0},
        "backend": {"add": 0, "remove": 0, "change": 0},
        "allowlist": {"add": 0, "remove": 1, "change": 0},
        "blocklist": {"add": 1, "remove": 1, "change": 1},
        "rule": {"add": 0, "remove": 0, "change": 0},
        "feed": {"add": 0, "remove": 0, "change": 0},
        "setting": {"add": 0, "remove": 0, "change": 1},
    }


def test_long_lists_are_counted() -> None:
    """Of many entries the first are shown and all are counted."""
    found = diff(Config(), config(blocklist=[f"10.0.{n >> 8}.{n & 255}" for n in range(500)]))

    assert len(found.changes) == ENTRIES_SHOWN
    assert found.counts["blocklist"].add == 500


def test_what_feeds_hold() -> None:
    """A change in a feed's layer names the feed."""
    layer = Layer.of([(Prefix.parse("10.0.0.1"), Attributes())])
    want = Config(blocklist=Config().blocklist.with_layer(FEED_PREFIX + "drop", layer))

    assert changes(Config(), want) == [("add", "blocklist", "10.0.0.1/32", None, {"owner": "feed:drop"})]


def test_the_age_of_entries_does_not_differ() -> None:
    """What was asked for at another time is the same; what has expired by now is not there."""
    document = {"blocklist": [{"prefix": "10.0.0.1", "ttl_seconds": 60}]}
    one, two = (from_mapping(document, now=NOW + late, have=Config()) for late in (0, 30))

    assert diff(one, two).same
    assert diff(one, two, now=NOW + 60).counts["blocklist"].add == 1


@QUICK
@given(configs(), configs())
def test_same_says_same(have: Config, want: Config) -> None:
    """Nothing differs from itself; and nothing differs exactly if both come out as one document."""
    assert diff(have, have).same
    found = diff(have, want)
    alike = found.changes == []

    assert found.same == alike
    assert found.same == (sum(c.add + c.remove + c.change for c in found.counts.values()) == 0)
    assert set(found.counts) == set(KINDS)
    if alike:
        one, two = (to_document(c, now=0.0) for c in (have, want))
        for document in (one, two):
            document["services"].sort(key=lambda s: s["name"])
            for service in document["services"]:
                service["backends"].sort(key=lambda b: b["address"])
        assert one == two


def shown(**rule: Any) -> dict[str, Any]:
    return Rule.model_validate(rule).model_dump(mode="json")


def test_rules_are_told_and_warned_of() -> None:
    """Of a rule that changes the fields that differ; a rule that cannot be reached is accepted with a warning."""
    old = {"name": "a", "action": "drop", "ports": 80}
    have = config(rules=[old, {"name": "gone", "action": "count"}])
    want = config(rules=[{**old, "ports": "80-90"}, {"name": "b", "action": "count", "ports": 81}])
    found = diff(have, want)

    assert [(c.op, c.kind, c.name, c.before, c.after) for c in found.changes] == [
        ("change", "rule", "a", {"ports": "80"}, {"ports": "80-90"}),
        ("remove", "rule", "gone", shown(name="gone", action="count"), None),
        ("add", "rule", "b", None, shown(name="b", action="count", ports=81)),
    ]
    assert [text.split(":")[0] for text in found.warnings] == ['rule "b" is never reached']
    assert diff(want, want).warnings == []

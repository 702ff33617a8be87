"""What a refresh must not do, and what it may do when it is told to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import QUICK, few_prefixes

from lb.errors import FeedError
from lb.feeds.guard import Protected, blocked, check_change, check_protected, protected_by
from lb.model import Config, Feed, Prefix, Service
from lb.model.entries import OPERATOR
from lb.model.layers import Attributes, Layer

P = Prefix.parse
WEB = Service.model_validate(
    {
        "name": "web",
        "vip": "198.51.100.10",
        "port": 80,
        "protocol": "tcp",
        "backends": [{"address": "203.0.113.11"}, {"address": "2001:db8:1::11"}],
    }
)
SIX = Service.model_validate(
    {"name": "six", "vip": "2001:db8:5::/64", "port": 80, "protocol": "tcp", "affinity": "source"}
)
CONFIG = Config(services={"web": WEB, "six": SIX})


def feed(**said: Any) -> Feed:
    return Feed.model_validate({"name": "drop", "file": "/list", **said})


def layer(*prefixes: str) -> Layer:
    return Layer.of((P(prefix), Attributes()) for prefix in prefixes)


def refusal(*prefixes: str, config: Config = CONFIG, **said: Any) -> str | None:
    """Why these entries are refused, None if they are not."""
    try:
        check_protected(
            feed(**said),
            layer(*prefixes),
            protected_by(config, 0.0, [Protected(P("192.0.2.1"), "a gateway")]),
        )
    except FeedError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("203.0.113.11", 'its entry 203.0.113.11/32 would block backend 203.0.113.11 of service "web"'),
        ("203.0.113.0/24", "backend 203.0.113.11"),
        ("2001:db8:1::/48", "backend 2001:db8:1::11"),
        ("198.51.100.10", 'the VIP of service "web"'),
        ("198.51.100.0/25", 'the VIP of service "web"'),
        ("2001:db8:5::/64", 'the VIP of service "six"'),
        ("2001:db8:5::1", 'the VIP of service "six"'),
        ("192.0.2.0/24", "a gateway"),
        ("10.0.0.0/8", "private address space (RFC 1918)"),
        ("10.1.2.3", "private address space (RFC 1918)"),
        ("172.20.0.0/16", "private address space (RFC 1918)"),
        ("192.168.0.0/16", "private address space (RFC 1918)"),
        ("fd00:1::/64", "private address space (RFC 4193)"),
        ("fe80::1", "neighbours on a link"),
        ("127.0.0.1", "this machine itself"),
        ("::1", "this machine itself"),
        ("0.0.0.0/0", "as good as the whole internet"),
        ("::/0", "as good as the whole internet"),
        ("64.0.0.0/2", "as good as the whole internet"),
        ("2000::/3", "as good as the whole internet"),
    ],
)
def test_what_must_be_reached_is_not_blocked(prefix: str, why: str) -> None:
    """An entry that holds what is protected, or lies in it, is refused by name; unless the feed may, or only counts."""
    said = refusal("198.18.0.0/15", prefix, "2001:db8:9::/48")

    assert said is not None and why in said and "set allow_protected" in said
    assert refusal(prefix, allow_protected=True) is None
    assert refusal(prefix, action="count") is None


def test_others_may_be_blocked() -> None:
    """What is near something protected is not refused."""
    assert (
        refusal(
            "203.0.113.10", "203.0.113.12/30", "198.51.100.11", "11.0.0.0/8", "2001:db8:1::12", "16.0.0.0/5"
        )
        is None
    )


def test_allowlist_takes_the_danger_away() -> None:
    """What the allowlist lets pass is not blocked by an entry."""
    allowlist = CONFIG.allowlist.with_layer(OPERATOR, layer("203.0.113.0/28", "10.0.0.0/8"))
    config = Config(services=CONFIG.services, allowlist=allowlist)

    assert refusal("203.0.113.0/24", "10.1.0.0/16", config=config) is None
    assert refusal("172.16.0.0/12", config=config) is not None


@QUICK
@given(st.lists(few_prefixes, max_size=8), few_prefixes)
def test_touching_is_containing_either_way(entries: list[Prefix], protected: Prefix) -> None:
    """An entry is found exactly if one contains the protected prefix or is contained in it."""
    some = Layer.of((prefix, Attributes()) for prefix in entries)

    found = [entry for entry, why in blocked(some, [Protected(protected, "it")]) if why == "it"]

    touching = [e for e in entries if e.contains(protected) or protected.contains(e)]
    assert bool(found) == bool(touching)
    assert set(found) <= set(touching)


@pytest.mark.parametrize(
    ("held", "added", "removed", "max_change", "fine"),
    [
        (0, 1_000_000, 0, 0.5, True),
        (10, 5, 5, 0.5, True),
        (10, 6, 0, 0.5, False),
        (10, 0, 6, 0.5, False),
        (10, 0, 10, 1, True),
        (10, 20, 0, 2, True),
        (10, 21, 0, 2, False),
        (10, 0, 0, 0, True),
        (10, 1, 0, 0, False),
    ],
)
def test_change_is_limited(held: int, added: int, removed: int, max_change: float, fine: bool) -> None:
    """A refresh adds, and takes out, at most its share of what is held; a first one whatever it likes."""
    if fine:
        check_change(feed(max_change=max_change), held, added, removed)
        return
    with pytest.raises(FeedError, match=f"entries where {held} are held, over max_change"):
        check_change(feed(max_change=max_change), held, added, removed)

"""Who a change of the lists would lock out: refused where the change does it, told where it was so before."""

import time
from dataclasses import replace
from ipaddress import ip_address

import numpy as np
import pytest

from lb.dataplane.protocol import NextHop
from lb.errors import ConflictError
from lb.model import Action, Config, Prefix, PrefixList, Rule, Service
from lb.model.entries import OPERATOR
from lb.model.layers import Attributes, Layer
from lb.reconcile.guard import Guard
from lb.reconcile.used import Callers, Used, in_use

NOW = 1000.0
WEB = {
    "name": "web",
    "vip": "192.0.2.10",
    "port": 80,
    "protocol": "tcp",
    "backends": [{"address": "10.0.0.11"}],
}
SIX = {**WEB, "name": "six", "vip": "2001:db8:5::/64", "backends": [{"address": "fd00::11"}]}
HOPS = {
    bytes([10, 0, 0, 11]): NextHop("eth0", 2, b"\2" * 6, b"\4" * 6, 1500, True, bytes([172, 16, 0, 1])),
}
CALLER = Guard((ip_address("198.51.100.9"), ip_address("2001:db8:9::9")))


def listed(*prefixes: str, owner: str = OPERATOR, **said: object) -> PrefixList:
    """A list of these."""
    attributes = Attributes(**said)  # type: ignore[arg-type]
    layer = Layer.of((Prefix.parse(prefix), attributes) for prefix in prefixes)
    return PrefixList().with_layer(owner, layer)


def config(block: PrefixList = PrefixList(), allow: PrefixList = PrefixList()) -> Config:  # noqa: B008
    """Two services, and these lists."""
    services = {s["name"]: Service.model_validate(s) for s in (WEB, SIX)}
    return Config(services=services, blocklist=block, allowlist=allow)


def warnings(before: Config, after: Config, guard: Guard = CALLER) -> tuple[str, ...]:
    """What the guard says of a change."""
    return guard.check(before, after, Used(), HOPS, NOW)


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("198.51.100.9/32", "198.51.100.9, the address that you call from: everything you send"),
        ("0.0.0.0/0", "198.51.100.9, the address that you call from: everything you send"),
        ("2001:db8:9::/48", "2001:db8:9::9, the address that you call from: everything you send"),
        ("172.16.0.0/12", "172.16.0.1, the gateway to backend 10.0.0.11: its ICMP errors would"),
        (
            "10.0.0.0/8",
            '10.0.0.11, a backend of service "web": its ICMP errors, its answers to health checks',
        ),
        ("fd00::/8", 'fd00::11, a backend of service "six": its ICMP errors, its answers to health checks'),
        ("192.0.2.10/32", '192.0.2.10, the VIP of service "web": answers that its backends route back'),
        ("2001:db8:5::/48", '2001:db8:5::, the VIP of service "six": answers that its backends route back'),
    ],
)
def test_an_entry_over_an_address_in_use_is_refused(prefix: str, says: str) -> None:
    """The refusal names the entry, the address, why it matters, and the option."""
    with pytest.raises(ConflictError) as refused:
        warnings(config(), config(listed(prefix, owner="fail2ban")))

    assert f"{prefix} (fail2ban) covers {says}" in str(refused.value)
    assert "--force, ?force=true" in str(refused.value)


@pytest.mark.parametrize(
    "block",
    [
        listed("203.0.113.0/24", "10.0.1.0/24", "2001:db8:a::/48", "2001:db8:5::1/128"),
        listed("0.0.0.0/0", "::/0", action=Action.COUNT),
        listed("10.0.0.0/8", created_at=1.0, expires_at=NOW),
        listed("127.0.0.0/8", "::1/128"),
    ],
)
def test_what_touches_nobody_passes(block: PrefixList) -> None:
    """Other prefixes, entries that only count or are over, and loopback."""
    assert warnings(config(), config(block), Guard((ip_address("127.0.0.1"),))) == ()


def test_force_and_the_allowlist_let_it_pass() -> None:
    """What whoever asks has said to be meant, and an address that is allowed."""
    blocked = config(listed("10.0.0.0/8"))

    assert warnings(config(), blocked, Guard(force=True)) == ()
    assert warnings(config(), config(blocked.blocklist, listed("10.0.0.0/24"))) == ()


def test_the_longest_entry_decides() -> None:
    """A longer entry that only counts keeps its address out of a shorter one that drops."""
    both = listed("10.0.0.0/8").with_layer(
        "feed:a", Layer.of([(Prefix.parse("10.0.0.11"), Attributes(Action.COUNT))])
    )

    assert warnings(config(), config(both)) == ()


def test_what_uncovers_an_entry_is_refused() -> None:
    """Taking the allowlist's entry away, or the longer one that counts, locks out as well."""
    blocked = listed("10.0.0.0/8")
    allowed, bare = config(blocked, listed("10.0.0.11")), config(blocked)
    counted = config(
        blocked.with_layer("feed:a", Layer.of([(Prefix.parse("10.0.0.11"), Attributes(Action.COUNT))]))
    )

    for before in (allowed, counted):
        with pytest.raises(ConflictError, match=r"10\.0\.0\.0/8 \(operator\) covers 10\.0\.0\.11"):
            warnings(before, bare)


def test_what_was_forced_once_is_not_asked_for_again() -> None:
    """Entries that were there do not stand in the way of other changes."""
    before = config(listed("10.0.0.0/8"))

    assert warnings(before, config(listed("10.0.0.0/8", "203.0.113.7/32"))) == ()
    with pytest.raises(ConflictError, match=r"10\.0\.0\.0/16"):
        warnings(before, config(listed("10.0.0.0/8", "10.0.0.0/16")))


def test_an_address_that_comes_into_use_is_told_of() -> None:
    """A service over an entry that was there works: it is taken, with a warning."""
    block = listed("10.0.0.0/8")
    without = replace(config(block), services={})

    (vip_is_free,) = warnings(without, config(block))

    assert vip_is_free.startswith('10.0.0.0/8 (operator) covers 10.0.0.11, a backend of service "web"')


def test_refusals_name_some_of_many() -> None:
    """Four addresses at once: the first in full, the others by address."""
    with pytest.raises(ConflictError, match=r"\(and 3 more: 172\.16\.0\.1, 192\.0\.2\.10, 10\.0\.0\.11\)"):
        warnings(config(), config(listed("0.0.0.0/0")))


def test_a_million_entries_are_not_walked_through() -> None:
    """Only the lengths that there are get looked for: an entry among a million is found."""
    keys = np.arange(1 << 20, dtype=np.uint64) + np.uint64(0xC6336400 - (1 << 19)) << np.uint64(
        8
    ) | np.uint64(32)
    block = PrefixList().with_layer("feed:a", Layer().with_keys({4: keys}, Attributes()))

    with pytest.raises(ConflictError, match=r"198\.51\.100\.9/32 \(feed:a\)"):
        warnings(config(), config(block))


def test_in_use_names_gateways_backends_and_vips() -> None:
    """What makes entries by itself can leave these out beforehand."""
    found = {str(one.address) for one in in_use(config(), HOPS)}

    assert found == {"172.16.0.1", "192.0.2.10", "10.0.0.11", "2001:db8:5::", "fd00::11"}


def ruled(**said: object) -> Config:
    """The config with a rule that drops."""
    return config().with_rule(Rule.model_validate({"name": "r", "action": "drop", **said}))


@pytest.mark.parametrize(
    ("said", "who"),
    [
        ({"source": "198.51.100.0/24"}, "198.51.100.9, the address that you call from"),
        ({"protocol": "tcp"}, "198.51.100.9, the address that you call from"),
        ({"source": "172.16.0.1"}, "172.16.0.1, the gateway to backend 10.0.0.11"),
        ({"source": "10.0.0.0/8"}, '10.0.0.11, a backend of service "web"'),
    ],
)
def test_a_rule_that_drops_all_of_an_address_in_use_is_refused(said: dict[str, str], who: str) -> None:
    """The refusal names the rule, the address and the option; with force it is taken."""
    with pytest.raises(ConflictError) as refused:
        CALLER.check(config(), ruled(**said), Used(), HOPS, NOW)

    assert 'rule "r" drops' in str(refused.value)
    assert who in str(refused.value)
    assert "--force" in str(refused.value)
    assert replace(CALLER, force=True).check(config(), ruled(**said), Used(), HOPS, NOW) == ()


@pytest.mark.parametrize(
    "said",
    [
        {"source": "203.0.113.0/24"},
        {"source": "198.51.100.0/24", "protocol": "udp"},
        {"source": "198.51.100.0/24", "ports": "25", "protocol": "tcp"},
        {"source": "198.51.100.0/24", "count_only": True},
        {"source": "198.51.100.0/24", "service": "web"},
    ],
)
def test_a_rule_that_leaves_a_way_is_taken(said: dict[str, object]) -> None:
    """One that drops others, or some of the packets, or none yet, locks out nobody."""
    assert CALLER.check(config(), ruled(**said), Used(), HOPS, NOW) == ()


def test_a_rule_that_stands_is_not_refused_again() -> None:
    """What was forced once does not stand in the way of the next change."""
    before = ruled(source="198.51.100.0/24")

    assert CALLER.check(before, before.with_rule(Rule(name="c", action="count")), Used(), HOPS, NOW) == ()


def test_who_called_lately_is_in_use() -> None:
    """For a day, but for an address that no packet on a wire has."""
    callers = Callers()
    callers.add([ip_address("198.51.100.9"), ip_address("127.0.0.1")], NOW)

    assert [str(one.prefix) for one in callers.lately(NOW + 1)] == ["198.51.100.9/32"]
    assert callers.lately(NOW + 86400) == []


def test_a_thousand_rules_beside_twenty_thousand_addresses() -> None:
    """The writer's lock is held meanwhile, so what each rule covers is not looked for among all of them."""
    backends = [{"address": f"10.{n >> 8}.{n & 255}.1"} for n in range(20_000)]
    services = [
        Service.model_validate({**WEB, "name": f"s{n}", "port": n + 1, "backends": backends[n::40]})
        for n in range(40)
    ]
    before = Config().with_services(services)
    rules = {
        f"r{n}": Rule.model_validate(
            {"name": f"r{n}", "action": "drop", "source": f"198.51.{n >> 8}.{n & 255}"}
        )
        for n in range(1000)
    }

    began = time.process_time()
    assert CALLER.check(before, replace(before, rules=rules), Used(), HOPS, NOW) == ()
    assert time.process_time() - began < 5
    last = Rule.model_validate({"name": "z", "action": "drop", "source": "10.78.0.0/18"})
    with pytest.raises(ConflictError, match=r'rule "z" drops what 10\.78\.0\.0/18 sends'):
        CALLER.check(before, replace(before, rules={**rules, "z": last}), Used(), HOPS, NOW)

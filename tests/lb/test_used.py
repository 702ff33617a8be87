"""Whom a change of the lists concerns: looked for among those that changed prefixes hold, and none is missed."""

import re
from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest

from lb.dataplane.protocol import NextHop
from lb.errors import ConflictError
from lb.model import Action, Config, Prefix, PrefixList, Service
from lb.model.layers import Attributes
from lb.model.protect import check
from lb.reconcile.guard import Guard
from lb.reconcile.used import Used, in_use

NOW = 1000.0
OWNERS = ("operator", "fail2ban", "feed:spam")
NETWORKS = {4: (10 << 24, 4), 6: (0xFD00 << 112, 4)}
"""By family where all addresses of the test are, and how many of their last bits differ."""
Hops = dict[bytes, NextHop]


def address(family: int, rnd: Random) -> int:
    network, bits = NETWORKS[family]
    return network | rnd.randrange(1 << bits)


def text(family: int, rnd: Random) -> str:
    return str(Prefix(family, address(family, rnd), 32 if family == 4 else 128)).partition("/")[0]


def a_service(name: str, rnd: Random) -> Service:
    family = rnd.choice((4, 6))
    backends = {text(rnd.choice((4, 6)), rnd): rnd.randrange(1, 9) for _ in range(rnd.randrange(4))}
    vip = f"fd01:{name[1:]}::/64" if family == 6 and rnd.random() < 0.5 else f"192.0.2.{1 + int(name[1:])}"
    said = [{"address": a, "weight": weight} for a, weight in backends.items()]
    return Service.model_validate({"name": name, "vip": vip, "port": 80, "protocol": "tcp", "backends": said})


def an_entry(rnd: Random) -> tuple[Prefix, Attributes]:
    """Around addresses of the test, or a VIP prefix of it; some are over."""
    family = rnd.choice((4, 6))
    bits = 32 if family == 4 else 128
    if rnd.random() < 0.2:
        return Prefix.parse(
            rnd.choice(("fd01::/16", "fd01:1::/64", "fd01:1::/72", "192.0.2.0/29"))
        ), Attributes()
    length = bits - rnd.randrange(NETWORKS[family][1] + 2)
    prefix = Prefix(family, address(family, rnd) >> bits - length << bits - length, length)
    over = rnd.choice((None, None, 900.0, 2000.0))
    return prefix, Attributes(rnd.choice((Action.DROP, Action.DROP, Action.COUNT)), expires_at=over)


def altered(entries: PrefixList, rnd: Random, *, allow: bool) -> PrefixList:
    owner = "operator" if allow else rnd.choice(OWNERS)
    layer = entries.layer(owner)
    if rnd.random() < 0.4:
        gone = [
            Prefix.from_key(k) for c in layer.columns.values() for k in c.keys.tolist() if rnd.random() < 0.3
        ]
        return entries.with_layer(owner, layer.without(gone))
    some = [an_entry(rnd) for _ in range(rnd.randrange(1, 3))]
    if allow:
        some = [(prefix, replace(said, action=Action.DROP)) for prefix, said in some]
    return entries.with_layer(owner, layer.with_entries(some))


def changed(config: Config, rnd: Random) -> Config:
    """Lists, or services, or both."""
    if rnd.random() < 0.5:
        name = f"s{rnd.randrange(4)}"
        services = dict(config.services)
        if rnd.random() < 0.2:
            services.pop(name, None)
        else:
            services[name] = a_service(name, rnd)
        config = replace(config, services=services)
    if rnd.random() < 0.7:
        config = replace(config, blocklist=altered(config.blocklist, rnd, allow=False))
    if rnd.random() < 0.3:
        config = replace(config, allowlist=altered(config.allowlist, rnd, allow=True))
    return config


def ways(config: Config, rnd: Random) -> Hops:
    via = (10 << 24 | rnd.randrange(16)).to_bytes(4, "big")
    packed = [b.address.packed for s in config.services.values() for b in s.backends]
    return {
        a: NextHop("eth0", 2, b"\2" * 6, b"\4" * 6, 1500, True, via) for a in packed if rnd.random() < 0.5
    }


def told(warnings: Iterable[str]) -> list[str]:
    """Which entries cover whom: an address that is two things may be called either."""
    return sorted(re.match(r".* covers [^,]*,", warning)[0] for warning in warnings)  # type: ignore[index]


def said_of(before: Config, after: Config, hops: Hops, new: set[object]) -> tuple[str, list[str]]:
    """What a look at everybody says: "refused" or "", and the warnings."""
    used = in_use(after, hops)
    try:
        return "", told(check(before, after, used, [one.address in new for one in used], NOW))
    except ConflictError:
        return "refused", []


def addresses(config: Config, other: Config) -> set[object]:
    """VIPs and backends of services that are not the same in another config."""
    some = [s for n, s in config.services.items() if other.services.get(n) is not s]
    return {one.address for one in in_use(Config(services={s.name: s for s in some}), {})}


@pytest.mark.parametrize("seed", range(4))
def test_nobody_is_missed(seed: int) -> None:
    """Any changes of lists, services and ways: refused and warned of is what a look at all addresses finds."""
    rnd, used, guard = Random(seed), Used(), Guard()
    config, hops, found = Config(), Hops(), {"refused": 0, "warned": 0, "": 0}
    for _ in range(300):
        after = changed(config, rnd)
        if rnd.random() < 0.2:
            hops = ways(after, rnd)
        new = addresses(after, config) - addresses(config, after)
        expected = said_of(config, after, hops, new)
        try:
            said = "", told(guard.check(config, after, used, hops, NOW))
        except ConflictError:
            said = "refused", []

        assert said == expected
        found["warned" if said[1] else said[0]] += 1
        if said[0] != "refused" or rnd.random() < 0.3:  # some is forced
            config = after
        if rnd.random() < 0.05:
            config = Config()
    assert min(found.values()) > 5, found


def test_a_weight_is_nobody_new() -> None:
    """Weights, labels and entries leave what was worked out as it is; a backend, a way or a VIP does not."""
    used, hops = Used(), Hops()
    said = {"name": "s1", "vip": "192.0.2.1", "port": 80, "protocol": "tcp"}

    def around(hops: Hops, **more: object) -> object:
        service = Service.model_validate({**said, **more})
        return used.around(Config(services={"s1": service}), hops)

    first = around(hops, backends=[{"address": "10.0.0.1"}])
    assert around(hops, backends=[{"address": "10.0.0.1", "weight": 7}], labels={"a": "b"}) is first
    for other in (
        around(hops, backends=[{"address": "10.0.0.2"}]),
        around(Hops(), backends=[{"address": "10.0.0.2"}]),
        around(hops, backends=[{"address": "10.0.0.2"}], vip="192.0.2.2"),
    ):
        assert other is not first
        first = other


def test_what_is_lost_follows_the_mode() -> None:
    """A block of a backend takes its answers to clients only with keep, where they are asked too."""
    used, services = Used(), []
    for mode in ({"mode": "ipip"}, {"mode": "nat"}, {"mode": "nat", "nat_source": "keep"}):
        document = {"name": "a", "vip": "192.0.2.1", "port": 80, "protocol": "tcp", **mode}
        services.append(Service.model_validate({**document, "backends": [{"address": "10.0.0.1"}]}))

    said = [used.around(Config(services={"a": service}), {}).everyone[1].cut for service in services]

    assert [re.findall(r"\((.*)\)", text) for text in said] == [
        ["its answers to clients pass elsewhere"],
        ["its answers to clients pass"],
        ["and its answers to clients"],
    ]

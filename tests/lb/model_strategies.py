"""Hypothesis strategies for values of the model, and the settings their tests run with."""

from ipaddress import IPv4Network, IPv6Network

from hypothesis import Phase, settings
from hypothesis import strategies as st

from lb.model import Action, Config, Feed, Prefix, PrefixList, Rule, Service, Settings
from lb.model.entries import FEED_PREFIX, OPERATOR
from lb.model.layers import Attributes, Layer

# The phase that explains a failure traces every line, which takes minutes for a whole configuration.
QUICK = settings(max_examples=60, deadline=None, phases=set(Phase) - {Phase.explain})
NOW = 1_800_000_000.0


def _prefix(family: int, number: int, length: int) -> Prefix:
    bits = 32 if family == 4 else 128
    length = min(length, bits)
    return Prefix(family, number >> (bits - length) << (bits - length), length)


# Few networks, so that lists overlap; the ends of the address space among them.
few_ipv4 = st.builds(
    _prefix,
    st.just(4),
    st.sampled_from([0, 1, 0x0A000001, 0x0A000002, 0x0A010000, 0xFFFFFFFF]),
    st.integers(0, 32),
)
few_ipv6 = st.builds(
    _prefix,
    st.just(6),
    st.sampled_from([0, 1, 0x20010DB8 << 96, 0x20010DB8 << 96 | 256, (1 << 128) - 1]),
    st.integers(0, 128),
)
few_prefixes = few_ipv4 | few_ipv6
any_prefixes = st.builds(_prefix, st.just(4), st.integers(0, (1 << 32) - 1), st.integers(0, 32)) | st.builds(
    _prefix, st.just(6), st.integers(0, (1 << 128) - 1), st.integers(0, 128)
).filter(lambda p: p.length <= 96 or p.network >> 32 != 0xFFFF)

words = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cn")), max_size=20
).filter(lambda text: "\ufeff" not in text)
moments = st.integers(0, 10**6).map(lambda n: NOW + n / 1000)


@st.composite
def attributes(draw: st.DrawFn, actions: tuple[Action, ...] = tuple(Action)) -> Attributes:
    """What an entry says: made before NOW, ending before, at or after it, or never."""
    created_at = NOW - draw(st.integers(0, 5000))
    ttl_seconds = draw(st.none() | st.integers(1, 10000))
    expires_at = draw(st.none() | moments) if ttl_seconds is None else created_at + ttl_seconds
    return Attributes(
        draw(st.sampled_from(actions)),
        draw(st.sampled_from(["", "scan", "é"])),
        created_at,
        ttl_seconds,
        expires_at,
    )


entries = st.lists(st.tuples(few_prefixes, attributes()), max_size=12)
layers = entries.map(Layer.of)
allow_layers = st.lists(st.tuples(few_prefixes, attributes((Action.DROP,))), max_size=12).map(Layer.of)
owners = st.sampled_from([OPERATOR, FEED_PREFIX + "drop", FEED_PREFIX + "edrop"])


@st.composite
def prefix_lists(draw: st.DrawFn, each: st.SearchStrategy[Layer] = layers) -> PrefixList:
    """A list with up to three layers."""
    found = PrefixList()
    for owner in draw(st.lists(owners, max_size=3)):
        found = found.with_layer(owner, draw(each))
    return found


def flood_protections(protocol: str) -> st.SearchStrategy[dict[str, object]]:
    """Flood protection of a service of that protocol."""
    return st.fixed_dictionaries(
        {
            "new_flows_per_second": st.integers(5, 10),
            "calm_per_second": st.none() | st.integers(1, 5),
            "hold_seconds": st.sampled_from([1, 30, 86400]),
            "test_unknown": st.booleans() if protocol == "tcp" else st.just(False),
        }
    )


@st.composite
def services(draw: st.DrawFn, place: int) -> Service:
    """A service that clashes with no other of another place."""
    hosts = draw(st.lists(st.integers(1, 250), max_size=4, unique=True))
    protocol = draw(st.sampled_from(["tcp", "udp"]))
    quic = protocol == "udp" and draw(st.booleans())
    mode = draw(st.sampled_from(["l2", "ipip", "gue"]))
    vips = [f"198.51.100.{place + 1}"] + ([] if mode == "l2" else [f"2001:db8:{place}::/{64 + place}"])
    return Service.model_validate(
        {
            "name": f"s{place}",
            "vip": draw(st.sampled_from(vips)),
            "port": draw(st.sampled_from([80, "8000-8010", "any"])),
            "protocol": protocol,
            "mode": mode,
            "affinity": draw(st.sampled_from(["flow", "source", "destination-port"])),
            "udp_migration": protocol == "udp" and draw(st.booleans()),
            "quic": quic,
            "flood_protection": draw(st.none() | flood_protections(protocol)),
            "labels": draw(st.dictionaries(st.sampled_from(["tier", "a/b"]), words, max_size=2)),
            "backends": [
                {
                    "address": f"10.0.0.{host}",
                    "weight": draw(st.integers(0, 65535)),
                    "admin_state": draw(st.sampled_from(["enabled", "draining", "disabled"])),
                    "quic_id": draw(st.sampled_from([None, host, 2**32 - host])) if quic else None,
                }
                for host in hosts
            ],
        }
    )


_protocols = st.sampled_from([None, "tcp", "udp", "icmp", "icmpv6", 132, 0, 255])
_flags = st.lists(
    st.sampled_from(["fin", "!fin", "syn", "!syn", "rst", "ack", "!ack", "ece", "cwr"]),
    min_size=1,
    max_size=3,
).filter(lambda names: len({name.strip("!") for name in names}) == len(set(names)))


@st.composite
def number_sets(draw: st.DrawFn, least: int = 0) -> str:
    """Up to three ranges, the ends of what there is among them; each reaches at least to the least."""
    edges = st.sampled_from([0, 1, 52, 53, 54, 80, 443, 1023, 1024, 65534, 65535]) | st.integers(0, 65535)
    ranges = []
    for _ in range(draw(st.integers(1, 3))):
        low, high = sorted((draw(edges), draw(edges)))
        ranges.append(f"{low}-{max(high, least)}" if max(high, least) > low else str(low))
    return ",".join(ranges)


@st.composite
def rules(draw: st.DrawFn, name: str, services: tuple[Service, ...] = ()) -> Rule:
    """A rule that is right by itself, and fits these services."""
    maybe = lambda strategy: draw(st.none() | strategy)  # noqa: E731
    document: dict[str, object] = {
        "name": name,
        "priority": draw(st.integers(0, 3)),
        "action": draw(st.sampled_from(["drop", "count", "limit", "allow"])),
        "reason": draw(words),
        "length": maybe(number_sets(least=40)),
        "fragments": maybe(st.sampled_from(["only", "none"])),
        "source": maybe(few_prefixes.map(str)),
    }
    service = draw(st.sampled_from([None, *services]))
    family = None if document["source"] is None else 6 if ":" in str(document["source"]) else 4
    if service is not None and family in (None, service.vip.version):
        document["service"] = service.name
        if service.protocol == "tcp":
            document["tcp_flags"] = maybe(_flags.map(",".join))
    else:
        document["protocol"] = draw(_protocols)
        same = {None: few_prefixes, 4: few_ipv4, 6: few_ipv6}[family]
        document["destination"] = maybe(same.map(str))
        if document["protocol"] in (None, "tcp", "udp"):
            document["ports"], document["source_ports"] = maybe(number_sets()), maybe(number_sets())
        if document["protocol"] == "tcp":
            document["tcp_flags"] = maybe(_flags.map(",".join))
    if document["action"] in ("drop", "limit"):
        document["count_only"] = draw(st.booleans())
    if document["action"] == "limit":
        per = draw(st.sampled_from(["source", "rule"]))
        document["limit"] = {
            "rate": draw(st.integers(1, 10**12)),
            "unit": draw(st.sampled_from(["packets", "bytes"])),
            "burst": draw(st.none() | st.integers(1, 86400)),
            "per": per,
            **({"ipv4_length": draw(st.integers(8, 32))} if per == "source" else {}),
        }
        if per == "source":
            document["ban_seconds"] = maybe(st.integers(1, 10**6))
    return Rule.model_validate(document)


@st.composite
def feeds(draw: st.DrawFn) -> dict[str, Feed]:
    """Up to two feeds, one of which may have a layer."""
    names = draw(st.lists(st.sampled_from(["drop", "other"]), max_size=2, unique=True))
    return {
        name: Feed.model_validate(
            {
                "name": name,
                **draw(
                    st.sampled_from([{"url": "https://lists.example.net/drop.txt"}, {"file": "/lists/d"}])
                ),
                "format": draw(st.sampled_from(["auto", "csv"])),
                "refresh_seconds": draw(st.integers(60, 86400)),
                "jitter": draw(st.sampled_from([0, 0.1])),
                "reason": draw(words),
            }
        )
        for name in names
    }


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """A whole desired state."""
    chosen = [draw(services(place)) for place in draw(st.lists(st.integers(0, 4), max_size=3, unique=True))]
    wanted = Settings(
        encap_source_ipv4=draw(st.sampled_from([IPv4Network("172.16.0.0/16"), IPv4Network("10.9.0.0/24")])),
        encap_source_ipv6=IPv6Network("100::/64"),
        udp_idle_seconds=draw(st.integers(1, 86400)),
        tcp_idle_seconds=3600,
        drop_spoofed=draw(st.booleans()),
        answer_echo=draw(st.booleans()),
        too_big_replies_per_second=draw(st.integers(0, 1_000_000)),
        gue_port=draw(st.integers(1, 65535)),
        max_moved_percent=draw(st.none() | st.floats(0, 100)),
    )
    named = [draw(rules(f"r{n}", tuple(chosen))) for n in range(draw(st.integers(0, 3)))]
    return Config(
        services={service.name: service for service in chosen},
        rules={rule.name: rule for rule in named},
        blocklist=draw(prefix_lists()),
        allowlist=draw(prefix_lists(allow_layers)),
        settings=wanted,
        feeds=draw(feeds()),
    )

"""Stage admit: allow over deny, the longest prefix counts, and nothing of a blocked source gets in."""

import random
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from frames import (
    ANY_SOURCE,
    CLIENT4,
    CLIENT6,
    ELSE4,
    ELSE6,
    LINK,
    VIP4,
    VIP6,
    from_tuple,
    network,
    service,
    tcp,
    udp,
)
from rig import Rig
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q

from lb.reconcile.observed import Hits

pytestmark = pytest.mark.root

WEB = [service("web4"), service("web6", vip=VIP6)]
FORWARDED, BLOCKED = "TX_IPIP", "DROP_BLOCKLIST"
Network = IPv4Network | IPv6Network

PREFIXES4 = [f"203.0.113.77/{n}" for n in (32, 31, 30, 29, 26, 25, 24, 23, 20, 16, 15, 8, 1, 0)]
PREFIXES6 = [f"2001:db8:55aa:77::1234:5678/{n}" for n in (128, 127, 65, 64, 63, 48, 33, 32, 1, 0)]
NETWORKS = [ip_network(text, strict=False) for text in PREFIXES4 + PREFIXES6]


def inside(prefix: Network) -> set[str]:
    """The first address, the last, and one between."""
    return {str(prefix[0]), str(prefix[-1]), str(prefix[prefix.num_addresses // 2])}


def beside(prefix: Network) -> set[str]:
    """The nearest addresses that it does not hold."""
    width = prefix.max_prefixlen
    numbers = (int(prefix[0]) - 1, int(prefix[-1]) + 1)
    kind = type(prefix[0])
    return {str(kind(n)) for n in numbers if 0 <= n < 1 << width}


def packet(source: str) -> bytes:
    """A TCP packet of that source for the VIP of its family."""
    return bytes(tcp(src=source, dst=VIP6 if ":" in source else VIP4))


def verdicts(rig: Rig, sources: set[str]) -> set[str]:
    """All verdicts on packets of these sources."""
    return {rig.verdict(packet(source)) for source in sources}


@pytest.mark.parametrize("prefix", NETWORKS, ids=str)
def test_allow_and_deny_of_each_length(rig: Rig, prefix: Network) -> None:
    """Passes → blocked → allowed → not allowed → unblocked, first and last address; the neighbours always pass."""
    rig.apply(services=WEB, settings=ANY_SOURCE)
    text, within, around = str(prefix), inside(prefix), beside(prefix)
    for lists, verdict in (
        ({}, FORWARDED),
        ({"block": [text]}, BLOCKED),
        ({"allow": [text]}, FORWARDED),
        ({"allow": []}, BLOCKED),
        ({"block": []}, FORWARDED),
    ):
        rig.apply(**lists)
        assert verdicts(rig, within) == {verdict}, lists
        assert verdicts(rig, around) <= {FORWARDED}, lists


@pytest.mark.parametrize("prefix", NETWORKS, ids=str)
def test_count_only_counts_and_passes(rig: Rig, prefix: Network) -> None:
    """An entry that only counts drops nothing, and its hits are exact."""
    rig.apply(services=WEB, block=[{"prefix": str(prefix), "action": "count"}], settings=ANY_SOURCE)
    sources = inside(prefix)

    assert verdicts(rig, sources) == {FORWARDED}
    assert verdicts(rig, beside(prefix)) <= {FORWARDED}
    seen = rig.hits(str(prefix))
    assert (seen.packets, seen.bytes) == (len(sources), sum(len(packet(s)) for s in sources))


@pytest.mark.parametrize("source", [CLIENT4, CLIENT6])
def test_what_only_counts_counts_the_allowed_too(rig: Rig, source: str) -> None:
    """The allowlist is asked about what would be dropped alone: here it decides nothing, and counts nothing."""
    rig.apply(services=WEB, block=[{"prefix": source, "action": "count"}], allow=[source])

    assert rig.verdict(packet(source)) == FORWARDED
    assert rig.hits(source).packets == 1
    assert rig.hits(source, allow=True).packets == 0


def test_entry_that_turns_from_drop_to_count(rig: Rig) -> None:
    """The same prefix with another action takes effect at once, and counts anew."""
    for action, verdict in (("drop", BLOCKED), ("count", FORWARDED), ("drop", BLOCKED)):
        rig.apply(services=WEB, block=[{"prefix": "10.0.1.0/26", "action": action}])
        assert rig.verdict(packet(CLIENT4)) == verdict
        assert rig.hits("10.0.1.0/26").packets == 1


NESTED4 = ["10.0.0.0/8", "10.0.0.0/16", "10.0.1.0/24", "10.0.1.0/25", "10.0.1.0/31", "10.0.1.1/32"]
NESTED6 = ["::/0", "fd00::/8", "fd00::/48", "fd00:0:0:1::/64", "fd00:0:0:1::/120", "fd00:0:0:1::1/128"]


@pytest.mark.parametrize(("nested", "source"), [(NESTED4, CLIENT4), (NESTED6, CLIENT6)])
def test_the_longest_entrys_counter_counts(rig: Rig, nested: list[str], source: str) -> None:
    """Of entries that hold each other the longest decides; taken away from within, the next one does."""
    rig.apply(services=WEB, block=nested)
    frame = packet(source)

    for left in range(len(nested), 0, -1):
        rig.apply(block=nested[:left])
        assert rig.verdict(frame) == BLOCKED
        counts = [rig.hits(prefix).packets for prefix in nested[:left]]
        assert counts == [0] * (left - 1) + [1]
    rig.apply(block=[])
    assert rig.verdict(frame) == FORWARDED


@pytest.mark.parametrize(("nested", "source"), [(NESTED4, CLIENT4), (NESTED6, CLIENT6)])
def test_the_longest_entrys_action_counts(rig: Rig, nested: list[str], source: str) -> None:
    """A longer count-only entry within a blocked prefix lets its addresses pass."""
    rig.apply(services=WEB, block=[*nested[:-1], {"prefix": nested[-1], "action": "count"}])

    assert rig.verdict(packet(source)) == FORWARDED
    assert rig.hits(nested[-1]).packets == 1
    assert rig.verdict(packet(str(ip_address(source) - 1))) == BLOCKED


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        ("10.0.1.1/32", "10.0.0.0/8"),
        ("10.0.0.0/8", "10.0.1.1/32"),
        ("10.0.1.0/24", "10.0.1.0/24"),
        ("0.0.0.0/0", "10.0.1.1/32"),
        ("fd00:0:0:1::1/128", "fd00::/8"),
        ("fd00::/8", "fd00:0:0:1::1/128"),
        ("::/0", "fd00:0:0:1::/64"),
    ],
)
def test_allow_wins_whichever_is_longer(rig: Rig, allow: str, deny: str) -> None:
    """An allowlist entry within a blocked prefix, or around it: allowed. The allow entry counts, the deny does not."""
    rig.apply(services=WEB, block=[deny], allow=[allow])
    frame = packet(CLIENT6 if ":" in allow else CLIENT4)

    assert rig.verdict(frame) == FORWARDED

    seen = rig.hits(allow, allow=True)
    assert (seen.packets, seen.bytes) == (1, len(frame))
    assert rig.hits(deny) == Hits()


def test_the_longest_allow_entry_counts(rig: Rig) -> None:
    """The allowlist's hits are those of the longest entry; it is asked only about what would be dropped."""
    rig.apply(services=WEB, block=["10.0.0.0/8"], allow=["10.0.0.0/8", "10.0.1.0/24", "192.0.2.0/24"])

    assert verdicts(rig, {CLIENT4, "10.9.9.9", "192.0.2.1"}) == {FORWARDED}

    assert rig.hits("10.0.1.0/24", allow=True).packets == 1
    assert rig.hits("10.0.0.0/8", allow=True).packets == 1
    assert rig.hits("192.0.2.0/24", allow=True).packets == 0


def test_families_do_not_meet(rig: Rig) -> None:
    """All of IPv4 blocked leaves IPv6 alone, and the other way round."""
    rig.apply(services=WEB, block=["0.0.0.0/0"])
    assert (rig.verdict(packet(CLIENT4)), rig.verdict(packet(CLIENT6))) == (BLOCKED, FORWARDED)

    rig.apply(block=["::/0"])
    assert (rig.verdict(packet(CLIENT4)), rig.verdict(packet(CLIENT6))) == (FORWARDED, BLOCKED)


def test_the_source_counts_not_the_destination(rig: Rig) -> None:
    """Blocking the VIP's or a backend's own network blocks no client."""
    rig.apply(services=WEB, block=["10.200.0.0/16", "10.0.0.0/24", "fc00:1::/64"])

    assert verdicts(rig, {CLIENT4, CLIENT6}) == {FORWARDED}


def test_deny_hits_whatever_the_source_sends(rig: Rig) -> None:
    """TCP, UDP, ICMP, fragments, unknown protocols, in VLANs, for VIPs and for others: dropped and counted alike."""
    block = ["10.0.1.0/24", "fd00:0:0:1::/64"]
    frames = []
    for dst in (VIP4, ELSE4):
        ip = network(dst=dst)
        frames += [
            tcp(dst=dst),
            udp(dst=dst),
            LINK / ip / ICMP(),
            LINK / network(dst=dst, proto=132) / b"sctp",
        ]
        frames.append(LINK / network(dst=dst, flags="MF", proto=17) / bytes(16))
        frames.append(LINK / network(dst=dst, frag=2) / b"later")
        frames += [LINK / Dot1Q(vlan=5) / ip / ICMP(), tcp(dst=dst, flags="R"), tcp(dst=dst, flags="A")]
    for dst in (VIP6, ELSE6):
        ip = network(dst=dst)
        frames += [tcp(dst=dst), udp(dst=dst), LINK / ip / ICMPv6EchoRequest()]
        frames.append(LINK / network(dst=dst, nh=132) / b"sctp")
        frames += [
            LINK / ip / IPv6ExtHdrFragment(offset=1) / b"later",
            LINK / Dot1Q(vlan=5) / tcp(dst=dst).payload,
        ]
    rig.apply(services=WEB)
    assert BLOCKED not in {rig.verdict(frame) for frame in frames}

    rig.apply(block=block)

    assert {rig.verdict(frame) for frame in frames} == {BLOCKED}
    assert sum(rig.hits(prefix).packets for prefix in block) == len(frames)
    assert sum(rig.hits(prefix).bytes for prefix in block) == sum(len(bytes(f)) for f in frames)


def test_blocking_stops_an_established_flow(rig: Rig) -> None:
    """The deny list is asked for every packet: a flow that the table knows is stopped with the next one."""
    rig.apply(services=WEB)
    assert [rig.verdict(tcp(flags=f)) for f in "SAA"] == [FORWARDED] * 3

    rig.apply(block=[CLIENT4])

    assert rig.verdict(tcp(flags="A")) == BLOCKED


def test_hits_say_when(rig: Rig) -> None:
    """The last hit is now, by the control plane's clock; an entry that was not hit has none."""
    rig.apply(services=WEB, block=["10.0.1.0/24", "192.0.2.0/24"])
    rig.run(packet(CLIENT4))

    last = rig.hits("10.0.1.0/24").last_hit_at
    assert last is not None
    assert abs(last - rig.now) <= 1
    assert rig.hits("192.0.2.0/24").last_hit_at is None


def test_entry_whose_time_is_over_lets_pass(rig: Rig) -> None:
    """A TTL ends on time, on both lists; entries without one stay."""
    rig.apply(
        services=WEB,
        block=[
            {"prefix": "10.0.1.0/24", "ttl_seconds": 60},
            {"prefix": "fd00::/8", "ttl_seconds": 60},
            "192.0.2.0/24",
        ],
    )
    rig.advance(59)
    assert verdicts(rig, {CLIENT4, CLIENT6, "192.0.2.1"}) == {BLOCKED}

    rig.advance(1)

    assert verdicts(rig, {CLIENT4, CLIENT6}) == {FORWARDED}
    assert rig.verdict(packet("192.0.2.1")) == BLOCKED
    rig.apply(allow=[{"prefix": "192.0.2.1", "ttl_seconds": 5}])
    assert rig.verdict(packet("192.0.2.1")) == FORWARDED
    rig.advance(5)
    assert rig.verdict(packet("192.0.2.1")) == BLOCKED


def test_many_longer_prefixes_in_one_slash_24(rig: Rig) -> None:
    """Every second address of a /24 blocked one by one, as the list grows past a cache line and shrinks again."""
    rig.apply(services=WEB)
    hosts = [f"10.7.7.{n}" for n in range(1, 256, 2)]
    for count in (1, 14, 15, 16, 17, 64, 128, 16, 15, 3, 0):
        rig.apply(block=["10.7.7.0/25", *hosts[:count]] if count else hosts[:count])
        covered = set(range(128)) if count else set()
        blocked = covered | {int(host.rsplit(".", 1)[1]) for host in hosts[:count]}
        for last in {*range(0, 256, 5), *(2 * count + n for n in range(-4, 5))} & set(range(256)):
            verdict = BLOCKED if last in blocked else FORWARDED
            assert rig.verdict(packet(f"10.7.7.{last}")) == verdict, f"10.7.7.{last} with {count}"


def test_a_dense_slash_24_counts_by_its_longest_entry(rig: Rig) -> None:
    """Over fifteen longer prefixes, of all lengths and nested, each with hits of its own; the /24 around them too."""
    prefixes = [f"10.7.7.0/{n}" for n in range(24, 33)] + [f"10.7.7.{128 + 4 * n}/31" for n in range(20)]
    rig.apply(services=WEB, block=prefixes)

    for last in range(256):
        assert rig.verdict(packet(f"10.7.7.{last}")) == BLOCKED

    expected = {"10.7.7.0/32": 1, **{f"10.7.7.0/{n}": 1 << (31 - n) for n in range(25, 32)}}
    expected |= dict.fromkeys(prefixes[9:], 2)
    expected["10.7.7.0/24"] = 128 - 40
    assert {prefix: rig.hits(prefix).packets for prefix in prefixes} == expected


@pytest.mark.parametrize("seed", range(3))
def test_random_lists_agree_with_a_plain_search(rig: Rig, seed: int) -> None:
    """Random nested prefixes of both families, changed step by step: each verdict is that of a search by hand."""
    draw = random.Random(seed)
    rig.apply(services=WEB)
    template4, template6 = packet(CLIENT4), packet(CLIENT6)

    def some_address(version: int) -> int:
        """Near others, so that prefixes nest and /24s fill up."""
        low = draw.getrandbits(4) | draw.getrandbits(1) << 7 | draw.choice((0, 1, 2, 255)) << 8
        return low | 0x0A070000 if version == 4 else low << draw.choice((0, 56)) | 0x20010DB8 << 96

    def some_network(version: int) -> Network:
        bits = 32 if version == 4 else 128
        length = draw.choice((draw.randrange(bits + 1), draw.randrange(bits - 10, bits + 1), bits))
        number = some_address(version) >> (bits - length) << (bits - length)
        return IPv4Network((number, length)) if version == 4 else IPv6Network((number, length))

    block, allow = dict[Network, str](), set[Network]()
    for _ in range(8):
        for _ in range(draw.randrange(60)):
            block[some_network(draw.choice((4, 6)))] = draw.choice(("drop", "drop", "count"))
        for prefix in draw.sample(list(block), len(block) // 3):
            del block[prefix]
        for _ in range(draw.randrange(4)):
            allow.add(some_network(draw.choice((4, 6))))
        if len(allow) > 3:
            allow.clear()
        rig.apply(
            block=[{"prefix": str(p), "action": action} for p, action in block.items()],
            allow=[str(p) for p in allow],
        )
        for _ in range(60):
            version = draw.choice((4, 6))
            source = ip_address(some_address(version).to_bytes(4 if version == 4 else 16, "big"))
            holding = [p for p in block if p.version == version and source in p]
            longest = max(holding, key=lambda p: p.prefixlen, default=None)
            dropped = longest is not None and block[longest] == "drop"
            allowed = any(p.version == version and source in p for p in allow)
            expected = BLOCKED if dropped and not allowed else FORWARDED
            frame = from_tuple(template4 if version == 4 else template6, source.packed, 40000)
            assert rig.verdict(frame) == expected, f"{source} in {longest}"


def some_address6(draw: random.Random) -> int:
    """In one of few /32s, whose prefixes nest, or anywhere."""
    if draw.random() < 0.1:
        return draw.getrandbits(128)
    first = draw.choice((0x20010DB8, 0x20010DB9, 0x2A000000, 0x2A000001)) << 96
    return first | draw.choice((0, draw.getrandbits(96), draw.getrandbits(3) << 64, draw.getrandbits(3)))


@pytest.mark.parametrize("shortest", [0, 16, 32], ids="from /{}".format)
def test_ipv6_lists_of_all_lengths(rig: Rig, shortest: int) -> None:
    """At the edges of random prefixes, the rule that counts is the longest's, as lists grow, change and shrink."""
    draw, template, block = random.Random(shortest), packet(CLIENT6), dict[IPv6Network, str]()
    rig.apply(services=WEB, settings=ANY_SOURCE)
    for count in (1, 20, 120, 300, 40, 3, 0):
        for prefix in draw.sample(list(block), len(block) * 2 // 3):
            del block[prefix]
        while len(block) < count:
            length = draw.choice((128, 64, 32, 65, 63, draw.randrange(shortest, 129)))
            number = some_address6(draw) >> (128 - length) << (128 - length)
            block[IPv6Network((number, length))] = draw.choice(("drop", "drop", "count"))
        while len(block) > count:
            block.popitem()
        rig.apply(block=[{"prefix": str(p), "action": action} for p, action in block.items()])
        edges = {a for p in draw.sample(list(block), min(30, count)) for a in inside(p) | beside(p)}
        random_ones = {str(ip_address(some_address6(draw).to_bytes(16, "big"))) for _ in range(40)}
        for source in map(ip_address, sorted(edges | random_ones)):
            longest = max((p for p in block if source in p), key=lambda p: p.prefixlen, default=None)
            before = rig.hits(str(longest)).packets if longest else 0
            frame = from_tuple(template, source.packed, 40000)
            blocked = longest is not None and block[longest] == "drop"
            assert rig.verdict(frame) == (BLOCKED if blocked else FORWARDED), f"{source} in {longest}"
            if longest:
                assert rig.hits(str(longest)).packets == before + 1, f"{source} in {longest}"
    assert not rig.plane.tables.arrays.deny6_filter.any()

"""The program's choice is the control plane's: every node that computes the ring picks the same backend."""

import random
from ipaddress import ip_address
from typing import Any
from zlib import crc32

import pytest
from frames import (
    ANY_SOURCE,
    BACKENDS4,
    BACKENDS6,
    VIP4,
    VIP6,
    from_tuple,
    outer_addresses,
    ring_choice,
    service,
    tcp,
    udp,
)
from rig import Rig

from lb.reconcile.ring import SLOTS, build_ring

pytestmark = pytest.mark.root

Tuple = tuple[bytes, int, int]
"""Source address, source port, destination port."""
POOL: list[dict[str, Any]] = [
    {"address": a, "weight": w} for a, w in zip((*BACKENDS4, *BACKENDS6), (1, 2, 3, 5, 8, 300), strict=True)
]


def tuples(vip: str, count: int, seed: int) -> list[Tuple]:
    """Random tuples, the outermost addresses and ports among them."""
    draw, size = random.Random(seed), 4 if vip == VIP4 else 16
    ports = (0, 1, 256, 65535)
    low, high = (b"\1", b"\xff") if vip == VIP4 else (b"\0\1", b"\xfe")  # below and above nobody is a client
    edges = [
        (fill + fill[-1:] * (size - len(fill)), port, other)
        for fill in (low, high)
        for port in ports
        for other in ports
    ]
    # A first byte of 1 to 126: no source that is dropped as spoofed.
    return edges + [
        (bytes([draw.randint(1, 126)]) + draw.randbytes(size - 1), draw.getrandbits(16), draw.getrandbits(16))
        for _ in range(count)
    ]


def chosen(rig: Rig, document: dict[str, Any], some: list[Tuple]) -> list[str]:
    """The backends that the program sends new flows to."""
    packet = bytes((tcp if document["protocol"] == "tcp" else udp)(dst=document["vip"]))
    return [outer_addresses(out)[1] for out in rig.burst(from_tuple(packet, *one) for one in some)]


@pytest.mark.parametrize("affinity", ["flow", "source", "destination-port"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_program_and_control_plane_agree(rig: Rig, vip: str, protocol: str, affinity: str) -> None:
    """Over a thousand random tuples: lb.reconcile.ring names the backend of each, by weights of 1 to 300."""
    document = service(vip=vip, port="any", protocol=protocol, affinity=affinity, backends=POOL)
    rig.apply(services=[document], settings=ANY_SOURCE)
    some = tuples(vip, 1000, seed=crc32(f"{vip} {protocol} {affinity}".encode()))

    got = chosen(rig, document, some)

    assert got == [ring_choice(document, *one) for one in some]
    assert len(set(got)) >= 5


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_source_affinity_keeps_a_client(rig: Rig, vip: str) -> None:
    """One client: the same backend from any port to any port, of every service with the same backends."""
    one = service("one", vip=vip, port="any", affinity="source")
    two = service("two", vip=vip, port="any", protocol="udp", affinity="source", backends=BACKENDS4[::-1])
    rig.apply(services=[one, two], settings=ANY_SOURCE)
    draw = random.Random(1)
    seen = set()

    for client in (one[0] for one in tuples(vip, 20, seed=4)[-20:]):
        some = [(client, draw.getrandbits(16), draw.getrandbits(16)) for _ in range(20)]
        backends = {*chosen(rig, one, some), *chosen(rig, two, some)}
        assert len(backends) == 1
        seen |= backends

    assert seen == set(BACKENDS4)


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_port_affinity_keeps_a_port(rig: Rig, vip: str) -> None:
    """One port: the same backend for every client, of every service with the same backends; ports share them."""
    one = service("one", vip=vip, port="any", affinity="destination-port")
    two = service("two", vip=vip, port="any", protocol="udp", affinity="destination-port")
    rig.apply(services=[one, two])
    draw = random.Random(1)
    seen = set()

    for port in (0, 80, *(draw.getrandbits(16) for _ in range(20))):
        some = [(client, source, port) for client, source, _ in tuples(vip, 20, seed=port)]
        backends = {*chosen(rig, one, some), *chosen(rig, two, some)}
        assert len(backends) == 1
        seen |= backends

    assert seen == set(BACKENDS4)


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_port_affinity_is_the_services_own(rig: Rig, vip: str) -> None:
    """A service beside it hashes the whole flow; a flow that is known stays while the ring changes, as ever."""
    ports = service("ports", vip=vip, port="any", affinity="destination-port")
    rig.apply(services=[ports, service("flows", vip=vip, protocol="udp")])
    some = [
        (ip_address("192.0.2.1" if vip == VIP4 else "2001:db8::1").packed, 1000 + n, 80) for n in range(40)
    ]
    kept = chosen(rig, ports, some)
    assert len(set(kept)) == 1
    assert set(chosen(rig, service(vip=vip, protocol="udp"), some)) == set(BACKENDS4)

    others = [{"address": b, "weight": int(b not in kept)} for b in BACKENDS4]
    rig.apply(services=[{**ports, "backends": others}])

    established = [
        out for one in some for out in rig.burst([from_tuple(bytes(tcp(dst=vip, flags="A")), *one)])
    ]
    assert [outer_addresses(out)[1] for out in established] == kept
    fresh = [(source, port + 5000, to) for source, port, to in some]
    (moved,) = set(chosen(rig, {**ports, "backends": others}, fresh))
    assert moved == ring_choice({**ports, "backends": others}, *fresh[0])


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_order_and_history_do_not_matter(rig: Rig, vip: str) -> None:
    """The ring depends on the set alone: backends in another order, reached by another way, give the same choices."""
    some = tuples(vip, 200, seed=2)
    first = service(vip=vip, port="any", backends=POOL)
    rig.apply(services=[first], settings=ANY_SOURCE)
    expected = chosen(rig, first, some)

    ways: list[list[list[dict[str, Any]]]] = [[POOL[:2]], [POOL[3:], POOL[:4]], [[]]]
    for way in ways:
        for backends in way:
            rig.apply(services=[service("other", vip=vip, port="any", backends=backends)])
        rig.flows["tag_backend"][:] = 0
        rig.apply(services=[service("other", vip=vip, port="any", backends=POOL[::-1])])
        assert chosen(rig, first, some) == expected


def test_ring_in_memory_is_the_one_computed(rig: Rig) -> None:
    """All 65537 slots, place by place; services with equal sets share one ring."""
    pool = [service("one", backends=POOL), service("two", port=81, backends=POOL)]
    rig.apply(services=[*pool, service("three", port=82)], settings=ANY_SOURCE)
    plan, same, other = (rig.plan(name) for name in ("one", "two", "three"))
    pairs = sorted((ip_address(b["address"]).packed, b["weight"]) for b in POOL)
    places = [plan.place(address) for address, _ in pairs]

    held = rig.plane.tables.arrays.rings[plan.ring][:SLOTS]

    assert held.tolist() == [places[position] for position in build_ring(pairs)]
    assert plan.ring == same.ring != other.ring


def test_a_changed_ring_moves_few(rig: Rig) -> None:
    """One backend of ten more: about a tenth of new flows move, and only to the new one, but for a few."""
    some = tuples(VIP4, 2000, seed=3)
    ten = [f"10.0.2.{n}" for n in range(1, 11)]
    document = service(port="any", backends=ten)
    rig.apply(services=[document], settings=ANY_SOURCE)
    before = chosen(rig, document, some)
    rig.flows["tag_backend"][:] = 0

    rig.apply(services=[service(port="any", backends=[*ten, "10.0.2.11"])])
    after = chosen(rig, document, some)

    moved = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert 100 < len(moved) < 350
    assert sum(b == "10.0.2.11" for _, b in moved) > 0.7 * len(moved)

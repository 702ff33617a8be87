"""VIPs that are IPv6 prefixes: every address within is served, and what is said more exactly comes first."""

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from frames import (
    BACKENDS4,
    BACKENDS6,
    CLIENT6,
    CLIENT_MAC,
    LINK,
    expect_encapsulated,
    expect_gue,
    expect_rewritten,
    ring_choice,
    service,
    tagged,
    tcp,
    udp,
    within,
)
from rig import OUR_MAC, Rig
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

pytestmark = pytest.mark.root

NET = "fc00:1:2::/64"
LENGTHS = [64, 65, 71, 72, 80, 96, 104, 112, 119, 120]
ANY_ADDRESS = ["fc00:1:2::", "fc00:1:2::1", "fc00:1:2::abcd:1:2:3", "fc00:1:2:0:ffff:ffff:ffff:ffff"]
BESIDE = ["fc00:1:1:ffff:ffff:ffff:ffff:ffff", "fc00:1:2:1::", "fc00:1:3::1", "fd00:1:2::1", "::fc00:1:2:1"]


def go(rig: Rig, frame: Packet) -> str:
    """The backend that a frame goes to."""
    return expect_encapsulated(rig.run(frame), frame)


def at(name: str, vip: str, backend: int, **fields: Any) -> dict[str, Any]:
    """A service with one backend, 10.0.3.N, so that it shows which service took a packet."""
    return service(name, vip=vip, backends=[f"10.0.3.{backend}"], **fields)


def took(rig: Rig, frame: Packet) -> int:
    """The number of the backend that the frame goes to, 0 if no service takes it."""
    outcome = rig.run(frame)
    if outcome.verdict == "PASS_NO_SERVICE":
        return 0
    return int(expect_encapsulated(outcome, frame).rpartition(".")[2])


@pytest.mark.parametrize("length", LENGTHS)
def test_first_and_last_address_and_those_beside(rig: Rig, length: int) -> None:
    """From /64 to /120: the whole prefix is served, the address before it and the one after it are not."""
    net = ip_network(
        (int(ip_address("fc00:1:2:0:a5a5:a5a5:a5a5:a5a5")) >> (128 - length) << (128 - length), length)
    )
    first, last = int(net[0]), int(net[-1])
    rig.apply(services=[service(vip=str(net))])

    for address in (first, first + 1, (first + last) // 2, last - 1, last):
        assert go(rig, tcp(dst=str(IPv6Address(address)))) in BACKENDS4
    for address in (first - 1, last + 1):
        assert rig.verdict(tcp(dst=str(IPv6Address(address)))) == "PASS_NO_SERVICE"


@pytest.mark.parametrize("address", ANY_ADDRESS)
@pytest.mark.parametrize("backends", [BACKENDS4, BACKENDS6])
def test_whole_frame_to_any_address(rig: Rig, address: str, backends: tuple[str, ...]) -> None:
    """Encapsulated as for an address; the ring hashes the very address asked, as lb computes it."""
    document = service(vip=NET, backends=backends)
    rig.apply(services=[document, service("udp", vip=NET, protocol="udp", backends=backends)])
    source = ip_address(CLIENT6).packed

    for port in range(1000, 1020):
        frame = tcp(dst=address, sport=port)
        assert go(rig, frame) == ring_choice(document, source, port, 80, address)
        assert go(rig, tcp(dst=address, sport=port, flags="A")) == go(rig, frame)
    go(rig, udp(dst=address))


@pytest.mark.parametrize("address", BESIDE)
def test_addresses_outside(rig: Rig, address: str) -> None:
    """Passes unchanged, and is no VIP: a fragment and an echo request for it pass too."""
    rig.apply(services=[service(vip=NET)])

    assert rig.verdict(tcp(dst=address)) == "PASS_NO_SERVICE"
    assert rig.verdict(LINK / IPv6(src=CLIENT6, dst=address) / ICMPv6EchoRequest()) == "PASS_PROTOCOL"
    piece = LINK / IPv6(src=CLIENT6, dst=address) / IPv6ExtHdrFragment(m=1) / UDP()
    assert rig.verdict(piece) == "PASS_FRAGMENT"


@pytest.mark.parametrize("address", ANY_ADDRESS)
def test_prefix_and_protocol_and_port_count(rig: Rig, address: str) -> None:
    """Another port or protocol passes unchanged; a range's ends are within."""
    rig.apply(services=[service(vip=NET, port="8000-8002")])

    assert [took_any(rig, tcp(dst=address, dport=port)) for port in (7999, 8000, 8001, 8002, 8003)] == [
        0,
        1,
        1,
        1,
        0,
    ]
    assert rig.verdict(udp(dst=address, dport=8001)) == "PASS_NO_SERVICE"


def took_any(rig: Rig, frame: Packet) -> int:
    """1 if a service takes the frame, 0 if none."""
    return int(rig.verdict(frame) != "PASS_NO_SERVICE")


def test_exact_port_beats_any_port(rig: Rig) -> None:
    """Within one prefix; once the exact one is gone, any port takes over."""
    exact, every = at("exact", NET, 1), at("every", NET, 2, port="any")
    for services, expected in (([exact, every], 1), ([every, exact], 1), ([every], 2), ([exact], 1)):
        rig.apply(services=services)
        assert took(rig, tcp(dst="fc00:1:2::77", sport=expected)) == expected
        assert took(rig, tcp(dst="fc00:1:2::77", dport=81)) == (2 if every in services else 0)


def test_exact_address_beats_prefix(rig: Rig) -> None:
    """An address's own service comes first, with its port or any; what it has no service for is the prefix's."""
    one, net, all_net = at("one", "fc00:1:2::1", 1), at("net", NET, 2), at("all", NET, 3, port="any")
    rig.apply(services=[one, net, all_net])

    assert took(rig, tcp(dst="fc00:1:2::1")) == 1
    assert took(rig, tcp(dst="fc00:1:2::1", dport=81)) == 3
    assert took(rig, tcp(dst="fc00:1:2::2")) == 2
    assert took(rig, tcp(dst="fc00:1:2::2", dport=81)) == 3

    rig.apply(services=[at("one", "fc00:1:2::1", 1, port="any"), net, all_net])
    assert took(rig, tcp(dst="fc00:1:2::1")) == 1
    assert took(rig, tcp(dst="fc00:1:2::1", dport=81)) == 1
    assert took(rig, tcp(dst="fc00:1:2::2")) == 2

    rig.apply(services=[net, all_net])
    assert took(rig, tcp(dst="fc00:1:2::1")) == 2


def test_longer_prefix_beats_shorter(rig: Rig) -> None:
    """The longest that holds the address; what it has no service for is looked for in those around it, three deep."""
    rig.apply(
        services=[
            at("wide", "fc00:1:2::/64", 1),
            at("wide-any", "fc00:1:2::/64", 2, port="any"),
            at("mid", "fc00:1:2:0:1::/80", 3, port=81),
            at("narrow", "fc00:1:2:0:1:2::/96", 4, port=82),
            at("narrow-udp", "fc00:1:2:0:1:2::/96", 5, port=82, protocol="udp"),
            at("one", "fc00:1:2:0:1:2:3:4", 6, port=83),
        ]
    )
    addresses = ["fc00:1:2:0:9::9", "fc00:1:2:0:1:9::9", "fc00:1:2:0:1:2:9:9", "fc00:1:2:0:1:2:3:4"]
    table = {a: [took(rig, tcp(dst=a, dport=port)) for port in (80, 81, 82, 83, 84)] for a in addresses}

    assert table == {
        addresses[0]: [1, 2, 2, 2, 2],
        addresses[1]: [1, 3, 2, 2, 2],
        addresses[2]: [1, 3, 4, 2, 2],
        addresses[3]: [1, 3, 4, 6, 2],
    }
    assert [took(rig, udp(dst=a, dport=82)) for a in addresses] == [0, 0, 5, 5]


def test_any_port_of_the_longer_prefix_hides_the_shorter_ones(rig: Rig) -> None:
    """A service of any port is one for all of them: nothing of the shorter prefix is asked, not its exact ports."""
    rig.apply(
        services=[
            at("wide", "fc00:1:2::/64", 1, port=80),
            at("wide-any", "fc00:1:2::/64", 2, port="any"),
            at("narrow-any", "fc00:1:2:0:1::/80", 3, port="any"),
        ]
    )

    assert took(rig, tcp(dst="fc00:1:2:0:1::1")) == 3
    assert took(rig, tcp(dst="fc00:1:2:0:1::1", dport=81)) == 3
    assert took(rig, tcp(dst="fc00:1:2:0:2::1", dport=81)) == 2
    assert took(rig, tcp(dst="fc00:1:2:0:2::1")) == 1


def test_prefix_that_comes_and_goes(rig: Rig) -> None:
    """Passes → taken → a longer one within takes over → it goes → the shorter one again → passes."""
    wide, narrow = at("wide", NET, 1), at("narrow", "fc00:1:2:0:1::/80", 2)
    frame = tcp(dst="fc00:1:2:0:1::1")
    for services, expected in (
        ([], 0),
        ([wide], 1),
        ([wide, narrow], 2),
        ([narrow], 2),
        ([wide], 1),
        ([], 0),
    ):
        rig.apply(services=services)
        assert took(rig, frame) == expected


def test_modes_and_affinity(rig: Rig) -> None:
    """A prefix serves by l2 and gue too, and its ring hashes what the affinity says."""
    rig.apply(
        services=[
            service("l2", vip=NET, mode="l2", backends=BACKENDS6),
            service("gue", vip=NET, port=81, mode="gue"),
            service("source", vip=NET, port=82, affinity="source"),
            service("ports", vip=NET, port="any", protocol="udp", affinity="destination-port"),
        ]
    )
    expect_rewritten(rig.run(tcp(dst="fc00:1:2::5")), tcp(dst="fc00:1:2::5"), BACKENDS6)
    expect_gue(rig.run(tcp(dst="fc00:1:2::5", dport=81)), tcp(dst="fc00:1:2::5", dport=81))
    hosts = [f"fc00:1:2::{n:x}" for n in range(1, 30)]

    assert len({go(rig, tcp(dst=host, sport=n, dport=82)) for n, host in enumerate(hosts)}) == 1
    assert len({go(rig, udp(dst=host, sport=n)) for n, host in enumerate(hosts)}) == 1
    assert len({go(rig, udp(dst="fc00:1:2::5", dport=n)) for n in range(40)}) == 3


@tagged
def test_tags_are_looked_through(rig: Rig, tags: Packet) -> None:
    """Behind VLAN tags all the same."""
    rig.apply(services=[service(vip=NET)])

    assert go(rig, within(tags, tcp(dst="fc00:1:2::5"))) in BACKENDS4


@pytest.mark.parametrize("address", ANY_ADDRESS)
def test_any_address_within_is_a_vip(rig: Rig, address: str) -> None:
    """Echo is answered from it, its fragments are dropped, an error about a flow of its own finds the backend."""
    rig.apply(services=[service(vip=NET)])
    there, back = IPv6(src=CLIENT6, dst=address), IPv6(src=address, dst=CLIENT6, hlim=64)
    outcome = rig.run(LINK / there / ICMPv6EchoRequest(id=1, seq=2, data=b"x"))
    assert outcome.verdict == "TX_ECHO"
    expected = Ether(src=OUR_MAC, dst=CLIENT_MAC) / back / ICMPv6EchoReply(id=1, seq=2, data=b"x")
    assert outcome.frame_out.hex() == bytes(expected).hex()

    assert rig.verdict(LINK / there / IPv6ExtHdrFragment(m=1) / UDP()) == "DROP_FRAGMENT"

    chosen = go(rig, tcp(dst=address))
    error = LINK / IPv6(src="2001:db8::1", dst=address) / ICMPv6TimeExceeded()
    assert go(rig, error / IPv6(src=address, dst=CLIENT6) / TCP(sport=80, dport=40000)) == chosen
    other = error / IPv6(src="fc00:1:2::99", dst=CLIENT6) / TCP(sport=80, dport=40000)
    assert rig.verdict(other) == "PASS_ICMP_ERROR"


def test_no_backend(rig: Rig) -> None:
    """Dropped with the same reason, for every address."""
    rig.apply(services=[service(vip=NET, backends=[])])

    assert {rig.verdict(tcp(dst=address)) for address in ANY_ADDRESS} == {"DROP_NO_BACKEND"}


def test_program_with_this_and_no_more(exact_rig: Rig) -> None:
    """Compiled for a prefix alone, the program serves it; without one, it knows none."""
    exact_rig.apply(services=[service(vip=NET)])
    assert "HAVE_VIP_PREFIX" in exact_rig.program.build.features
    assert "HAVE_ANY_PORT" not in exact_rig.program.build.features
    assert go(exact_rig, tcp(dst="fc00:1:2::5")) in BACKENDS4

    exact_rig.apply(services=[service(vip="fc00:1:2::1")])

    assert "HAVE_VIP_PREFIX" not in exact_rig.program.build.features
    assert exact_rig.verdict(tcp(dst="fc00:1:2::5")) == "PASS_NO_SERVICE"

"""What clients' packets tell of a backend: SYNs that come again, and unreachables that quote its flows."""

from ipaddress import ip_address
from typing import Any

import pytest
from flow_table import go, make_older
from frames import CLIENT4, CLIENT6, LINK, VIP4, VIP6, network, service, tcp, udp
from rig import Rig
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6

pytestmark = pytest.mark.root

CLIENT = {VIP4: CLIENT4, VIP6: CLIENT6}


def seen(rig: Rig) -> tuple[int, int]:
    """SYNs sent again and unreachables, of all backends of the service."""
    counts = rig.reconciler.passive_counts("web").values()
    return sum(retries for retries, _ in counts), sum(unreachables for _, unreachables in counts)


def quoting(vip: str, error: Any) -> Any:
    """An error from a router, that quotes an answer of the VIP to its client."""
    quote = (IPv6 if ":" in vip else IP)(src=vip, dst=CLIENT[vip]) / TCP(sport=80, dport=40000, flags="SA")
    return LINK / network("2001:db8::fe" if ":" in vip else "192.0.2.254", vip) / error / quote


@pytest.fixture
def watched(rig: Rig) -> Rig:
    """One service on each VIP, with backends that are watched; each test looks at one of them."""
    rig.plane.tables.passive_counters.clear(list(range(64)))
    return rig


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_syn_that_comes_again(watched: Rig, vip: str) -> None:
    """It is counted for the backend that had the first one; not once the client went on, nor after a while."""
    watched.apply(services=[service(vip=vip)])
    syn, ack = tcp(dst=vip), tcp(dst=vip, flags="A")
    backend = go(watched, syn)
    assert seen(watched) == (0, 0)
    watched.run(syn)
    watched.run(syn)
    assert seen(watched) == (2, 0)
    [where] = [a for a, (retries, _) in watched.reconciler.passive_counts("web").items() if retries]
    assert where == ip_address(backend).packed

    watched.run(ack)
    watched.run(syn)  # the client went on: it is a new connection
    assert seen(watched) == (2, 0)
    make_older(watched, 9)
    watched.run(syn)
    assert seen(watched) == (2, 0)
    watched.run(tcp(dst=vip, flags="SA"))
    watched.run(tcp(dst=vip, sport=40001))
    assert seen(watched) == (2, 0)


def test_datagrams_are_no_syns(watched: Rig) -> None:
    """UDP has nothing that would be sent again by itself."""
    watched.apply(services=[service(protocol="udp")])
    watched.run(udp())
    watched.run(udp())
    assert seen(watched) == (0, 0)


@pytest.mark.parametrize(
    ("vip", "error", "counted"),
    [
        (VIP4, ICMP(type=3, code=1), 1),
        (VIP4, ICMP(type=3, code=3), 1),
        (VIP4, ICMP(type=3, code=4, nexthopmtu=1400), 0),
        (VIP4, ICMP(type=11), 0),
        (VIP6, ICMPv6DestUnreach(code=3), 1),
        (VIP6, ICMPv6PacketTooBig(mtu=1400), 0),
    ],
)
def test_unreachables(watched: Rig, vip: str, error: Any, counted: int) -> None:
    """One that quotes a flow is counted for its backend, and goes there as ever; other errors are not counted."""
    watched.apply(services=[service(vip=vip)])
    watched.run(tcp(dst=vip))
    assert watched.verdict(quoting(vip, error)) == "TX_IPIP"
    assert seen(watched) == (0, counted)


def test_explaining_counts_nothing(watched: Rig) -> None:
    """What explain runs leaves the counts as they are."""
    watched.apply(services=[service()])
    watched.run(tcp())
    frames = [bytes(tcp()), bytes(quoting(VIP4, ICMP(type=3, code=1)))]
    watched.reconciler.explain(frames)
    assert seen(watched) == (0, 0)

"""Mode nat: requests and replies, whole frames both ways."""

from ipaddress import ip_address

import numpy as np
import pytest
from feeder import Feeder
from frames import KINDS, VIP4, VIP6, kinds, service, tagged, tcp, udp, within
from nat_frames import (
    POOL4,
    POOL6,
    POOLS,
    answer,
    expect_reply,
    expect_request,
    network_of,
    port_given,
    state,
)
from rig import Rig

pytestmark = pytest.mark.root


def nat(**fields):
    return service(mode="nat", **fields)


@kinds
@pytest.mark.parametrize("make", [tcp, udp])
def test_there_and_back(nat_rig: Rig, vip, backends, make) -> None:
    """A request leaves from the pool for one backend and port; the reply comes back from the VIP; checksums hold."""
    protocol = "tcp" if make is tcp else "udp"
    nat_rig.apply(
        settings=POOLS,
        services=[nat(vip=vip, protocol=protocol, backends=[{"address": backends[0], "port": 8080}])],
    )
    request = make(dst=vip)

    out = nat_rig.run(request)
    given = expect_request(
        out, request, source=POOL6 if ":" in backends[0] else POOL4, backend=backends[0], port=8080
    )
    reply = answer(out)
    expect_reply(nat_rig.run(reply), reply, request)

    assert given >= 1024


@pytest.mark.parametrize(
    ("kind", "nat_source"), [*((kind, "pool") for kind in KINDS), ("4 in 4", "keep"), ("6 in 6", "keep")]
)
@pytest.mark.parametrize("make", [tcp, udp])
def test_later_packets(nat_rig: Rig, kind, nat_source, make) -> None:
    """What follows in a flow leaves as its first packets did, and replies go to where the last request came from."""
    vip, backends = KINDS[kind]
    protocol, more = ("tcp", {"flags": "A"}) if make is tcp else ("udp", {})
    backend = {"address": backends[0], "port": 8080}
    nat_rig.apply(
        settings=POOLS,
        services=[nat(vip=vip, protocol=protocol, nat_source=nat_source, backends=[backend])],
    )
    out = nat_rig.run(make(dst=vip))
    nat_rig.run(answer(out))
    request, reply = make(dst=vip, **more) / b"more", answer(out, "A", b"of it")
    pool = POOL6 if ":" in backends[0] else POOL4
    source = pool if nat_source == "pool" else network_of(request).src
    moved = request.copy()
    moved.src = "02:00:00:00:cc:02"

    for _ in range(2):
        given = expect_request(nat_rig.run(request), request, source=source, backend=backends[0], port=8080)
        expect_reply(nat_rig.run(reply), reply, request)

    assert given == port_given(out)
    nat_rig.plane.tables.arrays.nat_forward["state"] &= 0xFF  # as if a second had passed
    nat_rig.run(moved)
    assert nat_rig.run(reply).frame_out[:6].hex(":") == moved.src


WEB = [{"address": "10.0.0.11"}]


def opened(rig: Rig, **more):
    """A TCP flow through a service of one backend, open both ways; the frame out of its SYN."""
    rig.apply(settings=POOLS, services=[nat(backends=WEB)])
    out = rig.run(tcp(**more))
    rig.run(answer(out))
    rig.run(tcp(flags="A", **more))
    return out


def test_states(nat_rig: Rig) -> None:
    """Each direction's word says what was seen of it: SYN, then ACK, FIN, RST."""
    out = opened(nat_rig)
    port = port_given(out)

    assert state(nat_rig, port) == (1 | 2, 1)
    nat_rig.run(tcp(flags="FA"))
    assert state(nat_rig, port) == (1 | 2 | 4, 1)
    nat_rig.run(answer(out, "FA"))
    assert state(nat_rig, port) == (1 | 2 | 4, 1 | 2 | 4)
    nat_rig.run(answer(out, "R"))
    assert state(nat_rig, port) == (1 | 2 | 4, 1 | 2 | 4 | 8)


def test_flows_have_ports_of_their_own(nat_rig: Rig) -> None:
    """Flows are given one port after the other, and each keeps its own."""
    nat_rig.apply(settings=POOLS, services=[nat()])

    ports = [port_given(nat_rig.run(tcp(sport=1000 + n))) for n in range(100)]

    assert len(set(ports)) == 100
    assert [port_given(nat_rig.run(tcp(sport=1000 + n, flags="A"))) for n in range(100)] == ports


def test_packet_of_no_flow(nat_rig: Rig) -> None:
    """TCP that opens nothing and belongs to nothing is dropped; so is a reset."""
    nat_rig.apply(settings=POOLS, services=[nat()])

    assert [nat_rig.verdict(tcp(flags=flags)) for flags in ("A", "SA", "R", "FA")] == ["DROP_NAT_NO_FLOW"] * 4


def test_what_is_no_reply(nat_rig: Rig) -> None:
    """Another source, port or protocol than the backend's is none, and goes on to the kernel."""
    out = opened(nat_rig)
    reply = answer(out)
    other = [reply.copy() for _ in range(3)]
    other[0].getlayer(1).src = "10.0.0.12"
    other[1].getlayer(2).sport = 81
    other[2].getlayer(2).dport += 1

    assert [nat_rig.verdict(frame) for frame in other] == ["PASS_NO_SERVICE"] * 3


def test_exhausted_ports(nat_rig: Rig) -> None:
    """With every port taken, a new flow is dropped by its own reason; known ones go on; a freed port is given again."""
    nat_rig.apply(settings={**POOLS, "nat_ports": "2000-2003"}, services=[nat()])
    ports = {port_given(nat_rig.run(tcp(sport=1000 + n))) for n in range(4)}

    assert ports == {2000, 2001, 2002, 2003}
    assert nat_rig.verdict(tcp(sport=2000)) == "DROP_NAT_PORTS"
    assert nat_rig.verdict(tcp(sport=1000)) == "TX_NAT"

    nat_rig.run(tcp(sport=1000, flags="R"))
    nat_rig.plane.later(61)
    nat_rig.sweep()

    assert nat_rig.verdict(tcp(sport=2000)) == "TX_NAT"


@pytest.mark.parametrize(("nat_source", "flows"), [("pool", 4 * 64512), ("keep", 2 * 65535)])
def test_every_port_can_be_used(nat_rig: Rig, nat_source: str, flows: int) -> None:
    """With as many flows as there are ports, none found the index full; only then is there no port."""
    settings = {"nat_pools": ["10.9.1.0/30"] if nat_source == "pool" else []}
    nat_rig.apply(settings=settings, services=[nat(nat_source=nat_source, backends=WEB)])
    feeder, arrays = Feeder(), nat_rig.plane.tables.arrays
    try:
        feeder.run(nat_rig.program, bytes(tcp()), int(ip_address("10.32.0.0")), flows)
    finally:
        feeder.close()

    assert np.count_nonzero(arrays.nat_forward["word"]) == flows
    assert int(nat_rig.plane.tables.nat_counters.read()[0]["opened"]) == flows
    assert nat_rig.verdict(tcp(sport=999)) == "DROP_NAT_PORTS"


def test_closed_flow_opens_again(nat_rig: Rig) -> None:
    """A SYN for a closed flow makes its entry new, at the same port."""
    out = opened(nat_rig)
    nat_rig.run(tcp(flags="R"))

    again = nat_rig.run(tcp())

    assert port_given(again) == port_given(out)
    assert state(nat_rig, port_given(out)) == (1, 0)


def test_fragments(nat_rig: Rig) -> None:
    """Any fragment for a pool address is dropped, as one for a VIP."""
    out = opened(nat_rig)

    reply = answer(out)
    later, first = reply.copy(), reply.copy()
    later.getlayer(1).frag, first.getlayer(1).flags = 8, "MF"

    assert nat_rig.verdict(later) == nat_rig.verdict(first) == "DROP_FRAGMENT"


def test_ttl(nat_rig: Rig) -> None:
    """A packet whose TTL ends here is dropped."""
    nat_rig.apply(settings=POOLS, services=[nat(), nat(name="six", vip=VIP6)])

    assert nat_rig.verdict(tcp(ttl=1)) == "DROP_TTL"
    assert nat_rig.verdict(tcp(dst=VIP6, hlim=1)) == "DROP_TTL"


KEPT = {"mode": "nat", "nat_source": "keep"}


@pytest.mark.parametrize(("vip", "backend"), [(VIP4, "10.0.0.11"), (VIP6, "fd00::11")])
@pytest.mark.parametrize("make", [tcp, udp])
def test_source_is_kept(nat_rig: Rig, vip, backend, make) -> None:
    """With keep the backend sees the client; its reply, which is for the client, leaves as the VIP's."""
    protocol = "tcp" if make is tcp else "udp"
    backends = [{"address": backend, "port": 8080}]
    nat_rig.apply(services=[service(vip=vip, protocol=protocol, backends=backends, **KEPT)])
    request = make(dst=vip)

    out = nat_rig.run(request)
    source = request.getlayer(1).src
    given = expect_request(out, request, source=source, backend=backend, port=8080)
    reply = answer(out)
    expect_reply(nat_rig.run(reply), reply, request)

    assert given == 40000
    reply.getlayer(2).dport += 1
    assert nat_rig.verdict(reply) == "PASS_NO_SERVICE"


def test_kept_sources_clash(nat_rig: Rig) -> None:
    """One client port to one backend by two VIPs cannot be told apart: the second flow is dropped by its own reason."""
    backends = [{"address": "10.0.0.11", "port": 8080}]
    services = [
        service(name, vip=vip, backends=backends, **KEPT) for name, vip in (("a", VIP4), ("b", "10.200.1.2"))
    ]
    nat_rig.apply(services=services)

    assert nat_rig.verdict(tcp()) == "TX_NAT"
    assert nat_rig.verdict(tcp(dst="10.200.1.2")) == "DROP_NAT_CLASH"
    assert nat_rig.verdict(tcp(dst="10.200.1.2", sport=40001)) == "TX_NAT"


def test_kept_flow_that_moves_to_another_service(nat_rig: Rig) -> None:
    """A flow whose service is another now gets a new entry, which does not clash with the one it left."""
    backends = [{"address": "10.0.0.11", "port": 8080}]
    wide = service("wide", port="any", backends=backends, **KEPT)
    nat_rig.apply(services=[wide])
    reply = answer(nat_rig.run(tcp()))
    nat_rig.run(reply)
    nat_rig.run(tcp(flags="A"))

    nat_rig.apply(services=[wide, service("narrow", backends=backends, **KEPT)])
    assert nat_rig.verdict(tcp(flags="A")) == "DROP_NAT_NO_FLOW"
    out = nat_rig.run(tcp())
    expect_request(out, tcp(), source="10.0.1.1", backend="10.0.0.11", port=8080)
    expect_reply(nat_rig.run(reply), reply, tcp())

    arrays, plan = nat_rig.plane.tables.arrays, nat_rig.plan("narrow")
    new = np.flatnonzero((arrays.nat_forward["word"] != 0) & (arrays.nat_forward["service"] == plan.number))
    assert [int(state) & 0xFF for state in arrays.nat_reply["state"][new]] == [1]


def explained(rig: Rig, frame) -> tuple[str, str]:
    """Verdict, and what the last step says."""
    (one,) = rig.reconciler.explain([bytes(frame)])
    return one.verdict.name, one.steps[-1].detail


def test_explained(nat_rig: Rig) -> None:
    """Explaining says what the packet will do, which translation, and changes nothing."""
    nat_rig.apply(settings=POOLS, services=[nat(backends=WEB)])

    before = explained(nat_rig, tcp())
    again = explained(nat_rig, tcp())
    out = nat_rig.run(tcp())
    port = port_given(out)
    reply = explained(nat_rig, answer(out))

    assert before == again == ("TX_NAT", f"a new flow; leaves as {POOL4}:{port} → 10.0.0.11:80")
    assert reply == ("TX_NAT_REPLY", f"its flow is known, opening; leaves as {VIP4}:80 → 10.0.1.1:40000")
    assert explained(nat_rig, tcp(sport=9, flags="A")) == (
        "DROP_NAT_NO_FLOW",
        "no flow is known for it, and it opens none",
    )


def test_hairpin(nat_rig: Rig) -> None:
    """A backend that is a client of the VIP, and is chosen itself, is answered as any other client."""
    nat_rig.apply(settings=POOLS, services=[nat(backends=WEB)])
    request = tcp(src="10.0.0.11")

    out = nat_rig.run(request)
    expect_request(out, request, source=POOL4, backend="10.0.0.11")
    reply = answer(out)
    expect_reply(nat_rig.run(reply), reply, request)


@tagged
@pytest.mark.parametrize(("vip", "backend"), [(VIP4, "10.0.0.11"), (VIP4, "fd00::11"), (VIP6, "10.0.0.11")])
def test_tags_are_kept(nat_rig: Rig, tags, vip, backend) -> None:
    """Both ways, with a header of the other family too."""
    nat_rig.apply(settings=POOLS, services=[nat(vip=vip, backends=[backend])])
    request = within(tags, tcp(dst=vip))

    out = nat_rig.run(request)
    expect_request(out, request, source=POOL6 if ":" in backend else POOL4, backend=backend)
    reply = within(tags, answer(nat_rig.run(tcp(dst=vip))))
    expect_reply(nat_rig.run(reply), reply, request)

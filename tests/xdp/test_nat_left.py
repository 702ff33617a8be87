"""Entries of NAT that a flow cannot stay with, or never should have led anywhere."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from echo_frames import expect_pong, ping, pinged, pong
from frames import VIP4, VIP6, service, tcp, udp
from nat_frames import POOL4, POOLS, answer, expect_reply, expect_request
from rig import Rig

from lb.model.document import from_mapping
from lb.reconcile.terms import Terms

pytestmark = pytest.mark.root

BACKEND = "10.0.0.11"


def test_entry_that_is_left_stays_left(nat_rig: Rig) -> None:
    """A closing flow whose backend drains is left, though its packet found no other; replies find it still."""
    draining = [{"address": BACKEND, "weight": 0}]
    nat_rig.apply(settings=POOLS, services=[service(mode="nat", backends=[BACKEND])])
    reply = answer(nat_rig.run(tcp()))
    nat_rig.run(tcp(flags="A"))
    nat_rig.apply(services=[service(mode="nat", backends=draining)])
    assert nat_rig.verdict(tcp(flags="R")) == "TX_NAT"

    assert nat_rig.verdict(tcp()) == "DROP_NO_BACKEND"

    assert nat_rig.verdict(tcp(flags="A")) == "DROP_NAT_NO_FLOW"
    expect_reply(nat_rig.run(reply), reply, tcp())


def test_entries_end_with_their_service(nat_rig: Rig) -> None:
    """What comes back for a service that is gone is no reply any more, and its ports are free; others' flows go on."""
    gone, stays = service("gone", mode="nat", backends=[BACKEND]), pinged()
    nat_rig.apply(settings=POOLS, services=[gone, stays])
    reply, echoed = answer(nat_rig.run(tcp())), pong(nat_rig.run(ping()))
    nat_rig.run(reply)

    nat_rig.apply(services=[stays])

    assert nat_rig.verdict(reply) == "PASS_NO_SERVICE"
    expect_pong(nat_rig.run(echoed), echoed, ping())
    assert np.count_nonzero(nat_rig.plane.tables.arrays.nat_forward["word"]) == 1


@pytest.mark.parametrize("now", ["pool", "keep"])
def test_entries_of_another_nat_source(nat_rig: Rig, now: str) -> None:
    """With the service's `nat_source` its flows' entries change too: what is sent to the backend is as it says now."""
    sources = {"pool": POOL4, "keep": "10.0.1.1"}
    other = {"pool": "keep", "keep": "pool"}[now]

    def serve(source: str) -> None:
        protocols = {"web": "tcp", "dns": "udp"}
        services = [
            service(name, protocol=protocol, mode="nat", nat_source=source, backends=[BACKEND])
            for name, protocol in protocols.items()
        ]
        nat_rig.apply(settings=POOLS, services=services)

    serve(other)
    expect_request(nat_rig.run(tcp()), tcp(), source=sources[other], backend=BACKEND)
    expect_request(nat_rig.run(udp()), udp(), source=sources[other], backend=BACKEND)
    serve(now)

    assert nat_rig.verdict(tcp(flags="A")) == "DROP_NAT_NO_FLOW"
    for frame in (udp(), tcp()):
        expect_request(nat_rig.run(frame), frame, source=sources[now], backend=BACKEND)
    nat_rig.run(tcp(flags="A"))
    expect_request(nat_rig.run(tcp(flags="A")), tcp(flags="A"), source=sources[now], backend=BACKEND)


def test_a_flow_that_goes_on_proves_its_source_where_that_counts(exact_rig: Rig) -> None:
    """Only a guarded service's flows make their sources known; NAT's others leave no trace there."""
    guard = {"new_flows_per_second": 1000}
    guarded = service("guarded", vip="10.200.1.2", mode="nat", backends=[BACKEND], flood_protection=guard)
    plain = service("plain", vip=VIP4, mode="nat", backends=[BACKEND])
    exact_rig.apply(settings=POOLS, services=[guarded, plain])
    known = exact_rig.plane.tables.arrays.known_sources

    for vip, learned in ((VIP4, 0), ("10.200.1.2", 1)):
        exact_rig.run(answer(exact_rig.run(tcp(dst=vip))))
        exact_rig.run(tcp(dst=vip, flags="A"))
        exact_rig.run(tcp(dst=vip, flags="A"))
        assert np.count_nonzero(known.view("<u4")) == learned


@pytest.mark.parametrize("make", [tcp, udp])
def test_entries_end_when_their_backend_listens_elsewhere(nat_rig: Rig, make: Any) -> None:
    """With the backend's `port` its flows end: what comes from the new one would be no reply; so it is foretold."""
    protocol = "tcp" if make is tcp else "udp"

    def serve(name: str, vip: str, port: int) -> dict[str, Any]:
        backends = [{"address": BACKEND, "port": port}]
        return service(name, vip=vip, protocol=protocol, mode="nat", backends=backends)

    other = serve("other", "10.200.1.2", 8080)
    nat_rig.apply(settings=POOLS, services=[serve("web", VIP4, 8080), other])
    stays = make(dst="10.200.1.2")
    kept = answer(nat_rig.run(stays))
    nat_rig.run(answer(nat_rig.run(make())))
    document = {"services": [serve("web", VIP4, 9090), other], "settings": POOLS}

    foretold = nat_rig.reconciler.check(
        lambda config: from_mapping(document, now=nat_rig.now, have=config), terms=Terms(tell_moves=True)
    )
    nat_rig.apply(services=document["services"])
    nat_rig.sweep()

    assert [(move.service, move.flows_moved) for move in foretold.moves] == [("web", 1)]
    if make is tcp:
        assert nat_rig.verdict(tcp(flags="A")) == "DROP_NAT_NO_FLOW"
    again = nat_rig.run(make())
    expect_request(again, make(), source=POOL4, backend=BACKEND, port=9090)
    reply = answer(again)
    expect_reply(nat_rig.run(reply), reply, make())
    expect_reply(nat_rig.run(kept), kept, stays)


def test_entries_end_with_mode_nat(nat_rig: Rig) -> None:
    """A service that takes another mode has its ports back, and what comes for them is no reply."""
    nat_rig.apply(settings=POOLS, services=[service(mode="nat", backends=[BACKEND])])
    reply = answer(nat_rig.run(tcp()))
    nat_rig.run(reply)

    nat_rig.apply(services=[service(mode="ipip", backends=[BACKEND])])
    nat_rig.sweep()

    assert nat_rig.verdict(reply) == "PASS_NO_SERVICE"
    assert np.count_nonzero(nat_rig.plane.tables.arrays.nat_forward["word"]) == 0


def test_last_flow_that_crossed_the_families(exact_rig: Rig) -> None:
    """The program that crosses no more lets none of it out half translated, until its entry is freed."""
    exact_rig.apply(settings=POOLS, services=[service(mode="nat", backends=["fd00::11"])])
    reply = answer(exact_rig.run(tcp()))
    assert exact_rig.verdict(reply) == "TX_NAT_REPLY"

    exact_rig.apply(services=[service(mode="nat", backends=[BACKEND])])

    assert exact_rig.verdict(reply) == "DROP_NAT_UNTRANSLATABLE"
    exact_rig.sweep()
    assert exact_rig.verdict(reply) == "PASS_NO_SERVICE"


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """All packets come by one CPU: it is each CPU's next packet that takes out what its last one has noted."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("one_cpu")
@pytest.mark.parametrize("vip", [VIP4, VIP6])
@pytest.mark.parametrize("nat_source", ["pool", "keep"])
def test_entries_taken_over_leave_nothing_behind(nat_rig: Rig, nat_source: str, vip: str) -> None:
    """Without a daemon newcomers take what is over; the index then leads to them alone, or it would fill in time."""
    backends = ["fd00::11" if ":" in vip else BACKEND]
    nat_rig.apply(
        settings=POOLS, services=[service(vip=vip, mode="nat", nat_source=nat_source, backends=backends)]
    )
    arrays = nat_rig.plane.tables.arrays
    flows = [tcp(dst=vip, sport=1000 + n) for n in range(8)]

    for some in (flows[:4], flows[4:], flows[:4]):
        arrays.nat_forward["state"][arrays.nat_forward["word"] != 0] = (
            1 | 1 << 32
        )  # seen in the first second of all
        arrays.nat_cursors.view("u1")[:] = 0
        for flow in some:
            assert nat_rig.verdict(flow) == "TX_NAT"
    nat_rig.run(some[0])  # whoever comes next takes out what the last newcomer found

    entries = np.flatnonzero(arrays.nat_forward["word"])
    words = arrays.nat_index[arrays.nat_index != 0]
    assert len(entries) == 4
    assert len(words) == (4 if nat_source == "pool" else 8)
    assert {int(word) & 0xFFFFFF for word in words} == set(entries.tolist())

"""Out of another interface than a packet came in by: ICMP errors in every mode, and NAT both ways. Whole frames."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest
from frames import (
    CLIENT_MAC,
    LINK,
    VIP4,
    VIP6,
    expect_encapsulated,
    expect_gue,
    expect_rewritten,
    kinds,
    service,
    tcp,
    udp,
)
from nat_frames import POOL4, POOL6, POOLS, answer, expect_reply, expect_request, network_of, reparsed
from rig import OUR_IFINDEX, OUR_MAC, Rig, next_hop_mac
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6

pytestmark = pytest.mark.root

OTHER, OTHER_MAC, OTHER_MTU = 300, "02:00:00:00:bb:02", 1400
"""Another interface of the same machine: its index takes more than a byte."""
Elsewhere = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def elsewhere(nat_rig: Rig) -> Elsewhere:
    """What is run in this context comes in by the other interface."""

    @contextmanager
    def there() -> Iterator[None]:
        plane = nat_rig.plane
        here, mac = nat_rig.program, bytes.fromhex(OTHER_MAC.replace(":", ""))
        constants = {
            **dict(plane.wished.constants),
            "OUR_IFINDEX": OTHER,
            "OUR_MAC_FIRST4": int.from_bytes(mac[:4], "little"),
            "OUR_MAC_LAST2": int.from_bytes(mac[4:], "little"),
            "OUR_MTU": OTHER_MTU,
        }
        wish = replace(plane.wished, features=here.build.features, constants=tuple(constants.items()))
        plane.running = plane._programs.get(wish)
        try:
            yield
        finally:
            plane.running = here

    return there


def to_other(frame):
    """The same frame, for the other interface."""
    frame = frame.copy()
    frame.dst = OTHER_MAC
    return frame


def serve(rig: Rig, elsewhere: Elsewhere, vip: str, backend: str, make, *, away: bool) -> str:
    """A service of mode nat with one backend, which may be behind the other interface; the pool's address."""
    rig.plane.ifindex = {backend: OTHER} if away else {}
    protocol = "tcp" if make is tcp else "udp"
    rig.apply(settings=POOLS, services=[service(mode="nat", vip=vip, protocol=protocol, backends=[backend])])
    with elsewhere():
        pass  # compiled before there are flows, which would not wait for it
    return POOL6 if ":" in backend else POOL4


@kinds
@pytest.mark.parametrize("make", [tcp, udp])
def test_backend_behind_another_interface(nat_rig: Rig, elsewhere: Elsewhere, vip, backends, make) -> None:
    """Requests leave by it; replies come in by it, and leave by the client's, as the VIP, from our MAC there."""
    pool = serve(nat_rig, elsewhere, vip, backends[0], make, away=True)
    more = {"flags": "A"} if make is tcp else {}

    for request in (make(dst=vip), make(dst=vip, **more), make(dst=vip, **more)):
        out = nat_rig.run(request)
        expect_request(out, request, source=pool, backend=backends[0], verdict="REDIRECT_NAT")
        reply = to_other(answer(out, "A"))
        with elsewhere():
            for _ in range(2):
                expect_reply(nat_rig.run(reply), reply, request, verdict="REDIRECT_NAT_REPLY")


@kinds
@pytest.mark.parametrize("make", [tcp, udp])
def test_client_behind_another_interface(nat_rig: Rig, elsewhere: Elsewhere, vip, backends, make) -> None:
    """The same the other way round; what is too big for the client's way is told to the backend."""
    pool = serve(nat_rig, elsewhere, vip, backends[0], make, away=False)
    request = to_other(make(dst=vip))
    family = 6 if ":" in vip else 4

    with elsewhere():
        out = nat_rig.run(request)
    expect_request(out, request, source=pool, backend=backends[0], verdict="REDIRECT_NAT")
    reply = answer(out, "A")
    for _ in range(2):
        expect_reply(nat_rig.run(reply), reply, request, verdict="REDIRECT_NAT_REPLY", our_mac=OTHER_MAC)
    grows = 20 if family == 6 and ":" not in pool else -20 if family == 4 and ":" in pool else 0
    room = OTHER_MTU - grows - len(bytes(network_of(reply)))
    fits, exceeds = reply / bytes(room), reply / bytes(room + 1)
    assert nat_rig.verdict(fits) == "REDIRECT_NAT_REPLY"
    assert nat_rig.verdict(exceeds) == "TX_TOO_BIG"


def test_errors_of_nat(nat_rig: Rig, elsewhere: Elsewhere) -> None:
    """About a request, from the backend's side; about a reply, from the client's."""
    pool = serve(nat_rig, elsewhere, VIP4, "10.0.0.11", tcp, away=True)
    request = tcp()
    out = nat_rig.run(request)
    sent, reply = reparsed(out.frame_out), to_other(answer(out))
    with elsewhere():
        got = reparsed(nat_rig.run(reply).frame_out)
    about_reply = LINK / IP(src="10.77.0.1", dst=VIP4) / ICMP(type=3, code=3) / bytes(got[IP])
    about_request = to_other(LINK) / IP(src="10.77.0.1", dst=pool) / ICMP(type=3, code=3) / bytes(sent[IP])

    there = nat_rig.run(about_reply)
    with elsewhere():
        back = nat_rig.run(about_request)

    assert (there.verdict, back.verdict) == ("REDIRECT_NAT", "REDIRECT_NAT_REPLY")
    outer, quoted = IP(src=pool, dst="10.0.0.11", ttl=63) / ICMP(type=3, code=3), reply[IP].copy()
    quoted.ttl = got[IP].ttl
    assert there.frame_out[:12] == next_hop_mac("10.0.0.11") + bytes.fromhex(OUR_MAC.replace(":", ""))
    assert there.frame_out[14:].hex() == bytes(outer / bytes(quoted)).hex()
    outer, quoted = IP(src=VIP4, dst=request[IP].src, ttl=63) / ICMP(type=3, code=3), request[IP].copy()
    quoted.ttl = sent[IP].ttl
    assert back.frame_out[:12].hex(":") == f"{CLIENT_MAC}:{OUR_MAC}"
    assert back.frame_out[14:].hex() == bytes(outer / bytes(quoted)).hex()


def goes_to(rig: Rig, frame, mode: str, backend: str) -> str:
    """The backend that the whole frame goes to, in that mode."""
    out, verdict = rig.run(frame), f"REDIRECT_{mode.upper()}"
    if mode == "ipip":
        return expect_encapsulated(out, frame, verdict=verdict)
    if mode == "gue":
        return expect_gue(out, frame, verdict=verdict)
    return expect_rewritten(out, frame, [backend], verdict=verdict)


@pytest.mark.parametrize("vip", [VIP4, VIP6])
def test_errors_of_other_modes(rig: Rig, vip: str) -> None:
    """An error for a VIP leaves by its flow's backend's interface, in the way of the service's mode."""
    backend = "10.0.0.11" if vip == VIP4 else "fd00::11"
    rig.plane.ifindex = {backend: OUR_IFINDEX + 3}
    modes = {"ipip": 81, "gue": 82, "l2": 83}
    rig.apply(
        services=[
            service(mode, vip=vip, port=port, mode=mode, backends=[backend]) for mode, port in modes.items()
        ]
    )

    for mode, port in modes.items():
        client = tcp(dst=vip)[1].src
        said = TCP(sport=port, dport=40000)
        if vip == VIP4:
            frame = (
                LINK / IP(src="192.0.2.254", dst=vip) / ICMP(type=3, code=3) / IP(src=vip, dst=client) / said
            )
        else:
            quoted = IPv6(src=vip, dst=client) / said
            frame = LINK / IPv6(src="2001:db8::fe", dst=vip) / ICMPv6DestUnreach(code=4) / quoted
        assert goes_to(rig, frame, mode, backend) == backend

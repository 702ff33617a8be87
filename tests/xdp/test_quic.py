"""QUIC services: what the server wrote into a connection id decides, wherever the packet comes from."""

from typing import Any

import pytest
from flow_table import ESTABLISHED, PROBATION, go, make_older, slots, stats
from flow_table import UDP as UDP_FLOW
from frames import (
    BACKENDS4,
    BACKENDS6,
    CLIENT4,
    CLIENT6,
    LINK,
    expect_encapsulated,
    expect_gue,
    expect_rewritten,
    network,
    ring_choice,
    service,
    tagged,
    tcp,
    within,
)
from quic_frames import (
    HANDSHAKE,
    INITIAL,
    INITIAL_V2,
    RETRY,
    VERSION_1,
    VERSION_2,
    ZERO_RTT,
    ZERO_RTT_V2,
    cid,
    datagram,
    long_header,
    short_header,
)
from rig import Rig
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt
from scapy.packet import Packet

pytestmark = pytest.mark.root

QUIC4, QUIC6 = "10.200.1.5", "fc00:1::2"
IDS = {BACKENDS4[0]: 1, BACKENDS4[1]: 0xABCD, BACKENDS4[2]: 0x3FFF}
LARGE = {BACKENDS4[0]: 0xFFFFFFFF, BACKENDS4[1]: 0x00ABCDEF, BACKENDS4[2]: 0x01020304}
FORMATS = (1, 2, 3)
vips = pytest.mark.parametrize("vip", [QUIC4, QUIC6])
formats = pytest.mark.parametrize("form", FORMATS)
COUNTS = ("by_id", "unknown", "without")


def quic(vip: str = QUIC4, ids: dict[str, int] = IDS, **fields: Any) -> dict[str, Any]:
    """A QUIC service on UDP port 443; ids: the quic_id of each backend, 0 for none."""
    backends = [{"address": b, **({"quic_id": n} if n else {})} for b, n in ids.items()]
    return service(
        "quic", **{"vip": vip, "port": 443, "protocol": "udp", "quic": True, "backends": backends} | fields
    )


def with_states(vip: str = QUIC4, **states: Any) -> dict[str, Any]:
    """The same, the fields of each backend given by its last number: b11={"weight": 0}."""
    document = quic(vip)
    for backend in document["backends"]:
        backend.update(states.get("b" + backend["address"].rpartition(".")[2], {}))
    return document


def counted(rig: Rig) -> dict[str, int]:
    """What was read of QUIC packets since the test began; what is 0 is left out."""
    (row,) = rig.plane.tables.quic_counters.read()[:1]
    return {name: int(row[name]) for name in COUNTS if row[name]}


def ring(document: dict[str, Any], sport: int = 40000) -> str:
    """Where the ring sends a client's new flow."""
    source = bytes(network(dst=document["vip"]))[12:16] if ":" not in document["vip"] else None
    source = source or bytes(network(dst=document["vip"]))[8:24]
    return ring_choice(document, source, sport, 443)


def elsewhere(document: dict[str, Any], sport: int = 40000) -> tuple[str, int]:
    """A backend that the ring does not choose for this flow, and its id."""
    ids = {b["address"]: b["quic_id"] for b in document["backends"]}
    return next((b, n) for b, n in ids.items() if b != ring(document, sport))


@pytest.fixture
def web(rig: Rig) -> Rig:
    """A QUIC service on an address of each family."""
    rig.apply(services=[quic(), {**quic(QUIC6), "name": "quic6"}])
    return rig


@vips
@formats
@pytest.mark.parametrize("kind", ["short header", "Handshake", "Handshake of version 2"])
def test_id_names_the_backend(web: Rig, vip: str, form: int, kind: str) -> None:
    """Each backend's id, as each form writes it, from ports whose ring choice would differ: there, and counted."""
    reached = set()
    for port in range(1000, 1020):
        for backend, number in IDS.items():
            frame = datagram(vip, BUILD[kind](cid(form, number)), sport=port)
            assert go(web, frame) == backend
            reached.add((ring(quic(vip), port), backend))

    assert len(reached) == 9  # every choice of the ring was overruled by every id
    assert counted(web) == {"by_id": 60}


BUILD = {
    "short header": short_header,
    "Handshake": lambda i: long_header(HANDSHAKE, i),
    "Handshake of version 2": lambda i: long_header(
        RETRY, i, version=VERSION_2
    ),  # RFC 9369: 3 is Handshake there
}


@vips
@pytest.mark.parametrize(("form", "most"), [(1, 0xFFFF), (2, 0xFFFFFF), (3, 0xFFFFFFFF)])
def test_every_bit_of_the_number_counts(rig: Rig, vip: str, form: int, most: int) -> None:
    """One bit after the other, lowest and highest number: the very backend that has it."""
    bits = [1 << n for n in range(most.bit_length())] + [most]
    hosts = {f"10.0.4.{n}": number for n, number in enumerate(dict.fromkeys(bits), 1)}
    rig.apply(services=[quic(vip, hosts)])

    for host, number in hosts.items():
        frame = datagram(vip, short_header(cid(form, number)), sport=number & 0xFFFF)
        assert go(rig, frame) == host
    assert counted(rig) == {"by_id": len(hosts)}


@vips
@formats
def test_other_bits_do_not_count(web: Rig, vip: str, form: int) -> None:
    """What the number does not take of the id, the header's protected bits, a longer id: all one."""
    backend, number = elsewhere(quic(vip))
    for fill in (0x00, 0x5A, 0xFF):
        for length in (8, 12, 20):
            for first in (0x40, 0x7F, 0x00):
                frame = datagram(vip, short_header(cid(form, number, fill=fill, length=length), first=first))
                assert go(web, frame) == backend


@vips
@formats
@pytest.mark.parametrize(
    ("kind", "version"),
    [(INITIAL, VERSION_1), (ZERO_RTT, VERSION_1), (INITIAL_V2, VERSION_2), (ZERO_RTT_V2, VERSION_2)],
    ids=["Initial", "0-RTT", "Initial of version 2", "0-RTT of version 2"],
)
def test_client_ids_are_not_read(web: Rig, vip: str, form: int, kind: int, version: int) -> None:
    """The id of a client's first packets is its own choice: the tuple decides, by the ring, then by the table."""
    document = quic(vip)
    _, number = elsewhere(document)
    first = datagram(vip, long_header(kind, cid(form, number), version=version))

    assert go(web, first) == ring(document)
    (slot,) = slots(web)
    assert slot.kind == PROBATION | UDP_FLOW
    other = datagram(vip, long_header(kind, cid(form, number, fill=0x33), version=version))
    assert go(web, other) == ring(document)
    assert counted(web) == {"without": 2}


@vips
def test_same_tuple_another_client_id(web: Rig, vip: str) -> None:
    """Initial and 0-RTT of one tuple stay together while the ring changes, whatever id they carry."""
    document = quic(vip)
    chosen = go(web, datagram(vip, long_header(INITIAL, bytes(8))))
    drained = [{**b, "weight": int(b["address"] != chosen)} for b in document["backends"]]
    web.apply(
        services=[{**quic(), "backends": drained}, {**quic(QUIC6), "name": "quic6", "backends": drained}]
    )

    for kind in (INITIAL, ZERO_RTT):
        for number in IDS.values():
            assert go(web, datagram(vip, long_header(kind, cid(1, number)))) == chosen
    assert go(web, datagram(vip, long_header(INITIAL, bytes(8)), sport=5)) != chosen


@vips
@formats
def test_flow_is_rewritten(web: Rig, vip: str, form: int) -> None:
    """A flow that the ring sent elsewhere belongs to the id's backend from then on, established at once."""
    document = quic(vip)
    backend, number = elsewhere(document)
    first = go(web, datagram(vip, long_header(INITIAL, b"chosen by client")))
    assert first == ring(document) != backend

    assert go(web, datagram(vip, short_header(cid(form, number)))) == backend

    (slot,) = slots(web)
    assert slot.kind == ESTABLISHED | UDP_FLOW
    assert go(web, datagram(vip, short_header(b""))) == backend
    assert go(web, datagram(vip, long_header(INITIAL, cid(form, IDS[first])))) == backend
    assert counted(web) == {"by_id": 1, "without": 3}


@vips
def test_established_flow_is_rewritten_within_the_second(web: Rig, vip: str) -> None:
    """One id after another on one tuple: the entry always names the backend that was named last."""
    for port in range(1000, 1010):
        for backend, number in (*IDS.items(), *IDS.items()):
            assert go(web, datagram(vip, short_header(cid(1, number)), sport=port)) == backend
            assert go(web, datagram(vip, short_header(b""), sport=port)) == backend


@vips
def test_flow_that_is_not_known_is_written(web: Rig, vip: str) -> None:
    """A connection from a new address: its entry is there at once, and the ring was not asked."""
    backend, number = elsewhere(quic(vip))

    assert go(web, datagram(vip, short_header(cid(1, number)))) == backend

    assert [s.kind for s in slots(web)] == [ESTABLISHED | UDP_FLOW]
    assert stats(web).misses == 0
    assert go(web, datagram(vip, b"\x40")) == backend


@vips
def test_flow_is_kept_alive(web: Rig, vip: str) -> None:
    """A packet with an id refreshes its flow, as any packet does."""
    backend, number = elsewhere(quic(vip))
    go(web, datagram(vip, short_header(cid(2, number))))
    make_older(web, 25)
    go(web, datagram(vip, short_header(cid(2, number))))
    make_older(web, 25)

    assert go(web, datagram(vip, short_header(b""))) == backend


@vips
@pytest.mark.parametrize("form", FORMATS)
def test_unknown_id(web: Rig, vip: str, form: int) -> None:
    """A number that no backend has: the ring, then the table, counted as unknown; the table is not overruled."""
    frame = datagram(vip, short_header(cid(form, 0x1234)))
    chosen = go(web, frame)
    assert chosen == ring(quic(vip))
    assert [s.kind for s in slots(web)] == [PROBATION | UDP_FLOW]
    assert counted(web) == {"unknown": 1}

    backend, number = elsewhere(quic(vip))
    go(web, datagram(vip, short_header(cid(form, number))))

    assert go(web, frame) == backend
    assert counted(web) == {"by_id": 1, "unknown": 2}


NO_ID = {
    "number 0, form 1": short_header(cid(1, 0)),
    "number 0, form 2": short_header(cid(2, 0)),
    "number 0, form 3": short_header(cid(3, 0)),
    "number 0, every other bit set": short_header(cid(2, 0, fill=0xFF)),
    "first bits 00": short_header(b"\x00\x01\x01\x01\x01\x01\x01\x01"),
    "no bytes at all": b"",
    "one byte": b"\x40",
    "empty id in a Handshake": long_header(HANDSHAKE, b""),
    "form 1 of two bytes": short_header(cid(1, 0xFFFF)[:2]),
    "form 2 of three bytes": short_header(cid(2, 1 << 16)[:3]),
    "form 3 of four bytes": short_header(cid(3, 1 << 24)[:4]),
    "form 1 of two bytes in a Handshake": long_header(HANDSHAKE, cid(1, 0xFFFF)[:2]),
    "form 2 of three bytes in a Handshake": long_header(HANDSHAKE, cid(2, 1 << 16)[:3]),
    "form 3 of four bytes in a Handshake": long_header(HANDSHAKE, cid(3, 1 << 24)[:4]),
    "a Handshake that ends before its id's length": long_header(HANDSHAKE, b"")[:5],
    "a Handshake that ends within its id": long_header(HANDSHAKE, cid(3, 0x01020304))[: 6 + 4],
    "version negotiation": long_header(HANDSHAKE, cid(1, 1), version=0),
    "version negotiation, other bits": long_header(INITIAL, cid(1, 1), version=0),
    "Initial of an unknown version": long_header(INITIAL, cid(1, 1), version=0xFF00001D),
}


@vips
@pytest.mark.parametrize("name", NO_ID)
def test_no_id(rig: Rig, vip: str, name: str) -> None:
    """What carries none goes by table and ring, and is counted as without, though backends have such numbers."""
    document = quic(
        vip, LARGE | {"10.0.4.1": 1, "10.0.4.2": 0xFFFF, "10.0.4.3": 0x10000, "10.0.4.4": 1 << 24}
    )
    rig.apply(services=[document])

    assert go(rig, datagram(vip, NO_ID[name])) == ring(document)

    assert counted(rig) == {"without": 1}


@pytest.mark.parametrize("kind", [HANDSHAKE, RETRY])
@pytest.mark.parametrize("version", [VERSION_1, VERSION_2, 0xFF00001D, 0x0A0A0A0A])
def test_other_long_headers_are_read(web: Rig, kind: int, version: int) -> None:
    """By RFC 8999 every version has its id in this place; only Initial and 0-RTT carry the client's."""
    backend, number = elsewhere(quic())
    frame = datagram(QUIC4, long_header(kind, cid(3, number), version=version))

    if version == VERSION_2 and kind == HANDSHAKE:  # 2 is 0-RTT there
        assert go(web, frame) == ring(quic())
        assert counted(web) == {"without": 1}
    else:
        assert go(web, frame) == backend
        assert counted(web) == {"by_id": 1}


def test_retry_of_version_2_is_read(web: Rig) -> None:
    """In version 2 the first type is Retry: an id like any."""
    backend, number = elsewhere(quic())

    assert go(web, datagram(QUIC4, long_header(INITIAL, cid(3, number), version=VERSION_2))) == backend


@vips
@formats
@pytest.mark.parametrize("long", [False, True])
def test_id_ends_with_the_datagram(rig: Rig, vip: str, form: int, long: bool) -> None:
    """Cut after each byte, padding behind it: enough bytes of the IP packet name the backend, fewer nothing."""
    number = {1: 0xFFFF, 2: 0xABCDEF, 3: 0x01020304}[form]
    document = quic(vip, {BACKENDS4[0]: number, BACKENDS4[1]: 7})
    rig.apply(services=[document])
    identity = cid(form, number)
    payload = long_header(HANDSHAKE, identity) if long else short_header(identity)
    needed = 6 + len(identity) if long else 1 + form + 2  # a long header says how long its id is
    port = next(p for p in range(1000, 2000) if ring(document, p) != BACKENDS4[0])

    for length in range(len(payload) + 1):
        rig.flows["tag_backend"][:] = 0
        frame = datagram(vip, payload[:length], sport=port)
        expected = BACKENDS4[0] if length >= needed else BACKENDS4[1]
        assert go(rig, frame) == expected, length
        rig.flows["tag_backend"][:] = 0
        padded = bytes(frame) + payload[length:] + bytes(8)
        assert expect_encapsulated(rig.run(padded), padded) == expected, f"{length} and padding"


def test_udp_length_is_not_asked(web: Rig) -> None:
    """The datagram's length is what the IP header leaves for it."""
    backend, number = elsewhere(quic())
    frame = datagram(QUIC4, short_header(cid(3, number)))
    for length in (0, 8, 9, 65535):
        frame[UDP].len = length
        web.flows["tag_backend"][:] = 0
        assert go(web, frame) == backend


@vips
@pytest.mark.parametrize("state", [{"admin_state": "draining"}, {"weight": 0}], ids=["draining", "weight 0"])
def test_backend_that_takes_no_new_flows_is_still_named(rig: Rig, vip: str, state: dict[str, Any]) -> None:
    """Its connections go on, from new addresses too; clients' first packets go elsewhere."""
    document = with_states(vip, b11=state)
    rig.apply(services=[document])

    for port in range(1000, 1030):
        frame = datagram(vip, short_header(cid(1, IDS["10.0.0.11"])), sport=port)
        assert go(rig, frame) == "10.0.0.11"
        first = datagram(vip, long_header(INITIAL, cid(1, IDS["10.0.0.11"])), sport=port + 1000)
        assert go(rig, first) == ring(document, port + 1000) != "10.0.0.11"
    assert counted(rig) == {"by_id": 30, "without": 30}


@vips
def test_disabled_backend_is_not(rig: Rig, vip: str) -> None:
    """Its id counts as unknown, and its flows move at once; enabled again, the id counts."""
    rig.apply(services=[quic(vip)])
    frames = [datagram(vip, short_header(cid(1, IDS["10.0.0.11"])), sport=p) for p in range(1000, 1030)]
    assert {go(rig, f) for f in frames} == {"10.0.0.11"}

    document = with_states(vip, b11={"admin_state": "disabled"})
    rig.apply(services=[document])
    assert [go(rig, f) for f in frames] == [ring(document, f[UDP].sport) for f in frames]
    assert counted(rig) == {"by_id": 30, "unknown": 30}

    rig.apply(services=[quic(vip)])
    assert {go(rig, f) for f in frames} == {"10.0.0.11"}


def test_every_backend_disabled(rig: Rig) -> None:
    """Nobody to go to: dropped by name."""
    off = {"admin_state": "disabled"}
    rig.apply(services=[with_states(b11=off, b12=off, b13=off)])

    assert rig.verdict(datagram(QUIC4, short_header(cid(1, 1)))) == "DROP_NO_BACKEND"


def test_named_though_nobody_takes_new_flows(rig: Rig) -> None:
    """With all backends draining, ids go on to be followed."""
    down = {"admin_state": "draining"}
    rig.apply(services=[with_states(b11=down, b12=down, b13=down)])

    assert go(rig, datagram(QUIC4, short_header(cid(1, IDS["10.0.0.12"])))) == "10.0.0.12"
    assert rig.verdict(datagram(QUIC4, long_header(INITIAL, bytes(8)), sport=2)) == "DROP_NO_BACKEND"


def test_ids_change_hands(rig: Rig) -> None:
    """A backend without an id, an id that moves to another backend, one that goes: as the document says."""
    frame = datagram(QUIC4, short_header(cid(3, 77)))
    for ids, expected in (
        ({"10.0.0.11": 77, "10.0.0.12": 0}, "10.0.0.11"),
        ({"10.0.0.11": 0, "10.0.0.12": 77}, "10.0.0.12"),
        ({"10.0.0.11": 77, "10.0.0.12": 78}, "10.0.0.11"),
        ({"10.0.0.12": 78, "10.0.0.13": 77}, "10.0.0.13"),
    ):
        rig.apply(services=[quic(ids=ids)])
        assert go(rig, frame) == expected
    assert counted(rig) == {"by_id": 4}

    rig.apply(services=[quic(ids={"10.0.0.12": 78, "10.0.0.13": 79})])
    assert go(rig, frame) == "10.0.0.13"  # by the flow table
    assert counted(rig) == {"by_id": 4, "unknown": 1}


def test_ids_are_the_services_own(rig: Rig) -> None:
    """Two services may use one number for different backends; one without quic reads none."""
    rig.apply(
        services=[
            quic(ids={"10.0.0.11": 5, "10.0.0.12": 6}),
            {**quic("10.200.1.6", ids={"10.0.0.13": 5, "10.0.0.12": 7}), "name": "two"},
            service("plain", vip="10.200.1.7", port=443, protocol="udp"),
            service("tcp", vip=QUIC4, port=443),
        ]
    )
    payload = short_header(cid(2, 5))

    assert go(rig, datagram(QUIC4, payload)) == "10.0.0.11"
    assert go(rig, datagram("10.200.1.6", payload)) == "10.0.0.13"
    assert counted(rig) == {"by_id": 2}
    for sport in range(1000, 1020):
        plain = service(vip="10.200.1.7", port=443, protocol="udp")
        assert go(rig, datagram("10.200.1.7", payload, sport=sport)) == ring(plain, sport)
        frame = tcp(dst=QUIC4, dport=443, sport=sport) / payload
        assert expect_encapsulated(rig.run(frame), frame) in BACKENDS4
    assert counted(rig) == {"by_id": 2}


@tagged
@vips
def test_tags_options_and_extensions_before_it(web: Rig, tags: Packet, vip: str) -> None:
    """The id is found behind VLAN tags, IPv4 options and IPv6 extension headers."""
    backend, number = elsewhere(quic(vip))
    payload = UDP(sport=40000, dport=443) / short_header(cid(3, number))
    long_ip = (
        network(dst=vip, options=[IPOption_NOP()] * 12)
        if vip == QUIC4
        else network(dst=vip) / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt()
    )
    for ip in (network(dst=vip), long_ip):
        web.flows["tag_backend"][:] = 0
        assert go(web, within(tags, LINK / ip / payload)) == backend


def test_quoting_error_goes_by_its_flow(web: Rig) -> None:
    """An ICMP error quotes the backend's own packet, whose ids are the client's: the flow table knows."""
    backend, number = elsewhere(quic())
    go(web, datagram(QUIC4, short_header(cid(1, number))))
    quoted = IP(src=QUIC4, dst=CLIENT4) / UDP(sport=443, dport=40000) / short_header(cid(1, 1))

    error = LINK / IP(src="192.0.2.1", dst=QUIC4) / ICMP(type=3, code=4) / quoted

    assert go(web, error) == backend
    assert counted(web) == {"by_id": 1}


def test_other_modes(rig: Rig) -> None:
    """By mode l2 and gue the named backend is reached as well; with migration, a draining one keeps what names it."""
    ids6 = dict(zip(BACKENDS6, (1, 2, 3), strict=True))
    rig.apply(
        services=[
            {**quic(QUIC6, ids6, mode="l2"), "name": "l2"},
            {**quic(mode="gue"), "name": "gue"},
            {**with_states("10.200.1.6", b11={"weight": 0}), "name": "moves", "udp_migration": True},
        ]
    )

    for backend, number in ids6.items():
        frame = datagram(QUIC6, short_header(cid(1, number)))
        assert expect_rewritten(rig.run(frame), frame, BACKENDS6) == backend
    for backend, number in IDS.items():
        frame = datagram(QUIC4, short_header(cid(1, number)))
        assert expect_gue(rig.run(frame), frame) == backend
    frame = datagram("10.200.1.6", short_header(cid(1, IDS["10.0.0.11"])))
    assert go(rig, frame) == "10.0.0.11"
    assert go(rig, datagram("10.200.1.6", short_header(b""))) != "10.0.0.11"


def test_client_that_moves(web: Rig) -> None:
    """One connection from one address and port after another: the same backend all the way, and no other is asked."""
    for backend, number in IDS.items():
        for n in range(1, 40):
            four = datagram(QUIC4, short_header(cid(1, number)), src=f"10.0.1.{n}", sport=3000 + n)
            six = datagram(QUIC6, short_header(cid(1, number)), src=f"{CLIENT6[:-1]}{n:x}", sport=3000 + n)
            assert go(web, four) == go(web, six) == backend

    assert stats(web).misses == 0

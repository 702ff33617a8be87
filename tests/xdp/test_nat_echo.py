"""Mode nat with protocol icmp: echo requests and replies, whole frames both ways."""

from random import Random

import pytest
from echo_frames import IDENTIFIER, echo, expect_ping, expect_pong, ping, pinged, pong, told
from frames import (
    CLIENT4,
    KINDS,
    LINK,
    VIP4,
    VIP6,
    kinds,
    network,
    patched,
    service,
    tagged,
    tcp,
    within,
)
from nat_frames import POOL4, POOL6, POOLS, answer, network_of, reparsed
from rig import Rig
from scapy.layers.inet import ICMP, TCP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrHopByHop
from scapy.packet import Packet
from test_nat_sizes import filled, growth
from test_nat_sizes import told as told_what_fits

pytestmark = pytest.mark.root

OTHER_VIP = "10.200.1.2"
ICMP_SUM4 = 36
"""Where the checksum is in an ICMPv4 frame."""


def pool_of(backend: str) -> str:
    return POOL6 if ":" in backend else POOL4


@kinds
@pytest.mark.parametrize("data", [b"", b"odd", bytes(range(56))])
def test_there_and_back(nat_rig: Rig, vip: str, backends: tuple[str, ...], data: bytes) -> None:
    """A request leaves with an identifier of the pool's, and so do the next ones; replies have the client's again."""
    nat_rig.apply(settings=POOLS, services=[pinged(vip=vip, backends=backends[:1])])
    requests = [ping(dst=vip, number=number, data=data) for number in (1, 2, 65535)]

    given = set()
    for request in requests:
        out = nat_rig.run(request)
        given.add(expect_ping(out, request, pool_of(backends[0]), backends[0]))
        reply = pong(out)
        expect_pong(nat_rig.run(reply), reply, request)

    (identifier,) = given
    assert identifier >= 1024


@pytest.mark.parametrize("kind", ["4 in 4", "6 in 6"])
def test_source_and_identifier_are_kept(nat_rig: Rig, kind: str) -> None:
    """With keep the backend sees the client and its identifier; its reply leaves as the VIP's, another's does not."""
    vip, backends = KINDS[kind]
    nat_rig.apply(services=[pinged(vip=vip, backends=backends[:1], nat_source="keep")])
    request = ping(dst=vip)

    out = nat_rig.run(request)
    given = expect_ping(out, request, network_of(request).src, backends[0])
    reply = pong(out)
    expect_pong(nat_rig.run(reply), reply, request)

    assert given == IDENTIFIER
    client = network_of(request).src
    other = LINK / network(backends[0], client) / echo(client, IDENTIFIER + 1, reply=True)
    assert nat_rig.verdict(other) == "PASS_PROTOCOL"


def test_one_identifier_of_many_clients(nat_rig: Rig) -> None:
    """Clients that chose one identifier get one each, and each its own reply; so does one client of two VIPs."""
    nat_rig.apply(settings=POOLS, services=[pinged(), pinged("other", OTHER_VIP)])
    clients = [f"10.0.1.{last}" for last in range(1, 9)]
    requests = [ping(src, vip) for src in clients for vip in (VIP4, OTHER_VIP)]

    outs = [nat_rig.run(request) for request in requests]
    given = {
        expect_ping(out, request, POOL4, "10.0.0.11") for out, request in zip(outs, requests, strict=True)
    }

    assert len(given) == len(requests)
    for request, out in reversed([*zip(requests, outs, strict=True)]):
        reply = pong(out)
        expect_pong(nat_rig.run(reply), reply, request)


def test_kept_identifiers_clash(nat_rig: Rig) -> None:
    """One client's identifier to one backend by two VIPs cannot be told apart: a reason of its own."""
    services = [pinged(f"s{n}", vip, nat_source="keep") for n, vip in enumerate((VIP4, OTHER_VIP))]
    nat_rig.apply(services=services)

    assert nat_rig.verdict(ping()) == "TX_NAT"
    assert nat_rig.verdict(ping(dst=OTHER_VIP)) == "DROP_NAT_CLASH"
    assert nat_rig.verdict(ping(dst=OTHER_VIP, identifier=IDENTIFIER + 1)) == "TX_NAT"


@pytest.mark.parametrize(("vip", "other"), [(VIP4, OTHER_VIP), (VIP6, "fc00:1::2")])
def test_what_backends_do_not_get(nat_rig: Rig, vip: str, other: str) -> None:
    """A VIP without such a service answers by itself; other codes, replies and other ICMP are the kernel's."""
    nat_rig.apply(
        settings=POOLS, services=[pinged(vip=vip, backends=["10.0.0.11"]), service("web", vip=other)]
    )
    at = 34 if vip == VIP4 else 54
    kinds = {"code 1": (at + 1, 1), "timestamp or query": (at, 13 if vip == VIP4 else 130)}

    assert nat_rig.verdict(ping(dst=other)) == "TX_ECHO"
    assert nat_rig.verdict(ping(dst=vip)) == "TX_NAT"
    assert {nat_rig.verdict(patched(ping(dst=vip), *change)) for change in kinds.values()} == {
        "PASS_PROTOCOL"
    }
    assert nat_rig.verdict(LINK / network(dst=vip) / echo(vip, 1, reply=True)) == "PASS_PROTOCOL"


def test_what_is_no_reply(nat_rig: Rig) -> None:
    """Another source, identifier, code or type than the backend's reply has goes to the kernel."""
    nat_rig.apply(settings=POOLS, services=[pinged(), service(mode="nat", backends=["10.0.0.11"])])
    reply = pong(nat_rig.run(ping()))
    connection = answer(nat_rig.run(tcp()))
    port = connection[TCP].dport
    given, _, _ = told(reply)
    others = [
        LINK / network("10.0.0.12", POOL4) / echo(POOL4, given, reply=True),
        LINK / network("10.0.0.11", POOL4) / echo(POOL4, given + 1, reply=True),
        LINK / network("10.0.0.11", POOL4) / echo(POOL4, given),
        LINK / network("10.0.0.11", POOL4) / echo(POOL4, port, reply=True),
        patched(reply, 35, 1),
    ]

    assert [nat_rig.verdict(frame) for frame in others] == ["PASS_PROTOCOL"] * len(others)
    assert nat_rig.verdict(reply) == "TX_NAT_REPLY"
    connection[TCP].dport = given
    assert nat_rig.verdict(connection) == "PASS_NO_SERVICE"


@kinds
def test_checksums(nat_rig: Rig, vip: str, backends: tuple[str, ...]) -> None:
    """Over any data they are those made anew; one that was wrong is as wrong afterwards."""
    nat_rig.apply(settings=POOLS, services=[pinged(vip=vip, backends=backends[:1])])
    chance = Random(f"echo {vip} {backends[0]}")
    at = ICMP_SUM4 if vip == VIP4 else 56

    for _ in range(100):
        request = ping(
            dst=vip,
            identifier=chance.getrandbits(16),
            number=chance.getrandbits(16),
            data=chance.randbytes(chance.randint(0, 99)),
        )
        out = nat_rig.run(request)
        expect_ping(out, request, pool_of(backends[0]), backends[0])
        reply = pong(out)
        expect_pong(nat_rig.run(reply), reply, request)
    right, wrong = bytes(ping(dst=vip)), bytearray(bytes(ping(dst=vip)))
    wrong[at] ^= 0x55
    out = nat_rig.run(bytes(wrong)).frame_out
    assert out != nat_rig.run(right).frame_out
    assert valid_sum(out) == valid_sum(bytes(wrong)) != valid_sum(right) == 0xFFFF


def valid_sum(frame: bytes) -> int:
    """The sum over an echo and its pseudo-header if it has one: 0xffff if the checksum is right."""
    head = network_of(reparsed(frame))
    message = bytes(head.payload)
    ahead = b""
    if head.version == 6:
        ahead = bytes(head)[8:40] + len(message).to_bytes(4, "big") + bytes([0, 0, 0, 58])
    words = ahead + message + bytes(len(message) & 1)
    total = sum(int.from_bytes(words[at : at + 2], "big") for at in range(0, len(words), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_reply_that_is_all_zeros(nat_rig: Rig) -> None:
    """Its checksum is 0xffff: with 0 its client would find it wrong."""
    nat_rig.apply(settings=POOLS, services=[pinged()])
    request = ping(identifier=0, number=0, data=bytes(8))

    back = nat_rig.run(pong(nat_rig.run(request)))

    assert bytes(network_of(reparsed(back.frame_out)).payload) == b"\0\0\xff\xff" + bytes(12)


@kinds
def test_options_and_extensions(nat_rig: Rig, vip: str, backends: tuple[str, ...]) -> None:
    """What stands between the headers stays in its family, and goes with the header where that is replaced."""
    nat_rig.apply(settings=POOLS, services=[pinged(vip=vip, backends=backends[:1])])
    plain = ping(dst=vip)
    if vip == VIP4:
        whole = LINK / network(dst=vip, options=[IPOption_NOP()] * 8) / echo(vip, IDENTIFIER)
    else:
        whole = LINK / network(dst=vip) / IPv6ExtHdrHopByHop() / echo(vip, IDENTIFIER)

    out, bare = nat_rig.run(whole), nat_rig.run(plain)

    assert (out.verdict, bare.verdict) == ("TX_NAT", "TX_NAT")
    more = 8 if growth(vip, backends[0]) == 0 else 0
    assert len(out.frame_out) == len(bare.frame_out) + more
    assert told_at_end(out.frame_out) == told_at_end(bare.frame_out)


def told_at_end(frame: bytes) -> bytes:
    """The echo's last bytes: type, code, checksum, identifier, number and data."""
    return frame[-15:]


@kinds
def test_too_big(nat_rig: Rig, vip: str, backends: tuple[str, ...]) -> None:
    """What just fits goes, either way; of one byte more the sender hears what would fit."""
    nat_rig.apply(settings=POOLS, services=[pinged(vip=vip, backends=backends[:1])])
    there, back = 1500 - growth(vip, backends[0]), 1500 - growth(backends[0], vip)
    request, reply = ping(dst=vip), pong(nat_rig.run(ping(dst=vip)))

    for frame, most, fitting in ((request, there, "TX_NAT"), (reply, back, "TX_NAT_REPLY")):
        assert nat_rig.verdict(bytes(filled(bare(frame), most))) == fitting
        exceeds = filled(bare(frame), most + 1)
        outcome = nat_rig.run(exceeds)
        assert outcome.verdict == "TX_TOO_BIG"
        assert outcome.frame_out.hex() == told_what_fits(exceeds, most).hex()


def bare(frame: Packet) -> Packet:
    """The same with lengths and checksums still to be reckoned."""
    packet = frame.copy()
    for layer in (packet, packet.getlayer(1), packet.getlayer(2)):
        for name in ("len", "plen", "chksum", "cksum"):
            if name in layer.fields:
                delattr(layer, name)
    return packet


@pytest.mark.parametrize(("vip", "backend"), [(VIP4, "10.0.0.11"), (VIP6, "fd00::11")])
def test_where_the_ttl_ends(nat_rig: Rig, vip: str, backend: str) -> None:
    """Either way."""
    nat_rig.apply(settings=POOLS, services=[pinged(vip=vip, backends=[backend])])
    last = {"ttl": 1} if vip == VIP4 else {"hlim": 1}

    assert nat_rig.verdict(ping(dst=vip, **last)) == "DROP_TTL"
    reply = pong(nat_rig.run(ping(dst=vip)))
    for name, value in last.items():
        setattr(reply.getlayer(1), name, value)
    assert nat_rig.verdict(reply) == "DROP_TTL"


def test_fragments(nat_rig: Rig) -> None:
    """Any fragment of echo is dropped, for a VIP and for a pool address."""
    nat_rig.apply(settings=POOLS, services=[pinged()])
    reply = pong(nat_rig.run(ping()))

    for frame in (ping(), reply):
        first, later = frame.copy(), frame.copy()
        first.getlayer(1).flags, later.getlayer(1).frag = "MF", 8
        assert (nat_rig.verdict(first), nat_rig.verdict(later)) == ("DROP_FRAGMENT", "DROP_FRAGMENT")


@tagged
@pytest.mark.parametrize(("vip", "backend"), [(VIP4, "10.0.0.11"), (VIP4, "fd00::11"), (VIP6, "10.0.0.11")])
def test_tags_are_kept(nat_rig: Rig, tags: Packet, vip: str, backend: str) -> None:
    """Both ways, with a header of the other family too."""
    nat_rig.apply(settings=POOLS, services=[pinged(vip=vip, backends=[backend])])
    request = within(tags, ping(dst=vip))

    out = nat_rig.run(request)
    expect_ping(out, request, pool_of(backend), backend)
    reply = within(tags, pong(nat_rig.run(ping(dst=vip))))
    expect_pong(nat_rig.run(reply), reply, request)


def quoting(quote: bytes, src: str, dst: str) -> Packet:
    """An unreachable that quotes these bytes."""
    return LINK / network(src, dst) / ICMP(type=3, code=1) / quote


def test_quotes_of_no_flow(nat_rig: Rig) -> None:
    """Each side may only quote what it was sent, whole up to the number, of a flow that is known."""
    nat_rig.apply(settings=POOLS, services=[pinged()])
    out = nat_rig.run(ping())
    back = nat_rig.run(pong(out))
    sent, got = (bytes(network_of(reparsed(frame.frame_out))) for frame in (out, back))
    given, _, _ = told(out.frame_out)
    request = bytes(network(VIP4, CLIENT4) / echo(CLIENT4, IDENTIFIER))
    reply = bytes(network(POOL4, "10.0.0.11") / echo("10.0.0.11", given, reply=True))
    unknown = bytes(network(VIP4, CLIENT4) / echo(CLIENT4, IDENTIFIER + 1, reply=True))

    padded = bytes(quoting(sent[:27], "10.77.0.1", POOL4)) + bytes(20)
    from_backend = [sent[:28], sent[:27], patched(sent, 21, 1), reply]
    from_client = [got[:28], got[:27], patched(got, 21, 1), request, unknown]

    assert [nat_rig.verdict(quoting(quote, "10.77.0.1", POOL4)) for quote in from_backend] == [
        "TX_NAT_REPLY",
        *["PASS_ICMP_ERROR"] * 3,
    ]
    assert [nat_rig.verdict(quoting(quote, "10.77.0.1", VIP4)) for quote in from_client] == [
        "TX_NAT",
        *["PASS_ICMP_ERROR"] * 4,
    ]
    assert nat_rig.verdict(padded) == "PASS_ICMP_ERROR"

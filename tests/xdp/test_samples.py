"""Packets that are handed out: struct sample as the program writes it, read by the ring buffer's reader."""

import time
from collections.abc import Iterator
from ipaddress import ip_address

import numpy as np
import pytest
from frames import ELSE4, LINK, VIP4, VIP6, service, tcp, udp
from machine import Machine
from rig import OUR_IFINDEX, Rig
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP

from lb.dataplane import libbpf
from lb.dataplane.layout import layout
from lb.dataplane.tables import Array
from lb.reconcile.watch import BYTES_MOST, FEATURE, Watcher

pytestmark = pytest.mark.root

NUMBER = {v.name: v.number for v in layout().verdicts}
ALL = frozenset(NUMBER.values())
NONE = layout().constants["NONE"]


class Looker:
    """A watcher of the rig's control plane, and what it gets."""

    def __init__(self, rig: Rig, *names: str, **more: int) -> None:
        self.rig = rig
        wanted = frozenset(NUMBER[name] for name in names) or ALL
        self.watcher: Watcher = rig.reconciler.watch.open(wanted, **more)

    def got(self, number: int) -> Array:
        """So many records; fails if they do not come."""
        found, deadline = [self.watcher.take()], time.monotonic() + 30
        while sum(map(len, found)) < number:
            assert time.monotonic() < deadline, f"{sum(map(len, found))} of {number} records came"
            found.append(self.watcher.take())
        return np.concatenate(found)


@pytest.fixture
def looker(rig: Rig) -> Iterator[Looker]:
    yield Looker(rig, octets=BYTES_MOST)


def test_a_forwarded_packet(rig: Rig, looker: Looker) -> None:
    """Verdict, service, place, source as it came; the bytes are of the frame as it leaves; the time is of now."""
    rig.apply(services=[service()])
    before = time.monotonic_ns()

    out = rig.run(tcp()).frame_out

    (row,) = looker.got(1)
    plan = rig.plan("web")
    assert before < row["time_ns"] < time.monotonic_ns()
    assert (row["kind"], row["verdict"]) == (1, NUMBER["TX_IPIP"])
    assert (row["entry"], row["rule"], row["service"]) == (0, NONE, plan.number)
    assert plan.start <= row["place"] < plan.start + (1 << plan.room)
    assert (row["ifindex"], row["frame_length"]) == (OUR_IFINDEX, len(bytes(tcp())))
    assert (row["family"], row["source"].tobytes()[:4]) == (4, ip_address("10.0.1.1").packed)
    assert row["bytes"].tobytes()[: row["captured"]] == out[:BYTES_MOST]
    assert row["captured"] == min(len(out), BYTES_MOST)


def test_a_blocked_packet_names_its_entry(rig: Rig, looker: Looker) -> None:
    """The number is the longest entry's, and the control plane finds prefix and owner by it."""
    rig.apply(block=["10.0.0.0/8", {"prefix": "10.0.1.0/24", "reason": "scan"}, "fd00::/16"])

    for frame in (tcp(dst=ELSE4), tcp(dst=VIP6)):
        assert rig.verdict(frame) == "DROP_BLOCKLIST"

    rows = looker.got(2)
    four, six = rig.reconciler.naming().seen(rows, time.time_ns() - time.monotonic_ns())
    assert four.entry is not None
    assert six.entry is not None
    assert (str(four.entry.prefix), four.entry.attributes.reason) == ("10.0.1.0/24", "scan")
    assert four.entry.owners == ("operator",)
    assert (str(six.entry.prefix), six.source) == ("fd00::/16", "fd00:0:0:1::1")
    assert abs(four.time_ns / 1e9 - time.time()) < 60
    assert four.data == bytes(tcp(dst=ELSE4))[:BYTES_MOST]


def test_a_packet_that_a_rule_drops_names_it(rig: Rig, looker: Looker) -> None:
    """The number stays the rule's own, whatever its place in the order; other packets name none."""
    rules = [
        {"name": "first", "action": "drop", "source": "10.0.2.0/24"},
        {"name": "second", "action": "drop", "source": "10.0.1.0/24", "priority": 2000},
    ]
    for some in (rules, rules[1:]):
        rig.apply(rules=some)
        assert rig.verdict(tcp(dst=ELSE4)) == "DROP_RULE"
        assert rig.verdict(tcp(src="10.0.3.1", dst=ELSE4)) == "PASS_NO_SERVICE"

        dropped, passed = rig.reconciler.naming().seen(looker.got(2), 0)
        assert (dropped.rule, passed.rule) == ("second", None)


def test_an_error_has_the_client_that_it_is_about(rig: Rig, looker: Looker) -> None:
    """Not the router that sends it; one that quotes nothing known keeps its sender."""
    rig.apply(services=[service()])
    about = IP(src=VIP4, dst="10.0.1.1") / TCP(sport=80, dport=40000)
    strange = IP(src="10.0.9.9", dst="10.0.1.1") / TCP(sport=80, dport=40000)
    sent = LINK / IP(src="10.77.0.1", dst=VIP4) / ICMP(type=11)

    verdicts = [rig.verdict(sent / quoted) for quoted in (about, strange)]

    seen = rig.reconciler.naming().seen(looker.got(2), 0)
    assert verdicts == ["TX_IPIP", "PASS_ICMP_ERROR"]
    assert [(one.verdict.name, one.source) for one in seen] == [
        ("TX_IPIP", "10.0.1.1"),
        ("PASS_ICMP_ERROR", "10.77.0.1"),
    ]


def test_what_is_not_of_ip_has_no_address(rig: Rig, looker: Looker) -> None:
    """An ARP frame, and one that ends within its header, are handed out as they are."""
    for frame in (bytes(LINK / ARP()), bytes(tcp())[:20]):
        rig.run(frame)
        (row,) = looker.got(1)
        assert row["family"] == 0
        assert (row["service"], row["place"], row["entry"]) == (NONE, NONE, 0)
        assert row["bytes"].tobytes()[: row["captured"]] == frame


@pytest.mark.parametrize("octets", [0, 1, 20, BYTES_MOST])
def test_bytes_are_as_many_as_wanted(rig: Rig, octets: int) -> None:
    """No more (one where none is), of long frames and short ones; the frame's length is said beside them."""
    looker = Looker(rig, octets=octets)
    for size in (0, 1000):
        frame = bytes(udp(dst=ELSE4) / (b"x" * size))
        rig.run(frame)
        (row,) = looker.got(1)
        assert (row["captured"], row["frame_length"]) == (min(max(1, octets), len(frame)), len(frame))
        assert row["bytes"].tobytes()[: row["captured"]] == frame[: row["captured"]]


def test_only_wanted_verdicts_are_handed_out(rig: Rig) -> None:
    """Others are not in the queue at all; those of numbers above 63 are as good as any."""
    rig.apply(services=[service()], block=["10.0.1.7"])
    looker = Looker(rig, "DROP_BLOCKLIST")

    for _ in range(3):
        rig.run(tcp())
        rig.run(tcp(src="10.0.1.7"))

    assert looker.got(3)["verdict"].tolist() == [NUMBER["DROP_BLOCKLIST"]] * 3
    assert looker.watcher.seen.sum() == 3
    assert looker.watcher.came(rig.reconciler.watch.totals()).sum() == 3


def test_the_rate_is_kept(rig: Rig) -> None:
    """Of a burst no more than its share is handed out in a sixteenth of a second, and the counters tell the rest."""
    looker = Looker(rig, rate=160)
    frame = bytes(tcp(dst=ELSE4))
    began = time.monotonic()
    for _ in range(500):
        libbpf.test_run(rig.program.fd, frame)
    periods = int((time.monotonic() - began) * 16) + 2

    looker.got(10)
    came = looker.watcher.came(rig.reconciler.watch.totals()).sum()
    assert came == 500
    assert 10 <= looker.watcher.seen.sum() <= 10 * periods


def test_a_queue_that_is_full_loses_records_and_nothing_else(rig: Rig) -> None:
    """Packets go their way and are counted, whether the queue has room or not."""
    queue = rig.plane.samples()
    arrays = rig.plane.tables.arrays
    rig.reconciler.watch._say_what_is_wanted()
    try:
        queue.read(0)
        arrays.watching["verdicts"][0] = np.iinfo(np.uint64).max
        arrays.watching["most"][0] = 1 << 30
        frame, before = bytes(tcp(dst=ELSE4)), rig._verdicts()[0].sum()
        for _ in range(4000):
            libbpf.test_run(rig.program.fd, frame)
        found = 0
        while len(rows := queue.read(0.05)):
            found += len(rows)

        assert rig._verdicts()[0].sum() - before == 4000
        assert 3000 < found < 4000
    finally:
        queue.close()
        rig.reconciler.watch.start()


def test_nothing_is_left_when_nobody_looks(exact_rig: Rig) -> None:
    """After a capture the program has the features, and takes the instructions, that it had before."""
    exact_rig.apply(services=[service()])
    exact_rig.reconciler._trim()
    features, size = exact_rig.program.build.features, exact_rig.program.info.instructions
    way = executed(exact_rig)

    looker = Looker(exact_rig)
    assert exact_rig.program.build.features == features | {FEATURE}
    assert exact_rig.program.info.instructions > size
    exact_rig.reconciler.watch.end(looker.watcher)
    exact_rig.reconciler._trim()

    assert exact_rig.program.build.features == features
    assert exact_rig.program.info.instructions == size
    assert executed(exact_rig) == way


def executed(rig: Rig) -> int:
    """Instructions on the way of an established flow's packet."""
    house = Machine(rig.program.build, rig.plane.tables, rig.plane.sizes, seconds=rig.plane.clock_seconds())
    for _ in range(2):
        house.run(bytes(tcp(flags="A")))
    return house.run(bytes(tcp(flags="A"))).instructions

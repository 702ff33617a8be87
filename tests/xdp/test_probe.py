"""Checks are carried as clients' packets are; and what leads them there is put in place and taken away whole."""

import ctypes
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from frames import ELSE4, ELSE6, VIP4, VIP6, service, tcp, udp
from plane import CACHE
from pyroute2 import IPRoute
from rig import Programs, Rig

from lb.dataplane import libbpf, probe_path
from lb.dataplane.build import Build
from lb.dataplane.layout import layout
from lb.dataplane.probe_path import ProbePath
from lb.dataplane.tables import size_flags
from lb.errors import DataPlaneError
from lb.events import Events
from lb.health.dial import PORTS
from lb.reconcile.probe_way import probe_way

pytestmark = pytest.mark.root

C = layout().constants
OK, SHOT, REDIRECT = 0, 2, 7
CLONE_NEWNET = 0x40000000
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def carrier(programs: Programs) -> Iterator[int]:
    """The program, over the rig's maps; its descriptor."""
    constants = {**size_flags(programs.sizes), "GUE_PORT": 6080}
    with probe_path.loaded(Build(frozenset(), constants, programs.pins, kept=CACHE)) as descriptor:
        yield descriptor


def carry(descriptor: int, frame: bytes, mark: int) -> tuple[int, bytes]:
    """Run it on a frame that bears a mark: what it says, and the frame as it leaves."""
    context = ctypes.create_string_buffer(
        struct.pack("=3I", 0, 0, mark).ljust(192, b"\0"), 192
    )  # struct __sk_buff
    data = ctypes.create_string_buffer(frame, len(frame))
    out = ctypes.create_string_buffer(len(frame) + 512)
    opts = libbpf._TestRunOpts(
        sz=ctypes.sizeof(libbpf._TestRunOpts),
        data_in=ctypes.cast(data, ctypes.c_void_p),
        data_size_in=len(frame),
        data_out=ctypes.cast(out, ctypes.c_void_p),
        data_size_out=len(out),
        ctx_in=ctypes.cast(context, ctypes.c_void_p),
        ctx_size_in=len(context),
        repeat=1,
    )
    libbpf._check(libbpf._lib().bpf_prog_test_run_opts(descriptor, ctypes.byref(opts)), "test run")
    return int(opts.retval), out.raw[: opts.data_size_out]


def way(rig: Rig, backend: bytes, family: int = 4) -> int:
    """The mark of a check of the service "web"."""

    class Anywhere:
        def probe_source(self, ifindex: int, family: int) -> str:
            return ELSE4

    plans, hops = rig.reconciler._plans.services, rig.reconciler._maps.hops.known
    where: Any = Anywhere()
    mark, _ = probe_way(where, plans, hops, service="web", backend=backend, family=family)
    return mark


@pytest.mark.parametrize("mode", ["ipip", "gue", "l2"])
@pytest.mark.parametrize(
    ("vip", "source", "backend"),
    [
        (VIP4, ELSE4, "10.0.0.11"),
        (VIP6, ELSE6, "fd00::11"),
        (VIP4, ELSE4, "fd00::11"),
        (VIP6, ELSE6, "10.0.0.11"),
    ],
)
def test_carried_as_a_clients_packet(
    rig: Rig, carrier: int, *, mode: str, vip: str, source: str, backend: str
) -> None:
    """The frame that leaves is the one that the packet path makes of a client's packet with the same addresses."""
    if mode == "l2" and (":" in vip) != (":" in backend):
        return
    rig.apply(services=[service(vip=vip, mode=mode, backends=[backend])])
    for frame in (
        tcp(src=source, dst=vip, sport=61000),
        tcp(src=source, dst=vip, sport=61001, flags="A") / b"GET /",
    ):
        wanted = rig.run(frame)
        assert wanted.action == "tx"
        [packed] = [b.address.packed for b in rig.reconciler.desired.config.service("web").backends]
        assert carry(carrier, bytes(frame), way(rig, packed)) == (REDIRECT, wanted.frame_out)


def test_the_mark_names_the_backend(rig: Rig, carrier: int) -> None:
    """Whatever the ring says: each mark leads to its own backend, a disabled or unhealthy one too if it is reached."""
    rig.apply(services=[service(backends=[f"10.0.0.{n}" for n in (11, 12, 13)])])
    frame = bytes(tcp(src=ELSE4, sport=61000))
    for backend in rig.reconciler.desired.config.service("web").backends:
        verdict, out = carry(carrier, frame, way(rig, backend.address.packed))
        assert verdict == REDIRECT
        assert out[30:34] == backend.address.packed


def test_everything_else_passes_or_goes_nowhere(rig: Rig, carrier: int) -> None:
    """What has no such mark passes untouched; what has one, and leads to nobody, goes no further."""
    rig.apply(services=[service()])
    frame = bytes(udp(src=ELSE4, sport=61000))
    for mark in (0, 1, 0x58000000, 0x60000000, 0xFFFFFFFF):
        assert carry(carrier, frame, mark) == (OK, frame)
    nobody = C["PROBE_MARK"] | C["PROBE_PLACE_MASK"]
    unused = C["PROBE_MARK"] | rig.plan("web").start + (1 << rig.plan("web").room) - 1
    for mark in (nobody, unused):
        assert carry(carrier, frame, mark)[0] == SHOT
    arp = frame[:12] + b"\x08\x06" + frame[14:]
    assert carry(carrier, arp, way(rig, bytes([10, 0, 0, 11])))[0] == SHOT


def test_ports_are_those_of_the_packet_path() -> None:
    """What checks send from is what the packet path lets answers to pass."""
    assert (PORTS[0], PORTS[-1]) == (C["PROBE_PORT_FIRST"], C["PROBE_PORT_LAST"])


def in_place() -> tuple[int, int, int]:
    """Rules, routes and filters of checks in this thread's network namespace."""
    with IPRoute() as ip:
        rules = [
            r
            for family in (2, 10)
            for r in ip.get_rules(family=family)
            if r.get_attr("FRA_PRIORITY") == probe_path.PRIORITY
        ]
        routes = [r for r in ip.get_routes() if r.get_attr("RTA_TABLE") == probe_path.TABLE]
        qdiscs = [q for q in ip.get_qdiscs(index=1) if q.get_attr("TCA_KIND") == "clsact"]
        filters = list(ip.get_filters(index=1, parent=0xFFFFFFF3)) if qdiscs else []
    return len(rules), len(routes), len(filters) + len(qdiscs)


def test_put_in_place_and_taken_away(
    programs: Programs, in_a_thread: Callable[[Callable[[], None]], None]
) -> None:
    """Wanted: a rule and a route for each family, and the filter; what is missing comes back; not wanted: nothing."""
    constants = {**size_flags(programs.sizes), "GUE_PORT": 6080}
    build = Build(frozenset(), constants, programs.pins)

    def run() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
        before = in_place()
        with IPRoute() as ip:
            ip.link("set", index=1, state="up")
            ip.addr("add", index=1, address="192.0.2.7", prefixlen=32)
        path = ProbePath(Events())
        keep = path._keep
        keep(build, is_new=True)
        whole = in_place()
        assert whole[0] == 2
        assert whole[1] >= 2
        assert whole[2] >= 2
        with IPRoute() as ip:
            ip.tc("del", "clsact", 1)
        keep(build, is_new=False)
        keep(build, is_new=True)  # a daemon that was killed left it: the next one replaces it
        assert in_place() == whole
        path._problem = None
        assert path.source(9, 4) == "192.0.2.7"
        with pytest.raises(DataPlaneError, match="no IPv6 address"):
            path.source(9, 6)
        probe_path.remove()
        probe_path.remove()
        assert in_place() == before

    in_a_thread(run)


def test_thread_follows_what_is_wanted(
    programs: Programs, in_a_thread: Callable[[Callable[[], None]], None]
) -> None:
    """What a program cannot be compiled for is said, and checks are told why they cannot go this way."""
    events = Events()

    def run() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
        path = ProbePath(events)
        with pytest.raises(DataPlaneError, match="is being made"):
            path.source(1, 4)
        path.want(Build(frozenset(), size_flags(programs.sizes), programs.pins))  # and lo is down
        assert events.wait(0, PATIENCE_SECONDS)
        with pytest.raises(DataPlaneError, match="ip link set lo up"):
            path.source(1, 4)
        path.close()

    in_a_thread(run)
    assert [event.kind for event in events.since(0)] == ["failure"]

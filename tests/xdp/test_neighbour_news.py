"""What the kernel tells of neighbours: more than can be read, and changes without end."""

import ctypes
import errno
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from pyroute2 import IPRoute

from lb.dataplane import neighbours, rtnetlink
from lb.dataplane.neighbours import Neighbours

pytestmark = pytest.mark.root

BACKEND = "10.0.0.11"
MANY = 3000
_CLONE_NEWNET = 0x40000000


def in_a_namespace(route: IPRoute) -> int:
    """An interface that has a route to the backend; its index."""
    route.link("add", ifname="n0", kind="veth", peer={"ifname": "n1"})
    for name in ("n0", "n1"):
        route.link("set", index=route.link_lookup(ifname=name)[0], state="up")
    index = int(route.link_lookup(ifname="n0")[0])
    route.addr("add", index=index, address="10.0.0.1", prefixlen=16)
    return index


def know(route: IPRoute, index: int, address: str, number: int) -> None:
    mac = f"02:00:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    route.neigh("replace", dst=address, lladdr=mac, ifindex=index, state="permanent")


def mac_of(found: Neighbours) -> bytes | None:
    return found.next_hops([socket.inet_aton(BACKEND)])[socket.inet_aton(BACKEND)].mac


@pytest.fixture
def unshared(
    in_a_thread: Callable[[Callable[[], None]], None],
) -> Iterator[Callable[[Callable[[], None]], None]]:
    def run(work: Callable[[], None]) -> None:
        def within() -> None:
            assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0
            work()

        in_a_thread(within)

    yield run


def test_overrun_is_made_up_for(
    unshared: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more is told than there is room for, some is lost: everything is read afresh, and nothing missed."""
    monkeypatch.setattr(neighbours, "RECEIVE_BYTES", 1)
    may_read, overruns = threading.Event(), list[int]()
    real = rtnetlink.events

    def slow(data: bytes) -> Iterator[rtnetlink.Neighbour | None]:
        assert may_read.wait(60)
        yield from real(data)

    monkeypatch.setattr(rtnetlink, "events", slow)

    class Watched(socket.socket):
        def recv(self, *size: int) -> bytes:
            try:
                return super().recv(*size)
            except OSError as error:
                overruns.append(error.errno or 0)
                raise

    monkeypatch.setattr(neighbours.socket, "socket", Watched)

    def work() -> None:
        called = threading.Semaphore(0)
        with IPRoute() as route:
            index = in_a_namespace(route)
            know(route, index, BACKEND, 1)
            found = Neighbours()
            try:
                assert mac_of(found) == b"\x02\0\0\0\0\x01"
                found.watch(called.release)
                for number in range(MANY):
                    know(route, index, f"10.0.{1 + number // 250}.{1 + number % 250}", number)
                know(route, index, BACKEND, 2)
                may_read.set()
                assert called.acquire(timeout=60)
                while mac_of(found) != b"\x02\0\0\0\0\x02":
                    assert called.acquire(timeout=60)
            finally:
                may_read.set()
                found.close()

    unshared(work)

    assert errno.ENOBUFS in overruns


def test_flapping_neighbours_starve_nobody(unshared: Callable[[Callable[[], None]], None]) -> None:
    """A MAC that changes thousands of times is called for far less often, and the last change is not missed."""
    calls: list[bytes | None] = []

    def work() -> None:
        with IPRoute() as route:
            index = in_a_namespace(route)
            know(route, index, BACKEND, 0)
            found = Neighbours()
            try:
                called = threading.Semaphore(0)
                found.watch(lambda: (calls.append(mac_of(found)), called.release()))  # type: ignore[func-returns-value, arg-type]
                mac_of(found)
                for number in range(1, MANY):
                    know(route, index, BACKEND, number)
                while not calls or calls[-1] != (MANY - 1).to_bytes(3, "big").rjust(5, b"\0").rjust(
                    6, b"\x02"
                ):
                    assert called.acquire(timeout=60)
            finally:
                found.close()

    unshared(work)

    assert len(calls) < MANY // 10


def test_what_was_known_is_used_until_it_is_known_anew(
    unshared: Callable[[Callable[[], None]], None],
) -> None:
    """The MACs of an earlier run, and of an interface that was made anew, are good until the kernel knows others."""
    seen: list[bytes | None] = []

    def work() -> None:
        with IPRoute() as route:
            index = in_a_namespace(route)
            found = Neighbours()
            try:
                seen.append(mac_of(found))
                found.remember({socket.inet_aton(BACKEND): b"\x02\0\0\0\0\x07"})
                seen.append(mac_of(found))
                know(route, index, BACKEND, 1)
                seen.append(mac_of(found))
            finally:
                found.close()

    unshared(work)

    assert seen == [None, b"\x02\0\0\0\0\x07", b"\x02\0\0\0\0\x01"]

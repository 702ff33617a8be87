"""Millions of flows through a program in seconds: feeder.c, loaded and driven."""

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lb.dataplane import libbpf
from lb.dataplane.build import Program
from lb.dataplane.compiler import import_bcc

_XDP_TX = 3
_CLONE_NEWNET = 0x40000000


class Feeder:
    """Runs TCP frames of numbered flows: flow n of a base address has source base + n and port 1024 + n % 60000."""

    def __init__(self) -> None:
        text = Path(__file__).with_suffix(".c").read_bytes()
        self._compiled: Any = import_bcc()(text=text)
        self.fd = libbpf.prog_load("feeder", self._compiled.dump_func(b"feeder"))

    def close(self) -> None:
        """Unload."""
        self._compiled.cleanup()

    def run(self, program: Program, frame: bytes, base: int, count: int) -> None:
        """Run `count` flows from number 0 on, each of which must be sent out; frame is what they differ from."""
        feeds, targets = self._compiled[b"feeds"], self._compiled[b"targets"]
        targets[ctypes.c_int(0)] = ctypes.c_int(program.fd)
        destination, ports = (int.from_bytes(frame[at : at + 4], "little") for at in (30, 34))
        feed = feeds.Leaf(
            next=0, base=base, length=len(frame), refused=0, destination=destination, ports=ports
        )
        feed.ethernet[:14] = frame[:14]
        feeds[ctypes.c_int(0)] = feed
        action, _ = libbpf.test_run(self.fd, frame, repeat=count)
        after = feeds[ctypes.c_int(0)]
        assert (action, after.next, after.refused) == (_XDP_TX, count, 0)

    def left(self, count: int) -> list[tuple[bytes, int]]:
        """Source address and port that the first flows left with; not the last of all, nor where frames grew."""
        kept = self._compiled[b"left"]
        words = [int(kept[ctypes.c_int(number)].value).to_bytes(8, "little") for number in range(count)]
        return [(word[:4], int.from_bytes(word[4:6], "big")) for word in words]


@contextlib.contextmanager
def able_to_run_at_once(feeders: tuple[Feeder, Feeder]) -> Iterator[None]:
    """Attached meanwhile, to the ends of a cable in a network namespace of its own.

    A test run of a program that is attached nowhere begins with a change of the kernel's dispatcher, which waits
    for the programs that are running: two such runs come one after the other.
    """
    held: list[int] = []
    raised: list[BaseException] = []

    def attach() -> None:
        from pyroute2 import IPRoute

        try:
            assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0
            held.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
            with IPRoute() as ip:
                ip.link("add", ifname="feeder0", kind="veth", peer={"ifname": "feeder1"})
                for name, feeder in zip(("feeder0", "feeder1"), feeders, strict=True):
                    index = ip.link_lookup(ifname=name)[0]
                    held.append(libbpf.link_create(feeder.fd, index, libbpf.XDP_FLAGS_SKB_MODE))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=attach)
    thread.start()
    thread.join()
    try:
        assert raised == []
        yield
    finally:
        for fd in reversed(held):
            os.close(fd)


def flow_tuple(base: int, number: int) -> tuple[bytes, int]:
    """Source address and port of a flow."""
    return (base + number).to_bytes(4, "big"), 1024 + number % 60000

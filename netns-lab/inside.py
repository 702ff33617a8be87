"""Enter a network namespace, for a command or for a call in a thread of its own; mounts stay as they are."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute, netns

NAMESPACES = Path("/run/netns")

T = TypeVar("T")


def command(namespace: str, words: Sequence[str]) -> list[str]:
    """The command line that runs words inside. nsenter becomes the command, so the pid is the command's own.

    `ip netns exec` would mount another /sys over ours, and /sys/fs/bpf would be gone.
    """
    return ["nsenter", f"--net={NAMESPACES / namespace}", "--", *words]


def call(namespace: str, function: Callable[[], T]) -> T:
    """Call function in a thread that has entered the namespace. Sockets it makes belong there for good.

    OSError if there is no such namespace; what function raises is passed on.
    """

    def enter_and_call() -> T:
        netns.setns(namespace, flags=0)
        return function()

    # A namespace is a thread's own, and this one ends with the call, so nobody is left inside.
    # pyroute2 would fork for this: a child that has our signal handlers, and our clean-up with them.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(enter_and_call).result()


def route(namespace: str, function: Callable[[IPRoute], T]) -> T:
    """Call function with a netlink socket of the namespace. NetlinkError if the kernel refuses something."""

    def open_and_call() -> T:
        with IPRoute() as socket:
            return function(socket)

    return call(namespace, open_and_call)


def set_sysctls(namespace: str, values: dict[str, str]) -> None:
    """Write sysctls, named as in "net/ipv4/ip_forward". FileNotFoundError if this kernel lacks one."""

    def write() -> None:
        for name, value in values.items():
            (Path("/proc/sys") / name).write_text(value)

    call(namespace, write)

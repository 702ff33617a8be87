"""A world of the bench's own: network, pins and mounts that vanish with this process, whatever ends it.

The bench runs in a network and a mount namespace without a name, with a bpffs of its own on /sys/fs/bpf. Its children
are killed with it (PR_SET_PDEATHSIG). So a bench that is killed leaves nothing but files in DATA_ROOT, which the next
one removes.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyroute2 import IPRoute

from lb.errors import SetupError

DATA_ROOT = Path("/var/lib/sluice-bench")
"""On a disk, not in memory: committing to the store is a part of what is measured."""
_INSIDE = "SLUICE_BENCH_INSIDE"
_SYSCTLS = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/router_solicitations": "0",
}


def enter() -> None:
    """Start over inside; returns there. SetupError without root."""
    if os.environ.get(_INSIDE) != str(os.getpid()):
        if os.geteuid() != 0:
            raise SetupError("namespaces and BPF need root: run this as root")
        words = ["unshare", "--net", "--mount", "--propagation", "private", "--", sys.executable, *sys.argv]
        os.execvpe(words[0], words, os.environ | {_INSIDE: str(os.getpid())})  # the pid stays the same
    subprocess.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name, value in _SYSCTLS.items():
        (Path("/proc/sys/net") / name).write_text(value)


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A folder of this process's own, and an end to those of processes that are no more."""
    DATA_ROOT.mkdir(mode=0o750, parents=True, exist_ok=True)
    for left in DATA_ROOT.iterdir():
        if not Path("/proc", left.name).exists():
            shutil.rmtree(left)
    folder = DATA_ROOT / str(os.getpid())
    folder.mkdir(mode=0o750)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # another bench is at work
            DATA_ROOT.rmdir()


def start(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a child that does not outlive us."""
    with log.open("ab") as file:
        return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *words], stdout=file, stderr=file)


def run(*words: str, text: str | None = None) -> str:
    """Run a command to its end; what it printed. SetupError with its complaint if it fails."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"`{' '.join(words[:6])}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@contextlib.contextmanager
def on_one_cpu() -> Iterator[int]:
    """Keep this thread on the last CPU it may use; its number. Children started meanwhile would be kept there too."""
    before = os.sched_getaffinity(0)
    cpu = max(before)
    os.sched_setaffinity(0, {cpu})
    try:
        yield cpu
    finally:
        os.sched_setaffinity(0, before)


class Cable:
    """A veth pair: `far`, where frames are sent from, and `near`, where what is measured receives them.

    number: 1 to 254, tells cables apart. The near end is 10.NUMBER.0.1/16 and fd00:NUMBER::1/64; hosts behind it, of
    which there can be 65,000, have neighbour entries that do not expire.
    """

    def __init__(self, name: str, number: int) -> None:
        self.near, self.far, self.number = f"b-{name}", f"g-{name}", number
        self.mac = f"02:00:00:be:00:{number:02x}"
        self._hosts = 0
        with IPRoute() as route:
            route.link(
                "add",
                ifname=self.near,
                kind="veth",
                address=self.mac,
                peer={"ifname": self.far, "address": f"02:00:00:fa:00:{number:02x}"},
            )
            for interface in (self.near, self.far):
                index = route.link_lookup(ifname=interface)[0]
                route.link("set", index=index, state="up")
        run("ip", "address", "add", f"10.{number}.0.1/16", "dev", self.near)
        run("ip", "address", "add", f"fd00:{number:x}::1/64", "nodad", "dev", self.near)

    def hosts(self, count: int, family: int = 4) -> list[str]:
        """Addresses of so many hosts behind the cable, all of which are resolved."""
        if family == 4:
            addresses = [f"10.{self.number}.{16 + n // 250}.{1 + n % 250}" for n in range(count)]
        else:
            addresses = [f"fd00:{self.number:x}::1:{n:x}" for n in range(count)]
        lines = (
            f"neighbour replace {a} lladdr 02:00:00:fa:00:ff dev {self.near} nud permanent\n"
            for a in addresses
        )
        run("ip", "-batch", "-", text="".join(lines))
        return addresses

    def received(self) -> int:
        """Packets that came in at the near end."""
        with IPRoute() as route:
            (link,) = route.get_links(route.link_lookup(ifname=self.near)[0])
            return int(link.get_attr("IFLA_STATS64")["rx_packets"])

"""The lab group: nanoseconds of one core for a packet's whole way over a veth pair, generator included.

generate.py makes the frames in the kernel and hands them to the far end; the near end receives them, on the same core.
What is sent back ends at the far end, in a program that drops.
"""

import time
from collections.abc import Callable
from pathlib import Path

from generate import Generator, interface_index, make_template

from benchmarks import figures
from benchmarks.cases import Traffic, source_of
from benchmarks.figures import Figure
from benchmarks.world import Cable, on_one_cpu
from lb.dataplane import libbpf, xdpload
from lb.errors import SluiceError

BARE = Path(__file__).resolve().parents[1] / "bare.c"
LOSS = 0.01
"""The share of packets that may be missing at the near end. If more are, their cost is missing too."""
_WARM_UP = 10_000


class Bare:
    """bare.c, loaded once."""

    def __init__(self) -> None:
        """CompileError."""
        self._source = xdpload.compile_source(BARE)
        self.drop = xdpload.load_program(self._source, "drop")
        self.transmit = xdpload.load_program(self._source, "transmit")

    def callee(self, name: str) -> int:
        """A program that progbench.c can tail-call: without support for several buffers, as that is. OSError."""
        return libbpf.prog_load(name, self._source.dump_func(name.encode()))


class Way:
    """One case's way: a cable whose near end is set up already, and a generator of its frames."""

    def __init__(self, name: str, cable: Cable, traffic: Traffic, bare: Bare) -> None:
        """Load the generator and put the sink on the far end. CompileError; DataPlaneError."""
        self.name, self._cable = name, cable
        self.samples: list[float] = []
        template = make_template(
            traffic.protocol,
            source_of(traffic.first),
            1024,
            traffic.destination,
            traffic.port,
            macs=("02:00:00:fa:00:00", cable.mac),
            length=traffic.length,
        )
        xdpload.attach(cable.far, bare.drop)
        self._generator = Generator(template, interface_index(cable.far))

    def check(self, packets: int) -> None:
        """SluiceError if packets do not get there."""
        before = self._cable.received()
        self._generator.send(packets)
        arrived = self._cable.received() - before
        if arrived < packets * (1 - LOSS):
            raise SluiceError(f"{self.name}: of {packets} packets {arrived} came over the cable")

    def sample(self, packets: int, clock: Callable[[], int]) -> None:
        """One sample."""
        self._generator.send(_WARM_UP)
        begin = clock()
        self._generator.send(packets)
        self.samples.append((clock() - begin) / packets)

    def figure(self) -> Figure:
        """What was sampled: the whole way, nothing taken off."""
        return figures.of_samples(self.samples)


def take_turns(paths: list[Way], rounds: int, packets: int) -> None:
    """All rounds of all paths, interleaved, on one CPU. SluiceError if packets are lost on the way."""
    with on_one_cpu() as cpu:
        clock = _clock_of(cpu)
        for path in paths:
            path.check(packets)
        for _ in range(rounds):
            for path in paths:
                path.sample(packets, clock)


def _clock_of(cpu: int) -> Callable[[], int]:
    """Nanoseconds that this thread and the CPU's soft-interrupt thread have worked: receiving may be done by either."""
    worker = next((p for p in Path("/proc").glob("[0-9]*") if _name(p) == f"ksoftirqd/{cpu}"), None)

    def clock() -> int:
        more = int((worker / "schedstat").read_text().split()[0]) if worker else 0
        return time.thread_time_ns() + more

    return clock


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:  # it has ended
        return ""

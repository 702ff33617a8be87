"""The control group: how long the running daemon takes, from a call to its effect, and how much memory.

Everything goes by REST or CLI. That a change is in force is seen in the packet path: the attached program is run on a
frame (BPF_PROG_TEST_RUN) until it does what was asked.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from generate import make_template

from benchmarks import cases, entries, figures, readers, writers
from benchmarks.cases import FIRST_PREFIX, VIP
from benchmarks.daemon import Daemon
from benchmarks.effort import Effort
from benchmarks.figures import Figure
from benchmarks.programs import ACTIONS
from lb.dataplane import libbpf
from lb.errors import SluiceError
from lb.reconcile.ring import build_ring

MILLION = 1_000_000
PATIENCE_SECONDS = 10.0
"""After an acknowledged change has no effect for so long, something is wrong."""
_OUTER_DESTINATION = slice(30, 34)


class Control:
    """A daemon, and how much is done with it. Each measurement leaves it without services and prefixes."""

    def __init__(self, daemon: Daemon, folder: Path, effort: Effort) -> None:
        """The daemon is ready."""
        self._daemon, self._folder, self._effort = daemon, folder, effort

    def measure(self, name: str) -> dict[str, Figure]:
        """A case by its name; those that are measured together come together. SluiceError."""
        found = _MEASUREMENTS[name](self)
        self._daemon.apply([])
        return found

    def loads(self) -> dict[str, Figure]:
        """A file of a million prefixes imported, and cleared again; what it takes of memory."""
        path = self._folder / "million.txt"
        path.write_text(cases.prefixes_text(MILLION))
        imported, cleared, grown = [], [], []
        before = self._memory_mib()
        for _ in range(self._effort.repeats):
            with _seconds(imported):
                self._daemon.sluice("blocklist", "import", str(path))
            self._see(self._frame(FIRST_PREFIX + MILLION - 1), "drop")
            grown.append(self._memory_mib() - before)
            with _seconds(cleared):
                self._daemon.sluice("blocklist", "clear", "--yes")
            self._see(self._frame(FIRST_PREFIX + MILLION - 1), "pass")
        return {
            "import_1m": figures.of_samples(imported),
            "clear_1m": figures.of_samples(cleared),
            "memory_1m": figures.of_samples(grown),
        }

    def blocks(self) -> dict[str, Figure]:
        """One prefix after another, from the call to the first packet dropped."""
        samples: list[float] = []
        for number in self._turns(FIRST_PREFIX, self._effort.samples):
            frame, source = self._frame(number), cases.source_of(number)
            self._see(frame, "pass")
            with _seconds(samples):
                self._daemon.call("POST", "/v1/blocklist", {"prefix": f"{source}/32"})
                self._see(frame, "drop")
        return {"block_to_enforced": figures.of_samples([s * 1e3 for s in samples], tail=True)}

    def blocks_under_flood(self) -> dict[str, Figure]:
        """See benchmarks/entries.py."""
        return entries.under_flood(self._daemon, self._effort, self._see_source)

    def expiries(self) -> dict[str, Figure]:
        """See benchmarks/entries.py."""
        return entries.expiries(self._daemon, self._effort, self._see_source)

    def lifecycle(self) -> dict[str, Figure]:
        """See benchmarks/entries.py."""
        return entries.lifecycle(self._daemon, self._effort, self._see_source, self._folder)

    def followed(self) -> dict[str, Figure]:
        """See benchmarks/readers.py."""
        numbers = self._turns(FIRST_PREFIX, 5 * self._effort.samples)
        return readers.writes_with_readers(self._daemon.call, self._daemon.socket, numbers)

    def at_once(self) -> dict[str, Figure]:
        """See benchmarks/writers.py."""
        return writers.writes_at_once(self._daemon, self._turns(0, self._effort.samples))

    def backend_changes(self) -> dict[str, Figure]:
        """One of a thousand backends disabled and enabled, from the call to a SYN that goes elsewhere, or back."""
        backends = self._daemon.cable.hosts(1000)
        self._daemon.apply(cases.services_of(cases.Setup(protocols=("tcp",)), backends))
        frame = self._frame(cases.FIRST_FLOW, VIP, "tcp:S")
        chosen = self._run(frame)[1][_OUTER_DESTINATION]
        address = ".".join(map(str, chosen))
        samples: list[float] = []
        for _ in self._turns(0, self._effort.samples // 2 + 1):
            for verb in ("disable", "enable"):
                with _seconds(samples):
                    self._daemon.call("POST", f"/v1/services/tcp-0/backends/{address}/{verb}")
                    self._until(
                        lambda back=verb == "enable": (
                            (self._run(frame)[1][_OUTER_DESTINATION] == chosen) == back
                        ),
                        f"{verb} of {address}",
                    )
        return {"backend_change_to_enforced": figures.of_samples([s * 1e3 for s in samples], tail=True)}

    def ring(self) -> dict[str, Figure]:
        """The ring itself: 65537 slots over a thousand backends."""
        backends = [(f"10.0.{n >> 8}.{n & 255}".encode(), 1) for n in range(1000)]
        samples: list[float] = []
        for _ in range(self._effort.rounds):
            with _seconds(samples):
                build_ring(backends)
        return {"ring_1000_backends": figures.of_samples([s * 1e3 for s in samples])}

    def many_services(self) -> dict[str, Figure]:
        """400 services of 50 backends each, no two with the same set, by one `sluice apply`."""
        backends = self._daemon.cable.hosts(450)
        services = []
        for n in range(400):
            (service,) = cases.services_of(cases.Setup(protocols=("tcp",)), backends[n : n + 50])
            services.append(service | {"name": f"s{n}", "port": 1000 + n})
        path = self._folder / "services.json"
        path.write_text(json.dumps({"services": services}))
        samples: list[float] = []
        for _ in range(self._effort.repeats):
            with _seconds(samples):
                self._daemon.sluice("apply", "-f", str(path))
            self._daemon.apply([])
        return {"apply_400x50": figures.of_samples(samples)}

    def start(self) -> dict[str, Figure]:
        """The daemon started over a thousand services and a million prefixes, until it says that it is ready."""
        backends = self._daemon.cable.hosts(50)
        services = []
        for n in range(1000):
            (service,) = cases.services_of(cases.Setup(protocols=("tcp",)), backends[n % 20 : n % 20 + 10])
            services.append(service | {"name": f"s{n}", "port": 1000 + n})
        self._daemon.apply(services)
        self._daemon.block(MILLION)
        samples: list[float] = []
        for _ in range(self._effort.repeats):
            self._daemon.stop()
            self._see(self._frame(FIRST_PREFIX), "drop")  # it goes on without the daemon
            with _seconds(samples):
                self._daemon.restart()
                self._daemon.wait()
        return {"start_full": figures.of_samples(samples)}

    def _turns(self, first: int, count: int) -> Iterator[int]:
        """Numbers to take samples by: so many, or as many as there is time for, but one at least."""
        end = time.monotonic() + self._effort.seconds
        for number in range(first, first + count):
            yield number
            if time.monotonic() > end:
                return

    def _frame(self, number: int, destination: str = cases.NO_VIP, protocol: str = "udp") -> bytes:
        """One frame from a source by its number."""
        macs = ("02:00:00:fa:00:00", self._daemon.cable.mac)
        return make_template(
            protocol, cases.source_of(number), 1024, destination, 80, macs=macs, length=64
        ).frame

    def _run(self, frame: bytes) -> tuple[int, bytes]:
        """Run the program that is attached now."""
        program = self._daemon.program()
        try:
            return libbpf.test_run(program, frame)
        finally:
            os.close(program)

    def _see(self, frame: bytes, action: str) -> None:
        """Return when a frame ends so."""
        self._until(lambda: self._run(frame)[0] == ACTIONS[action], f"{action} of a frame")

    def _see_source(self, number: int, action: str) -> None:
        self._see(self._frame(number), action)

    def _until(self, seen: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not seen():
            if time.monotonic() > deadline:
                raise SluiceError(
                    f"{what} was acknowledged, and {PATIENCE_SECONDS:.0f} s later nothing is seen of it"
                )

    def _memory_mib(self) -> float:
        """Resident memory of the daemon, tables that it has mapped included."""
        status = Path(f"/proc/{self._daemon.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024


@contextmanager
def _seconds(samples: list[float]) -> Iterator[None]:
    """Time a block, unless it fails."""
    begin = time.perf_counter()
    yield
    samples.append(time.perf_counter() - begin)


_MEASUREMENTS = MappingProxyType(
    {
        "ring_1000_backends": Control.ring,
        "block_to_enforced": Control.blocks,
        "api_write_200_readers": Control.followed,
        "event_to_last_reader": Control.followed,
        "api_write_8_writers": Control.at_once,
        "block_beside_1m_under_flood": Control.blocks_under_flood,
        "expire_10k": Control.expiries,
        "entries_lifecycle": Control.lifecycle,
        "backend_change_to_enforced": Control.backend_changes,
        "apply_400x50": Control.many_services,
        "import_1m": Control.loads,
        "clear_1m": Control.loads,
        "memory_1m": Control.loads,
        "start_full": Control.start,
    }
)

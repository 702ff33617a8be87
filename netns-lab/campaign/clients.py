"""The load's processes, and the judge: which of what went wrong is a killed backend's, and which nobody may cause."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import inside
from place import Lab
from topology import Role

SCRIPT = Path(__file__).resolve().parent / "load.py"
KEPT, FRESH_PER_SECOND = 20, 15.0
"""Of each client: connections that are kept, and others a second."""
GRACE_SECONDS = 1.0
"""How long after a backend is back its death may still be seen."""
ENDING_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What a client has seen that is no right answer. Times by time.monotonic().

    kind: closed, lost, wrong or misplaced (load.py). backend: whom the connection had, if it had had an answer.
    """

    kind: str
    began: float
    ended: float
    backend: str | None
    detail: str

    def told(self, start: float) -> str:
        """In words; start: when the campaign began."""
        who, took = self.backend or "a new connection", self.ended - self.began
        return f"{self.kind}: {who}, asked at {self.began - start:.1f} s, {took:.1f} s before: {self.detail}"


@dataclass
class Absence:
    """A time in which a backend is away, or takes nothing new; until: infinity while it lasts."""

    backend: str
    since: float
    until: float = float("inf")

    def meets(self, began: float, ended: float) -> bool:
        """Whether it overlaps a request."""
        return self.since <= ended and began <= self.until + GRACE_SECONDS


@dataclass
class Judge:
    """What was seen, and what may be. Safe from any thread."""

    done: int = 0
    excused: int = 0
    failed: list[Fault] = field(default_factory=list)
    misplaced: list[Fault] = field(default_factory=list)
    dead: list[Absence] = field(default_factory=list)
    """Backends that were killed: theirs may fail, and so may what is new and could have been theirs."""
    drained: list[Absence] = field(default_factory=list)
    """Backends that were acknowledged to take nothing new."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_fine(self) -> bool:
        """Whether all that happened may happen."""
        return not self.failed and not self.misplaced

    def hear(self, line: str) -> None:
        """A report of a client."""
        report = json.loads(line)
        with self._lock:
            self.done += report["done"]
            for backend, began in report["fresh"]:
                if any(a.backend == backend and a.since <= began < a.until for a in self.drained):
                    self.misplaced.append(Fault("drained", began, began, backend, "it took a new connection"))
            for found in report["faults"]:
                self.judge(Fault(**found))

    def judge(self, fault: Fault) -> None:
        """One fault; the lock is held."""
        away = [a for a in self.dead if a.meets(fault.began, fault.ended)]
        if fault.kind == "misplaced":
            # What had a connection with a dead one asks the ring once its own place is gone.
            self.misplaced.append(fault)
        elif fault.kind == "closed" and any(fault.backend in (None, a.backend) for a in away):
            self.excused += 1
        else:
            self.failed.append(fault)


class Clients:
    """A load process in the namespace of every client of a lab, as a context."""

    def __init__(self, lab: Lab, judge: Judge, targets: Sequence[tuple[str, int]]) -> None:
        self._judge = judge
        asked = {"targets": targets, "kept": KEPT, "fresh_per_second": FRESH_PER_SECOND}
        words = [sys.executable, str(SCRIPT), json.dumps(asked)]
        self._processes = [
            subprocess.Popen(
                inside.command(lab.namespace(Role.CLIENT, host.number), words),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for the campaign, which ends them
            )
            for host in lab.configuration.of_role(Role.CLIENT)
        ]
        self._threads = [threading.Thread(target=self._listen, args=(p,)) for p in self._processes]
        for thread in self._threads:
            thread.start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._judge.hear(line)

    def wait_for_more(self, requests: int, seconds: float = ENDING_SECONDS) -> None:
        """Return when so many more were answered, or something is wrong. TimeoutError."""
        wanted, deadline = self._judge.done + requests, time.monotonic() + seconds
        while self._judge.done < wanted and self._judge.is_fine:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the clients had not even {requests} answers in {seconds:.0f} s")
            time.sleep(0.05)

    def finish(self) -> None:
        """Let every request come to its end. TimeoutError."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process, thread in zip(self._processes, self._threads, strict=True):
            try:
                process.wait(ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                raise TimeoutError("a client did not come to its end") from None
            thread.join()

    def kill(self) -> None:
        """End them, whatever they wait for."""
        for process in self._processes:
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join()

"""Far more packets than a limit lets through, for a while, from one thread or from one on every CPU."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import batch
from rig import XDP_ACTIONS, Rig

from lb.dataplane import clock

CHUNK = 1000
MARGIN = 0.2
"""Seconds before the packet path's next second, in which nobody begins: what a source sends before it is heavy
is counted by seconds, and would be free twice."""


@dataclass(frozen=True)
class Sent:
    """How many frames were sent and how many were not dropped, within how many seconds."""

    frames: int
    passed: int
    seconds: float

    def fits(self, rate: float, burst: float, *, share: float = 0.05) -> bool:
        """Whether no more has passed than a rate and a burst allow, and at most this share less."""
        most = rate * self.seconds + burst
        return most * (1 - share) <= self.passed <= most + 1


def send(
    rig: Rig,
    frames: Sequence[bytes],
    seconds: float,
    *,
    cpus: int = 1,
    between: Callable[[], None] | None = None,
    may_pass: bool = False,
) -> Sent:
    """Send these frames in turn for a while, from threads that each keep to a CPU of its own.

    between: what is done after every round of all frames; may_pass: all may, and the end does not wait for drops.
    """
    done: list[tuple[int, int, float]] = []
    batch.run(rig.program.fd, [])  # compiled before the time begins
    wait_for_a_second()
    available = sorted(os.sched_getaffinity(0))
    start = time.monotonic()

    def work(number: int) -> None:
        os.sched_setaffinity(0, {available[number % len(available)]})
        sent = passed = 0
        dropping = False
        # Not to its end while what came free during a pause is still being used.
        while time.monotonic() < start + seconds or not dropping:
            for at in range(0, len(frames), CHUNK):
                actions = batch.run(rig.program.fd, frames[at : at + CHUNK]).actions
                drops = int((actions == XDP_ACTIONS["drop"]).sum())
                sent, passed = sent + len(actions), passed + len(actions) - drops
                dropping = may_pass or drops > len(actions) / 2
            end = time.monotonic()
            if between is not None:
                between()
        done.append((sent, passed, end))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(cpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent, passed, ends = zip(*done, strict=True)
    return Sent(sum(sent), sum(passed), max(ends) - start)


def wait_for_a_second() -> None:
    """Go on when a second of the packet path's clock is not about to end."""
    while (time.monotonic() - _turn()) % 1 > 1 - MARGIN:
        pass


@cache
def _turn() -> float:
    """A time of the monotonic clock at which a second of the packet path's began."""
    before = clock.seconds()
    while clock.seconds() == before:
        pass
    return time.monotonic()

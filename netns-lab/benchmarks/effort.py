"""How much is done in a run of the bench: a taste, the quick one, the long one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done: rounds, packets a sample, samples of a latency, runs of what takes seconds.

    seconds: after which a latency has been sampled enough; stride: which points of a sweep are taken; settled: programs
    are measured once they are trimmed to what is in use; thorough: what takes a balancer of its own is measured too.
    """

    rounds: int
    packets: int
    lab_rounds: int
    lab_packets: int
    sweep_rounds: int
    samples: int
    seconds: float
    repeats: int
    stride: int = 1
    settled: bool = True
    thorough: bool = False


TINY = Effort(
    rounds=2,
    packets=2_000,
    lab_rounds=2,
    lab_packets=5_000,
    sweep_rounds=1,
    samples=3,
    seconds=5.0,
    repeats=1,
    stride=6,
    settled=False,
)
"""Shows that everything works, and no figure that means anything."""
QUICK = Effort(
    rounds=6,
    packets=40_000,
    lab_rounds=3,
    lab_packets=200_000,
    sweep_rounds=1,
    samples=200,
    seconds=4.0,
    repeats=1,
    stride=6,
)
FULL = Effort(
    rounds=61,
    packets=500_000,
    lab_rounds=41,
    lab_packets=1_000_000,
    sweep_rounds=21,
    samples=2_000,
    seconds=120.0,
    repeats=7,
    thorough=True,
)

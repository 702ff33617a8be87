"""One campaign in order: the lab, the load, faults until the time is over, and the verdict."""

import random
import time
from collections import Counter
from collections.abc import Callable

import balancer
import lifecycle

from campaign.clients import Clients, Judge
from campaign.steps import STEPS
from campaign.world import SMALL, TARGETS, World

REQUESTS_BETWEEN = 60
"""So many requests are answered between two faults."""
FAULTS_SHOWN = 10
LOG_LINES = 40

Say = Callable[[str], None]


class Campaign:
    """Faults drawn from a seed. The same seed draws the same faults in the same order."""

    def __init__(self, name: str, seed: int, say: Say) -> None:
        self._name, self._seed, self._say = name, seed, say
        self._draw = random.Random(seed)
        self.judge = Judge()
        self._steps = Counter[str]()
        self._last = "nothing yet"
        self._began = time.monotonic()

    def run(self, seconds: float) -> bool:
        """Whether all held. The lab is gone afterwards."""
        try:
            lab = lifecycle.up(self._name, daemon_options=SMALL, document=False)
            world = World(lab, self.judge)
            world.write("PUT", "/v1/config", json=world.document([1] * len(world.backends)))
            broken = self._under_load(world, seconds)
            if broken or not self.judge.is_fine:
                self._tell_why(broken)
                self._say(f"the daemon's log ends:\n{balancer.tail(lab.daemon_log, LOG_LINES)}")
                return False
        finally:
            lifecycle.down(self._name)
        return True

    def _under_load(self, world: World, seconds: float) -> str | None:
        """What broke, if it was no client that saw it."""
        clients = Clients(world.lab, self.judge, TARGETS)
        try:
            clients.wait_for_more(REQUESTS_BETWEEN)
            self._began = time.monotonic()
            while (at := time.monotonic() - self._began) < seconds and self.judge.is_fine:
                self._step(world, at)
                clients.wait_for_more(REQUESTS_BETWEEN)
            self._last = f"the end, after {self._last}"
            clients.finish()
            world.check_state()
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"{type(error).__name__}: {error}"
        finally:
            clients.kill()
        return None

    def _step(self, world: World, at: float) -> None:
        step = self._draw.choices(STEPS, [each.weight for each in STEPS])[0]
        number = sum(self._steps.values()) + 1
        self._last = f"step {number}, {step.name}"
        self._steps[step.name] += 1
        # What one step draws does not depend on how often those before it have drawn.
        told = step.run(world, random.Random(self._draw.random()))
        self._say(f"{at:6.1f} s  {number:3}  {told}; {self.judge.done} requests so far")

    def _tell_why(self, broken: str | None) -> None:
        self._say(f"broken in {self._last} (seed {self._seed})")
        if broken:
            self._say(f"  {broken}")
        for fault in (*self.judge.failed, *self.judge.misplaced)[:FAULTS_SHOWN]:
            self._say(f"  {fault.told(self._began)}")

    def verdict(self) -> str:
        """The figures, in a line."""
        judge = self.judge
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self._steps.items()))
        return (
            f"{sum(self._steps.values())} faults ({faults})\n"
            f"requests {judge.done}, failed {len(judge.failed)} beyond {judge.excused} on backends that were killed, "
            f"flows misplaced {len(judge.misplaced)}"
        )

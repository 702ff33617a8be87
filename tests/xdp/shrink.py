"""A shorter way to a difference: fewer steps, then a shorter last frame of plainer bytes."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from differential import Difference, Pair, Step

SHORTEST_FRAME = 14


def shrunk(pair: Pair, difference: Difference, seconds: float) -> Difference:
    """The shortest way that was found in the time given."""
    best = difference
    deadline = time.monotonic() + seconds

    def holds(steps: Sequence[Step]) -> bool:
        nonlocal best
        if time.monotonic() > deadline:
            return False
        found = pair.replay(steps)
        if found is not None and len(found.steps) == len(steps):
            best = found
            return True
        return False

    alone = [s for s in best.steps if "document" in s][-1:] + list(best.steps[-1:])
    if not holds(alone):
        # Documents stay where they are: without one, a frame would meet what an earlier attempt left behind.
        order = {id(step): at for at, step in enumerate(best.steps)}
        documents, last = [s for s in best.steps if "document" in s], best.steps[-1]

        def within(kept: list[Step]) -> list[Step]:
            return [*sorted([*documents, *kept], key=lambda step: order[id(step)]), last]

        _without([s for s in best.steps[:-1] if "frame" in s], lambda kept: holds(within(kept)))
    head = best.steps[:-1]

    def differs(frame: bytes) -> bool:
        return len(frame) >= SHORTEST_FRAME and holds([*head, {"frame": frame.hex()}])

    last_frame = bytes.fromhex(best.steps[-1]["frame"])
    frame = bytes(_without(list(last_frame), lambda kept: differs(bytes(kept))))
    for at in range(len(frame)):
        plain = frame[:at] + b"\0" + frame[at + 1 :]
        if frame[at] and differs(plain):
            frame = plain
    # Once more frame by frame, which says what the last one was counted as.
    return pair.replay(best.steps, size=1) or best


def _without(items: list[Any], holds: Callable[[list[Any]], bool]) -> list[Any]:
    """As few of the items as `holds` still is true of: halves are left out, then quarters, down to single ones."""
    size = max(len(items) // 2, 1)
    while items:
        at = 0
        while at < len(items):
            fewer = items[:at] + items[at + size :]
            if holds(fewer):
                items = fewer
            else:
                at += size
        if size == 1:
            break
        size //= 2
    return items

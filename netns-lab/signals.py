"""Stop signals: they end a script such that clean-up runs, and wait until a step is complete."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_by_exit() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP raise SystemExit (128 + signal), so that clean-up runs."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    for number in ENDING:
        signal.signal(number, leave)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let those signals wait until the block is done: no half clean-up, no process started but not recorded.

    They are held back here and not blocked, because children would inherit a blocked signal. Only the main
    thread gets signals, so in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    former = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])

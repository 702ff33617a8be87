"""What the machine says to the outside: a line for each fact, the first word tells its kind (vm.py reads them)."""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

FACT, NOTE, FAILURE, END = "fact", "note", "failure", "end"

T = TypeVar("T")


class NotSeenError(Exception):
    """Something is not as it should be; the sentence says what."""


def fact(text: str) -> None:
    """Something that was seen, and is as it should be."""
    _say(FACT, text)


def note(text: str) -> None:
    """What is only of interest."""
    _say(NOTE, text)


def failure(text: str) -> None:
    """The last word of a machine that has seen what should not be."""
    _say(FAILURE, text)


def end() -> None:
    """The last word of one that has seen everything."""
    _say(END, "")


def check(fine: object, text: str) -> None:
    """NotSeenError with these words unless it is fine."""
    if not fine:
        raise NotSeenError(text)


def within(seconds: float, what: str, seen: Callable[[], T | None], pause: float = 0.2) -> T:
    """What is seen, once it is; NotSeenError if it does not come to that. seen: None or False, or what it is."""
    deadline = time.monotonic() + seconds
    while True:
        found = seen()
        if found:
            return found
        if time.monotonic() > deadline:
            raise NotSeenError(f"after {seconds:.0f} s not: {what}")
        time.sleep(pause)


def _say(kind: str, text: str) -> None:
    for line in text.splitlines() or [""]:
        print(f"{kind} {line}", flush=True)
    sys.stdout.flush()

"""Lets the doctor's packets take the path of clients' packets to a backend, and lets their answers in, meanwhile."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from lb.errors import NotYetError, SluiceError

FEATURE = "HAVE_PROBES"
PATIENCE_SECONDS = 30.0
"""How long the way may take to be made."""
_POLL_SECONDS = 0.05

Way = tuple[int, str]
"""The mark of packets that go to one backend, and the address of ours that it answers to."""
WayOf = Callable[[str, bytes, int], Way | None]
"""The way to a backend of a service whose VIP is of a family; None: there is none."""


class Probing:
    """What is compiled in and put in place for it stays for some seconds, so that one who looks again need not wait."""

    def __init__(
        self, fit: Callable[[], None], gone: Callable[[], None], way: Callable[[str, bytes, int], Way]
    ) -> None:
        """fit: put a program in force that has `features`; gone: nobody needs them any more; way: see probe_way.py."""
        self._fit, self._gone, self._way = fit, gone, way
        self._users, self._lock = 0, threading.Lock()

    @property
    def features(self) -> frozenset[str]:
        """What the program must have now."""
        return frozenset({FEATURE}) if self._users else frozenset()

    @contextlib.contextmanager
    def open(self) -> Iterator[WayOf]:
        """Within, packets are carried. Where that cannot be, there is no way to anybody."""
        self._count(1)
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            self._fit()
        except (SluiceError, OSError):
            deadline = 0.0
        try:
            yield lambda service, backend, family: self._wait(deadline, service, backend, family)
        finally:
            if not self._count(-1):
                self._gone()

    def _count(self, more: int) -> int:
        with self._lock:
            self._users += more
            return self._users

    def _wait(self, deadline: float, service: str, backend: bytes, family: int) -> Way | None:
        """The first one waits until the way is made."""
        while True:
            try:
                return self._way(service, backend, family)
            except NotYetError:
                if time.monotonic() >= deadline:
                    return None
            except SluiceError:
                return None
            time.sleep(_POLL_SECONDS)

"""Watchers of packets, each with its own filter, over the one queue that the packet path fills.

While nobody looks and no rule bans, nothing of it is compiled in, no thread runs and the queue is not open.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.protocol import DataPlane
from lb.dataplane.samples import SampleQueue
from lb.dataplane.tables import Array
from lb.errors import DataPlaneError
from lb.reconcile.bans import Ban, Banner

log = logging.getLogger("sluice.watch")

_C = layout().constants
FEATURE = "HAVE_SAMPLES"
BYTES_MOST = _C["SAMPLE_BYTES"]
"""Of each packet."""
RATE_MOST = 10_000
"""Packets a second, of all watchers together."""
PENDING_MOST = 16_384
"""Records that wait for a watcher who does not take them; what comes then is lost to it."""
_SHARES = 16
"""Shares of a second by which the packet path counts what it hands out."""
_BANS_A_SHARE = 1000
_PATIENCE_SECONDS = 0.1
_LOOKS, _BANS = 0, 1
"""Rows of `watching`."""


class Watcher:
    """One who looks. verdicts: by number; packets that came before it was made are not for it."""

    def __init__(
        self, verdicts: frozenset[int], rate: int, octets: int, wake: Callable[[], None], totals: Array
    ) -> None:
        self.verdicts, self.rate, self.octets = verdicts, rate, octets
        self._before = totals
        self._wake = wake
        self._wanted = np.zeros(_C["VERDICTS_MAX"], bool)
        self._wanted[sorted(verdicts)] = True
        self._since_ns = time.monotonic_ns()
        self._waiting: deque[Array] = deque()
        self._pending = 0
        self._lock = threading.Lock()
        self.seen = np.zeros(_C["VERDICTS_MAX"], np.int64)
        """Records of each verdict that came out of the queue for it."""
        self.lost = 0
        """Of these, what it did not take in time."""
        self.failure: str | None = None
        """Why no more will come."""

    def offer(self, rows: Array) -> None:
        """What came out of the queue: it takes what it wants."""
        some = rows[self._wanted[rows["verdict"]] & (rows["time_ns"] >= self._since_ns)]
        if not len(some):
            return
        with self._lock:
            self.seen += np.bincount(some["verdict"], minlength=len(self.seen))
            room = PENDING_MOST - self._pending
            self.lost += max(0, len(some) - room)
            self._waiting.append(some[:room])
            self._pending += len(some[:room])
        self._wake()

    def fail(self, why: str) -> None:
        """Say that no more will come."""
        self.failure = why
        self._wake()

    def came(self, totals: Array) -> Array:
        """Packets of the verdicts it wants, by number, since it was made; totals: of now."""
        return np.where(self._wanted, totals - self._before, 0)

    def take(self) -> Array:
        """What has come since, shape (N,), struct sample."""
        with self._lock:
            rows, self._pending = list(self._waiting), 0
            self._waiting.clear()
        return np.concatenate(rows) if rows else np.zeros(0, layout().structs["sample"])


class Watch:
    """Watchers come and go from any thread. on_bans: see Banner."""

    def __init__(
        self,
        dataplane: DataPlane,
        fit: Callable[[], None],
        gone: Callable[[], None],
        on_bans: Callable[[list[Ban]], None],
    ) -> None:
        """`fit` puts the program in force that has `features`; it may take seconds, and raise what compiling raises.

        `gone` is called when nobody looks any more.
        """
        self._dataplane, self._fit, self._gone = dataplane, fit, gone
        self._sampling = dataplane.tables.arrays.watching
        self._watchers: list[Watcher] = []
        self._looking = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._banner = Banner(on_bans)
        self._bans = self._closed = False

    @property
    def features(self) -> frozenset[str]:
        """What the program must be able to do, for whoever looks."""
        return frozenset({FEATURE}) if self._looking else frozenset()

    def start(self) -> None:
        """What an earlier run looked at is not looked at any more."""
        for row in (_LOOKS, _BANS):
            self._sampling["most"][row] = 0

    def close(self) -> None:
        """End all of it; watchers are told."""
        with self._lock:
            self._closed = True
            for watcher in self._watchers:
                watcher.fail("the daemon is being stopped")
            thread = self._thread
        if thread:
            thread.join()
        self._banner.close()
        self.start()

    def follow_bans(self, bans: bool) -> None:
        """Whether a rule bans: reports of sources over its limit are then read, whoever looks. OSError."""
        with self._lock:
            self._bans = bans
            self._sampling["most"][_BANS] = _BANS_A_SHARE if bans else 0
            if bans:
                self._run()

    def open(
        self,
        verdicts: frozenset[int],
        wake: Callable[[], None] = lambda: None,
        *,
        rate: int = RATE_MOST,
        octets: int = 0,
    ) -> Watcher:
        """A watcher; returns when packets are handed out. The first one takes a second or more: it is compiled for.

        rate: packets a second, at most; octets: of each packet. CompileError, DataPlaneError: nobody can look.
        """
        with self._lock:
            self._looking += 1
        try:
            self._fit()
            with self._lock:
                if self._closed:
                    raise DataPlaneError("the daemon is being stopped: ask again later")
                self._run()
                watcher = Watcher(verdicts, rate, octets, wake, self.totals())
                self._watchers.append(watcher)
                self._say_what_is_wanted()
        except BaseException as error:
            self._leave()
            if isinstance(error, OSError):
                raise DataPlaneError(f"the queue of samples cannot be read: {error}") from error
            raise
        return watcher

    def end(self, watcher: Watcher) -> None:
        """A watcher goes; the last one takes the feature with it."""
        with self._lock:
            if watcher not in self._watchers:
                return
            self._watchers.remove(watcher)
            self._say_what_is_wanted()
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._looking -= 1
        if not self._looking:
            self._gone()

    def totals(self) -> Array:
        """All packets by verdict number, shape (VERDICTS_MAX,)."""
        return self._dataplane.tables.verdict_counters.read()["packets"].astype(np.int64)

    def _say_what_is_wanted(self) -> None:
        verdicts = frozenset[int]().union(*(w.verdicts for w in self._watchers))
        words = [sum(1 << n - low for n in verdicts if low <= n < low + 64) for low in (0, 64)]
        self._sampling["verdicts"][_LOOKS] = np.array(words, np.uint64)
        self._sampling["bytes"][_LOOKS] = max((w.octets for w in self._watchers), default=0)
        rate = min(RATE_MOST, sum(w.rate for w in self._watchers))
        self._sampling["most"][_LOOKS] = -(-rate // _SHARES)

    def _run(self) -> None:
        if self._thread is None and not self._closed:
            queue = self._dataplane.samples()
            self._thread = threading.Thread(target=self._read, args=(queue,), name="samples", daemon=True)
            self._thread.start()

    def _read(self, queue: SampleQueue) -> None:
        try:
            while True:
                rows = queue.read(_PATIENCE_SECONDS)
                with self._lock:
                    if self._closed or not (self._looking or self._bans):
                        self._thread = None
                        return
                    watchers = list(self._watchers)
                looks, bans = (rows[rows["kind"] == _C[kind]] for kind in ("SAMPLE_LOOK", "SAMPLE_BAN"))
                for watcher in watchers:
                    watcher.offer(looks)
                self._banner.add(bans)
        except Exception as error:
            log.exception("samples cannot be read")
            with self._lock:
                self._thread = None
                for watcher in self._watchers:
                    watcher.fail(f"samples cannot be read: {error}")
        finally:
            queue.close()

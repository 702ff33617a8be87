"""Debounces notifications that come in bursts: one call per burst, on a thread of its own."""

import threading
import time
from collections.abc import Callable

SETTLE_SECONDS = 0.05
"""A burst is waited for so long, at least."""
REST = 4
REST_MOST_SECONDS = 1.0
"""After a call as much as REST times what it took, but no more: news without end leave time for everything else."""


class Settle:
    """Calls back after news. What comes while it calls is called for once more."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._is_news = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="news", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """There is news."""
        self._is_news.set()

    def close(self) -> None:
        """No further call begins."""
        self._is_closed = True
        self._is_news.set()

    def _run(self) -> None:
        took = 0.0
        while True:
            self._is_news.wait()
            time.sleep(max(SETTLE_SECONDS, min(REST_MOST_SECONDS, REST * took)))
            if self._is_closed:
                return
            self._is_news.clear()
            began = time.monotonic()
            self._call()
            took = time.monotonic() - began

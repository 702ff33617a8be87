"""Probes a UDP service every millisecond, and knows since when it answers or does not."""

import contextlib
import socket
import threading
import time
from types import TracebackType

import inside

PERIOD_SECONDS = 0.001
ANSWER_SECONDS = 0.05
"""In the lab an answer takes a tenth of a millisecond; one that is not there by now was lost."""
PATIENCE_SECONDS = 5.0


class Prober:
    """A client with one flow, from a namespace. Use it as a context manager.

    answered: whether the last question was; since: when (time.monotonic) the first of its kind was asked.
    asked, lost: questions so far, and those without an answer in answer_seconds.
    """

    def __init__(
        self, namespace: str, destination: str, port: int, *, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        family = socket.AF_INET6 if ":" in destination else socket.AF_INET
        self._socket = inside.call(namespace, lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._socket.connect((destination, port))
        self._socket.settimeout(answer_seconds)
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._ask_on)
        self.answered: bool | None = None
        self.since = 0.0
        self.asked = self.lost = 0

    def __enter__(self) -> "Prober":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def wait_for(self, *, answered: bool) -> bool:
        """Wait until questions are answered, or are not; False if it does not come to that."""
        with self._changed:
            return self._changed.wait_for(lambda: self.answered is answered, PATIENCE_SECONDS)

    def wait_for_more(self, questions: int) -> bool:
        """Wait until so many more were asked; False if that takes too long."""
        with self._changed:
            target = self.asked + questions
            return self._changed.wait_for(lambda: self.asked >= target, PATIENCE_SECONDS)

    def _ask_on(self) -> None:
        while not self._stop.wait(PERIOD_SECONDS):
            begin = time.monotonic()
            answered = self._ask(str(self.asked).encode())
            with self._changed:
                self.asked += 1
                self.lost += not answered
                if answered != self.answered:
                    self.answered, self.since = answered, begin
                self._changed.notify_all()

    def _ask(self, question: bytes) -> bool:
        with contextlib.suppress(OSError):  # also TimeoutError
            self._socket.send(question)
            # An answer to an earlier question does not count.
            while True:
                if self._socket.recv(4096).endswith(b"\n" + question):
                    return True
        return False

"""A terminal in which the tests run `sluice`."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

PATIENCE_SECONDS = 30.0


@dataclass(slots=True)
class Terminal:
    """A command at a terminal, and all that it has written there."""

    process: subprocess.Popen[bytes]
    master: int
    seen: str = ""

    def until(self, words: str, times: int = 1) -> str:
        """All that was written, once the words stand there so often; fails if they do not come."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.seen.count(words) < times:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode()
                except OSError:  # Linux says EIO when nobody has the other end open
                    break
        assert self.seen.count(words) >= times, self.seen
        return self.seen

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_SECONDS)


@contextlib.contextmanager
def terminal(*arguments: str, stdin: int | None = None) -> Iterator[Terminal]:
    """`sluice` with these arguments at a terminal of its own."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from lb.cli.main import main; main()", *arguments],
        stdin=slave if stdin is None else stdin,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)

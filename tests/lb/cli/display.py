"""A terminal with a screen: what a full-screen command has drawn, as a person sees it."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pyte

PATIENCE_SECONDS = 30.0


class Display:
    """A command at a terminal, and what stands there."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, rows: int, columns: int) -> None:
        self.process, self._master = process, master
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without the blanks at their ends."""
        return [line.rstrip() for line in self._screen.display]

    def until(self, stands: Callable[[list[str]], bool]) -> list[str]:
        """The screen, once this holds of it; fails with what stands there if it does not come to that."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not stands(self.lines):
            assert time.monotonic() < deadline, "\n".join(self.lines)
            self._take(0.1)
        return self.lines

    def press(self, keys: str) -> None:
        """As if they were typed."""
        os.write(self._master, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        """As if somebody pulled at the window."""
        self._screen.resize(rows, columns)
        termios.tcsetwinsize(self._master, (rows, columns))
        self.process.send_signal(signal.SIGWINCH)

    def end(self) -> int:
        """The exit code, once it has ended by itself."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            self._take(0.1)  # or it waits for somebody to read
        self._take(0.0)
        return self.process.wait(1)

    def _take(self, seconds: float) -> None:
        if select.select([self._master], [], [], seconds)[0]:
            with contextlib.suppress(OSError):  # Linux says EIO when nobody has the other end open
                data = os.read(self._master, 65536)
                self.raw += data
                self._stream.feed(data)


@contextlib.contextmanager
def display(*arguments: str, rows: int = 24, columns: int = 100, term: str = "xterm") -> Iterator[Display]:
    """`sluice` with these arguments at a terminal of that size."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (rows, columns))
    environment = {k: v for k, v in os.environ.items() if k not in {"LINES", "COLUMNS"}} | {"TERM": term}
    process = subprocess.Popen(
        [sys.executable, "-c", "from lb.cli.main import main; main()", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
    )
    os.close(slave)
    try:
        yield Display(process, master, rows, columns)
    finally:
        process.kill()
        process.wait()
        os.close(master)

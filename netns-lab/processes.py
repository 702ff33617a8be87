"""Starts processes inside namespaces, and ends them: by pid and start time, or by namespace.

Signals go through a pidfd that is opened before the check, so a number that was reused is never hit.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import inside

PATIENCE_SECONDS = 5.0
"""How long a process may take to end before it is killed."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process: started, in clock ticks since boot, tells two of the same pid apart."""

    pid: int
    started: int

    def is_running(self) -> bool:
        """Whether it is still there, and no zombie."""
        return _start_time(self.pid) == self.started


def start(namespace: str, words: Sequence[str], log: Path) -> Process:
    """Start a command inside a namespace; it outlives us. Its output is appended to log. OSError."""
    nsenter = inside.command(namespace, words)
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # A session of its own: Ctrl-C in our terminal is not meant for it.
    pid = os.posix_spawnp(nsenter[0], nsenter, os.environ, file_actions=files, setsid=True)
    return find(pid) or Process(pid, started=-1)  # it has ended already


def find(pid: int) -> Process | None:
    """The process that has this pid now; None if there is none, or only its zombie."""
    started = _start_time(pid)
    return None if started is None else Process(pid, started)


def end(processes: Iterable[Process]) -> None:
    """End these: SIGTERM first, SIGKILL to what is left after PATIENCE_SECONDS."""
    with contextlib.ExitStack() as stack:
        handles = []
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(process.pid)
                stack.callback(os.close, handle)
                if process.is_running():
                    handles.append(handle)
        _end_all(handles)


def end_inside(namespaces: Iterable[str]) -> None:
    """End every process that is inside one of these namespaces, unless it is our own."""
    wanted = {_inode(inside.NAMESPACES / namespace) for namespace in namespaces} - {
        None,
        _namespace_of(os.getpid()),
    }
    with contextlib.ExitStack() as stack:
        handles = []
        for pid in _pids():
            if _namespace_of(pid) not in wanted:
                continue
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                if _namespace_of(pid) in wanted:
                    handles.append(handle)
        _end_all(handles)


def _end_all(handles: Sequence[int]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for handle in handles:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
        handles = _still_there(handles)


def _still_there(handles: Sequence[int]) -> list[int]:
    """Wait until all have ended, or patience has; those that have not."""
    left = set(handles)
    poll = select.poll()
    for handle in left:
        poll.register(handle, select.POLLIN)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left and (rest := deadline - time.monotonic()) > 0:
        for handle, _ in poll.poll(rest * 1000):
            left.discard(handle)
            poll.unregister(handle)
    for handle in set(handles) - left:
        # If it was our own child, nobody else will ask for its exit status.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG)
    return list(left)


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None if there is none, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, in brackets, may hold anything; behind it come the state and, 19 further, the time.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _namespace_of(pid: int) -> tuple[int, int] | None:
    return _inode(Path(f"/proc/{pid}/ns/net"))


def _inode(path: Path) -> tuple[int, int] | None:
    """What tells one namespace from another; None if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

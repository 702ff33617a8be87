"""What the service manager is told: readiness once all is in step, and a sign of life while all turns."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lb import notify
from lb.notify import Notifier, keep_told


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The listener."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        yield listener


def notifier(manager: socket.socket, **more: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.getsockname(), **more})


def test_it_is_ready_when_nothing_is_amiss(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before, and once; each look is a sign of life, with the reasons as status on one line."""
    monkeypatch.setattr(notify, "STARTING_PAUSE", 0.0)
    monkeypatch.setattr(notify, "READY_PAUSE", 0.0)
    answers = iter([["interface eth0\nis not there", "more"], [], []])
    hindrances = ["interface eth0 is not there"]

    class OverError(Exception):
        pass

    def reasons() -> list[str]:
        found = next(answers, None)
        if found is None:
            raise OverError
        return found

    with pytest.raises(OverError):
        asyncio.run(keep_told(notifier(manager), reasons, lambda: hindrances))

    heard = [manager.recv(4096).decode() for _ in range(7)]
    assert heard == [
        "STATUS=interface eth0 is not there; more",
        "WATCHDOG=1",
        "READY=1",
        "STATUS=forwarding, in step with what is desired",
        "WATCHDOG=1",
        "STATUS=forwarding, in step with what is desired",
        "WATCHDOG=1",
    ]


def test_it_is_ready_with_a_full_disk(manager: socket.socket) -> None:
    """What no other start would mend does not keep it from being started."""

    async def main() -> None:
        told = asyncio.create_task(keep_told(notifier(manager), lambda: ["the disk is full"], list))
        heard = [await asyncio.to_thread(manager.recv, 4096) for _ in range(2)]
        told.cancel()
        assert heard == [b"READY=1", b"STATUS=the disk is full"]

    asyncio.run(main())


def test_who_hangs_gives_no_sign_of_life(manager: socket.socket) -> None:
    """As long as what is asked does not answer, the watchdog hears nothing."""
    asked, answer = threading.Event(), threading.Event()

    def reasons() -> list[str]:
        asked.set()
        answer.wait(30)
        return []

    async def main() -> None:
        told = asyncio.create_task(keep_told(notifier(manager), reasons, list))
        await asyncio.to_thread(asked.wait, 30)
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
        manager.settimeout(30)
        answer.set()
        assert await asyncio.to_thread(manager.recv, 4096) == b"READY=1"
        told.cancel()

    asyncio.run(main())


def test_a_manager_that_does_not_read_stops_nobody(manager: socket.socket) -> None:
    """What it has no room for is not said."""
    speaker = notifier(manager)
    for _ in range(2000):
        speaker.alive()
    manager.setblocking(False)
    assert manager.recv(100) == b"WATCHDOG=1"


def test_the_watchdog_is_ours_or_not(manager: socket.socket) -> None:
    """It is another's if the manager says so; nobody need listen at all."""
    assert notifier(manager, WATCHDOG_USEC="30000000").watchdog_seconds == 30
    assert notifier(manager, WATCHDOG_USEC="1000", WATCHDOG_PID=str(os.getpid())).watchdog_seconds == 0.001
    assert notifier(manager, WATCHDOG_USEC="1000", WATCHDOG_PID="1").watchdog_seconds is None
    assert notifier(manager, WATCHDOG_USEC="no").watchdog_seconds is None
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": "/no/such"}).stopping()
    notifier(manager).stopping()
    assert manager.recv(100) == b"STOPPING=1"

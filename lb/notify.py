"""Reports the daemon's state to systemd, or whatever started it: sd_notify(3), by the socket in NOTIFY_SOCKET."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence

STARTING_PAUSE, READY_PAUSE = 0.2, 10.0
"""Seconds between two looks."""


class Notifier:
    """Sends nothing without a NOTIFY_SOCKET."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        usec = environment.get("WATCHDOG_USEC", "")
        is_for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(usec) / 1e6 if usec.isdecimal() and is_for_us else None
        """The manager restarts the daemon if it hears nothing for this long; None: no watchdog."""

    def ready(self) -> None:
        """The daemon serves, and its data plane is attached and in step."""
        self._say("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._say(f"STATUS={' '.join(text.split())}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._say("WATCHDOG=1")

    def stopping(self) -> None:
        """The daemon ends."""
        self._say("STOPPING=1")

    def _say(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
                speaker.setblocking(False)  # a manager that does not read must not stop us
                speaker.sendto(text.encode(), self._address)
        except OSError:
            pass  # nobody listens


async def keep_told(
    notifier: Notifier, reasons: Callable[[], Sequence[str]], hindrances: Callable[[], Sequence[str]]
) -> None:
    """Report the daemon's state to the manager for as long as it serves.

    reasons: what is out of order; called on another thread, so the watchdog is fed only while the event loop turns,
    threads are available, and no lock they need is stuck. hindrances: the reasons that keep the daemon from counting as
    started. A full disk is none: a restart would not help.
    """
    is_ready = False
    often = READY_PAUSE if notifier.watchdog_seconds is None else notifier.watchdog_seconds / 3
    while True:
        found = await asyncio.to_thread(reasons)
        if not is_ready and not (found and await asyncio.to_thread(hindrances)):
            notifier.ready()
            is_ready = True
        notifier.status("; ".join(found) or "forwarding, in step with what is desired")
        notifier.alive()
        await asyncio.sleep(min(often, READY_PAUSE) if is_ready else STARTING_PAUSE)

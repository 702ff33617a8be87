"""Followers of the events: notified by one call into the event loop; each event is serialised once.

Whoever has just been sent something is sent what comes next a moment later, together; and only a few are woken at a
time. So a thousand changes beside hundreds of followers hold up neither each other nor the answers to the changes.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Iterator

from lb.events import Event, Events

GATHER_SECONDS = 0.1
"""A follower is sent something so often at most."""
_WOKEN_AT_ONCE = 8
_TEXTS_KEPT = 1000


class Room:
    """The followers in one event loop. All but `on_event` is called in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[asyncio.Future[bool], None] = {}
        self._due: deque[asyncio.Future[bool]] = deque()
        self._is_told = False
        self.followers = 0

    def on_event(self, _event: Event) -> None:
        """From any thread: wake all who wait."""
        if not self._is_told:
            self._is_told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._is_told = False
        is_waking = bool(self._due)
        self._due.extend(self._waiting)
        self._waiting.clear()
        if not is_waking:
            self._wake_some()

    def _wake_some(self) -> None:
        """A few, and the others after whatever else there is to do: the answer to a change, say."""
        for _ in range(min(len(self._due), _WOKEN_AT_ONCE)):
            future = self._due.popleft()
            if not future.done():
                future.set_result(True)
        if self._due:
            self._loop.call_soon(self._wake_some)

    async def wait(self, seconds: float) -> bool:
        """Whether something happened within so many seconds."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting[future] = None
        timer = self._loop.call_later(seconds, _give_up, future)
        try:
            return await future
        finally:
            timer.cancel()
            self._waiting.pop(future, None)


def _give_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)


class Followers:
    """The rooms of an application, one for each event loop that somebody follows in."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._rooms: dict[asyncio.AbstractEventLoop, tuple[Room, contextlib.ExitStack]] = {}
        self._texts: dict[int, str] = {}

    @contextlib.contextmanager
    def room(self) -> Iterator[Room]:
        """That of the running loop; it is told of events as long as somebody is in it."""
        loop = asyncio.get_running_loop()
        if loop not in self._rooms:
            end = contextlib.ExitStack()
            room = Room(loop)
            end.callback(self._events.listen(room.on_event))
            self._rooms[loop] = room, end
        room, end = self._rooms[loop]
        room.followers += 1
        try:
            yield room
        finally:
            room.followers -= 1
            if not room.followers:
                del self._rooms[loop]
                end.close()

    def text(self, event: Event) -> str:
        """The event as a message, made once for all who get it."""
        text = self._texts.get(event.id)
        if text is None:
            if len(self._texts) >= _TEXTS_KEPT:
                self._texts.clear()
            text = self._texts[event.id] = f"id: {event.id}\ndata: {json.dumps(event.document())}\n\n"
        return text

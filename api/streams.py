"""Streaming answers: how a coroutine waits for another thread, and how such an answer ends."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from fastapi.responses import StreamingResponse

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Wake:
    """Called from any thread, it wakes the one coroutine that waits."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def __call__(self, _what: object = None) -> None:
        """Wake it, now or when it next waits."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> bool:
        """Whether it was woken within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


async def streaming(parts: AsyncGenerator[str, None], media_type: str) -> StreamingResponse:
    """The answer that these parts are. The first is made before it begins: what that raises is the answer instead.

    A generator that is left half way is closed by the event loop, so its `finally` runs whoever hung up when.
    """
    first = await anext(parts)

    async def all_parts() -> AsyncIterator[str]:
        async with contextlib.aclosing(parts):
            yield first
            async for part in parts:
                yield part

    return StreamingResponse(all_parts(), headers=_HEADERS, media_type=media_type)

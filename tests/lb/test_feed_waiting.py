"""Calls that may wait for ever do so on threads of their own."""

import asyncio
import threading

import pytest

from lb.feeds.waiting import apart


def test_what_it_returns_and_raises_comes_back() -> None:
    """As if it had been called here."""
    assert asyncio.run(apart(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        asyncio.run(apart(lambda: 1 // 0))


def test_a_loop_ends_while_a_call_waits() -> None:
    """The loop is over though the call is not; what it says then is heard by nobody."""
    release, over = threading.Event(), threading.Event()

    def wait() -> None:
        release.wait()
        over.set()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await apart(wait)

    asyncio.run(give_up())

    assert not over.is_set()
    release.set()
    assert over.wait(10)

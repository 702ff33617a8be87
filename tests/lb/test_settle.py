"""News in bursts: one call for a burst, and none is missed."""

import threading

from lb.dataplane.settle import Settle


def test_news_while_it_calls_is_called_for_again() -> None:
    """What comes after a call has begun to read must be read: there is one more call."""
    begun, go_on, calls = threading.Semaphore(0), threading.Semaphore(0), []

    def call() -> None:
        calls.append(True)
        begun.release()
        go_on.acquire(timeout=30)

    settle = Settle(call)
    settle.tell()
    assert begun.acquire(timeout=30)
    settle.tell()
    go_on.release()
    assert begun.acquire(timeout=30)
    go_on.release()
    settle.close()

    assert len(calls) == 2


def test_a_burst_is_one_call() -> None:
    """A thousand news at once are called for once."""
    called, calls = threading.Event(), []
    settle = Settle(lambda: (calls.append(True), called.set()))  # type: ignore[func-returns-value, arg-type]
    for _ in range(1000):
        settle.tell()

    assert called.wait(30)
    settle.close()
    assert len(calls) == 1


def test_closed() -> None:
    """Nothing is called once it is closed."""
    calls: list[bool] = []
    settle = Settle(lambda: calls.append(True))
    settle.close()
    settle.tell()
    settle._thread.join(30)

    assert calls == []
    assert not settle._thread.is_alive()

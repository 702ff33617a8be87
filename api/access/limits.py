"""Limits of callers: a token bucket of requests each, streaming answers, and concurrent writes of all of them.

Used by the event loop alone.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv6Address, ip_address, ip_network

from lb.errors import TooManyError
from lb.model.access import Limits

BUCKETS_MAX = 10_000
"""Callers remembered; beyond that, the one silent for longest is forgotten, and starts afresh."""

UNKNOWN_PER_SECOND, UNKNOWN_AT_ONCE = 10.0, 100.0
"""Requests without valid credentials, per address."""

WRITES_AT_ONCE = 32
"""Writes that have a thread. Of the forty threads, some are left for readers."""
WRITES_MOST = 512
"""Writes that have a thread or wait for one, of all callers: some seconds' work. Further ones are told to retry."""


class Buckets:
    """A token bucket for each key, full at first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, rate: float, burst: float) -> float:
        """Take one token; returns 0, or the seconds until there is one."""
        now = self._clock()
        level, since = self._levels.pop(key, (burst, now))
        level = min(burst, level + max(0.0, now - since) * rate)
        wait = 0.0 if level >= 1 else (1 - level) / rate
        self._levels[key] = (level - (wait == 0), now)
        if len(self._levels) > BUCKETS_MAX:
            self._levels.popitem(last=False)
        return wait


class Quotas:
    """What callers have used of the limits."""

    def __init__(self, limits: Callable[[], Limits], clock: Callable[[], float]) -> None:
        self._limits, self._requests = limits, Buckets(clock)
        self._streams: Counter[str] = Counter()

    def ask(self, caller: str) -> None:
        """Count a request; TooManyError says when the next may come."""
        limits = self._limits()
        wait = self._requests.take(caller, limits.requests_per_second, limits.request_burst)
        if wait:
            raise TooManyError(
                f"{caller} sends over {limits.requests_per_second:g} requests a second: wait, and send fewer "
                "(settings.access.limits)",
                wait,
            )

    def ask_unknown(self, host: str) -> None:
        """Count a request of an unidentified caller; TooManyError, as from ask."""
        place = place_of(host)
        wait = self._requests.take(place, UNKNOWN_PER_SECOND, UNKNOWN_AT_ONCE)
        if wait:
            raise TooManyError(f"from {place} too many requests come without a valid token: wait", wait)

    def hold(self, caller: str, *, is_exempt: bool) -> None:
        """Count a stream, until it is let go; TooManyError: there are too many already."""
        limits = self._limits()
        if not is_exempt and self._streams[caller] >= limits.streams_per_caller:
            raise TooManyError(
                f"{caller} has {self._streams[caller]} streaming answers open, the most allowed: end one "
                "(settings.access.limits.streams_per_caller)"
            )
        if self._streams.total() >= limits.streams:
            raise TooManyError(
                f"there are {limits.streams} streaming answers open, the most for all callers together: try later "
                "(settings.access.limits.streams)",
                10,
            )
        self._streams[caller] += 1

    def let_go(self, caller: str, count: int) -> None:
        """This many of its streams have ended."""
        self._streams[caller] -= count
        if self._streams[caller] <= 0:
            del self._streams[caller]


class Turns:
    """The writes of all callers, in the order in which their bodies were complete."""

    def __init__(self) -> None:
        self._threads = asyncio.Semaphore(WRITES_AT_ONCE)
        self._count = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a write's turn; TooManyError: too many wait."""
        if self._count >= WRITES_MOST:
            raise TooManyError(
                f"{self._count} writes are already being made or waiting, the most for all callers together: "
                "repeat it in a moment, or send several in one request",
                1.0,
            )
        self._count += 1
        try:
            async with self._threads:
                yield
        finally:
            self._count -= 1


def place_of(host: str) -> str:
    """The name of an unidentified caller: its address; for IPv6 the /64, all of which one host may have."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return "address unknown"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"addresses in {ip_network((address, 64), strict=False)}"
    return f"address {getattr(address, 'ipv4_mapped', None) or address}"

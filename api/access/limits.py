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
"""Callers remembered; of more the one that was longest quiet is forgotten, and begins anew."""

UNKNOWN_PER_SECOND, UNKNOWN_AT_ONCE = 10.0, 100.0
"""Requests without credentials that are good, of each address."""

WRITES_AT_ONCE = 32
"""Writes that have a thread. Of the forty that there are some are left to those who read."""
WRITES_MOST = 512
"""Writes that have a thread or wait for one, of all callers: some seconds' work. The next are told to come again."""


class Buckets:
    """A token bucket for each key, full at first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, rate: float, burst: float) -> float:
        """Take one out; 0, or the seconds after which there would be one."""
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
        """One request more; TooManyError says when there may be the next."""
        limits = self._limits()
        wait = self._requests.take(caller, limits.requests_per_second, limits.request_burst)
        if wait:
            raise TooManyError(
                f"{caller} sends over {limits.requests_per_second:g} requests a second: wait, and send fewer "
                "(settings.access.limits)",
                wait,
            )

    def ask_unknown(self, host: str) -> None:
        """One request more of somebody whom nobody knows; TooManyError, as from ask."""
        place = place_of(host)
        wait = self._requests.take(place, UNKNOWN_PER_SECOND, UNKNOWN_AT_ONCE)
        if wait:
            raise TooManyError(f"from {place} too many requests come without a valid token: wait", wait)

    def hold(self, caller: str, *, is_exempt: bool) -> None:
        """One answer more that goes on, until it is let go; TooManyError: there are as many as may be."""
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
        """So many of its answers have ended."""
        self._streams[caller] -= count
        if self._streams[caller] <= 0:
            del self._streams[caller]


class Turns:
    """The writes of all callers, in the order in which they have come whole."""

    def __init__(self) -> None:
        self._threads = asyncio.Semaphore(WRITES_AT_ONCE)
        self._count = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """A write's turn, once it is there; TooManyError: too many wait."""
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
    """Who somebody is that nobody knows: an address; of IPv6 its /64, which one host has all of."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return "address unknown"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"addresses in {ip_network((address, 64), strict=False)}"
    return f"address {getattr(address, 'ipv4_mapped', None) or address}"

"""What clients' packets tell about backends: counted by the packet path, evaluated once a window."""

from collections.abc import Callable, Mapping

from lb.health.target import Key
from lb.model.health import Passive

Counts = Callable[[str], Mapping[bytes, tuple[int, int]]]
"""Of a service: SYNs sent again and ICMP unreachables, totals by packed address."""


def nothing_seen(_: str) -> Mapping[bytes, tuple[int, int]]:
    """Where no packets come."""
    return {}


class PassiveWatch:
    """Remembers totals, and of each backend what its last window showed."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._totals: dict[Key, tuple[int, int]] = {}
        self._against: dict[Key, str] = {}

    def look(self, service: str, wanted: Passive) -> dict[Key, tuple[int, int]]:
        """Once a window: how many there were in it, by backend. The first time there is nothing to compare with."""
        found, fresh = {}, self._counts(service)
        for address, totals in fresh.items():
            key, before = (service, address), self._totals.get((service, address), totals)
            # A block that moves counts anew.
            risen = tuple(max(0, now - then) for now, then in zip(totals, before, strict=True))
            found[key] = risen[0], risen[1]
            self._totals[key] = totals
            self._judge(key, found[key], wanted)
        return found

    def _judge(self, key: Key, risen: tuple[int, int], wanted: Passive) -> None:
        retries, unreachables = risen
        self._against.pop(key, None)
        if not wanted.vote:
            return
        window = f"in {wanted.window_seconds} s"
        if retries >= wanted.syn_retries:
            self._against[key] = f"clients repeated {retries} SYNs {window}: it does not answer them"
        elif unreachables >= wanted.unreachables:
            self._against[key] = f"{unreachables} ICMP unreachables {window} quoted its flows"

    def against(self, key: Key) -> str | None:
        """What speaks against a backend, if it has a vote."""
        return self._against.get(key)

    def forget(self, service: str) -> None:
        """It is not looked at any more."""
        for kept in (self._totals, self._against):
            for key in [key for key in kept if key[0] == service]:
                del kept[key]

"""New flows of a service under attack: whose source is known, who is tested, who refused.

The clock is given, in seconds and parts of them: time stands still until somebody sets it.
"""

from collections import Counter
from dataclasses import dataclass

from lb.model import Service
from tests.reference.packet import TCP, Packet

SOONEST, LATEST = 0.5, 4.0
"""Seconds after which a SYN that is sent again passes."""


@dataclass
class Guard:
    """A service's protection, and how it fares. budget, calm: new flows in a second."""

    budget: int
    calm: int
    hold_seconds: int
    test: bool
    second: int = 0
    opened: int = 0
    attack_until: float = 0.0


class Guards:
    """Every guarded service's guard by its name, and the sources that are known to all of them."""

    def __init__(self) -> None:
        self.now = 1.0
        self.by_name: dict[str, Guard] = {}
        self.counted: Counter[tuple[str, str]] = Counter()
        """By service and member of struct guard_tally."""
        self._known: set[bytes] = set()
        self._tested: dict[bytes, float] = {}

    def configure(self, services: list[Service]) -> None:
        """Guard these, as each says; a guard that stands keeps its state."""
        before, self.by_name = self.by_name, {}
        for service in services:
            if (wanted := service.flood_protection) is None:
                continue
            guard = Guard(wanted.new_flows_per_second, wanted.calm, wanted.hold_seconds, wanted.test_unknown)
            if (old := before.get(service.name)) is not None:
                guard.second, guard.opened, guard.attack_until = old.second, old.opened, old.attack_until
            self.by_name[service.name] = guard

    def forget(self) -> None:
        """Nobody is known, and nobody is being tested."""
        self._known.clear()
        self.forget_tests()

    def forget_tests(self) -> None:
        """Nobody is being tested."""
        self._tested.clear()

    def is_attacked(self, service: Service) -> bool:
        """Whether a service is guarded and under attack."""
        guard = self.by_name.get(service.name)
        return guard is not None and self.now < guard.attack_until

    def ask(self, service: Service, packet: Packet, sequence: bytes) -> tuple[str, bool]:
        """What becomes of a new flow: the verdict that drops it, or "", and whether it may be remembered.

        sequence: the four bytes of TCP's number.
        """
        guard = self.by_name.get(service.name)
        if guard is None:
            return "", True
        self._count(guard)
        if not self.now < guard.attack_until:
            return "", True
        if _who(packet.source) in self._known:
            self.counted[service.name, "known"] += 1
            return "", True
        if packet.protocol == TCP and guard.test:
            return self._test(service, packet, sequence)
        if guard.opened > guard.budget:
            self.counted[service.name, "refused"] += 1
            return "DROP_NEW_FLOW", False
        return "", False

    def learn(self, service: Service, source: bytes) -> None:
        """A flow of this source went on."""
        who = _who(source)
        if service.name in self.by_name and who not in self._known:
            self._known.add(who)
            self.counted[service.name, "learned"] += 1

    def _count(self, guard: Guard) -> None:
        second = int(self.now)
        if second != guard.second:
            if guard.second < guard.attack_until and guard.opened > guard.calm:
                guard.attack_until = max(guard.attack_until, guard.second + 1 + guard.hold_seconds)
            guard.second, guard.opened = second, 0
        guard.opened += 1
        if guard.opened > guard.budget:
            guard.attack_until = max(guard.attack_until, second + guard.hold_seconds)

    def _test(self, service: Service, packet: Packet, sequence: bytes) -> tuple[str, bool]:
        ports = packet.source_port.to_bytes(2, "big") + packet.port.to_bytes(2, "big")
        syn = packet.source + packet.destination + ports + sequence
        waited = self.now - self._tested.get(syn, self.now)
        if SOONEST <= waited <= LATEST:
            self.counted[service.name, "proven"] += 1
            self.learn(service, packet.source)
            return "", True
        if syn not in self._tested or waited > LATEST:
            self._tested[syn] = self.now
        self.counted[service.name, "tested"] += 1
        return "DROP_SYN_TEST", False


def _who(source: bytes) -> bytes:
    """A source: an IPv4 address, or the /64 of an IPv6 one."""
    return source if len(source) == 4 else source[:8]

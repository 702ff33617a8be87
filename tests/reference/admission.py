"""Whether a packet is let in: the lists, then who is nobody, then the rules in their order."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

from lb.model import Config
from tests.reference.limits import Limits
from tests.reference.lists import Lists
from tests.reference.packet import UDP, Packet
from tests.reference.rules import Rule, Rules

GOING_ON = 32
"""So many rules that let a packet go on are asked."""
LIMITS, FLOW_LIMITS = 4, 2
"""So many limits are asked of a packet, and so many of them about a new UDP flow."""


class Admission:
    """The lists and rules in force, and what each rule has counted by its name and the member of struct rule_tally."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.lists, self.rules = Lists(Config(), 0.0), Rules((), {})
        self.counted: Counter[tuple[str, str]] = Counter()

    def ask(self, packet: Packet, length: int, *, spoofed: bool) -> tuple[str, list[Rule]]:
        """The verdict that ends a packet's way, or "" and the limits of new flows that a UDP packet must keep to.

        length: the frame's, in bytes.
        """
        if self.lists.denies(packet.source) and not self.lists.allows(packet.source):
            rule = None if spoofed else self.rules.allowing(packet)
            if rule is None:
                return "DROP_BLOCKLIST", []
            self._count(rule, length)
            return "", []
        if spoofed:
            return "DROP_SPOOFED", []
        if self.lists.allows(packet.source):
            return "", []
        return self._ask_rules(packet, length)

    def is_over(self, rules: Iterable[Rule], packet: Packet, length: int) -> bool:
        """Whether a packet is over one of these limits, that is no count-only one; those behind it are not asked."""
        return any(self._limits.is_over(rule, packet, length) and self._drops(rule, length) for rule in rules)

    def _ask_rules(self, packet: Packet, length: int) -> tuple[str, list[Rule]]:
        limits: list[Rule] = []
        # What ends the way comes before all that lets a packet go on.
        for rule in islice(self.rules.matching(packet), GOING_ON):
            self._count(rule, length)
            if rule.action == "allow":
                return "", []
            if rule.action == "drop" and self._drops(rule, length):
                return "DROP_RULE", []
            if rule.action == "limit" and len(limits) < LIMITS:
                limits.append(rule)
        now: list[Rule] = []
        later: list[Rule] = []
        for rule in reversed(limits):
            assert rule.limit is not None
            if rule.limit.get("unit") != "new-flows" or packet.opens:
                now.append(rule)
            elif packet.protocol == UDP:
                later.append(rule)
        return "DROP_LIMIT" if self.is_over(now, packet, length) else "", later[FLOW_LIMITS - 1 :: -1]

    def _count(self, rule: Rule, length: int) -> None:
        self.counted[rule.name, "packets"] += 1
        self.counted[rule.name, "bytes"] += length

    def _drops(self, rule: Rule, length: int) -> bool:
        """Count what a rule drops or, in count-only mode, would drop."""
        self.counted[rule.name, "dropped_packets"] += 1
        self.counted[rule.name, "dropped_bytes"] += length
        return not rule.count_only

"""Whether a packet is let in: the lists, then who is nobody, then the rules in their order."""

from collections import Counter
from collections.abc import Iterable

from lb.model import Config
from tests.reference.limits import Limits
from tests.reference.lists import Lists
from tests.reference.packet import UDP, Packet
from tests.reference.rules import Rule, Rules

FLOW_LIMITS = 4
"""So many limits of new flows are asked of a UDP packet."""


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
        denied, allowed = self.lists.denies(packet.source), self.lists.allows(packet.source)
        if denied:
            rule = self.rules.allowing(packet)
            if rule is None and not allowed:
                return "DROP_BLOCKLIST", []
            if rule is not None:
                self._count(rule, length)
            return "DROP_SPOOFED" if spoofed else "", []
        if spoofed:
            return "DROP_SPOOFED", []
        if allowed:
            return "", []
        return self._ask_rules(packet, length)

    def is_over(self, rules: Iterable[Rule], packet: Packet, length: int) -> bool:
        """Whether a packet is over one of these limits, that is no count-only one; those behind it are not asked."""
        return any(self._limits.is_over(rule, packet, length) and self._drops(rule, length) for rule in rules)

    def _ask_rules(self, packet: Packet, length: int) -> tuple[str, list[Rule]]:
        later: list[Rule] = []
        for rule in self.rules.matching(packet):
            self._count(rule, length)
            if rule.action == "allow":
                return "", []
            if rule.action == "drop" and self._drops(rule, length):
                return "DROP_RULE", []
            if rule.action != "limit":
                continue
            assert rule.limit is not None
            if rule.limit.get("unit") != "new-flows" or packet.opens:
                if self.is_over([rule], packet, length):
                    return "DROP_LIMIT", []
            elif packet.protocol == UDP and len(later) < FLOW_LIMITS:
                later.append(rule)
        return "", later

    def _count(self, rule: Rule, length: int) -> None:
        self.counted[rule.name, "packets"] += 1
        self.counted[rule.name, "bytes"] += length

    def _drops(self, rule: Rule, length: int) -> bool:
        """Count what a rule drops or, in count-only mode, would drop."""
        self.counted[rule.name, "dropped_packets"] += 1
        self.counted[rule.name, "dropped_bytes"] += length
        return not rule.count_only

"""Rules asked in plain Python: once of the rules themselves, and once of memory as the packet path reads it."""

from dataclasses import dataclass

from hypothesis import strategies as st
from model_strategies import few_ipv4, few_ipv6

from lb.dataplane.layout import layout
from lb.dataplane.tables import Tables
from lb.model import Prefix, Rule
from lb.model.prefix import BITS
from lb.model.rule import Fragments
from lb.model.rule_match import Match

C = layout().constants


@dataclass(frozen=True)
class Packet:
    """What the packet path knows of one. later: a fragment that is not the first."""

    family: int
    source: int
    destination: int
    protocol: int
    source_port: int = 0
    port: int = 0
    flags: int = 0
    length: int = 60
    fragment: bool = False
    later: bool = False

    @property
    def has_ports(self) -> bool:
        """TCP or UDP, and not a later fragment."""
        return self.protocol in (6, 17) and not self.later


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    """Packets near the edges of what model_strategies.rules asks."""
    family = draw(st.sampled_from([4, 6]))
    near = {4: few_ipv4, 6: few_ipv6}[family]

    def address() -> int:
        prefix = draw(near)
        free = BITS[family] - prefix.length
        host = draw(st.sampled_from([0, 1, (1 << free) - 1, 1 << free >> 1]))
        return prefix.network | host & (1 << free) - 1

    number = st.sampled_from([0, 1, 52, 53, 54, 80, 443, 1024, 65535]) | st.integers(0, 65535)
    fragment = draw(st.booleans())
    return Packet(
        family,
        address(),
        address(),
        draw(st.sampled_from([0, 1, 6, 6, 17, 58, 132, 255])),
        draw(number),
        draw(number),
        draw(st.integers(0, 255)),
        draw(number),
        fragment,
        fragment and draw(st.booleans()),
    )


def matches(match: Match, packet: Packet) -> bool:
    """Whether a rule wants a packet, by what the documents say."""
    return (
        _holds(match.source, packet.family, packet.source)
        and _holds(match.destination, packet.family, packet.destination)
        and match.protocol in (None, packet.protocol)
        and all(
            wanted is None or (packet.has_ports and _in(wanted.ranges, port))
            for wanted, port in ((match.source_ports, packet.source_port), (match.ports, packet.port))
        )
        and (match.length is None or _in(match.length.ranges, packet.length))
        and (
            match.tcp_flags is None
            or (
                packet.protocol == 6
                and packet.has_ports
                and packet.flags & match.tcp_flags.mask == match.tcp_flags.value
            )
        )
        and match.fragments in (None, Fragments.ONLY if packet.fragment else Fragments.NONE)
    )


def _in(ranges: tuple[tuple[int, int], ...], number: int) -> bool:
    return any(low <= number <= high for low, high in ranges)


def _holds(prefix: Prefix | None, family: int, address: int) -> bool:
    return prefix is None or prefix.contains(Prefix(family, address, BITS[family]))


def asked(tables: Tables, packet: Packet) -> list[int]:
    """Numbers of the rules that memory says a packet meets, in order: what all rows have in common."""
    arrays = tables.arrays
    bank = int(arrays.rule_bank["bank"][0])
    kind = C["RULE_KIND_TCP"] + packet.flags if packet.protocol == 6 and packet.has_ports else packet.protocol
    if packet.fragment:
        kind += C["RULE_KIND_LATER"] if packet.later else C["RULE_KIND_FIRST"]
    cells = arrays.rule_cells[bank]
    ports = (packet.source_port, packet.port) if packet.has_ports else None
    classes = {
        "RULE_SOURCE": _class(tables, "rule_sources", packet.family, packet.source, bank),
        "RULE_DESTINATION": _class(tables, "rule_targets", packet.family, packet.destination, bank),
        "RULE_SOURCE_PORT": int(cells[C["RULE_CELLS_SOURCE_PORT"] + ports[0]]) if ports else 0,
        "RULE_PORT": int(cells[C["RULE_CELLS_PORT"] + ports[1]]) if ports else 0,
        "RULE_LENGTH": int(cells[C["RULE_CELLS_LENGTH"] + packet.length]),
        "RULE_KIND": int(cells[C["RULE_CELLS_KIND"] + kind]),
    }
    rows = [arrays.rule_sets[bank, C[field], at] for field, at in classes.items()]
    for row in rows:
        assert [bool(word) for word in row["word"]] == [bool(int(row["some"]) >> n & 1) for n in range(16)]
    common = ~0
    for row in rows:
        common &= int.from_bytes(row["word"].tobytes(), "little")
    actions = arrays.rule_actions[bank]
    return [int(actions[at]["number"]) for at in range(C["RULES_MAX"]) if common >> at & 1]


def _class(tables: Tables, name: str, family: int, address: int, bank: int) -> int:
    """The longest prefix's."""
    keys, values = getattr(tables, f"{name}{family}").read()
    found = (-1, 0)
    for key, value in zip(keys, values, strict=True):
        length = int(key["length"])
        packed = int(key["address"]).to_bytes(4, "big") if family == 4 else key["address"].tobytes()
        if _holds(Prefix(family, int.from_bytes(packed, "big"), length), family, address):
            found = max(found, (length, int(value["in"][bank])))
    return found[1]


def met(rules: list[Rule], wanted: dict[str, Match], packet: Packet) -> list[str]:
    """Names of the rules that want a packet, in order."""
    kinds = {("allow", False): 0, ("drop", False): 1}
    ordered = sorted(
        rules, key=lambda rule: (kinds.get((rule.action, rule.count_only), 2), rule.priority, rule.name)
    )
    return [rule.name for rule in ordered if matches(wanted[rule.name], packet)]

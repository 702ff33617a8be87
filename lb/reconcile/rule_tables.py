"""What a bank of rule tables holds, as numpy arrays in the layout of xdp/types.h."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lb.dataplane.layout import layout
from lb.dataplane.tables import U16, U64, Array
from lb.model import Prefix, Rule
from lb.model.rule_match import Match

_C = layout().constants
FIELDS, CLASSES, RULES_MAX = _C["RULE_FIELDS"], _C["RULE_CLASSES"], _C["RULES_MAX"]
SOURCE, DESTINATION = _C["RULE_SOURCE"], _C["RULE_DESTINATION"]
SOURCE_PORT, PORT, LENGTH, KIND = (_C[f"RULE_{n}"] for n in ("SOURCE_PORT", "PORT", "LENGTH", "KIND"))
KINDS = _C["RULE_KIND_LATER"] + _C["RULE_KIND_FIRST"]
CELLS_AT = {
    SOURCE_PORT: _C["RULE_CELLS_SOURCE_PORT"],
    PORT: _C["RULE_CELLS_PORT"],
    LENGTH: _C["RULE_CELLS_LENGTH"],
    KIND: _C["RULE_CELLS_KIND"],
}
"""Where the cells of a field begin."""
CELLS = CELLS_AT[KIND] + KINDS
"""Cells that are used."""
TRIES = ("rule_sources4", "rule_sources6", "rule_targets4", "rule_targets6")
TRIE_OF = {
    (SOURCE, 4): TRIES[0],
    (SOURCE, 6): TRIES[1],
    (DESTINATION, 4): TRIES[2],
    (DESTINATION, 6): TRIES[3],
}
"""The name of the table of a field's prefixes, by field and family."""

_EMPTY_SETS = np.zeros(1, layout().structs["rule_set"])


@dataclass(frozen=True, eq=False)
class Bank:
    """All tables of rules but the tries. sets: struct rule_set, for each field one row a class; cells: (CELLS,)."""

    sets: tuple[Array, ...]
    cells: U16
    actions: Array
    """Struct rule_action, shape (RULES_MAX,)."""


@dataclass(frozen=True, eq=False)
class RulePlan:
    """Rules as the maps hold them. owners: whose each number is; order: as they are asked; numbers: by name.

    prefixes: by table, the class of each prefix; matches: what was looked up of each rule, by name.
    """

    owners: U64
    bank: Bank = field(
        default_factory=lambda: Bank(
            (_EMPTY_SETS,) * FIELDS,
            np.zeros(CELLS, np.uint16),
            np.zeros(RULES_MAX, layout().structs["rule_action"]),
        )
    )
    prefixes: Mapping[str, Mapping[Prefix, int]] = field(default_factory=lambda: {name: {} for name in TRIES})
    order: tuple[Rule, ...] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)
    matches: Mapping[str, Match] = field(default_factory=dict)
    features: frozenset[str] = frozenset()
    """What the program must have compiled in for them."""
    wanted: Mapping[str, Rule] | None = None
    """What it was made of."""

    @property
    def by_number(self) -> dict[int, Rule]:
        """The rules by the number that packets report."""
        return {self.numbers[rule.name]: rule for rule in self.order}
